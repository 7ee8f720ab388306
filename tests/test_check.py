"""Checking: what is damaged is found and named, what can be made anew is, and the rest is kept."""

import contextlib
import errno
import json
import random
from pathlib import Path

import apsw
import pytest

import elytron
from elytron import ElytronError
from elytron.ledger import files, ops, rows
from elytron.upkeep import expelling
from ledgers import check_index, flip, held, ledger_path, query, wal_path, write
from limits import everything

SMALL = {"reserve_mb": 0, "keep_messages": 0}


def begin(folder: Path, *, archived: int = 40) -> None:
    """200 messages of two users in three sessions, some marked, some archived, all indexed."""
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        bob.save_many(
            {"role": "user", "content": f"Message {n} says word{n} and more", "id": f"m{n}",
             "session": f"s{n % 3}", "user": ("alice", None, "carl")[n % 3],
             "pinned": n == 199, "importance": 0.9 if n == 198 else None}
            for n in range(200)
        )  # fmt: skip
        bob.delete("m150")
        if archived:
            assert bob.archive(older_than_days=0, keep=199 - archived).archived == archived


def checked(folder: Path, *, repair: bool = False) -> elytron.Checked:
    with elytron.open(folder, **SMALL) as store:
        return store.agent("bob").check(repair=repair)


def found(report: elytron.Checked) -> dict[str, str]:
    """Part and what, for a report that names each part once."""
    parts = {finding.part: finding.what for finding in report.findings}
    assert len(parts) == len(report.findings), report.findings
    return parts


def test_a_whole_memory_is_found_whole(folder):
    begin(folder)
    report = checked(folder)
    assert report.ok
    assert report.findings == ()
    assert (report.messages, report.archived) == (159, 40)
    assert checked(folder, repair=True) == report


def test_a_memory_that_is_not_there_is_whole_and_nothing_is_made(folder, bob):
    assert bob.check() == elytron.Checked("bob", 0, 0)
    assert bob.check(repair=True).ok
    assert not folder.exists()


def test_a_check_says_how_far_it_is(folder):
    begin(folder)
    with elytron.open(folder) as store:
        far: list[int] = []
        store.agent("bob").check(on_progress=far.append)
    assert far[-1] == 159


@pytest.mark.parametrize("verb", ["save", "edit", "delete", "archive", "restore", "reindex", "pin"])
def test_what_every_verb_leaves_is_whole(folder, verb):
    begin(folder)
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        for n in range(100, 130):
            if verb == "save":
                bob.save("user", f"New {n}", session=f"t{n}", user=f"u{n}")
            elif verb == "edit":
                bob.edit(f"m{n}", f"Edited {n}")
            elif verb == "delete":
                bob.delete(f"m{n}")
            elif verb == "pin":
                bob.pin(f"m{n}")
        if verb == "archive":
            bob.archive(older_than_days=0, keep=0)
        elif verb == "restore":
            bob.restore(session="s0")
        elif verb == "reindex":
            bob.reindex()
        assert bob.check().findings == ()


DAMAGES = {
    "a message": ("UPDATE messages SET content = 'Massage 60' WHERE id = 'm60'", "messages"),
    "a message's time": ("UPDATE messages SET at_us = at_us + 1 WHERE id = 'm60'", "messages"),
    "a message's metadata": ("UPDATE messages SET metadata = '{' WHERE id = 'm60'", "messages"),
    "a mark": ("UPDATE marks SET pinned = 0 WHERE pinned", "marks"),
    "an orphan mark": ("INSERT INTO marks VALUES(999, 0.5, 1, 0)", "marks"),
    "a user": ("UPDATE users SET id = 'mallory' WHERE id = 'carl'", "users"),
    "a session": ("UPDATE sessions SET created_us = 1 WHERE id = 's1'", "sessions"),
    "a message of no session": ("DELETE FROM sessions WHERE id = 's1'", "messages"),
    "a message of no user": ("DELETE FROM users WHERE id = 'alice'", "messages"),
    "a gap in the changes": (
        "DELETE FROM changes WHERE ordinal = (SELECT max(ordinal) - 2 FROM changes)", "changes",
    ),
    "a change of no kind": ("UPDATE changes SET op = 9 WHERE ordinal = 3", "changes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_row_is_named_and_taken_out_only_when_asked(folder, kind):
    sql, part = DAMAGES[kind]
    begin(folder)
    query(folder, sql)
    count = "SELECT count(*) FROM messages"
    before = query(folder, count)
    for repair in (False, True):
        report = checked(folder, repair=repair)
        assert part in {finding.part for finding in report.findings}
        assert not report.ok or part in ("users", "sessions")
        assert query(folder, count) == before or repair
    if part == "changes":
        assert not checked(folder).ok
        return
    assert checked(folder).findings == ()
    gone = 1 if part == "messages" and "no" not in kind else 0
    assert query(folder, count)[0][0] == before[0][0] - gone
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        assert len(list(bob.messages())) == before[0][0] - gone
        if gone:
            bob.save("user", "A kangaroo", id="m60", session="s0")
            assert bob.recall("kangaroo")[0].message.content == "A kangaroo"


def test_what_is_taken_out_is_kept_in_a_file_that_is_named(folder):
    begin(folder)
    query(folder, "UPDATE messages SET content = 'Massage' WHERE id = 'm60'")
    key = query(folder, "SELECT key FROM messages WHERE id = 'm60'")[0][0]
    what = found(checked(folder, repair=True))["messages"]
    (aside,) = ledger_path(folder).parent.glob("damaged-*")
    assert f"it is lost: what is left of it lies in {aside}" in what
    assert "Massage" not in what
    (line,) = (aside / "rows.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert (kept["table"], kept["row"]["key"], kept["row"]["content"]) == (
        "messages",
        key,
        "Massage",
    )
    assert set(kept["row"]["terms"]) == {"base64"}
    with elytron.open(folder, **SMALL) as store:
        receipt = store.agent("bob").forget(user="alice")
    assert any(str(aside) in where for where in receipt.remaining)


def test_no_row_is_taken_out_that_is_not_kept(folder, monkeypatch):
    begin(folder)
    query(folder, "UPDATE messages SET content = content || '!' WHERE id IN ('m60', 'm61')")
    with monkeypatch.context() as patch:
        patch.setattr(expelling.Expelling, "_sync", fail)
        report = checked(folder, repair=True)
    assert all("taking it out failed: no room" in one.what for one in report.findings)
    assert len(report.findings) == 2
    assert query(folder, "SELECT count(*) FROM messages WHERE id IN ('m60', 'm61')") == [(2,)]
    with monkeypatch.context() as patch:
        patch.setattr(expelling, "_EVIDENCE_MAX_BYTES", 500)
        checked(folder, repair=True)
    assert query(folder, "SELECT count(*) FROM messages WHERE id IN ('m60', 'm61')") == [(1,)]
    checked(folder, repair=True)
    assert checked(folder).findings == ()


def fail(*_):
    raise OSError(errno.ENOSPC, "full")


def test_a_row_that_is_whole_again_is_not_taken_out(folder):
    """Whoever found it damaged may be late."""
    begin(folder)
    key = query(folder, "SELECT key FROM messages WHERE id = 'm60'")[0][0]
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        write(bob, ops.Expel("messages", rows.STORED, key))
        assert write(bob, ops.PutName("sessions", rows.CHECKSUMMED["sessions"], 1, "x", 0))
        assert bob.get("m60") is not None
        assert bob.check().ok


def test_a_damaged_message_is_named_by_its_row(folder):
    begin(folder)
    query(folder, "UPDATE messages SET content = 'Massage' WHERE id = 'm60'")
    key = query(folder, "SELECT key FROM messages WHERE id = 'm60'")[0][0]
    what = found(checked(folder))["messages"]
    assert what.startswith(f"message row {key} (id 'm60', session 's0', said 20")
    assert what.endswith(") is not what was written")
    assert "Massage" not in what


def test_many_damaged_messages_are_counted(folder):
    begin(folder, archived=0)
    query(folder, "UPDATE messages SET content = content || '!'")
    report = checked(folder)
    assert report.messages == 199
    assert len(report.findings) == 101
    assert report.findings[-1].what == "and 99 more rows"


WORDS = {
    "missing": "DELETE FROM words WHERE rowid IN (SELECT key FROM messages WHERE id > 'm90')",
    "empty": "INSERT INTO words(words) VALUES('delete-all')",
    "extra": "INSERT INTO words(rowid, terms) VALUES(5000, '00112233 44556677')",
    "other": "UPDATE messages SET terms = (SELECT terms FROM messages WHERE id = 'm70')"
    " WHERE id = 'm80'",
    "behind": "UPDATE indexed SET key = -5000",
    "ahead": "UPDATE indexed SET key = 100000",
    "unreadable": "UPDATE indexed SET key = 'x'",
}


@pytest.mark.parametrize("kind", ["missing", "empty", "extra", "other", "behind"])
def test_a_wrong_word_index_is_found_and_made_anew(folder, kind):
    begin(folder)
    query(folder, WORDS[kind])
    report = checked(folder)
    (finding,) = report.findings
    assert (finding.part, finding.repairable, finding.repaired) == ("words", True, False)
    assert not report.ok
    report = checked(folder, repair=True)
    (finding,) = report.findings
    assert finding.repaired
    assert report.ok
    assert checked(folder).findings == ()
    check_index(folder)
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        for n in (45, 70, 80, 199):
            assert bob.recall(f"word{n}")[0].message.id == f"m{n}"


@pytest.mark.parametrize("kind", ["ahead", "unreadable"])
def test_a_wrong_end_of_the_word_index_is_found_and_put_right(folder, kind):
    """Messages that are saved behind it would never be found."""
    begin(folder)
    query(folder, WORDS[kind])
    assert not checked(folder).ok
    report = checked(folder, repair=True)
    assert report.ok
    assert all(finding.repaired for finding in report.findings)
    assert checked(folder).findings == ()
    with elytron.open(folder) as store:
        store.agent("bob").save("user", "Says kangaroo")
        assert store.agent("bob").recall("kangaroo")


@pytest.mark.parametrize("value", ["'text'", "5", "1.5", "zeroblob(7)"])
def test_terms_that_are_none_are_an_error_of_ours(folder, value):
    begin(folder)
    query(folder, f"UPDATE messages SET terms = {value} WHERE id = 'm60'")
    report = checked(folder)
    assert not report.ok
    checked(folder, repair=True)
    assert checked(folder).findings == (), "terms are made anew from the content"


# -- the archive


def archive_folder(folder: Path) -> Path:
    return files.agent_folder(folder, "bob") / "archive"


def test_a_damaged_segment_is_named_and_stays_where_it_is(folder):
    begin(folder)
    (segment,) = archive_folder(folder).glob("segment-*")
    flip(segment, segment.stat().st_size // 2)
    for repair in (False, True):
        report = checked(folder, repair=repair)
        (finding,) = report.findings
        assert finding.part == "archive"
        assert segment.name in finding.what
        assert not report.ok
        assert (report.messages, report.archived) == (159, 40)
    assert segment.exists()


def test_a_missing_segment_is_named(folder):
    begin(folder)
    (segment,) = archive_folder(folder).glob("segment-*")
    segment.unlink()
    report = checked(folder)
    assert segment.name in report.findings[0].what
    assert not report.ok


@pytest.mark.parametrize("how", ["flipped", "gone", "empty"])
def test_a_damaged_manifest_is_named_and_made_anew(folder, how):
    begin(folder)
    manifest = archive_folder(folder) / "manifest.json"
    if how == "flipped":
        flip(manifest, 60)
    elif how == "gone":
        manifest.unlink()
    else:
        manifest.write_bytes(b"")
    report = checked(folder)
    assert "manifest" in found(report)["archive"]
    assert report.ok, "it is made again by whoever needs it"
    report = checked(folder)
    assert report.findings == ()
    assert report.archived == 40
    with elytron.open(folder) as store:
        assert len(everything(store.agent("bob"))) == 199


class Killed(BaseException):
    pass


@pytest.mark.parametrize("steps", [0, 1])
def test_segments_that_were_left_half_moved_are_named_and_put_right(folder, monkeypatch, steps):
    """Killed as messages begin to leave, with none of them or the first out of the ledger."""
    from elytron.ledger import ops
    from elytron.upkeep import desk

    begin(folder, archived=0)
    plain = desk.Desk.commit
    removed = 0

    def commit(self, op):
        nonlocal removed
        if isinstance(op, ops.Remove):
            removed += 1
            if removed > steps:
                raise Killed
        return plain(self, op)

    store = elytron.open(folder, **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(desk.Desk, "commit", commit)
        patch.setattr(desk, "REMOVED_MAX", 30)
        with pytest.raises(Killed):
            store.agent("bob").archive(older_than_days=0, keep=100)
    store.close()
    report = checked(folder)
    assert found(report).keys() == {"archive"}
    assert "half moved" in found(report)["archive"]
    assert not report.ok
    report = checked(folder, repair=True)
    assert report.ok
    assert report.findings[0].repaired
    assert checked(folder).findings == ()
    with elytron.open(folder) as store:
        assert len(everything(store.agent("bob"))) == 199


def test_several_things_are_named_together(folder):
    begin(folder)
    query(folder, DAMAGES["a message"][0])
    query(folder, DAMAGES["an orphan mark"][0])
    query(folder, WORDS["missing"])
    (segment,) = archive_folder(folder).glob("segment-*")
    flip(segment, 100)
    report = checked(folder, repair=True)
    assert {finding.part for finding in report.findings} >= {
        "messages",
        "marks",
        "words",
        "archive",
    }
    assert [finding.part for finding in report.findings if finding.repaired] == ["words"]
    assert not report.ok


# -- anything


OURS = (ElytronError,)
USED = {**SMALL, "max_messages_per_agent": 150}


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_anywhere_is_found_or_harmless_and_never_pythons_own_error(folder, seed):
    begin(folder)
    data = ledger_path(folder).read_bytes()
    texts = held_contents(folder)
    dice = random.Random(seed)
    used = [at for at in range(len(data)) if data[at]]
    named = 0
    for _ in range(25):
        damaged = bytearray(data)
        damaged[dice.choice(used)] ^= 1 << dice.randrange(8)
        restore_file(folder, bytes(damaged))
        with elytron.open(folder, **SMALL) as store:
            bob = store.agent("bob")
            for repair in (False, True):
                try:
                    ok = bob.check(repair=repair).ok
                except OURS:
                    ok = False
                named += not ok
            try:
                shown = held(bob)
            except OURS:
                shown = {}
            assert shown.items() <= texts.items(), "and nothing wrong is shown"
    assert named, "some of it mattered"


def held_contents(folder: Path) -> dict[str, str]:
    with elytron.open(folder) as store:
        return held(store.agent("bob"))


def restore_file(folder: Path, data: bytes) -> None:
    wal_path(folder).unlink(missing_ok=True)
    wal_path(folder).with_name("ledger.db-shm").unlink(missing_ok=True)
    ledger_path(folder).write_bytes(data)


KINDS = ("NULL", "x'ff00'", "1e300", "-1", "9223372036854775807")
TABLES = (
    "messages sessions users marks uses tails changes indexed meta memories concepts relations"
    " mentions heard readers"
).split()
# Which row is changed; of other tables the last one.
ROWS = {
    "meta": "name = 'languages'",
    "mentions": "(source, concept) = (SELECT source, concept FROM mentions LIMIT 1)",
    "heard": "folded = (SELECT max(folded) FROM heard)",
    "readers": "name = (SELECT max(name) FROM readers)",
}


def begin_with_all(folder: Path) -> None:
    """What `begin` makes, and a row at least in each of the other tables."""
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        bob.save("user", "The only one of its session", session="alone")
        assert bob.archive(older_than_days=0, keep=0).archived == 1
    begin(folder)
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        bob.remember("Alice likes tea", about=["Alice"], session="s0", id="tea")
        bob.relate("Alice", "lives in", "Lyon")
        bob.save("user", "I met Zorblax in bars")
        bob.flush()
        assert bob.recall("word180")


@pytest.mark.parametrize("table", TABLES)
def test_a_value_of_another_kind_in_any_column_is_never_pythons_own_error(folder, table):
    begin_with_all(folder)
    data = ledger_path(folder).read_bytes()
    listed = query(folder, f"SELECT name FROM pragma_table_info('{table}')")
    columns = [column for (column,) in listed]
    wrong: list[str] = []
    changed = 0
    for number, column in enumerate(columns):
        for kind in ("'text'", KINDS[number % len(KINDS)]):  # all of both would take a minute
            restore_file(folder, data)
            one = ROWS.get(table, f"rowid = (SELECT max(rowid) FROM {table})")
            sql = f"UPDATE {table} SET {column} = {kind} WHERE {one} RETURNING 1"
            with contextlib.suppress(apsw.ConstraintError, apsw.MismatchError):
                assert len(query(folder, sql)) == 1, f"there is no row in {table}"
                changed += 1  # some columns do not take it
                wrong += [f"{table}.{column} = {kind}: {what}" for what in use(folder)]
    assert changed >= len(columns) - 1
    assert not wrong, "\n".join(wrong)


def use(folder: Path) -> list[str]:
    """Every verb of upkeep once, and some that read; what came out of them that is not ours."""
    wrong = []
    with contextlib.suppress(*OURS), elytron.open(folder, **USED) as store:
        bob = store.agent("bob")
        for verb in (
            *(bob.check, bob.memories, bob.concepts, bob.relations),
            lambda: bob.recall("Alice, word180 and Zorblax"),
            lambda: bob.check(repair=True),
            lambda: bob.enforce_limits(dry_run=True),
            bob.enforce_limits,
            lambda: bob.save("user", "New"),
            bob.flush,
            lambda: bob.forget(user="alice"),
            store.cleanup,
        ):
            try:
                with contextlib.suppress(*OURS):
                    verb()
            except Exception as error:  # noqa: BLE001 - what this test is for
                wrong.append(f"{type(error).__name__}: {error}"[:120])
    return wrong
