"""Segments: what goes in comes out, others can read them, and no damage passes unnoticed."""

import hashlib
import io
import json
import math
import os
import shutil
import struct
import subprocess
import tracemalloc
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from archives import made, some, stored
from elytron.archive import Archive, Archived, Entry, entries, segments
from elytron.archive.coding import decode, encode
from elytron.errors import Corrupt, InvalidArgument, Unavailable
from elytron.records import ROLES, Message

MB = 1 << 20


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive", timeout_s=5)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
TIMES = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - the zone comes with the offset
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))),
)
MESSAGES = st.builds(
    Message,
    id=TEXTS,
    role=st.sampled_from(ROLES),
    content=TEXTS,
    at=TIMES,
    session=TEXTS,
    user=st.none() | TEXTS,
    metadata=st.dictionaries(TEXTS, JSON, max_size=3),
    position=st.integers(0, 4),
    importance=st.just(0.5) | st.floats(0, 1),
    pinned=st.booleans(),
)
ARCHIVED = st.builds(
    Archived,
    key=st.integers(1, 5),
    message=MESSAGES,
    session_key=st.integers(1, 2),
    responds_to=st.none() | st.integers(0, 5),
    arrived_us=st.integers(0, 2**62),
    embedding=st.sampled_from(("disabled", "declined", "")),
).map(lambda one: one._replace(message=replace(one.message, embed=refused(one.embedding))))


def refused(embedding: str) -> bool | None:
    return False if embedding == "declined" else None


@given(st.lists(ARCHIVED, max_size=6))
def test_a_message_comes_back_as_it_went_in(messages: list[Archived]):
    """Keys and positions are from a small range, so that they often follow the line before."""
    before_in = before_out = None
    for archived in messages:
        line = encode(archived, before_in)
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        back = decode(line, before_out)
        assert back == archived
        assert back.message.at.utcoffset() == archived.message.at.utcoffset()
        before_in, before_out = archived, back


def test_the_messages_above_vary_in_every_member():
    """A member that is added later has to come back as well."""
    assert [field.name for field in fields(Message)] == [
        "id", "role", "content", "at", "session", "user", "metadata", "position", "importance",
        "pinned", "embed",
    ]  # fmt: skip


def test_a_segment_gives_back_what_was_written(archive: Archive):
    messages = some(0, 25)
    messages[3] = made(3, content="Où pousse le blé ?\n\u2028 🌾", metadata={"page": [1.5, None]})
    (entry,) = stored(archive, messages)
    assert list(archive.read(entry)) == messages
    assert entry.messages == 25
    assert entry.bytes == (archive.folder / entry.name).stat().st_size
    assert (entry.first_us, entry.last_us) == (1_772_474_650_000_000, 1_772_474_674_000_000)
    assert archive.manifest().entries == (entry,)


def test_nothing_to_write_makes_nothing(archive: Archive):
    assert archive.write([]) == []
    assert not archive.exists()
    assert archive.manifest().entries == ()
    assert not archive.folder.exists()


def test_segments_end_at_5000_messages(archive: Archive):
    messages = some(0, 5001)
    assert [entry.messages for entry in stored(archive, messages)] == [5000, 1]
    back = [one for entry in archive.manifest().entries for one in archive.read(entry)]
    assert back == messages


def test_segments_end_at_8_mb_of_lines_and_a_larger_message_has_one_alone(archive: Archive):
    sizes_mb = (3, 3, 3, 9, 1)
    messages = [made(n, content=chr(97 + n) * (size * MB)) for n, size in enumerate(sizes_mb)]
    written = stored(archive, messages)
    assert [entry.messages for entry in written] == [2, 1, 1, 1]
    assert [one for entry in written for one in archive.read(entry)] == messages


def test_messages_are_taken_one_by_one(archive: Archive):
    """Each is asked for only when the one before is in a file."""
    alive = 0

    class Counted(str):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def messages():
        nonlocal alive
        for number in range(200):
            alive += 1
            assert alive < 5
            yield made(number, content=Counted("x"))

    assert stored(archive, messages())[0].messages == 200


@pytest.mark.parametrize("value", [math.nan, "\ud800", object()])
def test_a_message_that_is_no_json_is_refused_and_leaves_nothing(archive: Archive, value: object):
    with pytest.raises(InvalidArgument, match="key 2"):
        archive.write([made(0), made(1, metadata={"m": value})])
    assert archive.adopt(now_s=0) == []
    assert not [p for p in archive.folder.iterdir() if p.name.startswith("segment")]


def test_a_line_over_the_limit_is_refused(archive: Archive, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("elytron.archive.coding.LINE_MAX_BYTES", 500)
    with pytest.raises(InvalidArgument, match="at most 500"):
        archive.write([made(0, content="x" * 500)])


def expected_lines(messages: list[Archived]) -> list[tuple[str, str]]:
    return [(one.message.id, one.message.content) for one in messages]


def test_zstd_reads_a_segment_as_json_lines(archive: Archive):
    program = shutil.which("zstd")
    if program is None:
        pytest.skip("the program zstd is not installed")
    messages = some(0, 30)
    (entry,) = stored(archive, messages)
    path = str(archive.folder / entry.name)
    out = subprocess.run([program, "-dc", path], capture_output=True, check=True, timeout=30)
    lines = [json.loads(line) for line in out.stdout.splitlines()]
    assert [(line["id"], line["content"]) for line in lines] == expected_lines(messages)
    assert len(out.stdout) == entry.text_bytes
    subprocess.run([program, "-tq", path], check=True, timeout=30)


@pytest.mark.parametrize("across", [True, False])
def test_zstandard_streams_a_segment_as_json_lines(archive: Archive, across: bool):
    messages = some(0, 30)
    (entry,) = stored(archive, messages)
    with (archive.folder / entry.name).open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=across)
        lines = [json.loads(line) for line in io.TextIOWrapper(reader, "utf-8")]
    assert [(line["id"], line["content"]) for line in lines] == expected_lines(messages)


def test_a_flip_of_any_byte_is_noticed_and_named(archive: Archive):
    (entry,) = stored(archive, some(0, 3))
    path = archive.folder / entry.name
    good = path.read_bytes()
    for offset in range(len(good)):
        flipped = bytearray(good)
        flipped[offset] ^= 1 << offset % 8
        path.write_bytes(flipped)
        with pytest.raises(Corrupt, match=entry.name):
            list(archive.read(entry))
        with pytest.raises(Corrupt, match=entry.name):  # nor is it taken without a manifest
            segments.examine(archive.folder, entry.name)
    path.write_bytes(good)
    assert list(archive.read(entry)) == some(0, 3)
    assert segments.examine(archive.folder, entry.name) == entry


def test_a_segment_that_was_cut_off_or_grew_is_noticed(archive: Archive):
    (entry,) = stored(archive, some(0, 3))
    path = archive.folder / entry.name
    good = path.read_bytes()
    for changed in [good[:size] for size in range(len(good))] + [good + b"\0", good + good]:
        path.write_bytes(changed)
        with pytest.raises(Corrupt, match=entry.name):
            list(archive.read(entry))
    for changed in [good[:size] for size in range(len(good))] + [good + b"\0"]:
        path.write_bytes(changed)
        with pytest.raises(Corrupt, match=entry.name):
            segments.examine(archive.folder, entry.name)


def test_a_missing_segment_and_one_that_is_no_file_are_damage(archive: Archive):
    (entry,) = stored(archive, some(0, 3))
    path = archive.folder / entry.name
    path.unlink()
    with pytest.raises(Corrupt, match=f"{entry.name} is missing"):
        list(archive.read(entry))
    path.mkdir()
    with pytest.raises(Corrupt, match=entry.name):
        list(archive.read(entry))


def test_a_segment_that_may_not_be_opened_is_not_called_damaged(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    (entry,) = stored(archive, some(0, 3))

    def refuse(*_arguments: object, **_named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(Unavailable):
        list(archive.read(entry))


def forged(
    archive: Archive, compressed: bytes, *, count: int = 1, text_bytes: int | None = None
) -> Entry:
    """A segment whose checksums are right, whatever is in it, and an entry that fits it."""
    payload = struct.pack("<I", 7) * count + struct.pack("<IQ", count, text_bytes or 0)
    payload += hashlib.blake2b(payload, digest_size=8).digest()
    file = compressed + struct.pack("<II", 0x184D2A50, len(payload) + 24) + payload
    file += hashlib.blake2b(file, digest_size=16).digest() + b"ELYSEG01"
    name = "segment-0000000000000001-00000000.jsonl.zst"
    archive.folder.mkdir(exist_ok=True)
    (archive.folder / name).write_bytes(file)
    checksum = hashlib.blake2b(file, digest_size=16).hexdigest()
    return Entry(name, count, len(file), text_bytes or 0, 0, 0, checksum)


def zeros(size_bytes: int) -> bytes:
    """So many zero bytes as a zstd frame, made without ever holding them."""
    compressor = zstandard.ZstdCompressor().compressobj()
    chunk = bytes(MB)
    out = b"".join(compressor.compress(chunk) for _ in range(size_bytes // MB))
    return out + compressor.flush()


@pytest.mark.parametrize(
    ("claimed_bytes", "peak_bytes"), [(1 << 30, MB), (8 * MB, 30 * MB), (100, MB)]
)
def test_a_gigabyte_of_zeros_is_refused_in_little_memory(
    archive: Archive, claimed_bytes: int, peak_bytes: int
):
    entry = forged(archive, zeros(1 << 30), text_bytes=claimed_bytes)
    assert entry.bytes < MB
    tracemalloc.start()
    try:
        with pytest.raises(Corrupt, match=entry.name):
            list(archive.read(entry))
        with pytest.raises(Corrupt, match=entry.name):
            segments.examine(archive.folder, entry.name)
        assert tracemalloc.get_traced_memory()[1] < peak_bytes
    finally:
        tracemalloc.stop()


def test_many_messages_may_not_be_as_long_together_as_one_alone(archive: Archive):
    size = entries.SEGMENT_TEXT_MAX_BYTES + 1
    with pytest.raises(Corrupt, match="it claims"):
        list(archive.read(forged(archive, zeros(MB), count=2, text_bytes=size)))


def test_a_frame_that_asks_for_a_large_window_is_refused(archive: Archive):
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    compressed = frame.compress(b"\n") + frame.flush()
    with pytest.raises(Corrupt, match="zstd cannot read it"):
        list(archive.read(forged(archive, compressed, text_bytes=1)))


LINE = {
    "session": "s", "session_key": 1, "role": "user", "position": 0, "key": 1,
    "at": "2026-03-02T18:04:10+00:00", "id": "m", "content": "c",
}  # fmt: skip


def test_the_line_that_the_next_test_spoils_is_good():
    assert decode(json.dumps(LINE).encode(), None).message.at == datetime(
        2026, 3, 2, 18, 4, 10, tzinfo=UTC
    )


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"1" * 5000,
        *(
            json.dumps({name: value for name, value in LINE.items() if name != left}).encode()
            for left in LINE
        ),
        *(
            json.dumps({**LINE, **change}).encode()
            for change in (
                {"key": "1"}, {"key": True}, {"key": None}, {"at": "2026"}, {"at": 1},
                {"at": "2026-03-02T18:04:10"}, {"role": "king"}, {"metadata": []}, {"user": 3},
                {"pinned": 1}, {"back": "x"}, {"importance": "high"}, {"more": 1},
            )
        ),
    ],
)  # fmt: skip
def test_a_line_that_is_no_message_is_damage(archive: Archive, line: bytes):
    text = line + b"\n"
    entry = forged(archive, zstandard.compress(text), text_bytes=len(text))
    with pytest.raises(Corrupt, match=f"{entry.name} is damaged: in line 1"):
        list(archive.read(entry))


@pytest.mark.parametrize(("count", "text"), [(2, b"{}\n"), (1, b"{}\n{}\n"), (1, b"{}"), (1, b"")])
def test_a_segment_with_more_or_fewer_lines_than_it_says_is_damaged(
    archive: Archive, count: int, text: bytes
):
    whole = text.replace(b"{}", json.dumps(LINE).encode())
    entry = forged(archive, zstandard.compress(whole), count=count, text_bytes=len(whole))
    with pytest.raises(Corrupt, match="it has"):
        list(archive.read(entry))


def test_a_trailer_of_other_messages_is_damage(archive: Archive):
    """Such a segment would be passed over when one of its messages is looked for."""
    text = json.dumps(LINE).encode() + b"\n"
    entry = forged(archive, zstandard.compress(text), text_bytes=len(text))
    with pytest.raises(Corrupt, match="of other messages"):
        segments.examine(archive.folder, entry.name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_in_the_place_of_a_segment_is_not_waited_for(archive: Archive):
    (entry,) = stored(archive, some(0, 3))
    (archive.folder / entry.name).unlink()
    os.mkfifo(archive.folder / entry.name)
    with pytest.raises(Corrupt, match="no file"):
        list(archive.read(entry))
    assert archive.damaged().keys() == {entry.name}


def test_a_manifest_that_counts_otherwise_than_the_trailer_is_damage(archive: Archive):
    (entry,) = stored(archive, some(0, 3))
    with pytest.raises(Corrupt, match="do not agree"):
        list(archive.read(replace(entry, messages=4)))
