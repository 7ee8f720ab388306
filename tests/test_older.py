"""A ledger that is older than its archive or its graph is named, and goes on where that ended."""

import shutil
from pathlib import Path

import pytest

import elytron
from elytron.ledger import files
from ledgers import ledger_path, query
from moved import ALL, held_ids, talk

QUIET = {"reserve_mb": 0, "auto_cleanup": False, "enable_embeddings": False}
COUNT = "MATCH (m:Message) RETURN count(m) AS n"


def set_back(folder: Path, later: str) -> None:
    """A store with an older ledger than what was made from it."""
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        bob.save_many(talk(20))
        if later == "graph":
            bob.cypher(COUNT)
    shutil.copy(ledger_path(folder), folder / "older")
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        bob.save_many(talk(20, start=20))
        if later == "graph":
            bob.cypher(COUNT)
        else:
            bob.archive(**ALL)
    for path in ledger_path(folder).parent.glob(f"{files.LEDGER}*"):
        path.unlink()
    shutil.copy(folder / "older", ledger_path(folder))


def numbers(folder: Path) -> int:
    return int(query(folder, "SELECT max(seq) FROM changes")[0][0])


@pytest.mark.parametrize("later", ["archive", "graph"])
def test_a_ledger_that_ends_before_what_was_made_from_it_is_named_once(
    folder: Path, later: str
) -> None:
    set_back(folder, later)
    before = numbers(folder)
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        for repair in (False, True):
            lost = [one for one in bob.check(repair=repair).findings if one.part == "log"]
            (finding,) = lost
            assert f"and its {later} knows of" in finding.what
            assert not finding.repaired
        assert not [one for one in bob.check().findings if one.part == "log"]
        assert bob.check(repair=True).ok
        assert bob.check().findings == ()
        assert {f"m{number}" for number in range(20)} <= set(held_ids(bob))
        assert bob.cypher(COUNT) == [{"n": 20}]
        bob.save("user", "One more", id="more")
        assert len(list(bob.messages(archived=True))) == (41 if later == "archive" else 21)
    (key,) = query(folder, "SELECT key FROM messages WHERE id = 'more'")[0]
    assert key > before + 20, "no number is used again"


def test_a_ledger_that_is_as_new_as_all_that_was_made_from_it_goes_on_as_it_was(
    folder: Path,
) -> None:
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        bob.save_many(talk(20))
        bob.archive(**ALL)
        bob.cypher(COUNT)
        before = numbers(folder)
        assert bob.check(repair=True).findings == ()
        assert numbers(folder) == before
