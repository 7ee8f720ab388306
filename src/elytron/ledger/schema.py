"""
Schema: numbered migrations of the ledger. A migration, once released, is never edited.

Every row that holds something true (not derived) has a checksum, see `rows.py`. All keys and
change numbers come from one sequence: they rise, are never used twice, and are unique across
kinds, so one full-text index can hold messages and memories side by side.
"""

APPLICATION_ID = 0x454C5954  # "ELYT"

# What a row of `changes` is about. Numbers are stored: add, never renumber.
MESSAGE, SESSION, USER, MEMORY, CONCEPT, RELATION = 1, 2, 3, 4, 5, 6
# How far, in numbers of the sequence, the word index may lie behind the messages.
UNINDEXED_MAX = 64

# What was done. LINK: what a message or memory mentions was made anew.
SAVE, EDIT, DELETE, LINK = 1, 2, 3, 4
# How a concept came to be known.
TOLD, EXTRACTED, PROPOSED = 0, 1, 2
# Why one that was to have a vector has none: `max_vector_mb` is reached; the embedder refuses it.
NO_VECTOR_ROOM, NO_VECTOR_GIVEN = 1, 2

_FIRST = """
CREATE TABLE meta(
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Ids, never text: what later readers (graph, embedder) have to look at again, in order. That a
-- message was saved is not written here: its key is its place in the same order, and a row less
-- is a page less to bring to the disk for each save. `reads.changes` joins the two. The ordinal
-- counts the rows written, so that their number is known without counting them.
CREATE TABLE changes(
    seq INTEGER PRIMARY KEY,
    ordinal INTEGER NOT NULL,
    op INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key INTEGER NOT NULL
);

CREATE TABLE users(
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    folded TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX users_folded ON users(folded);

-- What a session holds is counted from its messages: a row here is written once, so that a
-- save has one page less to bring to the disk.
CREATE TABLE sessions(
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created_us INTEGER NOT NULL,
    checksum INTEGER NOT NULL
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

-- Terms stand here as their hashes in hexadecimal, so the index is made from messages.terms
-- alone, and holds nobody's words. The tokenizer only has to split at the spaces.
CREATE VIRTUAL TABLE words USING fts5(
    terms, content='', contentless_delete=1, tokenize='ascii'
);
-- One row: the key up to which messages are in it.
CREATE TABLE indexed(key INTEGER NOT NULL);
INSERT INTO words(words, rank) VALUES('secure-delete', 1);
-- FTS5's own merging writes hundreds of pages in one commit now and then; `writes.py` merges in
-- small steps instead.
INSERT INTO words(words, rank) VALUES('automerge', 0);
INSERT INTO words(words, rank) VALUES('crisismerge', 256);
CREATE VIRTUAL TABLE words_vocabulary USING fts5vocab(words, row);
"""

_LIMITS = """
-- What a person said of a message's worth. Most have no row here, so a save has no page more.
CREATE TABLE marks(
    key INTEGER PRIMARY KEY,
    importance REAL,
    pinned INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);

-- How often a message was recalled, and when last. Counted in memory and written now and then: a
-- crash may lose some.
CREATE TABLE uses(
    key INTEGER PRIMARY KEY,
    uses INTEGER NOT NULL,
    last_us INTEGER NOT NULL
);

-- The last position that a session gave away to a message that has been archived since.
CREATE TABLE tails(
    session INTEGER PRIMARY KEY,
    position INTEGER NOT NULL
);

-- Archive segments whose messages are on their way out of the ledger, or back into it, and which
-- run moves them. While a row stands they may be in both; whoever finds one of a dead run makes it
-- one (the ledger wins).
CREATE TABLE moving(
    segment TEXT PRIMARY KEY,
    run TEXT NOT NULL
) WITHOUT ROWID;

-- What was deleted while something was moving, by id, or by key (kind 0): it must not come back
-- with it. What is saved under the same id afterwards has a greater key.
CREATE TABLE gone(
    kind INTEGER NOT NULL,
    id TEXT NOT NULL,
    key INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
"""

_CONCEPTS = """
-- Nothing could be written to these two before.
DROP TABLE edges;
DROP TABLE concepts;

-- origin says how it came to be known: told (0), extracted (1) or proposed (2).
CREATE TABLE concepts(
    key INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    folded TEXT NOT NULL UNIQUE,
    type TEXT,
    description TEXT,
    confidence REAL NOT NULL,
    origin INTEGER NOT NULL,
    created_us INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);

-- Which message or memory names which concept. Where nobody told it (0), it follows from the text
-- and can be made anew.
CREATE TABLE mentions(
    source INTEGER NOT NULL,
    concept INTEGER NOT NULL,
    confidence REAL NOT NULL,
    told INTEGER NOT NULL,
    PRIMARY KEY (source, concept)
) WITHOUT ROWID;
CREATE INDEX mentions_concept ON mentions(concept, source);

-- learned_from: the message that an extractor read it in.
CREATE TABLE relations(
    key INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    relation TEXT NOT NULL,
    target INTEGER NOT NULL,
    strength REAL NOT NULL,
    valid_from_us INTEGER,
    valid_to_us INTEGER,
    learned_from INTEGER,
    checksum INTEGER NOT NULL
);
CREATE INDEX relations_source ON relations(source, relation);
CREATE INDEX relations_target ON relations(target);
CREATE INDEX relations_learned ON relations(learned_from) WHERE learned_from IS NOT NULL;
CREATE INDEX memories_session ON memories(session) WHERE session IS NOT NULL;

-- How far in the order of changes those have come who follow it.
CREATE TABLE readers(
    name TEXT PRIMARY KEY,
    seq INTEGER NOT NULL
) WITHOUT ROWID;

-- Concepts made since, and the message from which on older ones are still to be looked through.
CREATE TABLE unlinked(
    concept INTEGER PRIMARY KEY,
    key INTEGER NOT NULL
);

-- Names and quoted terms that may become concepts: how many messages had them, and the last one.
CREATE TABLE heard(
    folded TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    times INTEGER NOT NULL,
    key INTEGER NOT NULL
) WITHOUT ROWID;
"""

_VECTORS = """
-- Nothing could be written to it before.
DROP TABLE vectors;

-- One row, once there are vectors: whose they are, by which projection new ones are reduced (0 for
-- none), the number of the one that was added last, how many were removed, and what they take.
CREATE TABLE embedder(
    one INTEGER PRIMARY KEY CHECK (one = 1),
    name TEXT NOT NULL,
    dim INTEGER NOT NULL,
    projection INTEGER NOT NULL,
    last INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);

-- Components in half precision, a row of `input` numbers each. Vectors up to the number
-- `last`, the last one then, are still to be reduced by it; those that are get new numbers.
CREATE TABLE projections(
    version INTEGER PRIMARY KEY,
    input INTEGER NOT NULL,
    dims INTEGER NOT NULL,
    fitted_on INTEGER NOT NULL,
    last INTEGER NOT NULL,
    data BLOB NOT NULL,
    checksum INTEGER NOT NULL
);

-- One byte a dimension, times the scale. Numbers rise and are never used twice, so whoever has read
-- up to one knows what is new. The digest is of the text, by which equal texts find each other.
CREATE TABLE vectors(
    number INTEGER PRIMARY KEY,
    key INTEGER NOT NULL UNIQUE,
    digest INTEGER NOT NULL,
    projection INTEGER NOT NULL,
    scale REAL NOT NULL,
    data BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX vectors_digest ON vectors(digest);

-- Messages and memories whose text another one has too, with whom they share its vector.
CREATE TABLE shared(
    key INTEGER PRIMARY KEY,
    digest INTEGER NOT NULL
);
CREATE INDEX shared_digest ON shared(digest);

-- Why one that was to have a vector has none.
CREATE TABLE unembedded(
    key INTEGER PRIMARY KEY,
    reason INTEGER NOT NULL
);
"""

_DESCRIBED = """
-- The message in which an extractor read what is told of a concept: its type (1), its description
-- (2) or both (3). What a person tells of it is not from there. The message may be archived. Of
-- concepts of earlier versions nothing is noted.
CREATE TABLE described(
    concept INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    parts INTEGER NOT NULL
);
CREATE INDEX described_source ON described(source);

-- Few, and looked at however many are newer.
CREATE INDEX memories_pinned ON memories(pinned) WHERE pinned = 1;
"""

MIGRATIONS = (_FIRST, _LIMITS, _CONCEPTS, _VECTORS, _DESCRIBED)
VERSION = len(MIGRATIONS)
