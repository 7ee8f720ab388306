"""The archive when the disk is full, a process dies, or two change it at once: nothing is lost."""

import itertools
import json
import logging
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from archives import Calls, Killed, held, made, some, stored
from elytron.archive import Archive, Archived, merging
from elytron.errors import Conflict, DiskFull, OutcomeUnknown

Change = Callable[[Archive], object]
SMALL = 12  # messages in each segment of the archive that is changed


def odd(archived: Archived) -> bool:
    return int(archived.message.id[1:]) % 2 == 1


def drop_one(archive: Archive) -> None:
    archive.drop_oldest(sum(entry.bytes for entry in archive.manifest().entries) - 1)


def add(archive: Archive) -> None:
    entries = archive.write(some(100, 120))
    try:
        archive.publish(add=entries)
    except DiskFull:
        archive.discard(entries)
        raise


def lose_manifest(archive: Archive) -> None:
    (archive.folder / "manifest.json").unlink()


def spoil_manifest(archive: Archive) -> None:
    (archive.folder / "manifest.json").write_bytes(b"{")


def leave_half_a_merge(archive: Archive) -> None:
    archive.write(some(0, 2 * SMALL))


def leave_unpublished(archive: Archive) -> None:
    archive.write(some(100, 110))


def nothing(_archive: Archive) -> None:
    pass


# (what is wrong before, the change): each is tried on an archive of three segments.
CHANGES: dict[str, tuple[Change, Change]] = {
    "add": (nothing, add),
    "rewrite": (nothing, lambda archive: archive.rewrite(odd)),
    "empty": (nothing, lambda archive: archive.rewrite(lambda one: one.session_key == 1)),
    "merge": (nothing, lambda archive: archive.merge()),
    "drop": (nothing, drop_one),
    "adopt": (leave_unpublished, lambda archive: archive.adopt(now_s=0)),
    "tidy": (leave_half_a_merge, lambda archive: archive.adopt(now_s=0)),
    "found": (lose_manifest, lambda archive: archive.manifest()),
    "mended": (spoil_manifest, add),
}

ONE_STEP = ("add", "empty", "merge", "drop")  # those that publish once, and nothing before it


def is_between(
    found: dict[str, Archived], start: dict[str, Archived], end: dict[str, Archived]
) -> bool:
    """Whether what stays through the change is there, and nothing else but what comes or goes."""
    stays = start.keys() & end.keys()
    return stays <= found.keys() <= start.keys() | end.keys() and all(
        archived in (start.get(one), end.get(one)) for one, archived in found.items()
    )


@pytest.fixture(autouse=True)
def merged_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two segments of a kind are enough to be joined."""
    monkeypatch.setattr(merging, "AT_ONCE", 2)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """An archive of three small segments, to be copied."""
    archive = Archive(tmp_path / "original", timeout_s=5)
    for start in range(0, 3 * SMALL, SMALL):
        stored(archive, some(start, start + SMALL))
    return archive.folder


def copied(original: Path, name: str) -> Archive:
    folder = original.with_name(name)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    return Archive(folder, timeout_s=5)


def segments_of(archive: Archive) -> set[str]:
    return {path.name for path in archive.folder.glob("segment-*")}


@pytest.mark.parametrize("name", CHANGES)
def test_a_full_disk_anywhere_costs_nothing_that_was_published(original: Path, name: str):
    """
    Whatever call fails, the change is done, undone or, if the folder could not be synced, one
    of the two. No file is left behind, and the change succeeds when it is repeated.

    Method: fail the 1st call of `os` that writes, then the 2nd, until none fails any more.
    """
    before, change = CHANGES[name]
    archive = copied(original, "whole")
    before(archive)
    start = held(archive.folder) if name not in ("found", "mended") else held(original)
    change(archive)
    end = held(archive.folder)
    for nth in itertools.count(1):
        archive = copied(original, "tried")
        before(archive)
        files = segments_of(archive)
        calls = Calls(nth)
        failed: Exception | None = None
        with calls.armed():
            try:
                change(archive)
            except (DiskFull, OutcomeUnknown) as error:
                failed = error
        assert failed is None or calls.fired
        found = held(archive.folder)
        assert is_between(found, start, end)
        if failed is None:
            assert found == end
        elif isinstance(failed, DiskFull) and name in ONE_STEP:
            assert found == start
            assert segments_of(archive) == files
        assert not list(archive.folder.glob("*.part"))
        change(archive)
        archive.adopt(now_s=0)
        assert held(archive.folder).keys() >= end.keys() - (
            start.keys() if name == "drop" else set()
        )
        assert segments_of(archive) == archive.manifest().names
        assert archive.damaged() == {}
        if not calls.fired:
            assert nth > 3, "the faults were never reached"
            return


def test_a_full_disk_while_the_first_segment_is_written(tmp_path: Path):
    for nth in itertools.count(1):
        archive = Archive(tmp_path / f"archive{nth}", timeout_s=5)
        calls = Calls(nth)
        failed = False
        with calls.armed():
            try:
                stored(archive, some(0, 5))
            except (DiskFull, OutcomeUnknown):
                failed = True
        assert failed == calls.fired
        found = held(archive.folder)
        assert len(found) == 5 if not failed else len(found) in (0, 5)
        assert not list(archive.folder.glob("*.part"))
        stored(archive, some(0, 5))
        assert len(held(archive.folder)) == 5
        if not calls.fired:
            assert nth > 10, "the faults were never reached"
            return


@pytest.mark.parametrize("name", CHANGES)
def test_a_process_that_dies_anywhere_leaves_every_message(original: Path, name: str):
    """
    What can be read afterwards is what could be before, or what should be; what was taken out
    stays out; and once `adopt` has run, no file is there that does not count.

    Method: at the nth call of `os` that writes, and at every one after it, the process is dead.
    """
    before, change = CHANGES[name]
    archive = copied(original, "whole")
    before(archive)
    start = held(original)
    change(archive)
    end = held(archive.folder)
    for nth in itertools.count(1):
        archive = copied(original, "tried")
        before(archive)
        calls = Calls(nth, dies=True)
        with calls.armed():
            try:
                change(archive)
            except Killed:
                assert calls.fired
        found = held(archive.folder)
        assert is_between(found, start, end)
        if name in ONE_STEP:
            assert found in (start, end)
        next_process = Archive(archive.folder, timeout_s=5)
        next_process.adopt(now_s=1e12)
        adopted = held(archive.folder)
        assert is_between(adopted, start, end)
        assert name in ("add", "mended", "adopt") or adopted == found, "nothing comes back"
        assert adopted.keys() >= found.keys()
        assert segments_of(archive) == next_process.manifest().names
        assert not list(archive.folder.glob("*.part"))
        if not calls.fired:
            assert nth > 3, "the faults were never reached"
            return


def test_every_step_is_durable_before_the_next_relies_on_it(original: Path):
    """A power cut takes whatever was not synced, in any order; so the order of syncing counts."""
    archive = copied(original, "traced")
    calls = Calls(10**9)
    with calls.armed():
        archive.rewrite(lambda one: one.message.id == "m3")
    folder = archive.folder.name
    steps = [
        (call, "segment" if name.startswith("segment-") else name.split(".")[0])
        for call, name in calls.trace
        if call in ("fsync", "replace", "unlink")
    ]
    assert steps == [
        ("fsync", "segment"),
        ("replace", "segment"),
        ("fsync", folder),
        ("fsync", "manifest"),
        ("replace", "manifest"),
        ("fsync", folder),
        ("unlink", "segment"),
        ("fsync", folder),
    ]


def test_the_folder_itself_is_durable_before_anything_is_in_it(tmp_path: Path):
    archive = Archive(tmp_path / "agent" / "archive", timeout_s=5)
    (tmp_path / "agent").mkdir()
    calls = Calls(10**9)
    with calls.armed():
        archive.write(some(0, 2))
    names = [step for step in calls.trace if step[0] in ("mkdir", "fsync", "replace")]
    assert names[:2] == [("mkdir", "archive"), ("fsync", "agent")]


def test_an_unfinished_write_is_removed_when_its_messages_fail(original: Path):
    archive = copied(original, "tried")
    files = segments_of(archive)

    def messages():
        yield from some(200, 5300)
        raise RuntimeError("the ledger failed")

    with pytest.raises(RuntimeError, match="the ledger failed"):
        archive.write(messages())
    assert segments_of(archive) == files
    assert not list(archive.folder.glob("*.part"))


CREW, ROUNDS = 4, 8


def test_threads_that_publish_at_once_lose_nothing(tmp_path: Path):
    """Two archives on one folder, two threads on each; all begin together."""
    archives = [Archive(tmp_path / "archive", timeout_s=60) for _ in range(2)]
    together = threading.Barrier(CREW, timeout=60)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        archive = archives[number % 2]
        try:
            for turn in range(ROUNDS):
                together.wait()
                start = (number * ROUNDS + turn) * 3
                stored(archive, some(start, start + 3))
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)
            together.abort()

    crew = [threading.Thread(target=work, args=(number,)) for number in range(CREW)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(timeout=120)
    assert not errors
    assert held(tmp_path / "archive").keys() == {f"m{n}" for n in range(CREW * ROUNDS * 3)}
    assert len(archives[0].manifest().entries) == CREW * ROUNDS


WORK = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    from archives import some, stored
    from elytron.archive import Archive
    archive, number = Archive(Path(sys.argv[1]), timeout_s=60), int(sys.argv[2])
    for turn in range(100):
        print(turn, flush=True)
        sys.stdin.readline()
        start = (number * 100 + turn) * 3
        stored(archive, some(start, start + 3))
        archive.merge()
"""
HERE = str(Path(__file__).parent)


def step(process: "subprocess.Popen[str]") -> None:
    """Let a process do one round."""
    process.stdin.write("\n")
    process.stdin.flush()


def test_processes_that_publish_and_merge_at_once_lose_nothing(
    tmp_path: Path, start_script: Callable[..., "subprocess.Popen[str]"]
):
    folder = tmp_path / "archive"
    crew = [start_script(WORK, folder, number, HERE) for number in range(2)]
    for _ in range(ROUNDS):
        for process in crew:
            assert process.stdout.readline()
        for process in crew:  # both are ready, so both run now
            step(process)
    for process in crew:
        assert process.stdout.readline()
    expected = {f"m{number * 300 + n}" for number in range(2) for n in range(ROUNDS * 3)}
    assert held(folder).keys() == expected
    assert Archive(folder, timeout_s=5).damaged() == {}


def test_a_killed_process_leaves_all_that_it_said_it_had_published(
    tmp_path: Path, start_script: Callable[..., "subprocess.Popen[str]"]
):
    folder = tmp_path / "archive"
    process = start_script(WORK, folder, 0, HERE)
    for turn in range(6):
        assert process.stdout.readline() == f"{turn}\n"
        step(process)
    process.send_signal(signal.SIGKILL)  # somewhere in its sixth round
    process.wait(timeout=60)
    archive = Archive(folder, timeout_s=5)
    archive.adopt(now_s=1e12)
    assert held(folder).keys() >= {f"m{n}" for n in range(15)}
    assert archive.damaged() == {}
    assert segments_of(archive) == archive.manifest().names
    stored(archive, [made(1000)])  # its lock died with it


def test_two_who_rewrite_one_segment_do_not_bring_back_what_either_took_out(original: Path):
    archive = copied(original, "shared")
    other = Archive(archive.folder, timeout_s=5)
    rounds = 0

    def drop(archived: Archived) -> bool:
        nonlocal rounds
        if archived.message.id == "m0":
            rounds += 1
            if rounds == 1:
                other.rewrite(odd)
        return archived.message.id == "m2"

    archive.rewrite(drop)
    expected = {f"m{n}" for n in range(0, 3 * SMALL, 2)} - {"m2"}
    assert held(archive.folder).keys() == expected


def test_logs_name_segments_and_never_what_was_said(
    original: Path, caplog: pytest.LogCaptureFixture
):
    archive = copied(original, "shared")
    archive.write([made(500, content="my secret")])
    stray = archive.write([made(501, content="my secret")])[0]
    (archive.folder / stray.name).write_bytes(b"my secret")
    spoil_manifest(archive)
    with caplog.at_level(logging.DEBUG, "elytron.archive"):
        archive.adopt(now_s=0)
    assert stray.name in caplog.text
    assert "secret" not in caplog.text
    with pytest.raises(Conflict) as conflict:
        archive.publish(add=[stray])
    assert "secret" not in str(conflict.value)
    assert json.loads((archive.folder / "manifest.json").read_bytes())["segments"]
