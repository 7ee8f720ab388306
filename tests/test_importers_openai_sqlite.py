"""Files of `SQLiteSession`, and SQLite files that are damaged, hostile, in use, or ours."""

import json
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import apsw
import pytest

import elytron
from elytron import InvalidArgument
from elytron.adapters.openai_items import item_of
from elytron.importers import detect_format, import_file, openai_sessions, questions, tables
from foreign_databases import ITEMS, add_items, openai_database
from test_importers_common import contents


def made(path: Path, *items: Any, session: str = "web-1") -> Path:
    openai_database(path, [(session, item) for item in items]).close()
    return path


def shown(agent: elytron.Agent, session: str = "web-1") -> list[Any]:
    return [item_of(message) for message in agent.history(session, limit=500)]


def test_items_come_back_as_they_were_and_in_order(store, tmp_path):
    path = made(tmp_path / "chat.db", *ITEMS)
    assert detect_format(path) == "openai-sessions"
    (report,) = import_file(store, path)
    assert (report.agent, report.imported, report.left_out) == ("chat", len(ITEMS), {})
    agent = store.agent("chat")
    assert shown(agent) == list(ITEMS)
    assert agent.history("web-1", limit=500)[0].at.isoformat() == "2026-03-02T17:04:10+00:00"
    assert agent.recall("Rhône")[0].message.role == "assistant"


def test_importing_twice_adds_nothing_twice_and_a_grown_session_what_is_new(store, tmp_path):
    path = tmp_path / "chat.db"
    db = openai_database(path, [("web-1", item) for item in ITEMS])
    import_file(store, path)
    add_items(db, [("web-1", ITEMS[-1]), ("web-2", {"role": "user", "content": "hi"})])
    db.close()
    (report,) = import_file(store, path)
    assert (report.imported, report.already_held) == (2, len(ITEMS))
    assert shown(store.agent("chat")) == [*ITEMS, ITEMS[-1]]
    assert shown(store.agent("chat"), "web-2") == [{"role": "user", "content": "hi"}]


def test_a_wal_that_is_still_there_is_read_and_nothing_is_written_beside_the_file(store, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    db = openai_database(folder / "chat.db", [("web-1", ITEMS[0])])
    try:
        assert (folder / "chat.db-wal").stat().st_size
        before = {path: path.read_bytes() for path in folder.iterdir()}
        assert import_file(store, folder / "chat.db")[0].imported == 1
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    finally:
        db.close()


def test_a_file_that_may_not_be_written_is_read_without_a_byte_beside_it(store, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = made(folder / "chat ?%23#.db", *ITEMS)
    path.chmod(0o400)
    folder.chmod(0o500)
    try:
        assert import_file(store, path)[0].imported == len(ITEMS)
        assert list(folder.iterdir()) == [path]
    finally:
        folder.chmod(0o700)


def test_a_link_to_a_file_is_followed_to_its_wal(store, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    db = openai_database(folder / "chat.db", [("web-1", ITEMS[0])])
    link = tmp_path / "link.db"
    link.symlink_to(folder / "chat.db")
    (report,) = import_file(store, link)
    db.close()
    assert (report.agent, report.imported) == ("link", 1)


def test_tables_of_another_name_are_found_and_named_where_they_are_several(store, tmp_path):
    path = tmp_path / "chat.db"
    db = openai_database(path, [("web-1", ITEMS[0])])
    db.execute("ALTER TABLE agent_messages RENAME TO turns")
    assert import_file(store, path)[0].imported == 1
    db.execute("CREATE TABLE more AS SELECT * FROM turns")
    with pytest.raises(InvalidArgument, match="no table, or several"):
        import_file(store, path, format="openai-sessions")
    db.close()


def test_encrypted_items_are_left_out_and_counted(store, tmp_path):
    path = made(tmp_path / "chat.db", {"__enc__": 1, "v": 1, "kid": "k", "payload": "x"}, ITEMS[0])
    (report,) = import_file(store, path)
    assert (report.imported, report.left_out) == (1, {openai_sessions.ENCRYPTED: 1})


ODD = (
    [], "text", 5, None, {}, {"role": "user", "content": ""}, {"role": "user", "content": None},
    {"role": "king", "content": "x"}, {"type": 5}, {"a": "\0"}, {"a": "\ud800"},
    {"a": float("nan")}, {"content": [{"text": ["x"]}, 5, None]}, {"a": 10**400},
)  # fmt: skip


def test_any_json_is_an_item_and_comes_back_as_it_was(store, tmp_path):
    path = made(tmp_path / "chat.db", *map(json.dumps, ODD))
    assert import_file(store, path)[0].imported == len(ODD)
    assert repr(shown(store.agent("chat"))) == repr(list(ODD))
    assert import_file(store, path)[0].already_held == len(ODD)


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("nonsense", "`message_data` is not JSON"),
    "nested without end": ("[" * 100_000, "nested too deep"),
    "nested deeply": ("[" * 500 + "]" * 500, "100 levels"),
    "many digits": ("1" * 5000, "not JSON"),
    "bytes": (b"{}", "`message_data` must be text; it is bytes"),
    "too long": ({"role": "user", "content": "x" * (300 << 10)}, "max_message_kb"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_item_is_named_and_the_others_are_taken_if_asked(kind, store, tmp_path):
    data, reason = BAD[kind]
    path = made(tmp_path / "chat.db", ITEMS[0], data, ITEMS[-1])
    with pytest.raises(InvalidArgument, match="row 2: id 2: ") as caught:
        import_file(store, path)
    assert reason in str(caught.value)
    assert store.agents() == []
    (report,) = import_file(store, path, skip_bad=True)
    assert (report.imported, [bad.line for bad in report.bad]) == (2, [2])


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE agent_messages SET message_data = CAST(x'7b22ff7d' AS TEXT)", "is not UTF-8"),
        ("UPDATE agent_messages SET session_id = CAST(x'ff' AS TEXT)", "`session_id` is text"),
        ("UPDATE agent_messages SET session_id = x'00'", "`session_id` must be text"),
        ("UPDATE agent_messages SET session_id = 'a' || char(0)", "control character"),
        ("UPDATE agent_messages SET session_id = printf('%0300d', 1)", "at most 200"),
        ("UPDATE agent_messages SET created_at = 5.5", "`created_at` must be text; it is float"),
        ("UPDATE agent_messages SET created_at = 'soon'", "ISO 8601"),
        ("UPDATE agent_messages SET created_at = '0001-01-01'", "before 1970"),
        ("UPDATE agent_messages SET message_data = zeroblob(40000000)", "at most 1572864"),
    ],
)
def test_a_row_of_wrong_values_is_bad(statement, reason, store, tmp_path):
    path = made(tmp_path / "chat.db", ITEMS[0])
    db = apsw.Connection(str(path))
    db.execute(statement)
    db.close()
    with pytest.raises(InvalidArgument, match="row 1: ") as caught:
        import_file(store, path)
    assert reason in str(caught.value)
    (report,) = import_file(store, path, skip_bad=True)
    assert (report.imported, len(report.bad)) == (0, 1)


def test_a_database_in_utf_16_is_read(store, tmp_path):
    path = tmp_path / "chat.db"
    db = apsw.Connection(str(path))
    db.pragma("encoding", "UTF-16le")
    db.execute("CREATE TABLE t(id, session_id TEXT, message_data TEXT, created_at)")
    db.execute("INSERT INTO t VALUES(1, 'é', ?, NULL)", (json.dumps(ITEMS[4], ensure_ascii=False),))
    db.close()
    import_file(store, path)
    assert shown(store.agent("chat"), "é") == [ITEMS[4]]


# -- files that are none, or mean harm


def refused(store: elytron.Store, path: Path, **options: Any) -> str:
    with pytest.raises(InvalidArgument) as caught:
        import_file(store, path, agent="bob", **options)
    assert store.agents() == []
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_formats_that_the_file_cannot_have_are_refused(store, tmp_path):
    path = made(tmp_path / "chat.db", ITEMS[0])
    assert "is an SQLite database, which jsonl is not" in refused(store, path, format="jsonl")
    assert "no table `store`" in refused(store, path, format="langgraph")
    assert questions(path, 5) == []
    text = tmp_path / "a.jsonl"
    text.write_text('{"role": "user", "content": "x"}', encoding="utf-8")
    assert "no SQLite database" in refused(store, text, format="openai-sessions")


def test_a_database_of_something_else_is_told_which_formats_there_are(store, tmp_path):
    db = apsw.Connection(str(tmp_path / "a.db"))
    db.execute("CREATE TABLE t(a)")
    db.close()
    assert "openai-sessions, langgraph" in refused(store, tmp_path / "a.db")


def test_what_the_file_says_is_never_run(store, tmp_path):
    """A view, a virtual table and a generated column in place of what is looked for."""
    columns = "id, session_id, message_data, created_at"
    for name, statement in {
        "view": "CREATE VIEW agent_messages AS SELECT 1 AS id, 's' AS session_id, '{}' AS"
        " message_data, NULL AS created_at",
        "virtual": f"CREATE VIRTUAL TABLE agent_messages USING fts5({columns})",
        "generated": "CREATE TABLE agent_messages(id, session_id, created_at, message_data TEXT AS"
        " (hex(zeroblob(100000000))))",
    }.items():
        path = tmp_path / f"{name}.db"
        db = apsw.Connection(str(path))
        db.execute(statement)
        db.close()
        assert "no table, or several" in refused(store, path, format="openai-sessions"), name


def test_a_file_of_a_store_is_refused_wherever_it_lies(store, folder, tmp_path):
    store.agent("bob").save("user", "x")
    store.close()
    (ledger,) = folder.glob("agents/*/ledger.db")
    with elytron.open(tmp_path / "other") as other:
        assert "is a file of an Elytron store" in refused(other, ledger)
        copy = tmp_path / "copy.db"
        shutil.copy(ledger, copy)
        assert "is a file of an Elytron store" in refused(other, copy)


def test_a_journal_of_a_write_that_did_not_end_is_named(store, tmp_path):
    path = made(tmp_path / "chat.db", ITEMS[0])
    journal = tmp_path / "chat.db-journal"
    journal.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")
    assert "chat.db-journal" in refused(store, path)
    journal.write_bytes(bytes(512))  # as one is left that is kept for the next write
    assert import_file(store, path)[0].imported == 1


def test_a_wal_that_is_no_file_is_refused(store, tmp_path):
    path = made(tmp_path / "chat.db", ITEMS[0])
    os.mkfifo(tmp_path / "chat.db-wal")
    with pytest.raises(InvalidArgument, match="not a regular file"):
        import_file(store, path)


def test_a_database_with_its_wal_is_copied_up_to_a_size(store, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "COPY_MAX_BYTES", 5000)
    db = openai_database(tmp_path / "chat.db", [("web-1", ITEMS[0])])
    assert "at most 5000 can be copied" in refused(store, tmp_path / "chat.db")
    db.close()


def test_a_row_that_takes_too_long_ends_the_import(store, tmp_path, monkeypatch):
    path = tmp_path / "chat.db"
    rows = [("web-1", {"role": "user", "content": str(n)}) for n in range(20_000)]
    db = apsw.Connection(str(path))
    with db:
        db.execute("CREATE TABLE t(id, session_id, message_data, created_at)")
        db.executemany("INSERT INTO t VALUES(0, ?, ?, NULL)", [(s, str(m)) for s, m in rows])
    db.close()
    monkeypatch.setattr(tables, "ROW_TIMEOUT_S", -1.0)
    assert "takes over -1 s for a row" in refused(store, path)


def test_a_database_that_changes_while_it_is_read_is_not_imported(store, tmp_path, monkeypatch):
    path = made(tmp_path / "chat.db", *ITEMS)
    read = tables.Tables.rows

    def rows(self: tables.Tables, *args: Any, **options: Any) -> Any:
        yield from read(self, *args, **options)
        os.utime(path, (1, 1))

    monkeypatch.setattr(tables.Tables, "rows", rows)
    assert "was changed while it was read" in refused(store, path)


def test_no_damage_to_a_database_does_more_than_refuse_it(store, tmp_path):
    """Method: cut it at every 512 bytes, and overwrite 16 bytes at every 256th place."""
    whole = made(tmp_path / "whole.db", *ITEMS).read_bytes()
    path = tmp_path / "chat.db"
    cut = [whole[:size] for size in range(0, len(whole), 512)]
    torn = [
        whole[:place] + filling * 16 + whole[place + 16 :]
        for place in range(0, len(whole), 256)
        for filling in (b"\xff", b"\0")
    ]
    outcomes = {"refused": 0, "imported": 0}
    for data in (*cut, *torn):
        path.write_bytes(data)
        try:
            import_file(store, path, agent="bob", skip_bad=True, format="openai-sessions")
        except InvalidArgument:
            outcomes["refused"] += 1
        else:
            outcomes["imported"] += 1
    assert min(outcomes.values()) > 10, outcomes
    assert set(contents(store.agent("bob")))


def test_a_huge_file_is_read_row_by_row(store, tmp_path):
    """Method: a file of 70 MB, half of it in one row; what Python holds meanwhile is measured."""
    path = tmp_path / "chat.db"
    db = openai_database(path, [("web-1", ITEMS[0])])
    with db:
        add_items(db, [("web-1", " " * (2 << 20)) for _ in range(18)])
        add_items(db, [("web-1", " " * (34 << 20)), ("web-1", ITEMS[0])])
    db.close()
    assert path.stat().st_size > 70_000_000
    tracemalloc.start()
    (report,) = import_file(store, path, skip_bad=True)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (report.imported, len(report.bad)) == (2, 19)
    assert peak_bytes < 10_000_000
