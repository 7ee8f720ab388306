"""Messages that several archived, and died or were overtaken: in the end each is there once."""

import asyncio
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import elytron
import elytron.aio
from elytron import Agent, Receipt
from elytron.archive import Archive
from elytron.ledger import ops
from elytron.verbs.in_archive import InArchive
from moved import ALL, archive_of, check_once, healed, held_ids
from test_archiving import meanwhile
from test_archiving_processes import AT_THE_NTH, CONTENTS, QUIET, template  # noqa: F401 - a fixture
from writing import spawn

Start = Callable[..., "subprocess.Popen[str]"]
# Joining segments would take out what is in both; not all are small enough to be joined.
UNMERGED = AT_THE_NTH.replace(
    "store = elytron", "Archive.merge = lambda *_, **__: 0\nstore = elytron"
)
WITHOUT = {key: text for key, text in CONTENTS.items() if key != "m12"}


def overtaken(start_script: Start, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A process that stands still before the step of *arguments*."""
    process = start_script(UNMERGED, folder, *arguments, "wait")
    assert process.stdout.readline() == "here\n"
    return process


def goes_on(process: "subprocess.Popen[str]") -> str:
    printed, complaints = process.communicate("go\n", timeout=60)
    assert not complaints
    return str(printed)


def check_settled(folder: Path, expected: dict[str, str]) -> None:
    """That the next clean-up leaves each message in one place, and a check agrees."""
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        bob.enforce_limits()
        check_once(bob, expected)
        assert bob.check().findings == ()
    assert healed(folder) == expected


def overtaken_with_one_deleted(
    start_script: Start, original: Path, folder: Path
) -> "subprocess.Popen[str]":
    """Two have listed the same; the second waits, and the first deletes one of them."""
    shutil.copytree(original, folder)
    late = overtaken(start_script, folder, "archive", "before a commit", "3")
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        assert bob.archive(**ALL).archived == 14
        assert bob.delete("m12")
    return late


def test_who_comes_too_late_takes_its_copies_back_though_its_segment_was_written_anew(
    tmp_path: Path,
    template: Path,  # noqa: F811
    start_script: Start,
) -> None:
    folder = tmp_path / "store"
    late = overtaken_with_one_deleted(start_script, template, folder)
    assert goes_on(late) == "done 0\n"
    check_settled(folder, WITHOUT)


def test_what_a_dead_process_had_copied_goes_though_its_segment_was_written_anew(
    tmp_path: Path,
    template: Path,  # noqa: F811
    start_script: Start,
) -> None:
    folder = tmp_path / "store"
    late = overtaken_with_one_deleted(start_script, template, folder)
    os.kill(late.pid, signal.SIGKILL)
    late.communicate(timeout=60)
    check_settled(folder, WITHOUT)


def test_what_is_archived_again_while_it_comes_back_is_archived_once(
    tmp_path: Path,
    template: Path,  # noqa: F811
    start_script: Start,
) -> None:
    """The one has brought messages back, and not yet taken them out of their segment."""
    folder = tmp_path / "store"
    shutil.copytree(template, folder)
    restoring = overtaken(start_script, folder, "restore", "after a commit", "2")
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        assert bob.archive(**ALL).archived > 14
    goes_on(restoring)
    check_settled(folder, CONTENTS)


def archived_before_it_is_queued(bob: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all leave for the archive after the look there, and before the next is queued."""
    for name in ("_submit", "_try_submit", "_write"):

        def queue(real: Callable[..., Any], *args: Any, **more: Any) -> Any:
            monkeypatch.undo()
            assert bob.emergency_cleanup().archived
            return real(*args, **more)

        monkeypatch.setattr(bob, name, partial(queue, getattr(bob, name)))


def submit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Receipt:
    with elytron.open(folder, **EMERGENCY) as store:
        bob = store.agent("bob")
        archived_before_it_is_queued(bob, monkeypatch)
        return bob.submit("user", "Message 1", id="m1").result(60)


def save(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Receipt:
    with elytron.open(folder, **EMERGENCY) as store:
        bob = store.agent("bob")
        archived_before_it_is_queued(bob, monkeypatch)
        return bob.save("user", "Message 1", id="m1")


def save_async(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Receipt:
    async def work() -> Receipt:
        async with elytron.aio.open(folder, **EMERGENCY) as store:
            bob = store.agent("bob")
            archived_before_it_is_queued(bob._agent, monkeypatch)
            return await bob.save("user", "Message 1", id="m1")

    return asyncio.run(work())


EMERGENCY: dict[str, Any] = {**QUIET, "emergency_messages": 2}


@pytest.mark.parametrize("verb", [save, submit, save_async])
def test_what_leaves_for_the_archive_while_it_is_saved_again_is_there_once(
    folder: Path, verb: Callable[..., Receipt], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = six(folder)
    receipt = verb(folder, monkeypatch)
    assert (receipt.id, receipt.new) == ("m1", False)
    check_settled(folder, expected)


def six(folder: Path) -> dict[str, str]:
    """What the messages say that are held now."""
    said = {f"m{n}": f"Message {n}" for n in range(6)}
    with elytron.open(folder, **EMERGENCY) as store:
        for key, text in said.items():
            store.agent("bob").save("user", text, id=key)
    return said


def test_a_message_of_which_the_archive_cannot_be_asked_at_its_commit_is_not_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = six(folder)
    with elytron.open(folder, **EMERGENCY) as store:
        bob = store.agent("bob")
        archived_before_it_is_queued(bob, monkeypatch)

        def broken(_ids: object) -> Any:
            raise elytron.Unavailable("the disk is away")

        # There was no archive to be asked before; at the commit there is one.
        with mock.patch.object(store._upkeep.archive_of("bob"), "find", broken):
            future = bob.submit("user", "One more", id="more")
            with pytest.raises(elytron.Unavailable, match="the disk is away"):
                future.result(60)
        check_once(bob, expected)
        assert bob.save("user", "One more", id="more").new


def test_other_content_under_the_id_of_what_leaves_meanwhile_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = six(folder)
    with elytron.open(folder, **EMERGENCY) as store:
        bob = store.agent("bob")
        archived_before_it_is_queued(bob, monkeypatch)
        with pytest.raises(elytron.Conflict, match="archived with other content"):
            bob.save("user", "Other", id="m1")
        check_once(bob, expected)


def test_what_another_process_is_archiving_is_not_saved_a_second_time(folder: Path) -> None:
    """It has left the ledger after we looked in the archive, and the other is not at its end."""
    expected = six(folder)
    moved, saved = threading.Event(), threading.Event()

    def at_its_end() -> None:
        moved.set()
        assert saved.wait(60)

    with elytron.open(folder, **QUIET) as ours, elytron.open(folder, **QUIET) as theirs:
        plain, archiving = InArchive._look, list["Future[Any]"]()

        def look(asked: InArchive) -> None:
            plain(asked)
            if not archiving:
                archiving.append(spawn(partial(theirs.agent("bob").archive, **ALL)))
                assert moved.wait(60)

        with meanwhile(ops.Moved, at_its_end), mock.patch.object(InArchive, "_look", look):
            receipt = ours.agent("bob").save("user", "Message 1", id="m1")
            saved.set()
            assert archiving[0].result(60).archived == 6
        assert not receipt.new
        check_once(ours.agent("bob"), expected)
    check_settled(folder, expected)


def test_what_was_deleted_and_is_archived_all_the_same_may_be_saved_again(folder: Path) -> None:
    """Another process had read it before, and lists its copy; then it is said once more."""
    expected = six(folder)
    with elytron.open(folder, **QUIET) as ours, elytron.open(folder, **QUIET) as theirs:
        bob, receipts = ours.agent("bob"), list[Receipt]()
        archive = archive_of(theirs.agent("bob"))
        publish = archive.publish

        def between(**changes: Any) -> None:
            assert receipts or bob.delete("m1")
            publish(**changes)
            if not receipts:
                receipts.append(bob.save("user", "Message 1", id="m1"))

        with mock.patch.object(archive, "publish", between):
            theirs.agent("bob").archive(**ALL)
        assert receipts[0].new
        check_once(bob, expected)
    check_settled(folder, expected)


def test_a_message_that_was_edited_while_its_copy_is_listed_is_what_the_ledger_says(
    folder: Path,
) -> None:
    expected = six(folder)
    with elytron.open(folder, **QUIET) as ours, elytron.open(folder, **QUIET) as theirs:
        bob = ours.agent("bob")

        def edited() -> None:
            bob.edit("m1", "Edited")
            assert not bob.save("user", "Edited", id="m1").new
            with pytest.raises(elytron.Conflict, match="held with other content"):
                bob.save("user", "Message 1", id="m1")

        with meanwhile(ops.Remove, edited):
            theirs.agent("bob").archive(**ALL)
    check_settled(folder, expected | {"m1": "Edited"})


@pytest.mark.parametrize("wanted", ["m1", "nobody's"])
def test_a_restore_beside_an_archiving_loses_nothing(folder: Path, wanted: str) -> None:
    """The segment is listed and its messages are still held when another brings some back."""
    expected = six(folder)
    with elytron.open(folder, **QUIET) as ours, elytron.open(folder, **QUIET) as theirs:
        bob = ours.agent("bob")

        def of_all(archive: Any, ids: Any) -> Any:
            """As where a trailer's hashes collide: the segment is looked into for nothing."""
            return {one: list(archive.manifest().entries) for one in ids}

        def restore() -> None:
            with mock.patch.object(Archive, "holding", of_all):
                assert bob.restore([wanted]).restored == 0

        with meanwhile(ops.Remove, restore):
            theirs.agent("bob").archive(**ALL)
        check_once(bob, expected)
    check_settled(folder, expected)


def test_what_leaves_while_a_restore_writes_its_segment_anew_is_not_lost(folder: Path) -> None:
    """The one has seen that the ledger holds them, and the other removes them there then."""
    expected = six(folder)
    listed, go_on = threading.Event(), threading.Event()

    def before_removing() -> None:
        listed.set()
        assert go_on.wait(60)

    with elytron.open(folder, **QUIET) as ours, elytron.open(folder, **QUIET) as theirs:
        bob = ours.agent("bob")
        archive = archive_of(bob)
        publish = archive.publish
        with meanwhile(ops.Remove, before_removing):
            archiving = spawn(partial(theirs.agent("bob").archive, **ALL))
            assert listed.wait(60)

            def late(**changes: Any) -> None:
                go_on.set()
                assert archiving.exception(60) is None
                publish(**changes)

            with mock.patch.object(archive, "publish", late):
                bob.restore(["m0"])
        check_once(bob, expected)
    check_settled(folder, expected)


def test_of_two_who_bring_the_same_back_the_one_that_is_overtaken_begins_again(
    folder: Path,
) -> None:
    expected = six(folder)
    with elytron.open(folder, **QUIET) as ours, elytron.open(folder, **QUIET) as theirs:
        bob = ours.agent("bob")
        bob.archive(**ALL)
        with meanwhile(ops.Restore, lambda: bob.restore(["m1", "m2"])):
            assert theirs.agent("bob").restore(["m2", "m3"]).restored == 1
        assert set(held_ids(bob)) == {"m1", "m2", "m3"}
        check_once(bob, expected)
    check_settled(folder, expected)
