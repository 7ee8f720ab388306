"""What does not wait for an answer is asked in one round trip; what a recall asks takes few."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import elytron
from elytron import Agent
from elytron.ledger import ahead, reads
from elytron.ledger.database import Database
from elytron.ledger.postgres import wire
from elytron.ledger.postgres.ledger import Lending
from elytron.ledger.postgres.link import Link
from moved import talk
from postgres_roles import Store, layout
from quiet import alone

MESSAGES = 150
TRIPS_MAX = 4  # the beginning, places, texts, the end
SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
BOB = Lending.agent_id("bob")
Open = Callable[..., Agent]


@pytest.fixture(scope="module")
def store(postgres) -> Iterator[Store]:
    with layout(postgres, f"t_{uuid.uuid4().hex[:12]}") as one:
        one.bring_up()
        yield one


@pytest.fixture(scope="module")
def bobs(store, tmp_path_factory) -> Iterator[tuple[Agent, Agent]]:
    """Bob on a server, and in a file: the same messages."""
    folder = tmp_path_factory.mktemp("files")
    settings: dict[str, Any] = {"auto_cleanup": False}
    there = elytron.open(
        store.server.dsn(user=store.user),
        files_path=str(folder / "there"),
        postgres_schema=store.schema,
        **settings,
    )
    with there, elytron.open(folder / "here", **settings) as here:
        made = there.agent("bob"), here.agent("bob")
        for bob in made:
            bob.save_many(talk(MESSAGES, sessions=3))
            bob.flush()
            alone(bob)  # else the round trips of the background are counted, too
        yield made


@pytest.fixture
def link(store, bobs) -> Link:
    made: Link = store.link(store.user, BOB)
    return made


@pytest.fixture
def trips(monkeypatch) -> list[int]:
    """How many statements each round trip had."""
    counted: list[int] = []
    trip = wire.Wire.trip

    def count(self: wire.Wire, commands: list[wire.Command]) -> Any:
        counted.append(len(commands))
        return trip(self, commands)

    monkeypatch.setattr(wire.Wire, "trip", count)
    return counted


def count_after(db: Database, key: int) -> int:
    found: int = db.execute("SELECT count(*) FROM messages WHERE key > ?", (key,)).get
    return found


def test_what_is_asked_ahead_takes_one_round_trip(link, trips):
    link.execute(SNAPSHOT)
    ahead.ask(link, lambda db: count_after(db, 0), lambda db: reads.unindexed(db, "bob"))
    asked = len(trips)
    assert asked == 1
    assert count_after(link, 0) == MESSAGES
    assert count_after(link, 0) == MESSAGES
    assert len(reads.unindexed(link, "bob")) < MESSAGES
    assert len(trips) == asked
    assert count_after(link, 1 << 40) == 0  # another value is another question
    assert len(trips) == asked + 1
    link.execute("ROLLBACK")


def test_an_answer_is_at_hand_until_its_snapshot_ends(link, store, trips):
    for end in ("ROLLBACK", "COMMIT"):
        link.execute(SNAPSHOT)
        ahead.ask(link, lambda db: count_after(db, 0))
        assert count_after(link, 0) == MESSAGES
        link.execute(end)
        asked = len(trips)
        assert count_after(link, 0) == MESSAGES
        assert len(trips) == asked + 1


@pytest.mark.parametrize("begin", [None, "BEGIN IMMEDIATE", "BEGIN"])
def test_without_a_snapshot_nothing_is_kept(link, trips, begin):
    if begin:
        link.execute(begin)
    ahead.ask(link, lambda db: count_after(db, 0))
    assert not trips
    assert count_after(link, 0) == MESSAGES
    assert len(trips) == 1
    if begin:
        link.execute("ROLLBACK")


def test_what_asks_nothing_costs_nothing(link, trips):
    link.execute(SNAPSHOT)
    ahead.ask(link, lambda _db: None)
    ahead.ask(link)
    link.execute("ROLLBACK")
    assert not trips


def test_what_goes_wrong_on_the_way_to_the_first_statement_is_raised(link):
    def broken(_db: Database) -> None:
        raise ValueError("of its own")

    link.execute(SNAPSHOT)
    with pytest.raises(ValueError, match="of its own"):
        ahead.ask(link, broken)
    link.execute("ROLLBACK")


def test_another_agent_has_none_of_the_answers(link):
    link.execute(SNAPSHOT)
    ahead.ask(link, lambda db: count_after(db, 0))
    assert count_after(link, 0) == MESSAGES
    link.bind(Lending.agent_id("carol"))
    assert count_after(link, 0) == 0
    link.execute("ROLLBACK")


def test_a_recall_takes_few_round_trips(bobs, trips):
    there, here = bobs
    for question in ("what of unique7x?", "who spoke about tea and unique12x, naïvely?"):
        trips.clear()
        found = there.recall(question)
        assert len(trips) <= TRIPS_MAX
        expected = [(hit.message.id, round(hit.score, 6)) for hit in here.recall(question)]
        assert [(hit.message.id, round(hit.score, 6)) for hit in found] == expected


def test_messages_and_those_beside_them_are_those_of_a_file(bobs, link):
    _, here = bobs
    with here._agents.use("bob", create=False) as opened:
        assert opened is not None
        with opened.ledger.reading() as db:
            keys = [key for (key,) in db.execute("SELECT key FROM messages ORDER BY key")]
            for asked in (
                [],
                keys[:1],
                keys[-1:],
                keys[40:42],
                keys[::7],
                keys,
                [*keys[:3], 1 << 40],
            ):
                expected = reads.places(db, asked, "here")
                found = reads.places(link, asked, "there")
                assert len(found) == len(set(found))
                assert sorted(found) == sorted(expected)
