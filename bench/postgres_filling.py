"""
A store on PostgreSQL with many agents, filled in a minute or two: some are written by Elytron, and
their rows are copied for the others. And what the rows take.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from elytron.ledger.postgres.ledger import Lending
from elytron.ledger.postgres.schema import AGENT_TABLES
from messages import varied
from postgres_servers import Place

# No limit is met here, and no deadline.
ROOMY = {"max_db_size_mb": 1000, "max_messages_per_agent": 10**6, "save_timeout_s": 600}
_NAMED = """
CREATE TEMP TABLE copied(agent_id uuid, name text);
"""
_COLUMNS = """
SELECT array_agg(quote_ident(attname) ORDER BY attnum) FROM pg_attribute
WHERE attrelid = '{table}'::regclass AND attnum > 1 AND NOT attisdropped
"""
_SIZES = """
SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r'
"""


@dataclass(frozen=True)
class Size:
    """Bytes of a table, and of its indexes."""

    table: str
    rows: int
    indexes: int

    @property
    def all(self) -> int:
        return self.rows + self.indexes


def write(place: Place, name: str, count: int) -> None:
    """An agent of *count* messages, by Elytron, indexed and linked."""
    with place.open(**ROOMY) as store:
        agent = store.agent(name)
        agent.save_many(varied(count))
        agent.flush()


def copy(place: Place, model: str, names: Sequence[str]) -> None:
    """
    Give *names* the rows of *model*: as if all had written at the same time, so the rows of one
    agent lie far from each other.
    """
    source = Lending.agent_id(model)
    with psycopg.connect(place.server.dsn()) as connection:
        connection.execute(f"SET search_path TO {place.schema}")
        connection.execute(_NAMED)
        with connection.cursor().copy("COPY copied FROM STDIN") as rows:
            for name in names:
                rows.write_row((Lending.agent_id(name), name))
        for table in sorted(AGENT_TABLES):
            _copy_table(connection, table, source)


def _copy_table(connection: psycopg.Connection[Any], table: str, source: uuid.UUID) -> None:
    ((columns,),) = connection.execute(_COLUMNS.format(table=table)).fetchall()
    given = [f"m.{column}" for column in columns]
    if table in ("agents", "names"):
        given[columns.index("name")] = "c.name"
    if table == "meta":
        given[columns.index("value")] = "CASE WHEN m.name = 'agent' THEN c.name ELSE m.value END"
    # By the first column of the key within the agent, then the agent.
    connection.execute(
        f"INSERT INTO {table}(agent_id, {', '.join(columns)})"
        f" SELECT c.agent_id, {', '.join(given)} FROM {table} m CROSS JOIN copied c"
        f" WHERE m.agent_id = %s ORDER BY m.{columns[0]}, c.agent_id",
        (source,),
    )


def settle(place: Place) -> None:
    """What autovacuum would come to do."""
    for table in sorted(AGENT_TABLES):
        place.run(f"VACUUM ANALYZE {table}")


def sizes(place: Place) -> list[Size]:
    """What the store's tables take on the disk, the largest first."""
    found = [Size(*row) for row in place.run(_SIZES.format(schema=place.schema))]
    return sorted(found, key=lambda size: -size.all)


def total_bytes(place: Place) -> int:
    return sum([size.all for size in sizes(place)])


def count_messages(place: Place) -> int:
    return int(place.run("SELECT count(*) FROM messages")[0][0])
