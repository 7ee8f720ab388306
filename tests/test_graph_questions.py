"""Questions to a graph: what is near, and the shortest way, as a search of the ledger says."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

import elytron
from elytron.errors import ElytronError
from elytron.graph import questions
from elytron.graph.client import GraphClient, Rows, Statement
from elytron.graph.questions import Nearby, Way
from projecting import Graph, clients, projecting

# In a file and on a server.
pytestmark = pytest.mark.ledgers

OpenStore = Callable[..., elytron.Store]
START = datetime(2024, 5, 8, tzinfo=UTC)


@pytest.fixture
def start_client() -> Iterator[Callable[[str], GraphClient]]:
    with clients() as start:
        yield start


@pytest.fixture
def client(start_client: Callable[[str], GraphClient]) -> GraphClient:
    return start_client("ladybug")


def relate_at_random(bob: elytron.Agent, dice: Random) -> None:
    names = [f"Name {letter}" for letter in "ABCDEFGHIJ"]
    for _ in range(14):
        begin = START + timedelta(days=dice.randrange(10))
        with contextlib.suppress(ElytronError):
            bob.relate(
                dice.choice(names),
                dice.choice(["likes", "saw"]),
                dice.choice(names),
                strength=dice.choice([0.25, 0.5, 1.0]),
                valid_from=dice.choice([None, begin]),
                valid_to=dice.choice([None, begin + timedelta(days=3)]),
            )
    for number in range(6):
        about = dice.sample(names, dice.randrange(1, 4))
        bob.remember(f"text {number}", about=about)


def near(
    bob: elytron.Agent, as_of: datetime | None, only: str | None = None
) -> dict[str, set[str]]:
    """Who is related to whom then, in either direction, from the ledger."""
    found: dict[str, set[str]] = {}
    for relation in bob.relations(as_of=as_of):
        if only in (None, relation.relation):
            found.setdefault(relation.source, set()).add(relation.target)
            found.setdefault(relation.target, set()).add(relation.source)
    return found


def depths(start: str, edges: dict[str, set[str]]) -> dict[str, int]:
    found, reached, depth = {start: 0}, [start], 0
    while reached:
        depth += 1
        reached = sorted({name for key in reached for name in edges.get(key, ())} - found.keys())
        found |= dict.fromkeys(reached, depth)
    return found


@pytest.mark.files  # the graph's, which are the same
@pytest.mark.parametrize(("engine", "agents"), [("ladybug", 3), ("kuzu", 1)])
def test_questions_are_answered_as_plain_search_over_the_ledger_answers_them(
    engine: str, agents: int, open_store: OpenStore, start_client: Callable[[str], GraphClient]
):
    store, client, dice = open_store(engine=engine), start_client(engine), Random(11)
    for number in range(agents):
        bob = store.agent(f"bob {number}")
        relate_at_random(bob, dice)
        with projecting(bob, client) as graph:

            def ask(statement: Statement, graph: Graph = graph) -> Rows:
                return graph.ask(statement, rows_max=questions.ROWS_MAX)

            for as_of in (None, START + timedelta(days=4)):
                edges = near(bob, as_of)
                for concept in bob.concepts():
                    check_nearby(bob, concept.name, as_of, ask)
                    for other in bob.concepts():
                        check_way(concept.name, other.name, as_of, edges, ask)


def check_nearby(bob: elytron.Agent, name: str, as_of: datetime | None, ask: questions.Ask) -> None:
    edges = near(bob, as_of)
    together: dict[str, int] = {}
    for memory in bob.memories(about=name):
        for other in memory.about:
            together[other] = together.get(other, 0) + 1
    for depth in (1, 2, 3):
        expected = {other: at for other, at in depths(name, edges).items() if 0 < at <= depth}
        found = questions.nearby(Nearby(name.upper(), depth, None, as_of, 1000), ask)
        mentioned = {one.name: one for one in found if one.relation == questions.MENTIONED_WITH}
        related = {one.name: one.depth for one in found if one.name not in mentioned}
        assert related == {
            other: at for other, at in expected.items() if at == 1 or other not in mentioned
        }
        assert {other: one.times for other, one in mentioned.items()} == {
            other: times
            for other, times in together.items()
            if other != name and expected.get(other) != 1
        }
        assert [one.depth for one in found] == sorted([one.depth for one in found])
        assert questions.nearby(Nearby(name, depth, None, as_of, 3), ask) == found[:3]
        only = questions.nearby(Nearby(name, depth, "likes", as_of, 1000), ask)
        likes = depths(name, near(bob, as_of, "likes"))
        assert {one.name: one.depth for one in only} == {
            other: at for other, at in likes.items() if 0 < at <= depth
        }


def check_way(
    source: str, target: str, as_of: datetime | None, edges: dict[str, set[str]], ask: questions.Ask
) -> None:
    distance = depths(source, edges).get(target)
    found = questions.way(Way(source, target.lower(), 6, as_of), ask)
    if distance is None or distance > 6:
        assert found is None
        return
    assert found is not None
    assert len(found) == distance
    at = source
    for relation in found:
        assert at in (relation.source, relation.target)
        at = relation.target if at == relation.source else relation.source
        moment = as_of or datetime.now(UTC)
        assert relation.valid_from is None or relation.valid_from <= moment
        assert relation.valid_to is None or relation.valid_to > moment
    assert at == target
    if distance > 1:
        assert questions.way(Way(source, target, distance - 1, as_of), ask) is None


def test_a_name_that_nobody_knows_is_near_nothing(bob: elytron.Agent, client: GraphClient):
    bob.relate("Alice", "likes", "tea")
    with projecting(bob, client) as graph:
        assert questions.nearby(Nearby("Carol"), graph.ask) == []
        assert questions.way(Way("Alice", "Carol"), graph.ask) is None
        assert questions.way(Way("alice", "ALICE"), graph.ask) == []
    assert questions.nearby(Nearby("Alice"), lambda _: None) == []


def test_a_way_tells_in_which_message_a_relation_was_read(bob: elytron.Agent, client: GraphClient):
    for one, other in itertools.pairwise(["Alice", "tea", "China"]):
        bob.relate(one, "likes", other)
    with projecting(bob, client) as graph:
        asked = list[int]()

        def learned_from(keys: Any) -> dict[int, str]:
            asked.extend(keys)
            return {keys[1]: "m7"}

        found = questions.way(Way("Alice", "China"), graph.ask, learned_from)
        assert found is not None
        assert [relation.learned_from for relation in found] == [None, "m7"]
        assert len(asked) == 2


def test_the_strongest_of_several_relations_is_the_one_that_is_told(
    bob: elytron.Agent, client: GraphClient
):
    for relation, strength in (("knows", 0.5), ("likes", 0.9), ("avoids", 0.9)):
        bob.relate("Alice", relation, "Bert", strength=strength)
    with projecting(bob, client) as graph:
        (found,) = questions.nearby(Nearby("Alice"), graph.ask)
        assert (found.name, found.depth, found.relation) == ("Bert", 1, "avoids")
        ways = questions.way(Way("Bert", "Alice"), graph.ask)
        assert ways is not None
        assert [way.relation for way in ways] == ["likes"]
