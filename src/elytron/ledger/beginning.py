"""Beginning: the first rows of a ledger, which say whose it is."""

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


def identity(db: Database, source: object) -> tuple[str, str]:
    """(agent, languages) as the ledger itself has them."""
    found = dict(rows.fetch(db, "SELECT name, value FROM meta"))
    if "agent" not in found or "languages" not in found:
        raise Corrupt(f"{source} does not say whose it is; the file was left as it is")
    return found["agent"], found["languages"]
