"""
OpenAI sessions: the file of a `SQLiteSession` of the OpenAI Agents SDK.

Each item becomes the message that `elytron.adapters.openai_agents` makes of it, so a session that
was imported goes on there with the same items.
"""

from collections.abc import Iterator

from elytron.adapters.openai_items import message_of
from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.importers.pieces import Found, LeftOut, Piece, Reading, bad, derived_id
from elytron.importers.tables import Row, Tables, as_json, as_text
from elytron.importers.times import iso_time
from elytron.records import BadLine

ENCRYPTED = "items that are encrypted"
_TABLE = "agent_messages"  # if not named otherwise when the session was opened
_COLUMNS = ("id", "session_id", "message_data", "created_at")


def table_of(tables: Tables) -> str | None:
    """The table with the items, whatever its name; None if there is none, or several."""
    found = [name for name, columns in tables.columns.items() if columns.issuperset(_COLUMNS)]
    if _TABLE in found:
        return _TABLE
    return found[0] if len(found) == 1 else None


def reading(tables: Tables, config: Config) -> Reading:
    table = table_of(tables)
    if table is None:
        raise InvalidArgument(
            f"{tables.path} has no table, or several, with the columns {', '.join(_COLUMNS)};"
            " nothing was imported"
        )
    return Reading("row", lambda: _pieces(tables, table, config))


def _pieces(tables: Tables, table: str, config: Config) -> Iterator[Piece]:
    for row in tables.rows(table, _COLUMNS, order="id", config=config):
        if isinstance(row, BadLine):
            yield row
            continue
        try:
            yield _piece(row)
        except InvalidArgument as error:
            yield bad(row.number, f"id {row.values[0]!r:.50}", str(error))


def _piece(row: Row) -> Piece:
    place, created = row.values[0], row.values[3]
    session = as_text(row.values[1], "session_id")
    data = as_text(row.values[2], "message_data")
    item = as_json(data, "message_data")
    if isinstance(item, dict) and item.get("__enc__") == 1:
        return LeftOut(ENCRYPTED)
    message = message_of(item, session)
    # The number of its row too: the same words may be said twice in one second.
    message["id"] = derived_id("item", session, data, str(place), str(created))
    if created is not None:
        message["at"] = iso_time(as_text(created, "created_at"), "created_at")
    return Found(row.number, message, f"id {place!r:.50}")
