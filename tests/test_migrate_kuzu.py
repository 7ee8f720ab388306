"""Coming from Kuzu: what is carried over, what is told, and that the source stays as it was."""

import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil
import pytest

import elytron
from elytron.errors import (
    Busy,
    Corrupt,
    GraphUnavailable,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from elytron.importers import kuzu, kuzu_rows, migrated
from elytron.importers.kuzu_source import ForeignDatabase, refusal
from kuzu_databases import hold, make, many

PARIS = ZoneInfo("Europe/Paris")


def state_of(folder: Path) -> dict[str, str]:
    """A hash of each file under a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a program with two agents; nothing may write to it."""
    base = tmp_path_factory.mktemp("origin")
    make(base / "bob_technique" / "kuzu.db", index=True)
    make(base / "dora" / "kuzu.db", killed=True)
    return base


@pytest.fixture
def bob_file(base: Path) -> Iterator[Path]:
    """The first one's database, which has to be the same after the test."""
    before = state_of(base)
    yield base / "bob_technique" / "kuzu.db"
    assert state_of(base) == before


def migrate(store: elytron.Store, path: Path, **how: Any) -> kuzu.Migration:
    (found,) = kuzu.find(path)
    return kuzu.migrate(store, found, zone=PARIS, **how)


# -- what is carried


def test_messages_are_carried_whole_and_in_their_order(
    store: elytron.Store, bob_file: Path
) -> None:
    report = migrate(store, bob_file)
    assert (report.agent, report.imported, report.already_held) == ("bob_technique", 3, 0)
    assert report.bad == ()
    first, second, third = store.agent("bob_technique").history()
    assert first.id == "user_20251005_143000_123456"
    assert first.content == "My name is Alice and I live in Lyon."
    assert first.at == datetime(2025, 10, 5, 12, 30, 0, 123456, UTC)
    assert (first.session, first.user, first.role) == ("web-42", "alice", "user")
    assert first.metadata == {"channel": "web"}
    assert (second.role, second.speaker) == ("assistant", "assistant")
    assert third.metadata == {"origin_metadata": "not json"}


def test_memories_and_what_sessions_were_called_are_carried(
    store: elytron.Store, bob_file: Path
) -> None:
    report = migrate(store, bob_file)
    bob = store.agent("bob_technique")
    (fact,) = bob.memories(kind="fact")
    assert (fact.id, fact.content, fact.importance) == ("m1", "Alice prefers quiet flats", 0.8)
    assert fact.session == "web-42"
    assert fact.valid_from == datetime(2025, 10, 5, 12, 31, tzinfo=UTC)
    (called,) = bob.memories(kind="session")
    assert called.content == "Moving: a flat in Lyon"
    assert called.metadata["name"] == "Moving"
    assert called.about == ("housing",)
    assert report.memories == 2


def test_concepts_mentions_and_relations_are_carried(store: elytron.Store, bob_file: Path) -> None:
    report = migrate(store, bob_file)
    bob = store.agent("bob_technique")
    held = {concept.name: concept for concept in bob.concepts()}
    assert set(held) == {"Alice", "Lyon", "Python", "Rhône", "Saône", "housing"}
    assert all(concept.origin == "told" for concept in held.values())
    alice = bob.concept("alice")
    assert alice is not None
    assert (alice.concept.type, alice.concept.description) == ("person", "She moved")
    assert alice.concept.confidence == 0.9
    assert "user_20251005_143000_123456" in {message.id for message in alice.examples}
    assert [(r.relation, r.target, r.strength) for r in bob.relations("Alice")] == [
        ("lives in", "Lyon", 0.9)
    ]
    assert held["Saône"].type == "river"
    assert held["Rhône"].description == "Flows by"
    assert held["housing"].type == "topic"
    assert (report.concepts, report.mentions, report.relations) == (6, 4, 2)


def test_a_mention_that_the_text_does_not_make_is_kept(
    store: elytron.Store, bob_file: Path
) -> None:
    migrate(store, bob_file)
    bob = store.agent("bob_technique")
    bob.save("user", "Lyon again")
    bob.flush()  # the texts are looked through for names
    lyon = bob.concept("Lyon")
    assert lyon is not None
    assert "user_20251006_090000_000002" in {message.id for message in lyon.examples}


def test_what_is_not_carried_is_counted_by_its_reason(store: elytron.Store, bob_file: Path) -> None:
    left_out = migrate(store, bob_file).left_out
    assert left_out == {
        "embeddings of Message (vectors are made anew, where they are wanted)": 3,
        "embeddings of Memory (vectors are made anew, where they are wanted)": 1,
        "names of users that are not their ids": 1,
        "e-mail addresses of users": 1,
        "concepts of a name that another has: both are one here": 1,
        kuzu_rows.SENDER: 1,
    }


def test_a_second_run_doubles_nothing(store: elytron.Store, bob_file: Path) -> None:
    migrate(store, bob_file)
    bob = store.agent("bob_technique")
    before = (bob.usage(), bob.history(), bob.memories(), bob.concepts(), bob.relations())
    report = migrate(store, bob_file)
    assert (report.imported, report.already_held, report.bad) == (0, 3, ())
    assert (report.memories, report.concepts, report.relations) == (0, 0, 0)
    usage = bob.usage()
    for name in ("messages", "sessions", "users", "memories", "concepts", "edges"):
        assert getattr(usage, name) == getattr(before[0], name), name
    assert (bob.history(), bob.memories(), bob.concepts(), bob.relations()) == before[1:]


def test_a_store_that_reads_few_rows_at_once_is_not_told_relations_twice(
    open_store: Callable[..., elytron.Store], bob_file: Path
) -> None:
    store = open_store(max_query_rows=100)
    assert migrate(store, bob_file).relations == 2
    assert migrate(store, bob_file).relations == 0


def test_a_second_run_leaves_what_was_changed_here(store: elytron.Store, bob_file: Path) -> None:
    migrate(store, bob_file)
    bob = store.agent("bob_technique")
    bob.set_concept("Alice", description="She lives in Lyon now")
    migrate(store, bob_file)
    alice = bob.concept("Alice")
    assert alice is not None
    assert alice.concept.description == "She lives in Lyon now"


def test_a_database_whose_program_was_killed_is_read_from_its_log(
    store: elytron.Store, base: Path
) -> None:
    before = state_of(base)
    assert (base / "dora" / "kuzu.db.wal").stat().st_size
    assert migrate(store, base / "dora").imported == 3
    assert state_of(base) == before


def cut_short(path: Path, *content: Any) -> Path:
    """A database of which a checkpoint was begun."""
    made = make(path, *content, killed=True)
    Path(str(made) + ".shadow").write_bytes(bytes(4096))
    return made


def test_a_checkpoint_that_was_cut_short_is_finished_in_a_copy_which_goes(
    store: elytron.Store, tmp_path: Path, temporary: Path
) -> None:
    path = cut_short(tmp_path / "eve" / "kuzu.db")
    before = state_of(tmp_path / "eve")
    assert migrate(store, path).imported == 3
    assert state_of(tmp_path / "eve") == before
    assert not list(temporary.iterdir())


def test_the_copy_goes_when_the_reading_is_broken_off(tmp_path: Path, temporary: Path) -> None:
    database = ForeignDatabase(cut_short(tmp_path / "many" / "kuzu.db", many(2500)))
    next(database.lines())
    assert [file.name for file in temporary.glob("*/*.db")] == ["kuzu.db"]
    database.close()
    assert not list(temporary.iterdir())


def test_an_older_file_without_embeddings_memories_or_concepts_is_read(
    store: elytron.Store, tmp_path: Path
) -> None:
    path = make(
        tmp_path / "old" / "kuzu.db",
        schema=[
            "CREATE NODE TABLE Message(id STRING, role STRING, content STRING,"
            " timestamp TIMESTAMP, session_id STRING, PRIMARY KEY(id))",
            "CREATE (:Message {id: 'a', role: 'user', content: 'hello', session_id: 's',"
            " timestamp: timestamp('2025-01-01 10:00:00')})",
            "CREATE NODE TABLE Mood(id STRING, PRIMARY KEY(id))",
            "CREATE (:Mood {id: 'glad'})",
        ],
    )
    report = migrate(store, path)
    assert report.imported == 1
    assert report.left_out == {"nodes of the table Mood, which is not the origin's": 1}


def test_thousands_are_read_in_pages_and_progress_is_told(
    open_store: Callable[..., elytron.Store], tmp_path: Path
) -> None:
    path = make(tmp_path / "many" / "kuzu.db", many(2500), embeddings=False)
    store = open_store(max_messages_per_agent=10_000)
    told: list[tuple[int, int | None]] = []
    report = migrate(store, path, on_progress=lambda done, total: told.append((done, total)))
    assert report.imported == 2500
    assert told[0] == (0, 2500)
    assert told[-1] == (2500, 2500)
    assert len(told) >= 4
    held = [message.id for message in store.agent("many").messages()]
    assert held == sorted(held)


def test_more_messages_than_an_agent_holds_go_on_to_the_archive(
    open_store: Callable[..., elytron.Store], tmp_path: Path
) -> None:
    path = make(tmp_path / "many" / "kuzu.db", many(900), embeddings=False)
    store = open_store(max_messages_per_agent=400, keep_messages=10)
    assert migrate(store, path).imported == 900
    usage = store.agent("many").usage()
    assert usage.messages <= 400
    assert usage.messages + usage.archived == 900
    assert migrate(store, path).already_held == 900


def test_a_run_that_was_stopped_is_gone_on_with(
    open_store: Callable[..., elytron.Store], tmp_path: Path
) -> None:
    path = make(tmp_path / "many" / "kuzu.db", many(2500), embeddings=False)
    store = open_store(max_messages_per_agent=10_000)

    class Stop(Exception):
        pass

    def stop(done: int, _total: int | None) -> None:
        if done:
            raise Stop

    with pytest.raises(Stop):
        migrate(store, path, on_progress=stop)
    assert store.agent("many").usage().messages == 1000
    assert migrated.read(store.path, "many") is None
    report = migrate(store, path)
    assert (report.imported, report.already_held) == (1500, 1000)
    assert migrated.read(store.path, "many") is not None


def test_a_message_that_cannot_be_taken_is_told_and_the_rest_comes(
    open_store: Callable[..., elytron.Store], tmp_path: Path
) -> None:
    content = many(3)
    content["messages"][1]["content"] = "x" * 5000
    path = make(tmp_path / "bob" / "kuzu.db", content)
    report = migrate(open_store(max_message_kb=4), path)
    assert report.imported == 2
    (bad,) = report.bad
    assert bad.line == 2
    assert "max_message_kb" in bad.reason
    assert "xxx" not in bad.reason


# -- finding


def test_a_file_a_folder_and_a_folder_of_folders_are_found(base: Path) -> None:
    bob, dora = base / "bob_technique", base / "dora"
    assert kuzu.find(bob / "kuzu.db") == [(bob / "kuzu.db", "bob_technique")]
    assert kuzu.find(bob) == [(bob / "kuzu.db", "bob_technique")]
    assert kuzu.find(base) == [(bob / "kuzu.db", "bob_technique"), (dora / "kuzu.db", "dora")]


def test_a_folder_without_any_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgument, match=r"holds no kuzu\.db"):
        kuzu.find(tmp_path)
    with pytest.raises(NotFound, match="there is nothing"):
        kuzu.find(tmp_path / "nowhere")


# -- what cannot be read


def refused(store: elytron.Store, path: Path, error: type[Exception], match: str) -> None:
    before = state_of(path.parent)
    with pytest.raises(error, match=match):
        migrate(store, path)
    assert state_of(path.parent) == before
    assert store.agents() == []


def test_a_database_that_is_open_elsewhere_is_told_with_its_holder(
    store: elytron.Store, tmp_path: Path
) -> None:
    path = make(tmp_path / "bob" / "kuzu.db")
    holder = hold(path)
    try:
        refused(store, path, Busy, f"open in process {holder.pid}")
    finally:
        holder.communicate(timeout=30)
    assert migrate(store, path).imported == 3


def test_the_folders_of_older_versions_are_called_by_their_name(
    store: elytron.Store, tmp_path: Path
) -> None:
    (tmp_path / "bob" / "kuzu.db").mkdir(parents=True)
    (tmp_path / "bob" / "kuzu.db" / "catalog.kz").write_bytes(b"KUZU")
    refused(store, tmp_path / "bob" / "kuzu.db", InvalidArgument, r"Kuzu 0\.10 or older.*EXPORT")


@pytest.mark.parametrize("version", [38, 40])
def test_a_file_of_another_version_is_told_with_its_number(
    store: elytron.Store, tmp_path: Path, bob_file: Path, version: int
) -> None:
    data = bytearray(bob_file.read_bytes())
    data[4] = version
    (tmp_path / "kuzu.db").write_bytes(data)
    refused(store, tmp_path / "kuzu.db", InvalidArgument, f"storage version {version}")


def test_a_file_of_ladybug_is_called_by_its_name(store: elytron.Store, tmp_path: Path) -> None:
    (tmp_path / "kuzu.db").write_bytes(b"LBUG" + (49).to_bytes(8, "little") + bytes(5000))
    refused(store, tmp_path / "kuzu.db", InvalidArgument, r"LadybugDB \(storage version 49\)")


@pytest.mark.parametrize("data", [b"", b"KUZ", b"hello, this is no database at all"])
def test_a_file_that_is_no_database_is_told(
    store: elytron.Store, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "kuzu.db").write_bytes(data)
    refused(store, tmp_path / "kuzu.db", InvalidArgument, "no database of Kuzu")


def test_a_database_of_another_program_is_told_with_its_tables(
    store: elytron.Store, tmp_path: Path
) -> None:
    path = make(
        tmp_path / "kuzu.db", schema=["CREATE NODE TABLE City(name STRING, PRIMARY KEY(name))"]
    )
    refused(store, path, InvalidArgument, "not a memory of a Locrits program: its tables are City")


def test_a_damaged_database_is_told_and_left_as_it_is(
    store: elytron.Store, tmp_path: Path, bob_file: Path
) -> None:
    data = bob_file.read_bytes()
    (tmp_path / "kuzu.db").write_bytes(data[: len(data) // 8192 * 4096])
    refused(store, tmp_path / "kuzu.db", Corrupt, "is damaged and was left as it is")


def test_without_kuzu_the_extra_is_named(store: elytron.Store, tmp_path: Path, base: Path) -> None:
    """An interpreter without packages stands for one without kuzu."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(GraphUnavailable, match=r"elytron\[kuzu\]"):
        migrate(store, base / "dora", python=str(bare))


@pytest.mark.parametrize(
    ("program", "error", "match"),
    [
        ("nowhere/python", InvalidArgument, "cannot be run"),
        ("/bin/false", Unavailable, "ended with 1"),
    ],
)
def test_an_interpreter_that_is_none_is_told(
    store: elytron.Store, base: Path, program: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        migrate(store, base / "dora", python=program)


def test_a_reader_that_is_killed_is_told_and_migrating_again_goes_on(
    open_store: Callable[..., elytron.Store], tmp_path: Path
) -> None:
    path = make(tmp_path / "many" / "kuzu.db", many(2500), embeddings=False)
    script = tmp_path / "python"  # the first page, and then a reader that dies
    script.write_text(f'#!/bin/sh\n"{sys.executable}" "$@" | head -n 2\nkill -SEGV $$\n')
    script.chmod(0o755)
    store = open_store(max_messages_per_agent=10_000)
    with pytest.raises(Corrupt, match=r"killed its reader \(signal 11\)"):
        migrate(store, path, python=str(script))
    assert store.agent("many").usage().messages == 1000
    assert migrate(store, path).already_held == 1000


def test_a_reader_that_is_killed_leaves_its_copy_to_whoever_asked(
    tmp_path: Path, temporary: Path
) -> None:
    path = cut_short(tmp_path / "many" / "kuzu.db", many(5000, text="{n} " + "x" * 200))
    with ForeignDatabase(path) as database:
        lines = database.lines()
        next(lines)
        database._process.kill()
        with pytest.raises(Corrupt, match="killed its reader"):
            list(lines)
        assert list(temporary.glob("*/*.db"))
    assert not list(temporary.iterdir())


def test_a_reader_ends_with_whoever_asked(base: Path) -> None:
    database = ForeignDatabase(base / "dora" / "kuzu.db")
    next(database.lines())
    database.close()
    database.close()
    assert database._process.returncode is not None


def test_a_reader_ends_when_whoever_asked_is_killed(
    tmp_path: Path, temporary: Path, start_script: Callable[..., "subprocess.Popen[str]"]
) -> None:
    """It is stopped in the middle of a page, since nobody reads on. Its copy goes, too."""
    path = cut_short(tmp_path / "many" / "kuzu.db", many(5000, text="{n} " + "x" * 200))
    asker = start_script(
        """
        import sys
        from pathlib import Path
        from elytron.importers.kuzu_source import ForeignDatabase

        database = ForeignDatabase(Path(sys.argv[1]))
        next(database.lines())
        print(database._process.pid, flush=True)
        sys.stdin.read()
        """,
        path,
    )
    assert asker.stdout is not None
    reader = psutil.Process(int(asker.stdout.readline()))
    assert list(temporary.iterdir())
    asker.kill()
    asker.wait(30)
    reader.wait(30)
    assert not reader.is_running()
    assert not list(temporary.iterdir())


def test_signals_to_a_whole_group_leave_the_reader_s_end_to_whoever_asked(
    tmp_path: Path, temporary: Path
) -> None:
    path = make(tmp_path / "many" / "kuzu.db", many(2500), embeddings=False)
    with ForeignDatabase(path) as database:
        lines = database.lines()
        assert next(lines)["kind"] == "database"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            database._process.send_signal(number)
        assert sum(len(line["rows"]) for line in lines if line["kind"] == "messages") == 2500
    # It has come to its end, or met that of its stdin: no signal has ended it.
    assert database._process.returncode >= 0


def test_every_word_of_the_reader_has_its_error() -> None:
    for code in ("locked", "unreadable", "disk-full", "memory", "too-large", "anything"):
        error = refusal(Path("kuzu.db"), {"code": code, "message": "why"})
        assert isinstance(error, elytron.ElytronError)
        assert "kuzu.db" in str(error)
