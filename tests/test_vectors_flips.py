"""Damage to what is held of vectors: an error of ours, or words answer; no text is lost."""

import contextlib
import random

import apsw
import pytest

import elytron
from elytron import ElytronError
from elytron.upkeep import embedding
from embedders import Hashing, by_hand, check_vectors, covered, query, steps
from ledgers import held, ledger_path, wal_path
from ledgers import query as closed_query

TABLES = ("vectors", "shared", "unembedded", "embedder", "projections", "vectors_digest")
FLIPS = 240
COUNT = 24
SETTINGS = {"vector_dims": 4, "reserve_mb": 0, "link_concepts": False}
LATE = "And a later message of mine."
EDITED = "An edited message, as it is now."


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch):
    monkeypatch.setattr(embedding, "FIT_MIN", 12)


def opened(folder):
    store = elytron.open(folder, embedder=Hashing(refused="nobody"), **SETTINGS)
    bob = by_hand(store.agent("bob"))
    bob._agents.embeddings.calls._check_rested = lambda kind: None
    return store, bob


def begin(folder, *, reduced):
    """Messages with vectors, and a memory; what the messages say, by id."""
    store, bob = opened(folder)
    with store:
        for number in range(COUNT):
            text = f"This is a message number {number % 20}, of many."
            bob.save("user", text, id=str(number), session=str(number % 3))
        bob.save("user", "A text that nobody takes.", id="refused")
        bob.remember("A memory that has one as well.", id="memory")
        while len(covered(bob)) < COUNT + 1 or reduced:
            if not bob._agents.embed_behind("bob"):
                break
        assert len(covered(bob)) == COUNT + 1, "all but the one that was refused"
        assert bool(query(bob, "SELECT * FROM projections")) >= reduced
        return held(bob)


def offsets(folder):
    """Where in the file something is held of vectors."""
    db = apsw.Connection(str(ledger_path(folder)))
    marks = ", ".join("?" * len(TABLES))
    sql = f"SELECT pgoffset, pgsize FROM dbstat WHERE name IN ({marks})"
    pages = db.execute(sql, TABLES).fetchall()
    db.close()
    data = ledger_path(folder).read_bytes()
    return [at for first, size in pages for at in range(first, first + size) if data[at]]


def use(bob):
    """Every verb that has to do with vectors; the codes of the errors."""
    verbs = (
        lambda: bob.recall("which message has the number 3?"),
        bob.usage,
        lambda: bob.save("user", LATE, id="late"),
        lambda: steps(bob),
        lambda: bob.edit("3", EDITED),
        lambda: bob.delete("0"),
        lambda: bob.delete_session("1"),
        lambda: bob.recall("which message has the number 5?"),
        lambda: steps(bob),
        bob.embed,
        lambda: bob.archive(older_than_days=0, keep=5),
    )
    codes = set()
    for verb in verbs:
        try:
            verb()
        except ElytronError as error:
            codes.add(error.code)
    return codes


def check_shown(bob, texts):
    """That what is shown, held or archived, is what was said; which of it is there is not asked."""
    may_be = {key: {text} for key, text in texts.items()} | {"late": {LATE}}
    may_be["3"].add(EDITED)
    with contextlib.suppress(ElytronError):
        for message in bob.messages(archived=True):
            assert message.content in may_be[message.id]


@pytest.mark.parametrize("reduced", [False, True], ids=["whole", "reduced"])
@pytest.mark.parametrize("seed", range(2))
def test_a_flipped_bit_is_an_error_of_ours_or_harmless(folder, seed, reduced):
    texts = begin(folder, reduced=reduced)
    data, places = ledger_path(folder).read_bytes(), offsets(folder)
    dice = random.Random(seed)
    compared = 0
    for _ in range(FLIPS // 4):
        damaged = bytearray(data)
        damaged[dice.choice(places)] ^= 1 << dice.randrange(8)
        wal_path(folder).unlink(missing_ok=True)
        wal_path(folder).with_name("ledger.db-shm").unlink(missing_ok=True)
        ledger_path(folder).write_bytes(damaged)
        store, bob = opened(folder)
        with store:
            with contextlib.suppress(ElytronError):
                assert held(bob) == texts
                compared += 1
            assert use(bob) <= {"corrupt", "invalid-setting", "conflict"}
            for repair in (False, True):
                bob.check(repair=repair)
                check_shown(bob, texts)
    assert compared > FLIPS // 8, "most damage is to vectors alone"


ODD = {
    "a name": "UPDATE embedder SET name = x'ff'",
    "a dimension": "UPDATE embedder SET dim = 'many'",
    "a projection's number": "UPDATE embedder SET projection = 'many'",
    "the last": "UPDATE embedder SET last = 'many'",
    "the removed": "UPDATE embedder SET removed = x'00'",
    "the bytes": "UPDATE embedder SET bytes = 'many'",
    "bytes that are too many": "UPDATE embedder SET bytes = 1 << 60",
    "a number that is too large": "UPDATE vectors SET number = 1 << 40 WHERE number = 3",
    "a scale": "UPDATE vectors SET scale = 'large'",
    "an endless scale": "UPDATE vectors SET scale = 9e999",
    "a digest": "UPDATE vectors SET digest = 'this'",
    "a projection of a vector": "UPDATE vectors SET projection = 'that' WHERE number % 2",
    "data": "UPDATE vectors SET data = 5",
    "a share": "UPDATE shared SET digest = 'this'",
    "a reason": "UPDATE unembedded SET reason = 'none'",
    "the projection's size": "UPDATE projections SET dims = 'many'",
    "the projection's data": "UPDATE projections SET data = 'many'",
}


@pytest.mark.parametrize("reduced", [False, True], ids=["whole", "reduced"])
@pytest.mark.parametrize("kind", ODD)
def test_whatever_stands_there_it_is_an_error_of_ours_and_can_be_made_anew(folder, kind, reduced):
    begin(folder, reduced=reduced)
    closed_query(folder, ODD[kind])
    store, bob = opened(folder)
    with store:
        before = held(bob)
        assert use(bob) <= {"corrupt", "invalid-setting", "conflict"}
        gone = {"0", "3", *(str(number) for number in range(1, COUNT, 3))}
        late = {**before, "late": LATE}
        for key, content in late.items():
            if key not in gone and (found := bob.get(key)) is not None:
                assert found.content == content
        bob.check(repair=True)
    store, bob = opened(folder)
    with store:
        bob.reembed()
        check_vectors(bob)
        assert bob.check().findings == ()
        bob.recall("which message has the number 5?")
