"""On a server an agent's rows get another key, whoever has it open, and however much it has."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import elytron
from backups import fill, look
from elytron import Busy, ElytronError, NotFound, Store
from elytron.ledger.postgres import renaming
from elytron.upkeep import deleting
from ledgers import query_server
from postgres_server import Server
from quiet import alone

QUIET: dict[str, Any] = {"reserve_mb": 0, "auto_cleanup": False}
OLD, NEW = "bob", "Robert"


@pytest.fixture
def open_one(postgres: Server, kept_schema: str, folder: Path) -> Iterator[Callable[..., Store]]:
    """A store on the server, as another program has it, too; closed after the test."""
    opened: list[Store] = []

    def open_one(more: str = "") -> Store:
        place = {"files_path": str(folder), "postgres_schema": kept_schema}
        # The background would meet the renaming before the test does.
        opened.append(alone(elytron.open(postgres.dsn() + more, **place, **QUIET)))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def unplugged(_store: Path, _names: object) -> None:
    raise elytron.Unavailable("the disk was unplugged; nothing was written: plug it in")


def rename_halfway(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both names are marked, and who did that is dead."""
    with monkeypatch.context() as patch:
        patch.setattr(renaming, "_move_files", unplugged)
        with pytest.raises(ElytronError, match="that is not done"):
            store.rename(OLD, NEW)


def save(store: Store, name: str, ident: str) -> bool:
    return store.agent(name).save("user", "hello", session="s0", id=ident).new


@pytest.mark.parametrize("half", [False, True], ids=["renamed", "half renamed"])
def test_who_has_an_agent_open_that_is_renamed_is_refused_each_time(open_one, monkeypatch, half):
    one, two = open_one(), open_one()
    assert save(two, OLD, "a")
    assert save(two, OLD, "b"), "now it is one statement, of what is known"
    if half:
        rename_halfway(one, monkeypatch)
    else:
        one.rename(OLD, NEW)
    for _ in range(3):
        with pytest.raises(NotFound, match="renamed while it was open"):
            save(two, OLD, "lost?")
        with pytest.raises(NotFound, match="renamed while it was open"):
            two.agent(OLD).pin("a")
    assert save(two, NEW, "c")
    assert one.agents() == [NEW]
    assert [message.id for message in one.agent(NEW).messages()] == ["a", "b", "c"]
    one.rename(NEW, OLD)
    assert save(two, OLD, "d"), "it is what it had open"
    assert [message.id for message in one.agent(OLD).messages()] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", [OLD, NEW])
def test_an_agent_that_begins_to_be_renamed_is_not_deleted_meanwhile(open_one, monkeypatch, name):
    """Method: the mark comes after it was looked what there is to delete."""
    one, two = open_one(), open_one()
    assert save(one, OLD, "a")
    counted = deleting._counted

    def count(ledger: Any) -> Any:
        found = counted(ledger)
        rename_halfway(one, monkeypatch)
        return found or deleting._Counted(0, 0)

    with monkeypatch.context() as patch:
        patch.setattr(deleting, "_counted", count)
        with pytest.raises(Busy, match="being renamed, and nothing was deleted"):
            two.delete(name)
    assert two.agent(NEW).check().ok
    assert two.agents() == [NEW]
    assert [message.id for message in two.agent(NEW).messages()] == ["a"]
    assert two.delete(NEW).messages == 1
    assert one.agents() == []


def test_half_renamed_it_is_deleted_under_its_new_name_alone(open_one, monkeypatch):
    one, two = open_one(), open_one()
    assert save(one, OLD, "a")
    rename_halfway(one, monkeypatch)
    with pytest.raises(NotFound):
        two.delete(OLD)
    assert two.delete(NEW).messages == 1
    assert two.agents() == one.agents() == []


def test_rows_that_are_larger_than_one_statement_may_be_all_come(open_one, monkeypatch):
    store = open_one()
    bob = store.agent(OLD)
    fill(bob, 0, 50)
    bob.save("user", "long " * 400, id="long")
    bob.remember("Alice prefers Python", about=["Alice"])
    bob.flush()
    before = look(bob)
    monkeypatch.setattr(renaming, "_PART_BYTES", 1000)
    puts: list[int] = []
    parts = renaming._parts
    monkeypatch.setattr(
        renaming, "_parts", lambda rows: (puts.append(len(one)) or one for one in parts(rows))
    )
    store.rename(OLD, NEW)
    assert look(store.agent(NEW)) == before
    assert store.agent(NEW).check().ok
    assert min(puts) == 1
    assert len(puts) > 30


def test_numbers_with_a_fraction_are_the_same_whatever_the_server_shows_of_them(
    open_one, postgres, kept_schema
):
    rough = open_one(f"&options={quote('-c extra_float_digits=-15')}")
    rough.agent(OLD).remember("Alice prefers Python", about=["Alice"], importance=1 / 3)
    query = "SELECT importance * 3 = 1, checksum FROM memories"
    before = query_server(postgres.dsn(), kept_schema, query, agent=OLD)
    rough.rename(OLD, NEW)
    assert query_server(postgres.dsn(), kept_schema, query, agent=NEW) == before
    assert before[0][0]
    assert open_one().agent(NEW).check().ok


def test_an_agent_whose_mark_is_damaged_can_be_deleted(open_one, postgres, kept_schema):
    """The mark that would say that it is being renamed, too."""
    one = open_one()
    assert save(one, OLD, "a")
    sql = "INSERT INTO meta VALUES('carried', '{') RETURNING name"
    assert query_server(postgres.dsn(), kept_schema, sql, agent=OLD)
    one.delete(OLD)
    assert open_one().agents() == []
