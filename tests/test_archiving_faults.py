"""
Whatever fails while messages move, each of them is in the ledger or in the archive.

Method: fail the 1st call of a kind, then the 2nd, and so on, until a run ends with no fault
fired. After each, the files as they were that moment are opened, as if the process had died there,
and repaired; and the same verb is repeated in the process that met the fault, and succeeds.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import apsw
import pytest

from archives import Calls, Killed
from elytron import Agent, Config, ElytronError, OverBudget, Store
from elytron.ledger.sqlite import Ledger
from faulty_disk import NAME, FaultyDisk
from ledgers import Copier, terms_of
from moved import (
    ALL,
    age,
    archived_ids,
    check_once,
    check_somewhere,
    healed,
    held_ids,
    segments,
    talk,
)
from test_forget import Mark, traces

COUNT = 24
CONTENTS = {draft["id"]: draft["content"] for draft in talk(COUNT)}
# What `forget(user="alice")` reaches: hers, and what the assistant answered at once.
HERS = [draft["id"] for draft in talk(COUNT) if draft["user"] == "alice"]
QUIET: dict[str, Any] = {"reserve_mb": 0, "auto_cleanup": False}
TIGHT = Config(**QUIET, max_messages_per_agent=8, keep_messages=0, emergency_messages=8)
PLENTY = Config(**QUIET)


class Verb(NamedTuple):
    """What is done, and which messages may be gone afterwards for good."""

    work: Callable[[Agent], object]
    erased: tuple[str, ...] = ()
    config: Config = PLENTY
    # Of so many calls that write one is enough, where there are many alike.
    every: int = 1


def forget(bob: Agent) -> None:
    bob.forget(user="alice", replies=False)
    assert not {*held_ids(bob), *archived_ids(bob)} & set(HERS)


VERBS = {
    "archive": Verb(lambda bob: bob.archive(**ALL)),
    "restore": Verb(lambda bob: bob.restore(session="s0")),
    "enforce": Verb(lambda bob: bob.enforce_limits(), config=TIGHT),
    "forget": Verb(forget, erased=tuple(HERS), every=7),
    "clear": Verb(lambda bob: bob.clear(), erased=tuple(CONTENTS), every=7),
    "reclaim": Verb(lambda bob: bob.reclaim(full=True), every=7),
}
FAULTS = [
    ("xWrite", apsw.IOError),
    ("xWrite", apsw.FullError),
    ("xSync", apsw.IOError),
    ("xTruncate", apsw.IOError),
]


@pytest.fixture(scope="module")
def disk() -> Iterator[FaultyDisk]:
    disk = FaultyDisk()
    yield disk
    disk.unregister()


@pytest.fixture(scope="module")
def copier() -> Iterator[Copier]:
    copier = Copier()
    yield copier
    copier.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store: ten messages in the archive, fourteen in the ledger, one of them pinned."""
    folder = tmp_path_factory.mktemp("template") / "store"
    with Store(folder, PLENTY) as store:
        bob = store.agent("bob")
        bob.save_many(talk(10))
        bob.archive(**ALL)
        bob.save_many(talk(COUNT - 10, start=10))
        bob.pin("m20")
    return folder


def shown(value: object) -> str:
    return getattr(value, "__name__", str(value))


def attempt(verb: Verb, bob: Agent) -> bool:
    """Whether it was done; only our own errors may say that it was not."""
    try:
        verb.work(bob)
    except ElytronError:
        return False
    return True


def check_repaired(folder: Path, verb: Verb) -> None:
    """Reopen what a process left, and repair it: nothing is lost, doubled, or left over."""
    with Store(folder, PLENTY) as store:
        may: dict[str, set[str | None]] = {key: {text} for key, text in CONTENTS.items()}
        for key in verb.erased:
            may[key].add(None)
        check_somewhere(store.agent("bob"), may)
    left = healed(folder)
    assert left.items() <= CONTENTS.items()
    assert CONTENTS.keys() - left.keys() <= set(verb.erased)


def check_repeated(bob: Agent, verb: Verb) -> None:
    """In the process that met the fault the verb succeeds now, and nothing is lost or doubled."""
    verb.work(bob)
    stays = {key: text for key, text in CONTENTS.items() if key not in verb.erased}
    bob.enforce_limits()
    check_once(bob, stays)
    report = bob.check()
    assert report.ok, report.findings
    for key in held_ids(bob)[:1]:
        bob.edit(key, CONTENTS[key])  # a write of anybody else's


@pytest.mark.parametrize(("call", "error"), FAULTS, ids=shown)
@pytest.mark.parametrize("name", VERBS)
def test_whichever_call_of_the_ledger_fails_each_message_is_in_a_place(
    tmp_path: Path,
    disk: FaultyDisk,
    copier: Copier,
    template: Path,
    name: str,
    call: str,
    error: type[apsw.Error],
) -> None:
    verb = VERBS[name]
    many = call == "xWrite"
    step = verb.every * (5 if error is apsw.FullError else 2) if many else 1
    for nth in itertools.count(1, step):
        folder, image = tmp_path / str(nth), tmp_path / f"{nth}-image"
        shutil.copytree(template, folder)
        with Store(folder, verb.config, vfs=NAME) as store:
            bob = store.agent("bob")
            bob.get("m12")
            disk.arm(call, nth, error)
            done = attempt(verb, bob)
            fired = disk.fired
            disk.disarm()
            copier.copy(folder, image)
            assert done or fired
            check_repeated(bob, verb)
        check_repaired(image, verb)
        shutil.rmtree(folder)
        shutil.rmtree(image)
        if not fired:
            assert nth > 1 or call == "xTruncate"
            return


SYSTEM = ["archive", "restore", "enforce", "forget"]


@pytest.mark.parametrize("dies", [False, True], ids=["full", "dead"])
@pytest.mark.parametrize("name", SYSTEM)
def test_whichever_call_of_the_archive_fails_each_message_is_in_a_place(
    tmp_path: Path, copier: Copier, template: Path, name: str, dies: bool
) -> None:
    """The disk is full for one call of `os`; or the process is dead from one call of it on."""
    verb = VERBS[name]
    for nth in itertools.count(1, 2 if dies else 1):
        folder, image = tmp_path / str(nth), tmp_path / f"{nth}-image"
        shutil.copytree(template, folder)
        calls = Calls(nth, dies=dies)
        with Store(folder, verb.config) as store:
            bob = store.agent("bob")
            bob.get("m12")
            try:
                with calls.armed():
                    done = attempt(verb, bob)
            except Killed:
                done = False
            copier.copy(folder, image)
            assert done or calls.fired
            check_repeated(bob, verb)
        check_repaired(image, verb)
        shutil.rmtree(folder)
        shutil.rmtree(image)
        if not calls.fired:
            assert nth > 10, "the archive's calls were never reached"
            return


def test_a_full_disk_leaves_no_segment_behind(tmp_path: Path, template: Path) -> None:
    """Whatever call of `os` fails: what does not count is removed before the verb returns."""
    for nth in itertools.count(1):
        folder = tmp_path / str(nth)
        shutil.copytree(template, folder)
        calls = Calls(nth)
        with Store(folder, PLENTY) as store:
            bob = store.agent("bob")
            bob.get("m12")
            with calls.armed():
                attempt(VERBS["archive"], bob)
            names = {path.name for path in segments(bob)}
            listed = bob._agents.upkeep.archive_of("bob").manifest()
            assert names <= listed.names | set(listed.removed), calls.trace[-3:]
        if not calls.fired:
            assert nth > 10, "the archive's calls were never reached"
            return


def interrupt(nth: int) -> Any:
    """Ctrl-C, just after the nth commit of any ledger, and just before it where nth is odd."""
    plain, count = Ledger.commit, itertools.count(2)

    def commit(self: Ledger, *arguments: Any) -> Any:
        now = next(count)
        if now == nth:
            raise KeyboardInterrupt
        outcome = plain(self, *arguments)
        if now + 1 == nth and nth % 2:
            raise KeyboardInterrupt
        return outcome

    return mock.patch.object(Ledger, "commit", commit)


@pytest.mark.parametrize("name", ["archive", "restore", "enforce", "forget"])
def test_ctrl_c_at_any_commit_loses_nothing_and_the_next_call_works(
    tmp_path: Path, copier: Copier, template: Path, name: str
) -> None:
    verb = VERBS[name]
    for nth in itertools.count(2):
        folder, image = tmp_path / str(nth), tmp_path / f"{nth}-image"
        shutil.copytree(template, folder)
        with Store(folder, verb.config) as store:
            bob = store.agent("bob")
            bob.get("m12")
            interrupted = False
            with interrupt(nth):
                try:
                    verb.work(bob)
                except KeyboardInterrupt:
                    interrupted = True
            copier.copy(folder, image)
            check_repeated(bob, verb)
        check_repaired(image, verb)
        if not interrupted:
            assert nth > 4
            return


@pytest.mark.parametrize("name", ["archive", "restore"])
def test_ctrl_c_while_progress_is_told_loses_nothing_and_the_next_call_works(
    tmp_path: Path, copier: Copier, template: Path, name: str
) -> None:
    folder, image = tmp_path / "store", tmp_path / "image"
    shutil.copytree(template, folder)

    def stop(*_told: int) -> None:
        raise KeyboardInterrupt

    with Store(folder, PLENTY) as store:
        bob = store.agent("bob")
        interrupted = {
            "archive": lambda: bob.archive(**ALL, on_progress=stop),
            "restore": lambda: bob.restore(session="s0", on_progress=stop),
        }
        with pytest.raises(KeyboardInterrupt):
            interrupted[name]()
        check_somewhere(bob, {key: {text} for key, text in CONTENTS.items()})
        copier.copy(folder, image)
        check_repeated(bob, VERBS[name])
    check_repaired(image, VERBS[name])


def test_what_was_deleted_after_a_crash_does_not_come_back(
    tmp_path: Path, copier: Copier, template: Path
) -> None:
    """Whichever commit of archiving is the last: a copy in the archive may be older than that."""
    for nth in itertools.count(3, 2):
        folder, image = tmp_path / str(nth), tmp_path / f"{nth}-image"
        shutil.copytree(template, folder)
        with Store(folder, PLENTY) as store, interrupt(nth):
            try:
                store.agent("bob").archive(**ALL)
            except KeyboardInterrupt:
                copier.copy(folder, image)
            else:
                assert nth > 3, "it has more commits than one"
                return
        with Store(image, PLENTY) as store:
            bob = store.agent("bob")
            assert bob.delete("m12")
            if bob.get("m13") is not None:
                bob.edit("m13", "Edited")
        left = healed(image)
        assert left.keys() == CONTENTS.keys() - {"m12"}
        assert left["m13"] in ("Edited", CONTENTS["m13"])


def test_what_was_forgotten_after_a_crash_is_in_no_file(
    tmp_path: Path, copier: Copier, template: Path
) -> None:
    """A segment that was written and never listed holds what was said, too."""
    words = {word for key in HERS for word in CONTENTS[key].split() if "unique" in word}
    marks: set[Mark] = {*words, *[terms_of(CONTENTS[key]) for key in HERS]}
    assert len(words) == len(HERS) == 8
    for nth in itertools.count(1):
        folder, image = tmp_path / str(nth), tmp_path / f"{nth}-image"
        shutil.copytree(template, folder)
        calls = Calls(nth, dies=True)
        with Store(folder, PLENTY) as store:
            store.agent("bob").get("m12")
            try:
                with calls.armed():
                    store.agent("bob").archive(**ALL)
            except Killed:
                copier.copy(folder, image)
            else:
                assert nth > 10, "so many calls it takes to archive"
                return
        age(image)
        assert traces(image, marks), "it can be seen"
        with Store(image, PLENTY) as store:
            bob = store.agent("bob")
            forget(bob)
            assert {path.name for path in segments(bob)} == {
                entry.name for entry in bob._agents.upkeep.archive_of("bob").manifest().entries
            }
            check_once(bob, {key: text for key, text in CONTENTS.items() if key not in HERS})
            assert traces(image, marks) == {}


def test_a_restore_that_finds_no_room_says_how_many_came_back(
    tmp_path: Path, template: Path
) -> None:
    folder = tmp_path / "store"
    shutil.copytree(template, folder)
    with Store(folder, Config(**QUIET, max_messages_per_agent=20, keep_messages=0)) as store:
        bob = store.agent("bob")
        with pytest.raises(OverBudget, match=r"20, and 10 are new.* 0 messages came back before"):
            bob.restore(since=next(talk(1))["at"])
        check_once(bob, CONTENTS)
        assert bob.restore("m3").restored == 1
