"""
Damage: what was lost or changed on the disk is called `Corrupt`, and is never shown.

Files are changed here only while everything is closed.
"""

import contextlib
import json
import shutil
from datetime import UTC, datetime

import pytest

import elytron
from elytron import Corrupt, Unavailable
from elytron.ledger import files, knowledge, reads
from ledgers import contents, flip, held, ledger_path, marker_path, names, query, wal_path
from quiet import without_janitor

TEXTS = {
    "one": "My name is Alice and I live in Lyon.",
    "two": "Nice to meet you! How is the weather there?",
    "three": "C'était très pluvieux, j'ai peint toute la journée.",
}


MAY = datetime(2023, 5, 8, 13, 56, 12, 345678, tzinfo=UTC)


def begin(folder, *, name="bob", texts=TEXTS):
    """A closed store with one agent."""
    members = {"session": "web-42", "user": "alice", "at": MAY}
    with elytron.open(folder) as store:
        for key, content in texts.items():
            store.agent(name).save("user", content, id=key, **members)
        without_janitor(store)
        store._upkeep.janitor.tick()  # it has noted by now that it began, and nobody does later


def damage_by_deletion(path, _folder):
    path.unlink()


def damage_by_emptying(path, _folder):
    path.write_bytes(b"")


def damage_by_garbage(path, _folder):
    path.write_bytes(b"What is this?" * 1000)


def damage_by_a_blank_page(path, _folder):
    path.write_bytes(bytes(4096))


def damage_by_a_folder(path, _folder):
    path.unlink()
    path.mkdir()


def damage_by_another_database(path, folder):
    import apsw

    path.unlink()
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE messages(id, content)")
    db.close()


def damage_by_another_agents_ledger(path, folder):
    begin(folder, name="eve", texts={"secret": "I am Eve's"})
    shutil.copy(ledger_path(folder, "eve"), path)


DAMAGES = (
    damage_by_deletion,
    damage_by_emptying,
    damage_by_garbage,
    damage_by_a_blank_page,
    damage_by_a_folder,
    damage_by_another_database,
    damage_by_another_agents_ledger,
)
VERBS = {
    "history": lambda bob: bob.history(),
    "recall": lambda bob: bob.recall("Lyon"),
    "usage": lambda bob: bob.usage(),
    "export": lambda bob: list(bob.messages()),
    "save": lambda bob: bob.save("user", "New"),
    "delete": lambda bob: bob.delete("one"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_lost_ledger_is_corrupt_and_never_begun_anew(folder, damage, verb):
    begin(folder)
    damage(ledger_path(folder), folder)
    listed, before = names(folder), contents(folder)
    with elytron.open(folder) as store:
        for _ in range(2):
            with pytest.raises(Corrupt, match=r"ledger\.db|agents"):
                VERBS[verb](store.agent("bob"))
        store.agent("amy").save("user", "The others go on")
    created = {name for name in names(folder) - listed if not name.endswith(("-shm", "-wal"))}
    assert all(name.startswith("agents/amy-") for name in created)
    after = contents(folder)
    assert {name: data for name, data in after.items() if name in before} == before


@pytest.mark.parametrize("way", ["deleted", "replaced"])
def test_a_ledger_lost_under_an_open_store_takes_no_more_messages(folder, way):
    """On POSIX a deleted file can be written on: what goes there is gone with the last close."""
    begin(folder)
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save("user", "New", id="new")
        ledger_path(folder).rename(folder / "moved")
        if way == "replaced":
            begin(folder.with_name("other"))
            shutil.copy(ledger_path(folder.with_name("other")), ledger_path(folder))
        with pytest.raises((Corrupt, Unavailable), match=r"ledger\.db"):
            bob.save("user", "Newer", id="newer")


def test_a_ledger_that_lost_its_marker_is_read_and_not_taken_for_empty(folder):
    begin(folder)
    marker_path(folder).unlink()
    before = names(folder)
    with elytron.open(folder) as store:
        assert store.agents() == ["bob"]
        assert held(store.agent("bob")) == TEXTS
        assert store.agent("bob").usage().messages == len(TEXTS)
    assert not marker_path(folder).exists()
    assert {name for name in names(folder) if not name.endswith(("-shm", "-wal"))} == {
        name for name in before if not name.endswith(("-shm", "-wal"))
    }


def test_a_ledger_that_stands_without_its_marker_is_healed(folder):
    """The process died between the ledger and the marker: nothing is lost, nothing is empty."""
    begin(folder)
    marker_path(folder).unlink()
    with elytron.open(folder) as store:
        assert store.agent("bob").save("user", "New", id="new").new
        assert held(store.agent("bob")) == TEXTS | {"new": "New"}
        assert store.agents() == ["bob"]


def test_anothers_ledger_without_a_marker_is_not_taken_over(folder):
    begin(folder)
    damage_by_another_agents_ledger(ledger_path(folder), folder)
    marker_path(folder).unlink()
    with elytron.open(folder) as store:
        with pytest.raises(Corrupt, match="'eve'"):
            store.agent("bob").save("user", "New")
        assert store.agents() == ["eve"]


def test_a_folder_of_another_agent_is_not_taken_over(folder):
    begin(folder)
    begin(folder, name="eve", texts={})
    ours, theirs = files.agent_folder(folder, "bob"), files.agent_folder(folder, "eve")
    shutil.copytree(ours, theirs, dirs_exist_ok=True)
    with elytron.open(folder) as store, pytest.raises(Corrupt, match="'bob', not of 'eve'"):
        store.agent("eve").save("user", "New")


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"format": 1}', '{"format": 1, "agent": 7}'])
def test_a_damaged_marker_is_corrupt_and_stays_as_it_is(folder, text):
    begin(folder)
    marker_path(folder).write_text(text)
    before = contents(folder)
    for verb in VERBS.values():
        with elytron.open(folder) as store, pytest.raises(Corrupt, match=r"ledger\.json"):
            verb(store.agent("bob"))
    assert contents(folder) == before


def test_one_damaged_marker_does_not_hide_the_other_agents(folder):
    begin(folder)
    begin(folder, name="eve")
    marker_path(folder).write_text("{")
    with elytron.open(folder) as store:
        assert store.agents() == ["bob", "eve"]  # bob's ledger says its own name
        assert held(store.agent("eve")) == TEXTS
        with pytest.raises(Corrupt, match=r"ledger\.json"):
            store.agent("bob").history()


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_store_marker_is_corrupt(folder, text):
    begin(folder)
    (folder / "elytron.json").write_text(text)
    with pytest.raises(Corrupt, match=r"elytron\.json"):
        elytron.open(folder)


def test_a_store_of_a_newer_version_is_left_alone(folder):
    begin(folder)
    (folder / "elytron.json").write_text(json.dumps({"format": 2}))
    before = contents(folder)
    with pytest.raises(Unavailable, match="format 2; this version reads 1: upgrade elytron"):
        elytron.open(folder)
    assert contents(folder) == before


def test_an_agent_of_a_newer_version_is_left_alone(folder):
    begin(folder)
    query(folder, "PRAGMA user_version = 99")
    query(folder, "PRAGMA wal_checkpoint(TRUNCATE)")
    before = contents(folder)
    for verb in VERBS.values():
        with (
            elytron.open(folder) as store,
            pytest.raises(Unavailable, match=r"schema 99;.*upgrade"),
        ):
            verb(store.agent("bob"))
    assert contents(folder) == before


# -- single bits


def check_what_is_shown(folder, texts=TEXTS):
    """Read all that can be read: whether anything was refused. Nothing wrong may be shown."""
    refused = 0
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        reads = [lambda key=key: [bob.get(key)] for key in texts]
        reads += [bob.history, lambda: bob.history("web-42"), lambda: list(bob.messages())]
        reads += [lambda: [hit.message for hit in bob.recall("alice")]]
        for read in reads:
            try:
                shown = read()
            except Corrupt:
                refused += 1
                continue
            for message in shown:
                if message is not None:
                    assert message.content == texts[message.id]
                    assert (message.session, message.user) == ("web-42", "alice")
                    assert (message.role, message.metadata) == ("user", {})
                    assert message.at == MAY
    return refused


def offset_of(folder, needle: bytes) -> int:
    data = ledger_path(folder).read_bytes()
    assert data.count(needle) == 1, "the needle has to be told apart"
    return data.index(needle)


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("word", ["Lyon", "ét", "Nice"])
def test_a_flipped_bit_in_a_text_is_noticed(folder, word, bit):
    """The highest bit makes it no text at all: bytes that are not UTF-8."""
    begin(folder)
    flip(ledger_path(folder), offset_of(folder, word.encode()), bit=bit)
    assert check_what_is_shown(folder) >= 3


@pytest.mark.parametrize("column", ["at_us", "arrived_us", "checksum"])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_in_a_number_is_noticed(folder, column, bit):
    begin(folder)
    ((number, arrived_us),) = query(
        folder, f"SELECT {column}, arrived_us FROM messages WHERE id = 'two'"
    )
    row = ledger_path(folder).read_bytes().index(arrived_us.to_bytes(8, "big"))
    # As SQLite stores it; one checksum in 500 takes three bytes.
    width = next(size for size in (1, 2, 3, 4, 6, 8) if number < 1 << (8 * size - 1))
    at = ledger_path(folder).read_bytes().index(number.to_bytes(width, "big"), row - 40)
    flip(ledger_path(folder), at + width - 1, bit=bit)
    assert check_what_is_shown(folder) >= 3


@pytest.mark.parametrize("table", ["sessions", "users"])
@pytest.mark.parametrize("part", ["id", "created_us", "checksum"])
def test_a_flipped_bit_in_a_session_or_a_user_is_noticed(folder, table, part):
    """Who said something, and in which conversation, is as true as what was said."""
    begin(folder)
    ((key, created_us),) = query(folder, f"SELECT id, created_us FROM {table}")
    data = ledger_path(folder).read_bytes()
    # The row, not the index on it: the time of its making stands somewhere behind the id.
    time_at = next(
        at
        for at in range(len(data))
        if data.startswith(created_us.to_bytes(8, "big"), at) and key.encode() in data[at - 24 : at]
    )
    id_at = data.rindex(key.encode(), 0, time_at)
    offset = {"id": id_at + 1, "created_us": time_at + 6, "checksum": time_at + 9}[part]
    flip(ledger_path(folder), offset)
    assert check_what_is_shown(folder) >= 3


def test_a_damaged_message_is_not_edited_and_not_taken_for_a_retry(folder):
    begin(folder)
    flip(ledger_path(folder), offset_of(folder, b"Lyon"))
    before = contents(folder)
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        with pytest.raises(Corrupt):
            bob.edit("one", "New")
        with pytest.raises(Corrupt):
            bob.save("user", TEXTS["one"], id="one", session="web-42", user="alice")
    assert contents(folder) == before


def test_a_message_that_is_no_text_any_more_does_not_stop_the_others_from_saving(folder):
    begin(folder)
    flip(ledger_path(folder), offset_of(folder, b"Lyon"), bit=7)
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        with pytest.raises(Corrupt):
            bob.save("user", TEXTS["one"], id="one", session="web-42", user="alice")
        bob.save("user", "New", id="new")
        assert bob.get("new").content == "New"


def test_whatever_single_bit_of_the_messages_page_flips_nothing_wrong_is_shown(folder, tmp_path):
    """One bit in every second byte of the page that holds the messages, one at a time."""
    begin(folder)
    data = ledger_path(folder).read_bytes()
    page = offset_of(folder, b"Lyon") // 4096 * 4096
    used = [at for at in range(page, page + 4096) if data[at]]
    refused = 0
    for at in used[::2]:
        damaged = bytearray(data)
        damaged[at] ^= 1 << at // 2 % 8
        ledger_path(folder).write_bytes(damaged)
        refused += bool(check_what_is_shown(folder))
    assert refused > len(used) // 4


@pytest.mark.parametrize("read", [reads.held, knowledge.memories_of])
def test_a_row_that_an_index_has_and_its_table_not_is_damage(folder, read):
    """As where sectors are in each other's place: each is whole, and found by one way only."""
    begin(folder)
    with elytron.open(folder) as store:
        store.agent("bob").remember("Alice lives in Lyon")
        with store._agents.use("bob", create=False) as agent, agent.ledger.reading() as db:
            assert read(db, [], agent.ledger.source) == {}
            with pytest.raises(Corrupt, match="row 99, one of 1, is in an index"):
                read(db, [99], agent.ledger.source)


# -- the log


SAVE_AND_DIE = """
import os, signal, sys, elytron
bob = elytron.open(sys.argv[1]).agent("bob")
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    bob.save("user", f"Number {number} of the messages", id=f"id-{number}")
    print(f"id-{number}", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def left_behind(folder, start_script):
    """A store whose process died with three saves in the log that are nowhere else."""
    with elytron.open(folder) as store:
        for number in range(3):
            store.agent("bob").save("user", f"Number {number} of the messages", id=f"id-{number}")
    process = start_script(SAVE_AND_DIE, folder, 3, 6)
    printed, _ = process.communicate(timeout=60)
    assert printed.split() == ["id-3", "id-4", "id-5"]
    return {f"id-{number}": f"Number {number} of the messages" for number in range(6)}


def test_a_log_cut_off_anywhere_leaves_a_prefix_and_nothing_wrong(folder, tmp_path, left_behind):
    """
    The end of the log is lost, as on a disk that lied about a sync: a documented limit.

    What is left has to be the first messages, each whole, and the store has to go on working.
    """
    size = wal_path(folder).stat().st_size
    counts = set()
    for cut in range(0, size + 64, 64):
        target = tmp_path / "cut"
        shutil.copytree(folder, target)
        with wal_path(target).open("r+b") as file:
            file.truncate(min(cut, size))
        with elytron.open(target) as store:
            shown = held(store.agent("bob"))
            assert list(shown.items()) == list(left_behind.items())[: len(shown)]
            if cut % 4096 == 0:
                store.agent("bob").save("user", "New", id="new")
        counts.add(len(shown))
        shutil.rmtree(target)
    assert counts == {3, 4, 5, 6}


def test_a_flipped_bit_in_the_log_shows_nothing_wrong(folder, tmp_path, left_behind):
    size = wal_path(folder).stat().st_size
    for number, at in enumerate(range(0, size, 499)):
        target = tmp_path / "flipped"
        shutil.copytree(folder, target)
        flip(wal_path(target), at, bit=number % 8)
        shown: dict[str, str] = {}
        with contextlib.suppress(Corrupt), elytron.open(target) as store:
            shown = held(store.agent("bob"))
        assert list(shown.items()) == list(left_behind.items())[: len(shown)]
        shutil.rmtree(target)
