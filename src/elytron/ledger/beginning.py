"""
Beginning: the first rows of a ledger, which say whose it is; and when it was repaired last, since
something that it held may be missing from then on, and a backup from before may be all that has it.
"""

import time

from elytron.errors import Corrupt
from elytron.ledger import rows
from elytron.ledger.database import Database


def set_up(db: Database, *, name: str, languages: str) -> None:
    """The first rows of a new ledger."""
    created_us = time.time_ns() // 1000
    for key, value in (("agent", name), ("languages", languages), ("created_us", created_us)):
        db.execute("INSERT INTO meta VALUES(?, ?)", (key, str(value)))
    db.execute("INSERT INTO indexed VALUES(0)")


def note_repair(db: Database) -> None:
    """Note that something was taken out, or may not have been found again."""
    at_us = max(time.time_ns() // 1000, repaired_us(db) + 1)
    db.execute("REPLACE INTO meta VALUES('repaired_us', ?)", (str(at_us),))


def repaired_us(db: Database) -> int:
    """When a ledger was repaired last; 0 if it never was."""
    said = db.execute("SELECT value FROM meta WHERE name = 'repaired_us'").get
    return int(said) if str(said).isdecimal() else 0


def identity(db: Database, source: object) -> tuple[str, str]:
    """(agent, languages) as the ledger itself has them."""
    found = dict(rows.fetch(db, "SELECT name, value FROM meta"))
    if "agent" not in found or "languages" not in found:
        raise Corrupt(f"{source} does not say whose it is; the file was left as it is")
    return found["agent"], found["languages"]
