"""
Migrating: a schema on a server is made, or brought up to this version, by whoever comes first.

Each migration is a transaction of its own under an advisory lock, so any number of programs may
begin at once, and one that dies leaves nothing half done. Who only uses a store needs no right to
change it: where there is nothing to do, nothing is locked.
"""

import hashlib
from dataclasses import dataclass

from elytron.errors import Unavailable
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.schema import MIGRATIONS, VERSION, quoted

_LOOK = """
SELECT n.oid IS NOT NULL, coalesce(has_schema_privilege(n.oid, 'USAGE'), false),
    CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')
        ELSE has_schema_privilege(n.oid, 'CREATE') END,
    v.oid IS NOT NULL, coalesce(has_table_privilege(v.oid, 'SELECT'), false),
    coalesce(pg_has_role(v.relowner, 'USAGE'), false),
    EXISTS (SELECT FROM pg_class o WHERE o.relnamespace = n.oid),
    current_setting('transaction_read_only') = 'on'
FROM (SELECT) one LEFT JOIN pg_namespace n ON n.nspname = %(schema)s::text::name
    LEFT JOIN pg_class v ON v.relnamespace = n.oid AND v.relname = 'schema_version'
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is, and what this role may do with it."""

    schema: bool
    usable: bool  # its tables may be named
    growable: bool  # tables may be made in it; where it is missing, the schema itself
    begun: bool  # a store is in it
    readable: bool  # its version may be read
    owned: bool
    filled: bool  # anything at all is in it
    read_only: bool


def bring_up(db: Link, schema: str) -> None:
    """
    Make the store's schema and tables, or bring older ones up to this version.

    Raises:
        Unavailable: they are newer, or this role may not do it, or the schema is somebody else's.
            Nothing was changed.
    """
    while _look(db, schema)[1] < VERSION:
        _step(db, schema)


def version(db: Link, schema: str) -> int:
    """
    The version of the store's tables; 0 if there are none.

    Raises:
        Unavailable: as `bring_up`.
    """
    return _look(db, schema)[1]


def _look(db: Link, schema: str) -> tuple[_Found, int]:
    """What is there and its version, 0 for nothing, once it is known that this role can go on."""
    found = _Found(*[bool(each) for each in db.native(_LOOK, {"schema": schema})[0]])
    version = 0
    if found.begun:
        if not (found.usable and found.readable):
            raise Unavailable(
                f"the schema {schema!r} holds a store, and this role may not use it: let its owner"
                " run the GRANT statements of docs/scale.md; nothing was changed"
            )
        version = db.native(f"SELECT max(version) FROM {quoted(schema)}.schema_version")[0][0]
    if version > VERSION:
        raise Unavailable(
            f"the schema {schema!r} has version {version}, and this Elytron knows those up to"
            f" {VERSION}: upgrade Elytron; nothing was changed"
        )
    if version < VERSION:
        _check_role(found, schema, version)
    return found, version


def _check_role(found: _Found, schema: str, version: int) -> None:
    if found.read_only:
        raise Unavailable(
            f"the schema {schema!r} has version {version} and needs {VERSION}, but this server, or"
            " session, is read-only: open the store once on the primary; nothing was changed"
        )
    if found.filled and not found.begun:
        raise Unavailable(
            f"the schema {schema!r} holds something else than a store: name another one with"
            " `postgres_schema`; nothing was changed"
        )
    if found.begun and not found.owned:
        raise Unavailable(
            f"the schema {schema!r} has version {version} and needs {VERSION}, and this role may"
            " not change it: let the owner of its tables open the store once; nothing was changed"
        )
    if not found.growable:
        what = "make tables in the schema" if found.schema else "make the schema"
        raise Unavailable(
            f"this role may not {what} {schema!r}: let one that may open the store once, and run"
            " the GRANT statements of docs/scale.md; nothing was changed"
        )


def _step(db: Link, schema: str) -> None:
    """Run the next migration, unless somebody else has been faster."""
    db.execute("BEGIN")
    try:
        db.native("SELECT pg_advisory_xact_lock(%(lock)s::bigint)", {"lock": _lock(schema)})
        found, version = _look(db, schema)  # it may have changed while we waited
        if version < VERSION:
            if not found.schema:
                db.native(f"CREATE SCHEMA {quoted(schema)}")
            db.native(f"SET LOCAL search_path TO {quoted(schema)}")
            db.native(";\n".join(MIGRATIONS[version]))
            db.native(f"UPDATE schema_version SET version = {version + 1}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _lock(schema: str) -> int:
    """The number of the advisory lock: the same for all programs, another for each schema."""
    digest = hashlib.sha256(f"elytron migrates {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
