"""Archiving and restoring in several processes, and in processes that die or stop half way."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron.archive import Entry, segments
from elytron.upkeep import archiving
from moved import ALL, archived_ids, check_once, check_somewhere, healed, held_ids, talk
from quiet import without_janitor

Start = Callable[..., "subprocess.Popen[str]"]
COUNT = 24
CONTENTS = {draft["id"]: draft["content"] for draft in talk(COUNT)}

# A verb in a process that does something at the nth call, or calls, of a function of ours.
AT_THE_NTH = """
import os, signal, sys, elytron
from elytron.archive import Archive
from elytron.archive.listing import Listing
from elytron.ledger.sqlite import Ledger
from elytron.upkeep.desk import Desk

folder, verb, point, nth, what = sys.argv[1:]
owner, name, when = {
    "before a commit": (Desk, "commit", "before"),
    "after a commit": (Desk, "commit", "after"),
    "before publishing": (Listing, "publish", "before"),
    "after publishing": (Listing, "publish", "after"),
    "after writing": (Archive, "write", "after"),
    "while unlinking": (Listing, "_unlink", "before"),
}[point]
plain, calls = getattr(owner, name), 0

def act():
    print("here", flush=True)
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.readline()

def counted(self, *arguments, **named):
    global calls
    calls += 1
    here = str(calls) in nth.split(",")
    if here and when == "before":
        act()
    outcome = plain(self, *arguments, **named)
    if here and when == "after":
        act()
    return outcome

store = elytron.open(folder, reserve_mb=0, auto_cleanup=False, max_messages_per_agent=1000)
bob = store.agent("bob")
setattr(owner, name, counted)
if verb == "archive":
    done = bob.archive(older_than_days=0, keep=0).archived
else:
    done = bob.restore(session="s0").restored
print("done", done, flush=True)
store.close()
"""
POINTS = (
    "before a commit", "after a commit", "before publishing", "after publishing",
    "after writing", "while unlinking",
)  # fmt: skip
QUIET: dict[str, Any] = {"reserve_mb": 0, "auto_cleanup": False}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store: ten messages in the archive, fourteen in the ledger."""
    folder = tmp_path_factory.mktemp("template") / "store"
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        bob.save_many(talk(10))
        bob.archive(**ALL)
        bob.save_many(talk(COUNT - 10, start=10))
    return folder


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("verb", ["archive", "restore"])
def test_a_process_killed_while_messages_move_loses_none(
    tmp_path: Path, template: Path, start_script: Start, verb: str, point: str
) -> None:
    """At the 1st call of a function, then at the 2nd, until a run comes to its end."""
    for nth in range(1, 20):
        folder = tmp_path / str(nth)
        shutil.copytree(template, folder)
        process = start_script(AT_THE_NTH, folder, verb, point, nth, "die")
        printed, complaints = process.communicate(timeout=60)
        assert not complaints
        died = "here" in printed
        assert process.returncode == (-signal.SIGKILL if died else 0)
        with elytron.open(folder, **QUIET) as store:
            bob = store.agent("bob")
            check_somewhere(bob, {key: {text} for key, text in CONTENTS.items()})
            assert bob.save(**next(talk(1, start=3))).new is False, "m3 is somewhere"
            if nth % 2:
                bob.enforce_limits()
                check_once(bob, CONTENTS)
        assert healed(folder) == CONTENTS
        if not died:
            assert nth > 1
            return
    raise AssertionError("it never came to its end")


STOPS = [(point, nth) for point in POINTS[:5] for nth in (1, 2, 3)]


@pytest.mark.parametrize(("point", "nth"), STOPS)
def test_a_process_stopped_while_it_archives_keeps_nobody_from_saving_at_the_limit(
    tmp_path: Path,
    template: Path,
    start_script: Start,
    point: str,
    nth: int,
) -> None:
    """
    Others archive what they have to. When the stopped one goes on, nothing is lost; once healed,
    nothing is doubled.
    """
    folder = tmp_path / "store"
    shutil.copytree(template, folder)
    process = start_script(AT_THE_NTH, folder, "archive", point, nth, "wait")
    if process.stdout.readline() != "here\n":
        return  # there are not so many such calls
    os.kill(process.pid, signal.SIGSTOP)
    expected = dict(CONTENTS)
    with elytron.open(
        folder, reserve_mb=0, max_messages_per_agent=14, keep_messages=0, save_timeout_s=60
    ) as store:
        # It would move messages while it is looked where they are.
        without_janitor(store)
        bob = store.agent("bob")
        for draft in talk(20, start=100):
            assert bob.save(**draft).new
            expected[draft["id"]] = draft["content"]
        assert bob.usage().messages <= 14
        check_somewhere(bob, {key: {text} for key, text in expected.items()})
        os.kill(process.pid, signal.SIGCONT)
        printed, complaints = process.communicate("go on\n", timeout=60)
        assert not complaints
        assert printed.startswith("done")
        check_somewhere(bob, {key: {text} for key, text in expected.items()})
    assert healed(folder) == expected


TRIMMER = """
import sys, elytron
folder, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = elytron.open(folder, reserve_mb=0, auto_cleanup=False)
bob = store.agent("bob")
print("ready", flush=True)
sys.stdin.readline()
moved = 0
for number in range(rounds):
    for part in range(3):
        id = f"{name}-{number}-{part}"
        assert bob.save("user", f"I am {id}", id=id, session=name).new
    moved += bob.archive(older_than_days=0, keep=2).archived
print(moved, flush=True)
store.close()
"""


def begin(crew: list["subprocess.Popen[str]"]) -> None:
    for process in crew:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in crew:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def test_two_processes_that_archive_the_same_agent_lose_and_double_nothing(
    folder: Path, start_script: Start
) -> None:
    with elytron.open(folder, **QUIET) as store:
        store.agent("bob").save_many(talk(COUNT))
    crew = [start_script(TRIMMER, folder, name, 15) for name in "ab"]
    begin(crew)
    moved = 0
    for process in crew:
        printed, complaints = process.communicate(timeout=60)
        assert not complaints
        moved += int(printed)
    made = {f"{n}-{i}-{k}": f"I am {n}-{i}-{k}" for n in "ab" for i in range(15) for k in range(3)}
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        assert moved == len(set(archived_ids(bob))), "each left by one hand"
        check_somewhere(bob, {key: {text} for key, text in (CONTENTS | made).items()})
    assert healed(folder) == CONTENTS | made


MOVER = """
import sys, elytron
store = elytron.open(sys.argv[1], reserve_mb=0, auto_cleanup=False)
bob = store.agent("bob")
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    done = bob.archive(older_than_days=0, keep=number % 5)
    assert done.archived <= len(done.leaving)
    if sys.argv[3] == "restores":
        back = bob.restore(session=f"s{number % 2}")
        assert not back.missing and not back.damaged, back
print("done", flush=True)
store.close()
"""
SAVER = """
import sys, elytron
store = elytron.open(sys.argv[1], reserve_mb=0, auto_cleanup=False)
bob = store.agent("bob")
print("ready", flush=True)
sys.stdin.readline()
edited = deleted = 0
for number in range(int(sys.argv[2])):
    id = f"new-{number}"
    assert bob.save("user", f"I am {id}", id=id, session=f"s{number % 3}").new
    try:
        bob.edit(id, f"I am {id}, edited")
        edited += 1
        print("edited", id, flush=True)
    except elytron.NotFound:
        pass
    if sys.argv[3] == "deletes" and number % 4 == 0:
        assert bob.delete(f"m{number}"), number
        print("deleted", f"m{number}", flush=True)
print("done", flush=True)
store.close()
"""


# A deletion looks into the ledger and then into the archive, and a message can go the other way
# meanwhile: out of the archive behind its back, or into a segment that is not listed yet.
def test_what_a_dead_process_left_in_both_places_is_healed_though_its_segment_was_written_anew(
    tmp_path: Path, template: Path, start_script: Start
) -> None:
    """Who deletes one of those messages writes the segment anew, under another name than noted."""
    folder = tmp_path / "store"
    shutil.copytree(template, folder)
    dead = start_script(AT_THE_NTH, folder, "archive", "after publishing", "1", "die")
    assert dead.stdout.readline() == "here\n"
    dead.communicate(timeout=60)
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        assert bob.delete("m12")
        bob.enforce_limits()
        check_once(bob, {key: text for key, text in CONTENTS.items() if key != "m12"})
        assert bob.check().findings == ()


@pytest.mark.parametrize(("point", "nth"), [("after writing", 1), ("before publishing", 3)])
@pytest.mark.parametrize("dies", [True, False], ids=["killed then", "goes on"])
def test_a_segment_that_is_not_listed_yet_is_not_listed_by_another_who_forgets(
    tmp_path: Path,
    template: Path,
    start_script: Start,
    caplog: pytest.LogCaptureFixture,
    point: str,
    nth: int,
    dies: bool,
) -> None:
    """What it holds is in the ledger still; listed by another, it would be held twice."""
    folder = tmp_path / "store"
    shutil.copytree(template, folder)
    process = start_script(AT_THE_NTH, folder, "archive", point, nth, "wait")
    assert process.stdout.readline() == "here\n"
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        hers = {draft["id"] for draft in talk(COUNT) if draft["user"] == "alice"}
        expected = {key: text for key, text in CONTENTS.items() if key not in hers}
        erased = bob.forget(user="alice", replies=False)
        assert erased.messages + erased.archived == len(hers)
        if dies:
            process.kill()
            process.communicate(timeout=60)
        else:
            printed, complaints = process.communicate("go on\n", timeout=60)
            assert not complaints
            assert printed.startswith("done")
        bob.enforce_limits()
        check_once(bob, expected)
        assert bob.check().findings == ()
    assert "not listed" not in caplog.text
    assert healed(folder) == expected


def test_two_that_remove_what_a_dead_process_did_not_list_tell_of_no_damage(
    tmp_path: Path,
    template: Path,
    start_script: Start,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Method: the other one removes it just before this one reads it."""
    folder = tmp_path / "store"
    shutil.copytree(template, folder)
    dead = start_script(AT_THE_NTH, folder, "archive", "after writing", 1, "die")
    dead.communicate(timeout=60)
    examined: list[str] = []

    def examine(folder: Path, name: str) -> Entry:
        examined.append(name)
        (folder / name).unlink()
        return segments.examine(folder, name)

    monkeypatch.setattr(archiving, "examine", examine)
    with elytron.open(folder, **QUIET) as store:
        store.agent("bob").forget(user="nobody")
    assert len(examined) == 1
    assert caplog.text == ""
    assert healed(folder) == CONTENTS


def test_what_a_dead_process_archived_beside_a_living_one_is_not_archived_twice(
    tmp_path: Path, template: Path, start_script: Start
) -> None:
    """
    Both have written and listed their copies; the one dies, the other is half way through removing.

    Whoever heals then cannot know yet which copy stays: it is left to the clean-up after that.
    """
    folder = tmp_path / "store"
    shutil.copytree(template, folder)
    # Its third commit removes, and the fourth says that it is done.
    living = start_script(AT_THE_NTH, folder, "archive", "before a commit", "3,4", "wait")
    assert living.stdout.readline() == "here\n"
    dead = start_script(AT_THE_NTH, folder, "archive", "after publishing", "1", "die")
    assert dead.stdout.readline() == "here\n"
    dead.communicate(timeout=60)
    living.stdin.write("go\n")
    living.stdin.flush()
    assert living.stdout.readline() == "here\n"
    with elytron.open(folder, **QUIET) as store:
        store.agent("bob").enforce_limits()
    printed, complaints = living.communicate("go\n", timeout=60)
    assert (printed, complaints) == ("done 14\n", "")
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        bob.enforce_limits()
        assert bob.usage().messages == 0
        assert bob.usage().archived == COUNT
        assert bob.check().findings == ()
    assert healed(folder) == CONTENTS


@pytest.mark.parametrize(
    ("saver", "mover"),
    [
        ("edits", "archives"),
        ("edits", "restores"),
        ("deletes", "archives"),
        ("deletes", "restores"),
    ],
)
def test_one_saves_edits_or_deletes_while_another_archives_or_restores(
    folder: Path, start_script: Start, saver: str, mover: str
) -> None:
    """Every receipt is true in the end: nothing is lost, stale, doubled, or back again."""
    with elytron.open(folder, **QUIET) as store:
        store.agent("bob").save_many(talk(40))
    expected = {draft["id"]: draft["content"] for draft in talk(40)}
    moving = start_script(MOVER, folder, 12, mover)
    saving = start_script(SAVER, folder, 40, saver)
    begin([moving, saving])
    for process in (saving, moving):
        printed, complaints = process.communicate(timeout=60)
        assert not complaints
        assert printed.endswith("done\n")
        if process is saving:
            expected |= {f"new-{n}": f"I am new-{n}" for n in range(40)}
            for line in printed.splitlines()[:-1]:
                verb, key = line.split()
                if verb == "edited":
                    expected[key] += ", edited"
                else:
                    del expected[key]
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        assert bob.check().ok
        check_somewhere(bob, {key: {text} for key, text in expected.items()})
    assert healed(folder) == expected
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        bob.restore(session="s0")
        in_order = [key for key in held_ids(bob) if key.startswith("m")]
        assert in_order == sorted(in_order, key=lambda key: int(key[1:]))
