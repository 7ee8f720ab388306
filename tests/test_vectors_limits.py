"""Vectors keep within their limits at every moment, and no message leaves for their sake."""

import contextlib
import random

import pytest

from elytron.config import Config
from elytron.embed import policy
from elytron.errors import OverBudget
from elytron.ledger.connection import FRAME_BYTES
from elytron.ledger.embedded import AddVectors
from elytron.ledger.ops import SaveOne
from elytron.ledger.room import NoRoom
from elytron.ledger.sqlite import Ledger
from elytron.ledger.vectors import ROW_BYTES
from elytron.text import Analyzer
from elytron.upkeep import embedding
from elytron.write.admission import IdClock, admit
from elytron.write.queue import Quota
from elytron.write.writer import Writer
from embedders import DIM, Hashing, by_hand, check_vectors, covered, query, steps
from limits import watched
from moved import ALL
from quiet import without_janitor

MB = 1 << 20


@contextlib.contextmanager
def vector_bytes(agent):
    """What all vectors take after each commit, by their rows."""
    found = []
    plain = Ledger._transact

    def transact(self, db, ops):
        results = plain(self, db, ops)
        sql = "SELECT ifnull(sum(length(data) + ?), 0) FROM vectors"
        found.append(db.execute(sql, (ROW_BYTES,)).get)
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "_transact", transact)
        yield found


def text(number):
    return f"This is a message number {number}."


def opened(open_store, dim=DIM, **settings):
    return by_hand(open_store(embedder=Hashing(dim), reserve_mb=0, **settings).agent("bob"))


def test_the_least_valuable_vectors_go_and_their_messages_stay(open_store):
    bob = opened(open_store, max_vector_mb=0.01)
    fits = bob._agents.config.max_vector_bytes // (DIM + ROW_BYTES)
    with vector_bytes(bob) as taken:
        for number in range(300):
            bob.save("user", text(number), id=str(number), importance=0.9 if number < 5 else None)
            if number % 10 == 9:
                steps(bob)
                check_vectors(bob, dim=DIM)
    assert max(taken) <= bob._agents.config.max_vector_bytes
    assert len(list(bob.messages())) == 300
    left = set(covered(bob))
    assert {"0", "1", "2", "3", "4"} <= left
    assert {str(number) for number in range(285, 300)} <= left
    assert len(left) > fits * 0.8
    usage = bob.usage().embeddings
    assert usage.reasons == {policy.EMBEDDED: len(left), policy.NO_ROOM: 300 - len(left)}
    assert usage.bytes <= usage.limit_bytes


@pytest.mark.parametrize("copies", [1, 2, 40])
def test_a_step_that_is_larger_than_all_room_ends(open_store, copies):
    """Equal texts too: what shares a vector that found no room has none."""
    bob = opened(open_store, 1024, max_vector_mb=0.01, min_embed_chars=0)
    for number in range(40):
        bob.save("user", text(number // copies))
    with vector_bytes(bob) as taken:
        steps(bob)
    assert max(taken) <= bob._agents.config.max_vector_bytes
    check_vectors(bob, dim=1024)
    fits = bob._agents.config.max_vector_bytes // (1024 + ROW_BYTES)
    assert len(covered(bob)) == min(40, fits * copies)
    reasons = bob.usage().embeddings.reasons
    assert reasons.get(policy.NO_ROOM, 0) == 40 - len(covered(bob))
    made = bob.embed()
    assert made.left_out.get(policy.NO_ROOM, 0) == 40 - len(covered(bob))
    check_vectors(bob, dim=1024)


def test_by_hand_older_ones_push_no_newer_ones_out_and_the_reason_is_noted(open_store):
    bob = open_store().agent("bob")
    for number in range(40):
        bob.save("user", text(number), id=str(number))
    bob._agents.close()
    bob = opened(open_store, 1024, max_vector_mb=0.01)
    made = bob.embed()
    fits = bob._agents.config.max_vector_bytes // (1024 + ROW_BYTES)
    assert (made.embedded, made.left_out) == (fits, {policy.NO_ROOM: 40 - fits})
    assert set(covered(bob)) == {str(number) for number in range(40 - fits, 40)}
    reasons = {policy.EMBEDDED: fits, policy.NO_ROOM: 40 - fits}
    assert bob.usage().embeddings.reasons == reasons
    check_vectors(bob, dim=1024)
    assert bob.embed().left_out == {policy.NO_ROOM: 40 - fits}


def test_with_more_room_later_what_went_comes_back_by_embed(open_store):
    bob = opened(open_store, 1024, max_vector_mb=0.01)
    for number in range(40):
        bob.save("user", text(number))
    steps(bob)
    bob._agents.close()
    bob = opened(open_store, 1024)
    steps(bob)
    assert len(covered(bob)) < 10
    bob.embed()
    assert bob.usage().embeddings.reasons == {policy.EMBEDDED: 40}


@pytest.mark.parametrize("dim", [128, 1024, 8192])
@pytest.mark.parametrize("copies", [1, 3])
def test_the_wal_keeps_within_its_limit_with_vectors_of_any_size(open_store, folder, dim, copies):
    """What ops announce is what they may write: with the least WAL, and messages in any order."""
    wal_bytes = MB // 4
    bob = opened(
        open_store,
        dim,
        wal_limit_mb=0.25,
        max_message_kb=8,
        max_vector_mb=2.0,
        vector_dims=0,
        page_cache_mb=0.5,
        link_concepts=False,
    )
    chance = random.Random(dim)
    count = 120
    with watched(folder) as samples:
        bob.import_(
            {"role": "user", "content": text(chance.randrange(count // copies)), "id": str(number)}
            for number in range(count)
        )
        steps(bob)
        for number in chance.sample(range(count), 30):
            bob.delete(str(number))
        bob.archive(older_than_days=0, keep=20)
        bob.restore(since=next(iter(bob.messages())).at.replace(year=2000))
        steps(bob)
        with bob._agents.use("bob", create=False) as agent:
            agent.embedding._evict(20 * (dim + ROW_BYTES), {})
        bob.embed()
        bob.reembed()
        bob.archive(**ALL)
    assert max(wal for _, wal in samples.sizes) <= wal_bytes + FRAME_BYTES
    check_vectors(bob, dim=dim)


def test_the_wal_keeps_within_its_limit_while_vectors_are_reduced(open_store, folder, monkeypatch):
    monkeypatch.setattr(embedding, "FIT_MIN", 50)
    bob = opened(open_store, 256, wal_limit_mb=0.25, max_message_kb=8, vector_dims=32)
    bob.import_({"role": "user", "content": text(number)} for number in range(120))
    with watched(folder) as samples:
        steps(bob)
    assert max(wal for _, wal in samples.sizes) <= MB // 4 + FRAME_BYTES
    assert query(bob, "SELECT DISTINCT length(data) FROM vectors") == [(32,)]
    check_vectors(bob)


def test_no_message_leaves_for_the_sake_of_a_vector(open_store, folder):
    """The file is at its limit; vectors are put off, and a message makes room as ever."""
    limits = {"max_db_size_mb": 1, "wal_limit_mb": 0.25, "max_message_kb": 8, "keep_messages": 0}
    bob = opened(open_store, 2048, vector_dims=0, soft_limit_ratio=1.0, **limits)
    # Who is told that the file is nearly full archives ahead of saves, perhaps much later.
    without_janitor(bob)
    number = 0
    while not bob.usage().archived:
        bob.save("user", f"{number} " + "word " * 400, embed=False, id=str(number))
        number += 1
    before = {message.id for message in bob.messages()}
    for _ in range(3):
        bob.delete(min(before))
        before.remove(min(before))
    archived = bob.usage().archived
    late = [f"late-{nth}" for nth in range(40)]
    for nth, name in enumerate(late):
        bob.save("user", text(nth), id=name)
    archived = bob.usage().archived
    held = {message.id for message in bob.messages()}
    with watched(folder) as samples:
        for _ in range(3):
            with contextlib.suppress(OverBudget):
                steps(bob)
    assert {message.id for message in bob.messages()} == held
    assert bob.usage().archived == archived
    assert all(file + wal <= MB for file, wal in samples.sizes)
    check_vectors(bob, dim=2048)
    assert bob.save("user", "word " * 1500, id="last", embed=False).new, "which archives some"
    assert bob.usage().archived >= archived


class Target:
    """A ledger that has room for so many ops, and none for vectors."""

    def __init__(self):
        self.room = 0
        self.commits = []

    def commit(self, ops, _deadline):
        self.commits.append([type(op).__name__ for op in ops])
        if any(isinstance(op, AddVectors) for op in ops) or len(ops) > self.room:
            return [NoRoom("full", bytes=1)] * len(ops)
        self.room -= len(ops)
        return ["written"] * len(ops)

    def checkpoint_due(self):
        return False

    def checkpoint(self):
        raise AssertionError


def test_a_message_beside_a_vector_makes_room_and_the_vector_makes_none():
    target, made = Target(), []

    def make_room(_short, _deadline):
        made.append(target.commits[-1])
        target.room += 1
        return True

    writer = Writer(
        target,
        quota=Quota(items_max=100, bytes_max=1 << 20),
        batch_max=10,
        batch_max_bytes=1 << 20,
        timeout_s=60,
        run_soon=lambda _work: False,
        make_room=make_room,
    )
    config = Config()
    draft = admit(
        "user", text(1), session=None, user=None, at=None, metadata=None, id=None,
        config=config, analyzer=Analyzer(config.languages), ids=IdClock(),
    )  # fmt: skip
    save, add = SaveOne(draft), AddVectors("vectors", "x", 3, 0)
    outcomes = writer._commit([save, add, save], 1e18)
    assert outcomes[0] == outcomes[2] == "written"
    assert isinstance(outcomes[1], OverBudget)
    assert made == [["SaveOne"], ["SaveOne"]]
    assert writer._commit([add], 1e18)[0].__class__ is NoRoom
    assert len(made) == 2


def test_a_full_ledger_says_so_to_who_flushes(open_store):
    bob = opened(open_store)
    bob.save("user", text(1))

    def refuse(_self, db, ops):
        if any(isinstance(op, AddVectors) for op in ops):
            raise NoRoom("no room for these", bytes=1)
        return plain(_self, db, ops)

    plain = Ledger._transact
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "_transact", refuse)
        with pytest.raises(OverBudget):
            bob.flush()
    bob.flush()
    assert len(covered(bob)) == 1
