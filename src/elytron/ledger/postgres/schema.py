"""
Schema: numbered migrations of a store on PostgreSQL. A migration, once released, is never edited.

The tables are those of `ledger/schema.py`, which says what is in them, for all agents together:
`agent_id` is first in each key and index, so that a plan touches one agent's rows, and so that a
database which is spread by that column keeps an agent in one place. No sequences, foreign keys or
triggers: none of them is routed by a column.

Row-level security is the second wall between agents, behind the condition in every statement: a
session sees the rows of the agent that `app.agent_id` names, and without it none. It holds for the
owner too, but not for a superuser; the program is to connect with a role that owns nothing, see
`grants`. What a migration changes in rows has to lift FORCE first.

The index of words is made of arrays, found by equality alone. No `tsvector` with GIN: behind
row-level security PostgreSQL does not look into an index by an operator that might leak, as `@@`
might, and reads all of an agent's rows instead.
"""

from itertools import chain

_TABLES = """
CREATE TABLE schema_version(version bigint NOT NULL);

-- One row: which folder of files (archives, graphs, locks) this store has, once it has one.
CREATE TABLE store(
    one bigint PRIMARY KEY CHECK (one = 1),
    files_id text COLLATE "C" NOT NULL,
    created_us bigint NOT NULL
);

-- Who is there. Everybody may read it, and write his own row.
CREATE TABLE names(
    agent_id uuid PRIMARY KEY,
    name text COLLATE "C" NOT NULL
);

-- Writers of one agent come one after the other by locking its row. It is written at each save, so
-- there is room in its page for the next version.
CREATE TABLE agents(
    agent_id uuid PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    messages bigint NOT NULL,
    bytes bigint NOT NULL,
    seq bigint NOT NULL
) WITH (fillfactor = 40);

CREATE TABLE meta(
    agent_id uuid,
    name text COLLATE "C",
    value text COLLATE "C" NOT NULL,
    PRIMARY KEY (agent_id, name)
);

CREATE TABLE changes(
    agent_id uuid,
    seq bigint,
    ordinal bigint NOT NULL,
    op bigint NOT NULL,
    kind bigint NOT NULL,
    key bigint NOT NULL,
    PRIMARY KEY (agent_id, seq)
);

CREATE TABLE users(
    agent_id uuid,
    key bigint,
    id text COLLATE "C" NOT NULL,
    folded text COLLATE "C" NOT NULL,
    created_us bigint NOT NULL,
    checksum bigint NOT NULL,
    PRIMARY KEY (agent_id, key),
    UNIQUE (agent_id, id)
);
CREATE INDEX users_folded ON users(agent_id, folded);

CREATE TABLE sessions(
    agent_id uuid,
    key bigint,
    id text COLLATE "C" NOT NULL,
    created_us bigint NOT NULL,
    checksum bigint NOT NULL,
    PRIMARY KEY (agent_id, key),
    UNIQUE (agent_id, id)
);

CREATE TABLE messages(
    agent_id uuid,
    key bigint,
    id text COLLATE "C" NOT NULL,
    session bigint NOT NULL,
    position bigint NOT NULL,
    "user" bigint,
    responds_to bigint,
    role text COLLATE "C" NOT NULL,
    at_us bigint NOT NULL,
    offset_min bigint NOT NULL,
    arrived_us bigint NOT NULL,
    embedding text COLLATE "C" NOT NULL,
    metadata text COLLATE "C",
    content text COLLATE "C" NOT NULL,
    checksum bigint NOT NULL,
    terms bytea NOT NULL,
    PRIMARY KEY (agent_id, key),
    UNIQUE (agent_id, id)
);
CREATE UNIQUE INDEX messages_place ON messages(agent_id, session, position);

CREATE TABLE memories(
    agent_id uuid,
    key bigint,
    id text COLLATE "C" NOT NULL,
    content text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    importance double precision NOT NULL,
    pinned bigint NOT NULL,
    session bigint,
    valid_from_us bigint,
    valid_to_us bigint,
    created_us bigint NOT NULL,
    metadata text COLLATE "C",
    checksum bigint NOT NULL,
    last_used_us bigint,
    uses bigint NOT NULL DEFAULT 0,
    terms bytea NOT NULL,
    PRIMARY KEY (agent_id, key),
    UNIQUE (agent_id, id)
);
CREATE INDEX memories_session ON memories(agent_id, session) WHERE session IS NOT NULL;

CREATE TABLE concepts(
    agent_id uuid,
    key bigint,
    name text COLLATE "C" NOT NULL,
    folded text COLLATE "C" NOT NULL,
    type text COLLATE "C",
    description text COLLATE "C",
    confidence double precision NOT NULL,
    origin bigint NOT NULL,
    created_us bigint NOT NULL,
    checksum bigint NOT NULL,
    PRIMARY KEY (agent_id, key),
    UNIQUE (agent_id, folded)
);

CREATE TABLE mentions(
    agent_id uuid,
    source bigint,
    concept bigint,
    confidence double precision NOT NULL,
    told bigint NOT NULL,
    PRIMARY KEY (agent_id, source, concept)
);
CREATE INDEX mentions_concept ON mentions(agent_id, concept, source);

CREATE TABLE relations(
    agent_id uuid,
    key bigint,
    source bigint NOT NULL,
    relation text COLLATE "C" NOT NULL,
    target bigint NOT NULL,
    strength double precision NOT NULL,
    valid_from_us bigint,
    valid_to_us bigint,
    learned_from bigint,
    checksum bigint NOT NULL,
    PRIMARY KEY (agent_id, key)
);
CREATE INDEX relations_source ON relations(agent_id, source, relation);
CREATE INDEX relations_target ON relations(agent_id, target);
CREATE INDEX relations_learned ON relations(agent_id, learned_from)
    WHERE learned_from IS NOT NULL;

CREATE TABLE marks(
    agent_id uuid,
    key bigint,
    importance double precision,
    pinned bigint NOT NULL,
    checksum bigint NOT NULL,
    PRIMARY KEY (agent_id, key)
);

CREATE TABLE uses(
    agent_id uuid,
    key bigint,
    uses bigint NOT NULL,
    last_us bigint NOT NULL,
    PRIMARY KEY (agent_id, key)
);

CREATE TABLE tails(
    agent_id uuid,
    session bigint,
    position bigint NOT NULL,
    PRIMARY KEY (agent_id, session)
);

CREATE TABLE moving(
    agent_id uuid,
    segment text COLLATE "C",
    run text COLLATE "C" NOT NULL,
    PRIMARY KEY (agent_id, segment)
);

CREATE TABLE gone(
    agent_id uuid,
    kind bigint,
    id text COLLATE "C",
    key bigint NOT NULL,
    PRIMARY KEY (agent_id, kind, id)
);

CREATE TABLE readers(
    agent_id uuid,
    name text COLLATE "C",
    seq bigint NOT NULL,
    PRIMARY KEY (agent_id, name)
);

CREATE TABLE unlinked(
    agent_id uuid,
    concept bigint,
    key bigint NOT NULL,
    PRIMARY KEY (agent_id, concept)
);

CREATE TABLE heard(
    agent_id uuid,
    folded text COLLATE "C",
    name text COLLATE "C" NOT NULL,
    times bigint NOT NULL,
    key bigint NOT NULL,
    PRIMARY KEY (agent_id, folded)
);

CREATE TABLE embedder(
    agent_id uuid,
    one bigint CHECK (one = 1),
    name text COLLATE "C" NOT NULL,
    dim bigint NOT NULL,
    projection bigint NOT NULL,
    last bigint NOT NULL,
    removed bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (agent_id, one)
);

CREATE TABLE projections(
    agent_id uuid,
    version bigint,
    input bigint NOT NULL,
    dims bigint NOT NULL,
    fitted_on bigint NOT NULL,
    last bigint NOT NULL,
    data bytea NOT NULL,
    checksum bigint NOT NULL,
    PRIMARY KEY (agent_id, version)
);

CREATE TABLE vectors(
    agent_id uuid,
    number bigint,
    key bigint NOT NULL,
    digest bigint NOT NULL,
    projection bigint NOT NULL,
    scale double precision NOT NULL,
    data bytea NOT NULL,
    checksum bigint NOT NULL,
    PRIMARY KEY (agent_id, number),
    UNIQUE (agent_id, key)
);
CREATE INDEX vectors_digest ON vectors(agent_id, digest);

CREATE TABLE shared(
    agent_id uuid,
    key bigint,
    digest bigint NOT NULL,
    PRIMARY KEY (agent_id, key)
);
CREATE INDEX shared_digest ON shared(agent_id, digest);

CREATE TABLE unembedded(
    agent_id uuid,
    key bigint,
    reason bigint NOT NULL,
    PRIMARY KEY (agent_id, key)
);

-- One row an agent: the key up to which messages are in the index of words.
CREATE TABLE indexed(
    agent_id uuid PRIMARY KEY,
    key bigint NOT NULL
);

-- The index of words, see `words.py`. Which messages of a block of keys are in it, and how many
-- terms they have together.
CREATE TABLE word_blocks(
    agent_id uuid,
    block bigint,
    messages integer[] NOT NULL,
    terms bigint NOT NULL,
    PRIMARY KEY (agent_id, block)
) WITH (fillfactor = 75, toast_tuple_target = 8160);

-- What stands where, of a block and a share of all terms. A row grows until its block is full:
-- there is room in its page for that.
CREATE TABLE words(
    agent_id uuid,
    block bigint,
    bucket bigint,
    postings bigint[] NOT NULL,
    PRIMARY KEY (agent_id, block, bucket)
) WITH (fillfactor = 75, toast_tuple_target = 8160);
ALTER TABLE word_blocks ALTER COLUMN messages SET STORAGE MAIN;
ALTER TABLE words ALTER COLUMN postings SET STORAGE MAIN;
"""

# The first tables whose rows are each one agent's: all but `schema_version`, `store` and `names`.
_OWN = (
    "agents", "meta", "changes", "users", "sessions", "messages", "memories", "concepts",
    "mentions", "relations", "marks", "uses", "tails", "moving", "gone", "readers", "unlinked",
    "heard", "embedder", "projections", "vectors", "shared", "unembedded", "indexed",
    "word_blocks", "words",
)  # fmt: skip

# A setting that was set once and taken back is empty, and no uuid.
_MINE = "agent_id = nullif(current_setting('app.agent_id', true), '')::uuid"


def _walls(table: str) -> tuple[str, ...]:
    """A table's rows are seen and written by the agent that they are of."""
    return (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY own ON {table} USING ({_MINE}) WITH CHECK ({_MINE})",
    )


_NAMES = (
    "ALTER TABLE names ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE names FORCE ROW LEVEL SECURITY",
    "CREATE POLICY listed ON names FOR SELECT USING (true)",
    f"CREATE POLICY own_insert ON names FOR INSERT WITH CHECK ({_MINE})",
    f"CREATE POLICY own_update ON names FOR UPDATE USING ({_MINE}) WITH CHECK ({_MINE})",
    f"CREATE POLICY own_delete ON names FOR DELETE USING ({_MINE})",
)


def _statements(text: str) -> tuple[str, ...]:
    """The statements of a migration: each ends with a semicolon at the end of a line."""
    return tuple(part.strip() for part in f"{text}\n".split(";\n") if part.strip())


_FIRST = (
    *_statements(_TABLES),
    *chain.from_iterable(map(_walls, _OWN)),
    *_NAMES,
    "INSERT INTO store VALUES(1, '', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)",
    "INSERT INTO schema_version VALUES(0)",
)

_DESCRIBED_TABLE = """
CREATE TABLE described(
    agent_id uuid,
    concept bigint,
    source bigint NOT NULL,
    parts bigint NOT NULL,
    PRIMARY KEY (agent_id, concept)
);
CREATE INDEX described_source ON described(agent_id, source);
CREATE INDEX memories_pinned ON memories(agent_id, key) WHERE pinned = 1;
"""
_DESCRIBED = (*_statements(_DESCRIBED_TABLE), *_walls("described"))

# Run in the schema of the store, which is first in the `search_path`.
MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _DESCRIBED)
VERSION = len(MIGRATIONS)
AGENT_TABLES = frozenset({*_OWN, "names", "described"})


def quoted(name: str) -> str:
    """A name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def grants(schema: str, role: str) -> str:
    """
    What the owner of a store runs once, and after each upgrade, for the role that programs
    connect with: it may work on rows, as far as row-level security lets it, and on nothing else.
    """
    place, who = quoted(schema), quoted(role)
    return (
        f"GRANT USAGE ON SCHEMA {place} TO {who};\n"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {place} TO {who};\n"
        f"REVOKE INSERT, UPDATE, DELETE ON {place}.schema_version, {place}.store FROM {who};\n"
        f"GRANT UPDATE (files_id) ON {place}.store TO {who};"
    )
