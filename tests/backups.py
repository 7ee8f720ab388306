"""What the tests of backups have in common: a store worth keeping, and a look at what came back."""

import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import elytron
from elytron.ledger import files
from ledgers import flip, ledger_path

AT = datetime(2026, 3, 2, 18, 4, tzinfo=UTC)


def fill(agent: elytron.Agent, start: int, end: int, *, word: str = "zebra") -> None:
    """Messages m<start> to m<end - 1>."""
    agent.save_many(
        {
            "id": f"m{number}",
            "role": "assistant" if number % 2 else "user",
            "content": f"{word} {number} " + "words and more words " * 8,
            "session": f"s{number % 3}",
            "user": None if number % 2 else "alice",
            "at": AT,
        }
        for number in range(start, end)
    )


def make(folder: Path, *, names: Iterable[str] = ("bob", "al")) -> None:
    """A closed store: each agent holds twenty messages, has archived ten, and knows a thing."""
    with elytron.open(folder) as store:
        for name in names:
            agent = store.agent(name)
            fill(agent, 0, 30)
            agent.pin("m29")
            agent.archive(older_than_days=0, keep=20)
            agent.remember("Alice prefers Python", about=["Alice", "Python"], importance=0.8)
            agent.relate("Alice", "lives in", "Lyon")
            agent.flush()


def look(agent: elytron.Agent) -> dict[str, Any]:
    """All that an agent shows of itself."""
    return {
        "held": list(agent.messages()),
        "everything": sorted([m.id for m in agent.messages(archived=True)]),
        "sessions": agent.sessions(),
        "memories": agent.memories(),
        "concepts": [(concept.name, concept.mentions) for concept in agent.concepts()],
        "relations": agent.relations(),
    }


def looks(folder: Path) -> dict[str, Any]:
    """The same of each agent of a closed store, which is checked on the way."""
    with elytron.open(folder) as store:
        found = {}
        for name in store.agents():
            agent = store.agent(name)
            report = agent.check()
            assert report.ok, report.findings
            found[name] = look(agent)
        return found


def restored(backup: Path, to: Path) -> dict[str, Any]:
    """What comes out of a backup, restored to a new place."""
    report = elytron.restore_backup(backup, to)
    assert report.ok, report.failed
    return looks(to)


def home(store: Path, name: str = "bob") -> Path:
    """The folder of an agent in a store, or in a backup."""
    return files.agent_folder(store, name)


def copy_of(backup: Path, name: str = "bob") -> Path:
    """The one copy of an agent's ledger that a backup has."""
    (path,) = home(backup, name).glob("ledger-*.db")
    return path


def copied(report: elytron.BackedUp) -> set[str]:
    """The agents of which a copy was made."""
    return {one.agent for one in report.agents if one.copied}


# -- a store that is restored into

ALL = {f"m{number}" for number in range(30)}


def make_with_backup(place: Path) -> Path:
    """A store, a backup of it, and one message more in the store than in the backup."""
    make(place / "store", names=["bob"])
    with elytron.open(place / "store") as store:
        assert store.backup(place / "backup").ok
        store.agent("bob").save("user", "after the backup", id="after")
    return place


def restore(place: Path, **options: Any) -> elytron.AgentRestored:
    """Restore bob into the store; what was done."""
    report = elytron.restore_backup(place / "backup", place / "store", **options)
    for failed in report.failed:
        raise failed.cause
    (done,) = report.agents
    return done


def ids(place: Path) -> set[str]:
    """Of all messages that bob has in the store, held or archived, which has to be whole."""
    return set(looks(place / "store")["bob"]["everything"])


def is_refused(place: Path) -> bool:
    """Whether the memory counts as a whole one now."""
    report = elytron.restore_backup(place / "backup", place / "store")
    return [one.how for one in report.agents] == ["same"] or isinstance(
        report.failed[0].cause, elytron.Conflict
    )


def ledger_gone(store: Path) -> None:
    ledger_path(store).unlink()


def emptied(store: Path) -> None:
    ledger_path(store).write_bytes(b"")


def no_database(store: Path) -> None:
    ledger_path(store).write_bytes(b"What is this?" * 1000)


def text_flipped(store: Path) -> None:
    flip(ledger_path(store), ledger_path(store).read_bytes().index(b"zebra 25 "))


def saved(backup: Path) -> set[str]:
    """The messages that come out of a backup."""
    to = backup.with_name(f"{backup.name}-new")
    try:
        return set(restored(backup, to)["bob"]["everything"])
    finally:
        shutil.rmtree(to)


def held(place: Path) -> set[str]:
    """The messages of the store in *place*, which is whole."""
    with elytron.open(place / "store", reserve_mb=0, auto_cleanup=False) as store:
        assert store.agent("bob").check().ok
        return {message.id for message in store.agent("bob").messages(archived=True)}
