"""Messages that several archived, and died or were overtaken: in the end each is there once."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import elytron
import elytron.aio
from elytron import Agent, Receipt
from moved import ALL, check_once, healed
from test_archiving_processes import AT_THE_NTH, CONTENTS, QUIET, template  # noqa: F401 - a fixture

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
    expected = {f"m{n}": f"Message {n}" for n in range(6)}
    with elytron.open(folder, **EMERGENCY) as store:
        for key, text in expected.items():
            store.agent("bob").save("user", text, id=key)
    receipt = verb(folder, monkeypatch)
    assert (receipt.id, receipt.new) == ("m1", False)
    check_settled(folder, expected)


def test_a_submitted_message_of_which_the_archive_cannot_be_asked_is_told_as_unknown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with elytron.open(folder, **EMERGENCY) as store:
        bob = store.agent("bob")
        for n in range(6):
            bob.save("user", f"Message {n}", id=f"m{n}")
        assert bob.emergency_cleanup().archived
        future = bob.submit("user", "Another", id="other")
        assert future.result(60).new

        def broken(_ids: object) -> Any:
            raise elytron.Unavailable("the disk is away")

        monkeypatch.setattr(bob, "_archived", lambda _drafts: {})
        monkeypatch.setattr(store._upkeep.archive_of("bob"), "find", broken)
        future = bob.submit("user", "One more", id="more")
        with pytest.raises(elytron.OutcomeUnknown, match="save again with the same ids"):
            future.result(60)
        monkeypatch.undo()
        assert not bob.save("user", "One more", id="more").new
