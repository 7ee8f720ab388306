"""
Known: the names of one agent's concepts, kept in memory beside its ledger.

Brought up to date by the change list, so that a new concept costs one row and not all of them.
"""

import logging
import threading
from collections.abc import Iterable
from typing import Any

from elytron.concepts.names import Names
from elytron.ledger import rows
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers
from elytron.ledger.schema import CONCEPT

_log = logging.getLogger("elytron.concepts")
_SELECT = (
    "SELECT key, name, folded, type, description, confidence, origin, created_us, checksum"
    " FROM concepts"
)
# (newest change, oldest, how many were noted before that one)
_CHANGES = """
SELECT ifnull(max(seq), 0), (SELECT seq FROM changes ORDER BY seq LIMIT 1),
    (SELECT ordinal - 1 FROM changes ORDER BY seq LIMIT 1) FROM changes
"""
_CHANGED = "SELECT DISTINCT key FROM changes WHERE seq > ? AND kind = ?"


class KnownNames:
    """
    What an agent's concepts are called. Safe for many threads.

    About 600 bytes a concept, of which `max_concepts` bounds the number.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._names = Names()
        self._called: dict[int, tuple[str, str]] = {}  # (name, folded)
        self._held = set[str]()  # the folded names
        self._place: int | None = None  # the newest change that is in it

    def at(self, db: Database, source: object) -> "KnownNames":
        """
        Bring it up to what *db* sees; returns itself.

        Some microseconds if nothing changed; a fifth of a second for 20,000 concepts the first
        time. A damaged row is left out and logged.
        """
        newest, oldest, forgotten = db.execute(_CHANGES).get
        if newest == self._place:
            return self
        with self._mutex:
            if self._place is None or (forgotten and oldest > self._place + 1):
                self._load(db, source)
            elif newest > self._place:
                changed = [key for (key,) in rows.fetch(db, _CHANGED, (self._place, CONCEPT))]
                self._renew(db, changed, source)
            self._place = max(newest, self._place or 0)
        return self

    def __len__(self) -> int:
        return len(self._called)

    def __contains__(self, folded: str) -> bool:
        """Whether a concept has this folded name."""
        return folded in self._held

    def find(self, text: str) -> dict[int, float]:
        """The concepts that a text names: key -> confidence."""
        return self._names.find(text)

    def called(self, key: int) -> tuple[str, str] | None:
        """(name, folded name) of a concept; None if there is none."""
        return self._called.get(key)

    def _load(self, db: Database, source: object) -> None:
        aside = KnownNames()
        aside._put(rows.fetch(db, _SELECT), source)
        self._names, self._called, self._held = aside._names, aside._called, aside._held

    def _renew(self, db: Database, keys: list[int], source: object) -> None:
        """A name that stays can be found meanwhile too: who misses it links a text for good."""
        if not keys:
            return
        sql = f"{_SELECT} WHERE key IN (SELECT value FROM carray(?))"
        found = rows.fetch(db, sql, (Integers(keys),))
        there = {row[0] for row in found}
        self._held -= {self._drop(key) for key in keys if key not in there}
        self._put(found, source)

    def _put(self, found: Iterable[tuple[Any, ...]], source: object) -> None:
        before, now = set[str | None](), set[str]()  # two may have exchanged their names
        for *values, checksum in found:
            key, name, folded, confidence = values[0], values[1], str(values[2]), values[5]
            now.add(folded)
            if rows.checksum(tuple(values)) != checksum:
                _log.warning("%s: the row of concept %s is damaged; left out", source, key)
                before.add(self._drop(key))  # its name stays held: not to be proposed again
                continue
            before.add(self._called.get(key, ("", None))[1])
            self._names.put(key, name, confidence)
            self._called[key] = (name, folded)
        self._held |= now
        self._held -= before - now

    def _drop(self, key: int) -> str | None:
        """The folded name that it had, if it was there; that stays among those held."""
        self._names.drop(key)
        return self._called.pop(key, ("", None))[1]
