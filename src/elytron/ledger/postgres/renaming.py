"""
Renaming: all rows of one agent get the key of another name, and its files go along.

The key is made of the name, so each row is written anew; and no transaction is about rows and files
both. So a mark is committed first, under both names, that the one becomes the other: from then on
nobody writes to either. Then, in one transaction that holds both agents' rows, the folder gets its
new name and the rows their new key. Who comes by after a process that died in between does that
again.

The mark is one that a version which knows nothing of this takes for a migration that is half done,
so that it refuses both names too. Rows are seen only under their own key, so they come by way of
this process, some at a time.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from psycopg import errors as server_errors

from elytron.errors import Conflict
from elytron.ledger import carrying, deleted, files
from elytron.ledger.carried import RENAMING
from elytron.ledger.postgres import removing, writing
from elytron.ledger.postgres.known import new_version
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.schema import AGENT_TABLES
from elytron.ledger.renamed import TAKEN, taken

FINISH_S = 3600.0  # it cannot be half done, and others are refused until it is done
_AT_ONCE = 20  # rows on their way; each may be as large as a message
_PART_BYTES = 64 << 20  # of them in one statement, if there is more than one; the server takes 1 GB
_TAKE_PLACE = "INSERT INTO agents VALUES(%(agent)s::uuid, %(name)s::text, 0, 0, 0, 0)"
# What was said of where its rows came from stands aside meanwhile.
_PUT_ASIDE = (
    "UPDATE meta SET name = 'carried_before' WHERE agent_id = %(agent)s::uuid AND name = 'carried'",
    "UPDATE meta SET name = 'carried' WHERE agent_id = %(agent)s::uuid AND name = 'carried_before'",
)
_UNMARK = "DELETE FROM meta WHERE agent_id = %(agent)s::uuid AND name = 'carried'"
_DECLARE = (
    "DECLARE renamed NO SCROLL CURSOR FOR SELECT row_to_json(t)::text FROM {table} t"
    " WHERE t.agent_id = %(agent)s::uuid"
)
_FETCH = f"FETCH {_AT_ONCE} FROM renamed"
_PUT = (
    "INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, %(rows)s::json) p"
    " WHERE p.agent_id = %(agent)s::uuid"
)
_CALL = (
    "UPDATE names SET name = %(name)s::text WHERE agent_id = %(agent)s::uuid",
    "UPDATE agents SET name = %(name)s::text, version = %(next)s::bigint"
    " WHERE agent_id = %(agent)s::uuid",
    "UPDATE meta SET value = %(name)s::text WHERE agent_id = %(agent)s::uuid AND name = 'agent'",
)


class Renaming(NamedTuple):
    """Which agent becomes which, and what makes their keys."""

    old: str
    new: str
    key_of: Callable[[str], uuid.UUID]

    @property
    def mark(self) -> str:
        return json.dumps(asdict(carrying.Mark(self.old, self.new, RENAMING)))


def begin(
    link: Link,
    names: Renaming,
    source: str,
    *,
    store: Path,
    alone: Callable[[], None],
    deadline: float,
) -> bool:
    """
    Have an agent count as being renamed, durably; False if there is none.

    Args:
        store: the folder of the archives.
        alone: called once nobody else writes to it; what it raises stops this.

    Raises:
        Busy: another process had it until *deadline*.
        Conflict: the new name is taken.
    """
    link.bind(names.key_of(names.old))
    try:
        said = removing.locked(link, source, deadline)
        if writing.find(link) is None:
            return False
        if said is not None and carrying.is_half_said(said, source):
            raise carrying.half_done(source)
        alone()
        if os.path.lexists(files.agent_folder(store, names.new)):
            raise taken(source, names.new)
        link.native(_PUT_ASIDE[0])
        link.native(removing.MARK, {"said": names.mark})
        link.native(removing.REFUSE, {"next": new_version()})
        link.bind(names.key_of(names.new))
        try:
            link.native(_TAKE_PLACE, {"name": names.new})
        except server_errors.UniqueViolation as error:
            raise taken(source, names.new) from error
        link.native(removing.MARK, {"said": names.mark})
        link.execute("COMMIT")
    finally:
        link.undo()
    return True


def finish(link: Link, names: Renaming, source: str, *, store: Path, deadline: float) -> None:
    """
    Give an agent that is being renamed its new key, and its folder the new name; nothing if it is
    not, since another has done that.

    Raises:
        Busy: another process had it until *deadline*.
    """
    old, new = names.key_of(names.old), names.key_of(names.new)
    link.bind(old)
    try:
        if removing.locked(link, source, deadline) != names.mark:
            return
        link.bind(new)
        link.native("SELECT set_config('extra_float_digits', '1', true)")  # all of them, as text
        link.native(writing.LOCK, {})
        if link.native(removing.SAID) != [(names.mark,)]:
            raise Conflict(f"{names.new!r} was begun anew; {names.old!r} cannot be renamed to it")
        for table in sorted(AGENT_TABLES):
            link.native(removing.DELETE.format(table=table), {})
        for table in sorted(AGENT_TABLES):
            _carry(link, table, old, new)
        link.bind(new)
        link.native(_UNMARK, {})
        link.native(_PUT_ASIDE[1])
        for sql in _CALL:
            link.native(sql, {"name": names.new, "next": new_version()})
        _move_files(store, names)
        link.execute("COMMIT")
    finally:
        link.undo()


def _carry(link: Link, table: str, old: uuid.UUID, new: uuid.UUID) -> None:
    """Write all rows of a table under another key, and delete them under theirs."""
    before, after = (f'{{"agent_id":"{key}"' for key in (old, new))
    link.bind(old)
    link.native(_DECLARE.format(table=table), {})
    while part := _fetched(link, old):
        assert all(text.startswith(before) for text in part), "it is the first column of all"
        link.bind(new)
        for rows in _parts([after + text.removeprefix(before) for text in part]):
            link.native(_PUT.format(table=table), {"rows": f"[{','.join(rows)}]"})
    link.bind(old)
    link.native("CLOSE renamed")
    link.native(removing.DELETE.format(table=table), {})


def _parts(rows: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    part_bytes = 0
    for row in rows:
        if part and part_bytes + len(row) > _PART_BYTES:
            yield part
            part, part_bytes = [], 0
        part.append(row)
        part_bytes += len(row)
    yield part


def _fetched(link: Link, old: uuid.UUID) -> list[str]:
    link.bind(old)
    return [text for (text,) in link.native(_FETCH)]


def _move_files(store: Path, names: Renaming) -> None:
    """The folder gets its new name, and a note tells of the old one; harmless if that is done."""
    folder, place = (files.agent_folder(store, name) for name in (names.old, names.new))
    with files.translate_os_errors(folder):
        with contextlib.suppress(FileNotFoundError):
            try:
                folder.replace(place)
            except OSError as error:
                if error.errno not in TAKEN:
                    raise
                # Made by one who had found its rows just before; not if anything is in it.
                folder.rmdir()
        files.sync_folder(place.parent)
        deleted.note_renamed(store, names.old, names.new, deleted.next_us(store, names.old))


def is_renamed(store: Path, name: str, since_us: int) -> bool:
    """Whether the agent that was called so then has another name, as far as this machine knows."""
    fate = deleted.Fates(store).of(deleted.key_of(name), since_us)
    return fate is not None and fate.heir is not None


def pending(
    said: str | None, source: object, key_of: Callable[[str], uuid.UUID]
) -> Renaming | None:
    """The renaming that `meta` tells of."""
    found = carrying.parsed(said, source)
    if found is None or found.state != RENAMING:
        return None
    return Renaming(found.origin, found.run, key_of)
