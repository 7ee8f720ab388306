"""Where messages are: in the ledger, in the archive, or in neither; and what of them is seen."""

import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import elytron
from elytron import Agent, Message
from elytron.archive import Archive, Archived
from elytron.ledger import files
from ledgers import check_index

FIRST = datetime(2024, 5, 8, 9, 30, tzinfo=UTC)
ALL: dict[str, Any] = {"older_than_days": 0, "keep": 0}  # what archives all that is not pinned


def talk(count: int, *, start: int = 0, sessions: int = 2) -> Iterator[dict[str, Any]]:
    """Drafts that differ in all that a message has; each has a word of its own."""
    for number in range(start, start + count):
        at = FIRST + timedelta(minutes=number, microseconds=number)
        yield {
            "id": f"m{number}",
            "role": "assistant" if number // sessions % 2 else "user",
            "content": f"About tea and unique{number}x, naïvely\n🙂 {number}",
            "session": f"s{number % sessions}",
            "user": (None, "alice", "carol")[number % 3],
            "at": at.astimezone(timezone(timedelta(minutes=30 * (number % 5)))),
            "metadata": {"n": number, "nested": {"a": [1, None, "é"]}} if number % 4 == 0 else {},
            "importance": (None, 0.25, 0.75)[number % 3] if number % 5 == 0 else None,
        }


def archive_of(bob: Agent) -> Archive:
    return bob._agents.upkeep.archive_of(bob.name)


def segments(bob: Agent) -> list[Path]:
    return sorted(archive_of(bob).folder.glob("segment-*"))


def archived(bob: Agent) -> list[Archived]:
    """All that the archive's listed segments hold, whether the ledger has it too or not."""
    archive = archive_of(bob)
    if not archive.exists():
        return []
    return [one for entry in archive.manifest().entries for one in archive.read(entry)]


def archived_ids(bob: Agent) -> list[str]:
    return [one.message.id for one in archived(bob)]


def held_ids(bob: Agent) -> list[str]:
    return [message.id for message in bob.messages()]


def visible(bob: Agent, *, words: int = 40) -> dict[str, Any]:
    """All that readers see of an agent's messages, but for when they arrived."""
    usage = bob.usage()
    return {
        "messages": list(bob.messages()),
        "sessions": bob.sessions(),
        "histories": {one.id: bob.history(one.id, limit=1000) for one in bob.sessions()},
        "all": bob.history(limit=1000),
        "tea": bob.recall("tea", limit=1000),
        "words": [bob.recall(f"unique{number}x", limit=3) for number in range(words)],
        "counts": (usage.messages, usage.sessions, usage.users, usage.pinned, usage.archived),
    }


def check_once(bob: Agent, expected: dict[str, str]) -> None:
    """That each message, and no other, is in one place, once, with its content."""
    here = {message.id: message.content for message in bob.messages()}
    there = archived(bob)
    assert Counter([*here, *[one.message.id for one in there]]) == Counter(list(expected))
    assert here | {one.message.id: one.message.content for one in there} == expected
    assert bob.usage().archived == len(there)
    assert bob.usage().messages == len(here)


def check_somewhere(bob: Agent, expected: dict[str, set[str | None]]) -> None:
    """That what is shown of each message, held before archived, is one of what it may be."""
    shown: dict[str, str] = {one.message.id: one.message.content for one in archived(bob)}
    shown |= {message.id: message.content for message in bob.messages()}
    wrong = {key: shown.get(key) for key, may in expected.items() if shown.get(key) not in may}
    assert not wrong
    assert shown.keys() <= expected.keys()


def healed(folder: Path) -> dict[str, str]:
    """
    Reopen and repair; contents by id of all that is left, each once.

    Nothing is wrong afterwards: neither in the ledger, nor in the word index, nor in the archive,
    and no file in its folder is left over.
    """
    age(folder)
    with elytron.open(folder, reserve_mb=0, auto_cleanup=False) as store:
        bob = store.agent("bob")
        bob.enforce_limits()
        bob.check(repair=True)
        report = bob.check()
        assert report.ok, report.findings
        assert not report.findings
        shown = {message.id: message.content for message in bob.messages(archived=True)}
        check_once(bob, shown)
        if archive_of(bob).exists():
            assert {path.name for path in segments(bob)} == archive_of(bob).manifest().names
    if (files.agent_folder(folder, "bob") / files.LEDGER).exists():
        check_index(folder)
    return shown


def age(folder: Path) -> None:
    """Let unfinished files be as old as those of a process that is surely dead."""
    for part in folder.rglob("*.part"):
        os.utime(part, (0, 0))


def texts(messages: list[Message]) -> list[str]:
    return [message.content for message in messages]
