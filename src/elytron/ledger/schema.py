"""
Schema: numbered migrations of the ledger. A migration, once released, is never edited.

Every row that holds something true (not derived) ends in a checksum, see `rows.py`. All keys
come from one sequence, `changes.seq`: they rise, are never used twice, and are unique across
kinds, so one full-text index can hold messages and memories side by side.
"""

APPLICATION_ID = 0x454C5954  # "ELYT"

# What a row of `changes` is about. Numbers are stored: add, never renumber.
MESSAGE, SESSION, USER = 1, 2, 3
# What was done. A SAVE without `key` is of the row whose key is its own `seq`.
SAVE, EDIT, DELETE = 1, 2, 3

_FIRST = """
CREATE TABLE meta(
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Ids, never text: what later readers (graph, embedder) have to look at again, in order.
CREATE TABLE changes(
    seq INTEGER PRIMARY KEY,
    op INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key INTEGER
);

CREATE TABLE users(
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    folded TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX users_folded ON users(folded);

-- The checksum covers key, id and created_us; the rest is counted from the messages.
CREATE TABLE sessions(
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created_us INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    messages INTEGER NOT NULL DEFAULT 0,
    next_position INTEGER NOT NULL DEFAULT 0,
    first_us INTEGER,
    last_us INTEGER,
    last_key INTEGER,
    last_speaker TEXT
);

-- SENT, PART_OF and RESPONDS_TO are the columns user, session with position, and responds_to.
-- responds_to may name a message that has been deleted since; keys are not used again.
CREATE TABLE messages(
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    session INTEGER NOT NULL,
    position INTEGER NOT NULL,
    user INTEGER,
    responds_to INTEGER,
    role TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    offset_min INTEGER NOT NULL,
    arrived_us INTEGER NOT NULL,
    embedding TEXT NOT NULL,
    metadata TEXT,
    content TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    terms BLOB NOT NULL
);
CREATE UNIQUE INDEX messages_place ON messages(session, position);

CREATE TABLE memories(
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    content TEXT NOT NULL,
    kind TEXT NOT NULL,
    importance REAL NOT NULL,
    pinned INTEGER NOT NULL,
    session INTEGER,
    valid_from_us INTEGER,
    valid_to_us INTEGER,
    created_us INTEGER NOT NULL,
    metadata TEXT,
    checksum INTEGER NOT NULL,
    last_used_us INTEGER,
    uses INTEGER NOT NULL DEFAULT 0,
    terms BLOB NOT NULL
);

CREATE TABLE concepts(
    key INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    folded TEXT NOT NULL UNIQUE,
    type TEXT,
    description TEXT,
    confidence REAL NOT NULL,
    created_us INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);

CREATE TABLE edges(
    key INTEGER PRIMARY KEY,
    relation TEXT NOT NULL,
    source INTEGER NOT NULL,
    target INTEGER NOT NULL,
    weight REAL NOT NULL,
    valid_from_us INTEGER,
    valid_to_us INTEGER,
    checksum INTEGER NOT NULL
);
CREATE INDEX edges_source ON edges(source, relation);
CREATE INDEX edges_target ON edges(target, relation);

CREATE TABLE vectors(
    key INTEGER PRIMARY KEY,
    model INTEGER NOT NULL,
    scale REAL NOT NULL,
    data BLOB NOT NULL,
    checksum INTEGER NOT NULL
);

-- Stems come in ready, separated by spaces, so the tokenizer only has to split there.
CREATE VIRTUAL TABLE words USING fts5(
    terms, content='', contentless_delete=1, tokenize='ascii'
);
INSERT INTO words(words, rank) VALUES('secure-delete', 1);
CREATE VIRTUAL TABLE words_vocabulary USING fts5vocab(words, row);
"""

MIGRATIONS = (_FIRST,)
VERSION = len(MIGRATIONS)
