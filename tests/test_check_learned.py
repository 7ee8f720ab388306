"""Checking what was learned: damage is named and kept, what has lost an end is swept away."""

import json
from pathlib import Path

import pytest

import elytron
from elytron import Corrupt
from ledgers import ledger_path, query

SMALL = {"reserve_mb": 0, "link_concepts": False}


def begin(folder: Path) -> None:
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        bob.save("user", "Alice lives in Lyon", session="s")
        bob.remember("Alice likes tea", about=["Alice"], session="t", id="tea", metadata={"a": 1})
        bob.remember("Carol likes wine", about=["Carol"], id="wine")
        bob.relate("Alice", "lives in", "Lyon", strength=0.5)
        bob.relate("Carol", "lives in", "Nice")


def checked(folder: Path, *, repair: bool = False) -> elytron.Checked:
    with elytron.open(folder, **SMALL) as store:
        return store.agent("bob").check(repair=repair)


DAMAGES = {
    "a memory's content": ("UPDATE memories SET content = 'x' WHERE id = 'tea'", "memories"),
    "a memory's end": ("UPDATE memories SET valid_to_us = 9e15 WHERE id = 'tea'", "memories"),
    "a memory's worth": ("UPDATE memories SET importance = 0.6 WHERE id = 'tea'", "memories"),
    "a memory's metadata": ("UPDATE memories SET metadata = '{' WHERE id = 'tea'", "memories"),
    "a memory of no session": ("DELETE FROM sessions WHERE id = 't'", "memories"),
    "a concept's name": ("UPDATE concepts SET name = 'Alise' WHERE folded = 'alice'", "concepts"),
    "a concept's origin": ("UPDATE concepts SET origin = 2 WHERE folded = 'alice'", "concepts"),
    "a concept's folded name": (
        "UPDATE concepts SET folded = 'alise' WHERE folded = 'alice'", "concepts"),
    "a fact's strength": ("UPDATE relations SET strength = 0.6 WHERE strength = 0.5", "relations"),
    "a fact's end": ("UPDATE relations SET valid_to_us = 9e15 WHERE strength = 0.5", "relations"),
    "a fact's source": ("UPDATE relations SET source = target WHERE strength = 0.5", "relations"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_row_is_named_never_shown_and_taken_out_when_asked(folder, kind):
    sql, part = DAMAGES[kind]
    begin(folder)
    assert checked(folder).findings == ()
    query(folder, sql)
    report = checked(folder)
    assert {finding.part for finding in report.findings} == {part}
    assert not any(finding.repaired for finding in report.findings)
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        shown = {"memories": bob.memories, "concepts": bob.concepts, "relations": bob.relations}
        with pytest.raises(Corrupt, match=r"damaged|missing"):
            shown[part]()
        assert bob.history("s"), "the rest is shown"
    before = query(folder, "SELECT count(*) FROM relations")[0][0]
    assert not checked(folder, repair=True).ok
    assert checked(folder).findings == ()
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        left = (len(bob.memories()), len(bob.concepts()), len(bob.relations()))
    whole = (2, 4, before)
    if part == "concepts":
        assert left == (2, 3, 1)
        (aside,) = ledger_path(folder).parent.glob("damaged-*")
        kept = [
            json.loads(line)["table"] for line in (aside / "rows.jsonl").read_text().splitlines()
        ]
        assert kept == ["concepts", "relations"]
    elif "session" in kind:
        assert left == whole, "another session stands for the one that is missing"
    else:
        gone = {"memories": (1, 0, 0), "relations": (0, 0, 1)}[part]
        assert left == tuple(count - less for count, less in zip(whole, gone, strict=True))


def test_a_damaged_row_is_not_written_over(folder):
    begin(folder)
    query(folder, "UPDATE memories SET content = 'x' WHERE id = 'tea'")
    query(folder, "UPDATE concepts SET type = 'x' WHERE folded = 'alice'")
    query(folder, "UPDATE relations SET strength = 0.6 WHERE strength = 0.5")
    before = query(folder, "SELECT * FROM memories"), query(folder, "SELECT * FROM relations")
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        for refused in (
            lambda: bob.remember("Alice likes tea", id="tea"),
            lambda: bob.remember("New", id="new", replaces="tea"),
            lambda: bob.remember("New", id="new", about=["Alice"]),
            lambda: bob.edit_memory("tea", "x"),
            lambda: bob.close_memory("tea"),
            lambda: bob.relate("Alice", "knows", "Carol"),
            lambda: bob.set_concept("Alice", type="y"),
            lambda: bob.unrelate("Alice"),
        ):
            with pytest.raises(Corrupt):
                refused()
        assert bob.get_memory("wine").content == "Carol likes wine"
        assert bob.delete_memory("tea"), "it may be taken out"
        assert bob.delete_concept("Alice")
        assert bob.check().ok
    assert len(query(folder, "SELECT * FROM memories")) == len(before[0]) - 1


LOOSE = {
    "mentions of a concept that is gone": ("DELETE FROM concepts WHERE folded = 'alice'",
                                           {"concepts", "relations"}),
    "mentions by a memory that is gone": ("DELETE FROM memories WHERE id = 'tea'", {"concepts"}),
    "a fact about what is gone": ("DELETE FROM concepts WHERE folded = 'nice'", {"relations"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOOSE)
def test_what_has_lost_an_end_is_not_shown_and_swept_away(folder, kind):
    sql, parts = LOOSE[kind]
    begin(folder)
    query(folder, sql)
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        assert bob.concepts()
        assert bob.relations()
        assert bob.memories()
    report = checked(folder)
    assert {finding.part for finding in report.findings} == parts
    assert all(finding.repairable and not finding.repaired for finding in report.findings)
    assert all(finding.repaired for finding in checked(folder, repair=True).findings)
    assert checked(folder).findings == ()


def test_what_every_verb_leaves_is_whole(folder):
    begin(folder)
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        for step in (
            lambda: bob.edit_memory("tea", "Alice likes coffee"),
            lambda: bob.close_memory("tea"),
            lambda: bob.remember("New", about=["New", "Alice"], replaces="wine"),
            lambda: bob.relate("Alice", "lives in", "Paris", replaces=True),
            lambda: bob.set_concept("Alice", rename="Alicia", type="person"),
            lambda: bob.unrelate("Carol"),
            lambda: bob.reindex(),
            lambda: bob.archive(older_than_days=0, keep=0),
            lambda: bob.restore(session="s"),
            lambda: bob.delete_concept("Carol"),
            lambda: bob.delete_memory("tea"),
            lambda: bob.delete_session("s"),
            lambda: bob.reclaim(full=True),
            lambda: bob.clear(),
        ):
            step()
            assert bob.check().findings == ()
