"""The change list: a later reader that follows it ends with what the ledger holds."""

import random

import pytest

from elytron.ledger import reads
from elytron.ledger.schema import DELETE, EDIT, MESSAGE, SAVE

# In a file and on a server.
pytestmark = pytest.mark.ledgers


def follow(agent, place, known, *, page):
    """
    Read the changes after *place* into *known*, contents by key, as a projection would.

    Returns the new place, or None where older changes have been forgotten: begin anew.
    """
    with agent.ledger.reading(snapshot=True) as db:
        while True:
            changes, complete = reads.changes(db, after=place, limit=page)
            if not complete:
                return None
            assert [number for number, *_ in changes] == sorted({n for n, *_ in changes})
            for number, op, kind, key in changes:
                assert number > place
                place = number
                if kind != MESSAGE:
                    continue
                row = db.execute("SELECT content FROM messages WHERE key = ?", (key,)).get
                if op == DELETE:
                    known.pop(key, None)
                elif row is not None:  # not deleted later on
                    assert op in (SAVE, EDIT)
                    known[key] = row
            if len(changes) < page:
                return place


@pytest.mark.parametrize("change_max", [100, 100_000])
@pytest.mark.parametrize("page", [1, 7, 1000])
def test_who_follows_the_changes_knows_what_is_held_or_is_told_to_begin_anew(
    open_store, page, change_max
):
    """Random writes; a reader looks now and then, sometimes too late."""
    chance = random.Random(page)
    store = open_store(change_max=change_max)
    bob = store.agent("bob")
    place, known, anew = 0, {}, 0
    for step in range(300):
        key = f"id-{chance.randrange(30)}"
        match chance.randrange(4):
            case 0 | 1:
                bob.save("user", f"Number {step}", session=f"s{chance.randrange(3)}")
            case 2 if bob.get(key) is not None:
                bob.edit(key, f"Edited {step}")
            case 2:
                bob.save("user", f"Number {step}", id=key, user=f"user {chance.randrange(3)}")
            case 3:
                bob.delete(key)
        if chance.random() < (0.01 if change_max == 100 else 0.1) or step == 299:
            with store._agents.use("bob", create=False) as agent:
                place = follow(agent, place, known, page=page)
                if place is None:
                    anew, known = anew + 1, {}
                    with agent.ledger.reading(snapshot=True) as db:
                        rows = db.execute("SELECT key, content FROM messages").fetchall()
                        known = dict(rows)
                        place = db.execute(
                            "SELECT max((SELECT ifnull(max(key), 0) FROM messages),"
                            " (SELECT ifnull(max(seq), 0) FROM changes))"
                        ).get
                with agent.ledger.reading() as db:
                    held = dict(db.execute("SELECT key, content FROM messages").fetchall())
            assert known == held
    assert anew == 0 or change_max == 100


def test_a_new_reader_reads_everything_from_the_start(open_store):
    store = open_store()
    bob = store.agent("bob")
    bob.save_many({"role": "user", "content": f"Number {n}"} for n in range(50))
    known: dict[int, str] = {}
    with store._agents.use("bob", create=False) as agent:
        assert follow(agent, 0, known, page=8) is not None
    assert list(known.values()) == [f"Number {n}" for n in range(50)]


def test_a_reader_that_is_too_late_is_told(open_store):
    store = open_store(change_max=100)
    bob = store.agent("bob")
    for n in range(150):
        bob.save("user", f"Number {n}", id=str(n))
        bob.edit(str(n), f"Edited {n}")
    with store._agents.use("bob", create=False) as agent:
        assert follow(agent, 1, {}, page=10) is None
