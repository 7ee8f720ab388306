"""Options of verbs: what an answer is narrowed to, how long it may take, and how far work is."""

from datetime import UTC, datetime, timedelta

import pytest

import elytron
from backups import fill, make
from elytron import DeadlineExceeded, InvalidArgument
from embedders import Hashing, by_hand, check_vectors

# In a file and on a server; those marked `files` are of folders.
pytestmark = pytest.mark.ledgers

MAY = datetime(2024, 5, 1, tzinfo=UTC)
ENDLESS = "UNWIND range(1, 1000000) AS x UNWIND range(1, 1000000) AS y RETURN sum(x * y) AS n"


@pytest.fixture
def told(bob):
    """Three messages about tea, which differ in all that an answer may be narrowed by."""
    for number, (role, session) in enumerate(
        [("user", "web"), ("assistant", "web"), ("user", "phone")]
    ):
        at = MAY + timedelta(days=number)
        bob.save(role, f"Tea number{number}", id=str(number), session=session, at=at)
    return bob


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ({}, "012"), ({"session": "web"}, "01"), ({"session": "phone"}, "2"),
        ({"session": "none"}, ""), ({"role": "user"}, "02"), ({"role": "assistant"}, "1"),
        ({"since": MAY + timedelta(days=1)}, "12"), ({"until": MAY + timedelta(days=1)}, "0"),
        ({"since": MAY + timedelta(hours=1), "until": MAY + timedelta(days=2)}, "1"),
        ({"role": "user", "session": "web", "until": MAY + timedelta(hours=1)}, "0"),
    ],
)  # fmt: skip
def test_a_context_holds_only_what_it_is_narrowed_to(told, only, expected):
    context = told.context("tea", **only)
    assert {hit.message.id for hit in context.hits} == set(expected)
    assert [number for number in "012" if f"number{number}" in context.text] == list(expected)


@pytest.mark.parametrize("question", [None, "tea"])
def test_memories_of_a_session_are_those_that_were_told_in_it(bob, question):
    """Also of those that held at another time."""
    bob.remember("She likes tea", id="tea", session="web", valid_to=MAY)
    bob.remember("She likes green tea", id="green", session="web", valid_from=MAY)
    bob.remember("He likes tea", id="his", session="phone")
    bob.remember("They like tea", id="theirs")

    def ids(**only):
        return {memory.id for memory in bob.memories(question, **only)}

    before = MAY - timedelta(days=1)
    assert ids() == {"green", "his", "theirs"}
    assert ids(session="web") == {"green"}
    assert ids(session="web", as_of=before) == {"tea"}
    assert ids(session="phone", as_of=before) == {"his"}
    assert ids(session="none") == ids(session="none", as_of=before) == set()
    with pytest.raises(InvalidArgument, match="session"):
        bob.memories(question, session="")


def test_a_query_that_takes_longer_than_it_may_is_ended_and_the_next_is_answered(told):
    assert told.cypher("RETURN 1 AS n") == [{"n": 1}], "the worker is there"
    with pytest.raises(DeadlineExceeded, match="did not answer within"):
        told.cypher(ENDLESS, timeout_s=0.3)
    assert told.cypher("MATCH (m:Message) RETURN count(m) AS n", timeout_s=60) == [{"n": 3}]


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 1e9, "1", True])
def test_a_query_may_not_take_so_many_seconds(told, timeout_s):
    with pytest.raises(InvalidArgument, match="timeout_s must be a number above 0"):
        told.cypher("RETURN 1 AS n", timeout_s=timeout_s)


@pytest.mark.files
@pytest.mark.parametrize("extract", ["a function", 7, ("Alice",)])
def test_what_cannot_be_called_extracts_nothing(folder, extract):
    with pytest.raises(InvalidArgument, match="extract must be callable"):
        elytron.open(folder, extract=extract)
    assert not folder.exists()


@pytest.mark.files
def test_a_restore_from_a_backup_says_how_far_it_is(folder, tmp_path):
    make(folder)
    with elytron.open(folder) as store:
        assert store.backup(tmp_path / "backup").ok
    far = []
    report = elytron.restore_backup(
        tmp_path / "backup", tmp_path / "other", on_progress=lambda *now: far.append(now)
    )
    assert report.ok
    assert far[-1] == (2, 2)
    assert far == sorted(far)


def test_embedding_anew_says_how_far_it_is(open_store):
    bob = by_hand(open_store(embedder=Hashing(), embed_batch_max=4).agent("bob"))
    fill(bob, 0, 10)
    bob.embed()
    far = []
    done = bob.reembed(on_progress=lambda *now: far.append(now))
    assert done.embedded == 10
    assert far[-1] == (10, 10)
    assert far == sorted(far)
    check_vectors(bob)
