"""Opening: the ledgers that a DSN names, once it is known that they can be used."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from elytron.config import Config
from elytron.errors import InvalidArgument, InvalidSetting

if TYPE_CHECKING:
    from elytron.ledger.postgres.ledgers import PostgresLedgers
    from elytron.ledger.postgres.together import Grouping

_NEEDED = ("psycopg", "sqlglot")


def open_ledgers(text: str, config: Config, *, group: "Grouping") -> "PostgresLedgers":
    """
    The ledgers on the server that *text* names. It is not asked before the first verb.

    Args:
        group: see `PostgresLedgers`.

    Raises:
        InvalidArgument: no DSN, or the extra `postgres` is not installed.
        InvalidSetting: a setting that does not go with PostgreSQL.
    """
    if any([find_spec(module) is None for module in _NEEDED]):
        raise InvalidArgument(
            "a store on PostgreSQL needs more; run: pip install 'elytron[postgres]'"
        )
    if config.max_total_mb is not None:
        raise InvalidSetting(
            f"`max_total_mb` is {config.max_total_mb:g}, and a store on PostgreSQL has no bound of"
            " its own in all: set it off, and bound each agent with `max_db_size_mb`"
        )
    from elytron.ledger.postgres import dsn
    from elytron.ledger.postgres.ledgers import PostgresLedgers

    return PostgresLedgers(dsn.parse(text), config, group=group)
