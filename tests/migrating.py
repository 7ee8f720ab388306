"""
What the tests of moving have in common: a memory with something of everything, and all its rows.

Run as a program, it carries the agents of one folder into another and dies at the nth call that
changes a file there or here, be it of SQLite or of `os`: `python migrating.py SOURCE TARGET NTH`.
With several numbers it does so as often, each time in a process of its own and into a target whose
name may hold the number as `{}`, and prints of each whether it died. `python migrating.py SOURCE`
saves there without end, until its stdin is closed.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import elytron
from backups import AT, look
from elytron import migration
from elytron.ledger import carrying, files
from elytron.ledger.carried import TABLES
from elytron.ledger.learned import BY_EXTRACTOR, Link, Linked, Mention, NewConcept
from elytron.ledger.schema import EXTRACTED, MESSAGE
from elytron.ledger.uses import Uses
from elytron.store import ledgers_at
from ledgers import row_of, write

# Texts that some database, or some way of writing a row, takes for another.
ODD = ("\x10", "\x10d\x100", "None", "NULL", "", "é" * 3, "\U0001f41e", "'; --", "%s")
BEFORE_ALL = -(1 << 62)
WAYS = ("folder to folder", "folder to postgres", "postgres to folder")


def embed(texts: Sequence[str], _kind: str) -> list[list[float]]:
    return [[1.0, len(text) % 7, len(text) % 11, 0.5] for text in texts]


def make(store: elytron.Store, name: str = "bob", *, count: int = 120) -> None:
    """An agent that has something in nearly every table, and an archive."""
    agent = store.agent(name)
    agent.save_many(
        {
            "id": f"m{number}",
            "role": "assistant" if number % 2 else "user",
            "content": f"zebra {number} lives in Lyon with Alice. " + ODD[number % len(ODD)],
            "session": f"s{number % 5}",
            "user": None if number % 2 else f"user {number % 3}",
            "at": AT,
            "metadata": {"odd": ODD[number % len(ODD)]} if number % 4 == 0 else None,
        }
        for number in range(count)
    )
    agent.remember("Alice prefers Python", id="r1", about=["Alice", "Python"], importance=0.8)
    agent.remember("Alice was in Paris", id="r2", session="s1", metadata={"a": [1, None]})
    agent.relate("Alice", "lives in", "Lyon")
    agent.relate("Alice", "lives in", "Paris", valid_to=AT)
    key, checksum = row_of(agent, "messages", "m1")
    read = Mention("quagga", 1.0, BY_EXTRACTOR)
    source = Linked(key, MESSAGE, checksum, (read,), (BY_EXTRACTOR,))
    quagga = NewConcept("Quagga", "quagga", EXTRACTED, type="animal")
    write(agent, Link("extracts", None, None, (source,), (quagga,)))
    agent.pin("m3")
    agent.save("user", "worth much", id="m7b", session="s1", importance=0.9)
    agent.archive(older_than_days=0, keep=count * 3 // 4)
    agent.edit("m100", "edited: the zebra is in Oslo now")
    agent.delete("m101")
    agent.recall("zebra in Lyon")
    agent.flush()


@dataclass(frozen=True)
class Place:
    """Where a store is: a folder, or a schema on a server with the folder of its files."""

    address: Path | str
    settings: Mapping[str, str] = field(default_factory=dict)

    def open(self, **settings: Any) -> elytron.Store:
        return elytron.open(self.address, **self.settings, **settings)

    @property
    def folder(self) -> Path:
        """Where its archives are."""
        return Path(self.settings.get("files_path", self.address))


def place(way: str, end: int, folder: Path, request: pytest.FixtureRequest) -> Place:
    """Where a store is at the beginning (0) or at the end (-1) of a *way*."""
    if way.split()[end] == "folder":
        return Place(folder)
    settings = {"files_path": str(folder), "postgres_schema": request.getfixturevalue("schema")}
    return Place(request.getfixturevalue("postgres").dsn(), settings)


def moved(source: Place, target: Place, **options: Any) -> elytron.AgentMigrated:
    """Carry bob; what came, or the error that it met."""
    report = elytron.migrate_store(
        source.address,
        target.address,
        source_settings=source.settings,
        **target.settings,
        **options,
    )
    for failed in report.failed:
        raise failed.cause
    (done,) = report.agents
    return done


def same(source: Place, target: Place) -> None:
    """Assert that bob is the same in both, and whole."""
    assert rows(source) == rows(target)
    assert archive(source) == archive(target)
    found = []
    for one in (source, target):
        with one.open() as store:
            agent = store.agent("bob")
            report = agent.check()
            assert report.ok, report.findings
            found.append(look(agent))
    assert found[0] == found[1]


def rows(place: Place, name: str = "bob") -> dict[str, list[Any]]:
    """All rows of an agent that are to be carried, of each table in the order of its keys."""
    found = {}
    with contextlib.closing(ledgers_at(place.address, elytron.Config(**place.settings))) as ledgers:
        ledger = ledgers.new(name, uses=Uses.of(1 << 22), carrying=True)
        assert ledger.open(create=False)
        with contextlib.closing(ledger), ledger.reading(snapshot=True) as db:
            for table, spec in TABLES.items():
                if spec.paged:
                    held = carrying.between(db, table, after=BEFORE_ALL, upto=-BEFORE_ALL)
                else:
                    held = carrying.small(db, table)
                found[table] = sorted(held, key=lambda row: row[: TABLES[table].key])
    return found


def archive(place: Place, name: str = "bob") -> dict[str, bytes]:
    """The segments of an agent's archive."""
    home = files.agent_folder(place.folder, name) / "archive"
    return {path.name: path.read_bytes() for path in home.glob("segment-*")}


def _die_at(source: Path, target: Path, nth: int) -> bool:
    """Carry in a fork of this process; whether it died at its nth call."""
    from second_process import _DISK, _Disk, _Fate

    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, -signal.SIGKILL), code
        return code != 0
    fate = _Fate()
    fate.watch_os()
    disk = _Disk(fate)
    migration.ledgers_at = partial(ledgers_at, vfs=_DISK)  # type: ignore[assignment]
    fate.arm(nth)
    report = elytron.migrate_store(source, target)
    disk.unregister()
    os._exit(0 if report.ok else 1)


def _save_until_closed(source: Path) -> None:
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    number = 0
    with elytron.open(source) as store:
        agent = store.agent("bob")
        while not over.is_set():
            agent.save("user", f"while it is carried: {number}", session="late", id=f"late{number}")
            if number % 10 == 9:
                agent.edit(f"late{number - 5}", "edited while it is carried")
                agent.delete(f"late{number - 7}")
            if number == 0:
                os.write(1, b"!")
            number += 1
    os.write(1, f" {number}\n".encode())


if __name__ == "__main__":
    folders = [Path(one) for one in sys.argv[1:3]]
    if len(folders) == 1:
        _save_until_closed(folders[0])
    for nth in map(int, sys.argv[3:]):
        place_of_it = Path(str(folders[1]).format(nth))
        os.write(1, b"died\n" if _die_at(folders[0], place_of_it, nth) else b"ended\n")
