"""
The index of words on a server finds what SQLite's finds.

Method: the same messages are put into both, and both are asked the same. Scores come from the same
formula, so the best are compared in their order. Among several days FTS5 leaves out of the score a
word of a group of which another is missing, which moves it by a millionth.
"""

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import apsw
import pytest

from elytron.ledger import integers, word_reads
from elytron.ledger import words as sqlite_words
from elytron.ledger.postgres import migrating, words
from elytron.ledger.postgres.dsn import parse
from elytron.ledger.postgres.link import Link
from elytron.ledger.reads import Filter
from elytron.ledger.schema import MIGRATIONS

A, B = uuid.uuid4(), uuid.uuid4()
WAIT_S = 60.0
MESSAGES = 600
DAY = [n.to_bytes(3, "big") for n in (1, 2, 3)]  # stand in many messages, as dates do
VOCABULARY = [n.to_bytes(3, "big") for n in random.Random(1).sample(range(10, 1 << 24), 900)]
ANY = Filter()
Both = tuple[apsw.Connection, Link]


def said(count: int, seed: int = 2) -> list[tuple[int, bytes]]:
    """Messages, (key, terms), some terms often and most of them seldom, keys with gaps."""
    luck = random.Random(seed)
    weights = [1 / (rank + 3) for rank in range(len(VOCABULARY))]
    made, key = list[tuple[int, bytes]](), 0
    for number in range(count):
        key += luck.choice((1, 1, 2, 3))
        length = 1 + int(luck.expovariate(1 / 14))
        terms = luck.choices(VOCABULARY, weights, k=length)
        made.append((key, b"".join([*terms, DAY[number % 3], DAY[2]])))
    return made


def sqlite() -> apsw.Connection:
    db = apsw.Connection(":memory:")
    db.convert_binding = integers.bind
    for migration in MIGRATIONS:
        db.execute(migration).fetchall()
    return db


@pytest.fixture(scope="module")
def store(postgres) -> Iterator[Any]:
    """Makes links to a schema of this module's, with all tables."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    made: list[Link] = []

    def link(agent: uuid.UUID) -> Link:
        parameters = parse(postgres.dsn()).parameters(name)
        made.append(Link.connect(parameters, time.monotonic() + WAIT_S))
        made[-1].bind(agent)
        return made[-1]

    migrating.bring_up(link(A), name)
    yield link
    for one in made:
        one.close()
    postgres.execute(f"SET client_min_messages = error; DROP SCHEMA {name} CASCADE")


@pytest.fixture
def empty(store) -> Both:
    """Two empty indexes, one of each kind."""
    return sqlite(), store(uuid.uuid4())


@pytest.fixture(scope="module")
def both(store) -> Both:
    """The same messages in both."""
    here, there = sqlite(), store(A)
    messages = said(MESSAGES)
    add(here, there, messages)
    for db in (here, there):
        for name, table in (("s0", "sessions"), ("s1", "sessions")):
            key = 10_000 + int(name[1])
            db.execute(f"INSERT INTO {table} VALUES(?, ?, ?, ?)", (key, name, 1, 1))
        db.execute("INSERT INTO users VALUES(?, ?, ?, ?, ?)", (20_000, "al\0ice", "alice", 1, 1))
        db.executemany(
            "INSERT INTO messages VALUES(?, ?, ?, ?, ?, NULL, ?, ?, 0, 0, 'off', NULL, '', 1, ?)",
            [
                (key, f"m{key}", 10_000 + key % 2, key, 20_000 if key % 3 else None,
                 ("user", "assistant")[key % 4 == 0], 1000 * key, terms)
                for key, terms in messages
            ],
        )  # fmt: skip
    return here, there


def add(here: apsw.Connection, there: Link, messages: Sequence[tuple[int, bytes]]) -> None:
    for at in range(0, len(messages), 64):
        sqlite_words.add(here, messages[at : at + 64])
        words.add(there, messages[at : at + 64])


def questions(count: int, seed: int = 3) -> list[list[bytes]]:
    """Terms that are sought, some of which stand nowhere."""
    luck = random.Random(seed)
    return [
        [*luck.sample(VOCABULARY[:60], luck.randint(0, 2)), *luck.sample(VOCABULARY, 4), b"\0\0\7"]
        for _ in range(count)
    ]


def test_it_holds_as_many_messages_and_terms_and_each_as_often(both):
    here, there = both
    assert words.totals(there) == word_reads.totals(here)
    assert words.totals(there)[0] == MESSAGES
    assert words.vocabulary(there) == word_reads.vocabulary(here)
    for asked in questions(20):
        expected = word_reads.document_frequencies(here, asked)
        assert words.document_frequencies(there, asked) == expected
    assert words.document_frequencies(there, []) == {}


@pytest.mark.parametrize("limit", [1, 10, 100, 1000])
def test_the_best_are_those_of_fts5_in_their_order(both, limit):
    here, there = both
    for asked in questions(25):
        assert words.match(there, asked, ANY, limit=limit) == word_reads.match(
            here, asked, ANY, limit=limit
        )


@pytest.mark.parametrize(
    "accept",
    [
        Filter(session="s1"),
        Filter(user="al\0ice"),
        Filter(role="assistant"),
        Filter(since_us=300_000, until_us=700_000),
        Filter("s0", "al\0ice", "user", 100_000, 900_000),
        Filter(session="nowhere"),
        Filter(session="' OR 1 = 1 --"),
    ],
)
def test_what_a_filter_leaves_is_the_same(both, accept):
    here, there = both
    for asked in questions(5):
        found = words.match(there, asked, accept, limit=50)
        assert found == word_reads.match(here, asked, accept, limit=50)
        days = [[DAY[0], DAY[2]], [DAY[1]]]
        found = words.match_days(there, days, asked, accept, limit=MESSAGES)
        expected = word_reads.match_days(here, days, asked, accept, limit=MESSAGES)
        assert set(found) == set(expected)


@pytest.mark.parametrize("accept", [ANY, Filter(session="s1", role="user"), None])
def test_all_that_is_asked_of_terms_comes_from_one_look(both, monkeypatch, accept):
    _, there = both
    for asked in ([], [b"\0\0\7"], [DAY[2]], *questions(10)):
        looked = words.look(there, asked, accept, limit=30)
        assert looked.frequencies == words.document_frequencies(there, asked)
        assert (looked.messages, looked.terms) == words.totals(there)
        best = None if accept is None else words.match(there, asked, accept, limit=30)
        assert looked.best == best
    # A word that is in too many may not count, so that others would be best.
    monkeypatch.setattr(words, "_HOLDING_MAX", MESSAGES - 1)
    assert words.look(there, [DAY[2]], accept, limit=30).best is None


@pytest.mark.parametrize(
    "days", [[[DAY[0]]], [[DAY[0], DAY[2]]], [[DAY[0], DAY[1]]], [[DAY[0], DAY[2]], [DAY[1]]]]
)
def test_days_are_found_with_a_word_and_without(both, days):
    here, there = both
    for asked in ([], *questions(8)):
        every = set(words.match_days(there, days, asked, ANY, limit=MESSAGES))
        assert every == set(word_reads.match_days(here, days, asked, ANY, limit=MESSAGES))
        found = words.match_days(there, days, asked, ANY, limit=20)
        expected = word_reads.match_days(here, days, asked, ANY, limit=20)
        if asked and len(days) > 1:
            assert len(set(found) & set(expected)) >= len(expected) - 2
        else:
            assert found == expected
    if days == [[DAY[0], DAY[1]]]:
        assert not every, "no message has two days"


def test_the_newest_with_each_of_some_words_are_found(both):
    here, there = both
    often = VOCABULARY[:40]
    luck = random.Random(4)
    for _ in range(20):
        asked = [luck.sample(often, luck.randint(1, 3)) for _ in range(luck.randint(1, 3))]
        up_to = luck.randint(1, 1200)
        for limit in (1, 5, 500):
            expected = word_reads.with_words(here, asked, up_to=up_to, limit=limit)
            assert words.with_words(there, asked, up_to=up_to, limit=limit) == expected


def test_more_words_and_days_than_can_be_told_apart_are_cut(both):
    here, there = both
    terms = [b"\0\1" + bytes([n]) for n in range(80)]
    days = [[DAY[0], DAY[2]], *([term] for term in terms)]
    found = words.match_days(there, days, [], ANY, limit=MESSAGES)
    assert found == word_reads.match_days(here, days, [], ANY, limit=MESSAGES)
    asked = [[DAY[2]]] * 63 + [[term] for term in terms]
    assert len(words.with_words(there, asked, up_to=10**6, limit=MESSAGES)) == MESSAGES


def test_what_leaves_is_found_no_more(empty):
    """
    Method: messages leave one by one, then many at once, then come back at their old keys with
    other words, as an edit and a restore do it; both indexes are compared each time.
    """
    here, there = empty
    messages = said(500, seed=5)
    add(here, there, messages)
    keys = [key for key, _ in messages]
    words.remove(there, [keys[-1] + 5, 10**9, 0])  # what is not in it
    luck = random.Random(6)
    for leaving in ([keys[3]], [keys[499]], luck.sample(keys, 60), keys[100:400], keys[:100]):
        sqlite_words.remove(here, leaving)
        words.remove(there, leaving)
        compare(here, there)
    add(here, there, [(key, b"".join(VOCABULARY[n : n + 3])) for n, key in enumerate(keys[:90])])
    compare(here, there)
    words.remove(there, keys)
    assert words.totals(there) == (0, 0)
    for table in ("words", "word_blocks"):
        assert there.native(f"SELECT count(*) FROM {table} WHERE agent_id = %(agent)s")[0][0] == 0


def compare(here: apsw.Connection, there: Link) -> None:
    assert words.totals(there) == word_reads.totals(here)
    for asked in questions(5):
        found = words.match(there, asked, ANY, limit=50)
        assert found == word_reads.match(here, asked, ANY, limit=50)


def test_a_message_without_words_and_one_of_very_many_are_counted(empty):
    here, there = empty
    much = (VOCABULARY[0] * 40 + VOCABULARY[1]) * 20_000
    messages = [(1, b""), (511, VOCABULARY[0]), (512, b""), (513, much), (1 << 40, VOCABULARY[1])]
    add(here, there, messages)
    assert words.totals(there) == (5, 2 + (1 << 18) - 1), "a length ends at 18 bits"
    assert words.vocabulary(there) == {term.hex(): 2 for term in VOCABULARY[:2]}
    assert set(words.match(there, [VOCABULARY[1]], ANY, limit=9)) == {513, 1 << 40}
    words.remove(there, [1, 512, 513])
    assert words.totals(there) == (2, 2)
    assert words.match(there, VOCABULARY[:2], ANY, limit=9) == [511, 1 << 40]


def test_an_agent_finds_his_own_words_only(store):
    one, other = store(uuid.uuid4()), store(uuid.uuid4())
    words.add(one, [(1, VOCABULARY[0] + VOCABULARY[1])])
    words.add(other, [(1, VOCABULARY[0]), (2, VOCABULARY[0])])
    assert words.match(one, [VOCABULARY[0]], ANY, limit=9) == [1]
    assert words.totals(one) == (1, 2)
    assert words.document_frequencies(other, VOCABULARY[:2]) == {VOCABULARY[0]: 2}
    words.reset(one)
    assert words.totals(one) == (0, 0)
    assert words.match(one, [VOCABULARY[0]], ANY, limit=9) == []
    assert words.totals(other) == (2, 2)


def test_what_was_indexed_in_a_transaction_that_is_undone_is_not_found(store):
    link = store(uuid.uuid4())
    words.add(link, [(1, VOCABULARY[0])])
    link.execute("BEGIN")
    words.add(link, [(2, VOCABULARY[0])])
    words.remove(link, [1])
    assert words.match(link, [VOCABULARY[0]], ANY, limit=9) == [2]
    link.execute("ROLLBACK")
    assert words.match(link, [VOCABULARY[0]], ANY, limit=9) == [1]
    assert words.totals(link) == (1, 1)
