"""Claude's export: conversations, what is attached to them, and the ZIP that they come in."""

import contextlib
import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron import InvalidArgument
from elytron.importers import claude, detect_format, import_file, pieces, zips
from test_importers_common import DATA, contents, pouring


@pytest.fixture
def pour(store, tmp_path):
    return pouring(store, tmp_path)


def conversation(*messages: dict[str, Any], **members: Any) -> list[dict[str, Any]]:
    numbered = [
        {"uuid": f"m{number}", "sender": "human", "created_at": "2025-03-01T10:00:00Z", **message}
        for number, message in enumerate(messages, 1)
    ]
    return [{"uuid": "c1", "name": "", "chat_messages": numbered, **members}]


def test_conversations_become_sessions_with_their_times_roles_and_titles(store):
    (report,) = import_file(store, DATA / "claude.json", agent="bob")
    bob = store.agent("bob")
    assert report.imported == 6
    ivy = bob.history("conv-1")
    assert [(m.id, m.role, m.content) for m in ivy] == [
        ("m1", "user", "What grows here?"),
        ("m2", "assistant", "Ivy."),
        ("m3", "user", "[attachment: notes.txt]\nThe wall faces north."),
        ("m4", "assistant", "Then it will stay small."),
    ]
    assert ivy[0].at.isoformat() == "2025-03-01T10:00:01.250000+00:00"
    assert ivy[0].metadata == {"title": "Ivy on the wall", "files": ["wall.jpg"]}
    tool = {"type": "tool_use", "name": "look_up", "input": {"plant": "ivy"}}
    assert ivy[1].metadata == {"parts": [tool]}
    assert ivy[2].metadata == {"files": ["notes.txt"]}
    assert [m.content for m in bob.history("conv-2")] == ["Name a river.", "The Rhône."]
    assert report.left_out == {
        pieces.REASONING: 1, pieces.EMPTY: 1, pieces.ABANDONED: 3, claude.SUMMARIES: 1,
    }  # fmt: skip


def test_messages_that_say_nothing_of_what_they_follow_are_all_taken(store, pour):
    pour(conversation({"text": "a"}, {"text": "b", "parent_message_uuid": None}), "claude")
    assert contents(store.agent("bob")) == ["a", "b"]


def test_texts_of_attachments_are_kept_as_far_as_the_message_has_room(open_store, tmp_path):
    store = open_store(max_message_kb=2)
    texts = [{"file_name": f"{n}.txt", "extracted_content": str(n) * 900} for n in range(4)]
    value = conversation({"text": "Read these.", "attachments": texts})
    report = pouring(store, tmp_path)(value, "claude")
    (message,) = store.agent("bob").messages()
    assert message.content.startswith("Read these.\n\n[attachment: 0.txt]\n000")
    assert ("1" * 900 in message.content, "2" * 900 in message.content) == (True, False)
    assert message.metadata["files"] == ["0.txt", "1.txt", "2.txt", "3.txt"]
    assert report.left_out == {claude.ATTACHED: 2}


def test_a_message_of_files_alone_is_left_out_and_counted(pour):
    report = pour(conversation({"text": "", "files": [{"file_name": "a.png"}]}), "claude")
    assert (report.imported, report.left_out) == (0, {pieces.NO_TEXT: 1})


BAD = {
    "a number": (7, "expected a message; got int"),
    "no sender": ({"text": "x", "sender": None}, "`sender` must be a string; got NoneType"),
    "another sender": ({"text": "x", "sender": "ghost"}, "'ghost'"),
    "no uuid": ({"text": "x", "uuid": 5}, "`uuid` must be a string"),
    "no time": ({"text": "x", "created_at": None}, "`created_at` must be a string"),
    "a time that is none": ({"text": "x", "created_at": "soon"}, "ISO 8601"),
    "content that is no list": ({"text": "x", "content": "x"}, "`content` must be a list"),
    "attachments that are no list": ({"text": "x", "attachments": {}}, "`attachments` must be"),
    "a NUL": ({"text": "a\0b"}, "NUL"),
    "a lone surrogate": ({"text": "a\ud800b"}, "surrogate"),
    "a surrogate in an attachment": (
        {"text": "a", "attachments": [{"extracted_content": "\ud800"}]}, "surrogate",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_message_is_named_with_its_place_and_the_others_are_taken_if_asked(kind, store, pour):
    message, reason = BAD[kind]
    value = conversation({"text": "before"}, {"text": "after"})
    bad = {**value[0]["chat_messages"][0], "uuid": "bad", **message} if message != 7 else 7
    value[0]["chat_messages"].insert(1, bad)
    with pytest.raises(InvalidArgument, match="item 1: message 2: ") as caught:
        pour(value, "claude")
    assert reason in str(caught.value)
    assert store.agents() == []
    report = pour(value, "claude", skip_bad=True)
    assert (report.imported, len(report.bad)) == (2, 1)


@pytest.mark.parametrize("value", [{}, {"uuid": "c"}, {"uuid": 1, "chat_messages": []}])
def test_an_item_that_is_no_conversation_is_bad(value, pour):
    with pytest.raises(InvalidArgument, match=r"item 1: .*nothing was imported"):
        pour([value], "claude")


# -- the ZIP


def packed(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_zip_is_read_as_the_file_in_it(method, store, tmp_path):
    data = (DATA / "claude.json").read_bytes()
    path = packed(
        tmp_path / "data-2025.zip", ("users.json", b"[]"), ("conversations.json", data),
        method=method,
    )  # fmt: skip
    assert detect_format(path) == "claude"
    (report,) = import_file(store, path)
    assert (report.agent, report.imported) == ("data-2025", 6)
    assert import_file(store, path)[0].already_held == 6
    assert import_file(store, DATA / "claude.json", agent="data-2025")[0].already_held == 6
    assert sorted(tmp_path.iterdir()) == [tmp_path / "data-2025.zip", store.path]


def test_a_zip_of_chatgpt_is_read_too(store, tmp_path):
    data = (DATA / "conversations.json").read_bytes()
    path = packed(tmp_path / "export.zip", ("folder/conversations.json", data))
    assert import_file(store, path)[0].imported == 6


def refused(store: elytron.Store, path: Path) -> str:
    with pytest.raises(InvalidArgument) as caught:
        import_file(store, path, agent="bob")
    assert store.agents() == []
    return str(caught.value)


def test_a_zip_without_conversations_or_with_two_is_refused(store, tmp_path):
    path = packed(tmp_path / "a.zip", ("users.json", b"[]"))
    assert "no files conversations.json among its 1" in refused(store, path)
    path = packed(tmp_path / "b.zip", ("conversations.json", b"[]"), ("x/conversations.json", b""))
    assert "2 files conversations.json" in refused(store, path)


def test_paths_in_a_zip_mean_nothing(store, tmp_path):
    data = (DATA / "claude.json").read_bytes()
    path = packed(tmp_path / "a.zip", ("../../conversations.json", data), ("/etc/passwd", b"x"))
    assert import_file(store, path)[0].imported == 6
    assert sorted(tmp_path.iterdir()) == [path, store.path]


def test_a_zip_bomb_is_refused_before_it_is_unpacked(store, tmp_path, monkeypatch):
    monkeypatch.setattr(zips, "_RATIO_FROM_BYTES", 1 << 20)
    path = packed(tmp_path / "bomb.zip", ("conversations.json", b" " * (8 << 20)))
    assert path.stat().st_size < 10_000
    assert "at most 8589934592 and 200 times as much" in refused(store, path)


def test_a_zip_that_says_less_than_it_unpacks_to_is_damaged(store, tmp_path, monkeypatch):
    """Method: write a smaller size over the one in the list of files."""
    monkeypatch.setattr(zips, "_RATIO_FROM_BYTES", 1 << 20)
    path = packed(tmp_path / "bomb.zip", ("conversations.json", b"[" + b" " * (8 << 20)))
    data = bytearray(path.read_bytes())
    listed = data.rindex(b"PK\x01\x02")
    data[listed + 24 : listed + 28] = struct.pack("<I", 4000)
    path.write_bytes(data)
    assert "damaged" in refused(store, path)


def test_a_zip_with_a_huge_list_of_files_is_refused_before_it_is_read(store, tmp_path, monkeypatch):
    monkeypatch.setattr(zips, "DIRECTORY_MAX_BYTES", 70_000)
    path = tmp_path / "many.zip"
    packed(path, *[(f"{number:0200}", b"") for number in range(400)])
    assert "its list of files has over 70000 bytes" in refused(store, path)


def test_a_zip_packed_otherwise_is_to_be_unpacked_first(store, tmp_path):
    data = (DATA / "claude.json").read_bytes()
    path = packed(tmp_path / "a.zip", ("conversations.json", data), method=zipfile.ZIP_LZMA)
    assert "method 14, not deflate" in refused(store, path)
    path = packed(tmp_path / "b.zip", ("conversations.json", data))
    packed_data = bytearray(path.read_bytes())
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed_data[packed_data.index(header) + offset] |= 1
    path.write_bytes(packed_data)
    assert "encrypted" in refused(store, path)


def test_no_damage_to_a_zip_goes_unnoticed(store, tmp_path):
    """Method: cut it, and turn bits over, everywhere; what is imported is what was packed."""
    value = conversation({"text": "one"}, {"text": "two"})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", json.dumps(value))
    whole = buffer.getvalue()
    path = tmp_path / "damaged.zip"
    flipped = [whole[:n] + bytes([whole[n] ^ 0x41]) + whole[n + 1 :] for n in range(len(whole))]
    cut = [whole[:n] for n in range(1, len(whole), 7)]
    for data in (*flipped, *cut):
        path.write_bytes(data)
        with contextlib.suppress(InvalidArgument):  # any other is a fault of ours
            import_file(store, path, agent="bob")
    assert contents(store.agent("bob")) in ([], ["one", "two"])
