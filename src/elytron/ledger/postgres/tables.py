"""
Tables: what a statement has to know of an agent's tables on a server.

They are those of `ledger/schema.py` after its migrations, with the agent before the other columns.
A row's size is counted in the agent's bytes: what it takes on the disk, roughly, indexes included.
"""

from typing import NamedTuple

from elytron.ledger import carried


class Table(NamedTuple):
    """
    The columns and the primary key, in the order of the SQLite table, without the agent.

    `size` is SQL for what a row counts, in bytes; None where rows are few or tiny.
    """

    columns: tuple[str, ...]
    key: tuple[str, ...]
    size: str | None = None


AGENT = "agent_id"
# A text, twice in the row's size: once in the row, once in the index of its ids or names.
_NAMED = "2 * octet_length({0}) + 150"
SAID_BYTES = 200  # of a message or memory, besides its text and its terms, which count twice
_SAID = (
    "octet_length(content) + coalesce(octet_length(metadata), 0) + 2 * octet_length(terms)"
    f" + {SAID_BYTES}"
)
_CONCEPT = (
    "octet_length(name) + 2 * octet_length(folded) + coalesce(octet_length(type), 0)"
    " + coalesce(octet_length(description), 0) + 150"
)


_SIZES = {
    "users": _NAMED.format("id"),
    "sessions": _NAMED.format("id"),
    "messages": _SAID,
    "memories": _SAID,
    "concepts": _CONCEPT,
    "mentions": "60",
    "relations": _NAMED.format("relation"),
    "projections": "octet_length(data) + 100",
    "vectors": "octet_length(data) + 150",
}

TABLES = {
    name: Table(table.columns, table.columns[: table.key], _SIZES.get(name))
    for name, table in carried.TABLES.items()
}
TABLES["indexed"] = Table(("key",), ())  # one row an agent
