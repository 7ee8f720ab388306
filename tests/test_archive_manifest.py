"""The manifest and what it lists: changed in one step, and never lost quietly."""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from archives import held, made, some, stored
from elytron.archive import Archive, Manifest, manifest
from elytron.archive.durable import PART
from elytron.errors import Busy, Conflict, Corrupt, Unavailable
from elytron.ledger.lock import FileLock


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive", timeout_s=5)


def ids(start: int, end: int) -> set[str]:
    return {f"m{number}" for number in range(start, end)}


def test_looking_makes_nothing_on_the_disk(archive: Archive):
    assert not archive.exists()
    assert archive.manifest() == Manifest()
    assert archive.holding(["m1"]) == {"m1": []}
    assert archive.find(["m1"]) == ({}, {})
    assert archive.damaged() == {}
    assert archive.adopt(now_s=0) == []
    assert archive.merge() == 0
    assert archive.drop_oldest(0).segments == 0
    assert archive.rewrite(lambda _: True).removed == 0
    assert archive.bytes == 0
    assert archive.usage().messages == 0
    archive.publish()
    with pytest.raises(Conflict):
        archive.publish(remove=["segment-0000000000000001-00000000.jsonl.zst"])
    assert not archive.folder.exists()


def test_what_is_written_counts_once_it_is_published(archive: Archive):
    entries = archive.write(some(0, 3))
    assert archive.exists()
    assert archive.manifest() == Manifest()
    archive.publish(add=entries)
    assert archive.manifest().entries == tuple(entries)
    archive.publish(add=entries)
    assert archive.manifest().entries == tuple(entries), "a repetition is harmless"


def test_what_is_discarded_is_gone_and_what_is_listed_cannot_be(archive: Archive):
    listed = stored(archive, some(0, 3))
    loose = archive.write(some(3, 6))
    archive.discard([*loose, *listed])
    assert held(archive.folder).keys() == ids(0, 3)
    assert {path.name for path in archive.folder.glob("segment-*")} == {listed[0].name}
    with pytest.raises(Conflict, match="write it again"):
        archive.publish(add=loose)
    assert held(archive.folder).keys() == ids(0, 3)


def test_the_faster_of_two_who_replace_a_segment_wins(archive: Archive):
    old = stored(archive, some(0, 4))
    fast, slow = archive.write(some(0, 3)), archive.write(some(0, 2))
    archive.publish(add=fast, remove=[old[0].name])
    before = archive.manifest()
    with pytest.raises(Conflict, match="nothing was changed"):
        archive.publish(add=slow, remove=[old[0].name], dropped_messages=1)
    assert archive.manifest() == before
    assert held(archive.folder).keys() == ids(0, 3)
    assert not (archive.folder / old[0].name).exists()


def test_another_archive_on_the_folder_sees_each_change(archive: Archive):
    other = Archive(archive.folder, timeout_s=5)
    assert other.manifest() == Manifest()
    for number in range(5):
        stored(archive, some(number, number + 1))
        assert other.manifest() == archive.manifest()
        assert len(other.manifest().entries) == number + 1


def test_the_manifest_is_read_again_only_when_it_changed(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    stored(archive, some(0, 1))
    first = archive.manifest()
    monkeypatch.setattr(manifest, "read", lambda _path: pytest.fail("it was read again"))
    assert archive.manifest() is first


def test_any_byte_of_the_manifest_that_flips_is_noticed(archive: Archive):
    stored(archive, some(0, 2))
    path = archive.folder / manifest.FILE
    good = path.read_bytes()
    assert manifest.parse(good, path) == archive.manifest()
    for offset in range(len(good)):
        for bit in range(8):
            flipped = bytearray(good)
            flipped[offset] ^= 1 << bit
            assert manifest.parse(bytes(flipped), path) is None
    for size in range(len(good)):
        assert manifest.parse(good[:size], path) is None
    assert manifest.parse(good + b" ", path) is None


@pytest.mark.parametrize("how", ["flipped", "emptied", "removed"])
def test_a_lost_manifest_is_made_again_with_a_warning(
    archive: Archive, caplog: pytest.LogCaptureFixture, how: str
):
    entries = [*stored(archive, some(0, 5)), *stored(archive, some(5, 8))]
    path = archive.folder / manifest.FILE
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b'"format"', b'"farmot"') * (how == "flipped"))
    archive = Archive(archive.folder, timeout_s=5)
    with caplog.at_level(logging.WARNING, "elytron.archive"):
        assert archive.manifest().entries == tuple(entries)
    assert "made again" in caplog.text
    assert manifest.read(path) == archive.manifest()
    assert held(archive.folder).keys() == ids(0, 8)


def test_a_lost_manifest_is_made_again_before_anything_is_added(archive: Archive):
    stored(archive, some(0, 5))
    (archive.folder / manifest.FILE).unlink()
    new = archive.write(some(5, 8))
    archive.publish(add=new)
    assert held(archive.folder).keys() == ids(0, 8)


def test_adopting_makes_a_lost_manifest_again(archive: Archive):
    entries = stored(archive, some(0, 5))
    (archive.folder / manifest.FILE).write_bytes(b"{}")
    assert archive.adopt(now_s=0) == entries
    assert held(archive.folder).keys() == ids(0, 5)


def test_a_segment_that_cannot_be_read_is_left_when_the_manifest_is_made_again(
    archive: Archive, caplog: pytest.LogCaptureFixture
):
    (bad,), (good,) = stored(archive, some(0, 5)), stored(archive, some(5, 8))
    spoilt = archive.folder / bad.name
    spoilt.write_bytes(spoilt.read_bytes()[:-9])
    (archive.folder / manifest.FILE).unlink()
    with caplog.at_level(logging.WARNING, "elytron.archive"):
        assert archive.manifest().entries == (good,)
    assert bad.name in caplog.text
    assert spoilt.exists()
    assert archive.damaged().keys() == {bad.name}, "it is told as long as it is there"


def resealed(change: Callable[[dict], None], archive: Archive) -> bytes:
    """The manifest, changed, with a checksum that is right."""
    path = archive.folder / manifest.FILE
    value = json.loads(path.read_bytes())
    del value["checksum"]
    change(value)
    body = json.dumps(value)[1:].encode()
    return manifest._head(body) + body


def test_a_manifest_of_a_newer_version_is_left_as_it_is(archive: Archive):
    stored(archive, some(0, 2))
    newer = resealed(lambda value: value.update(format=2), archive)
    path = archive.folder / manifest.FILE
    path.write_bytes(newer)
    for verb in (archive.manifest, archive.adopt, lambda: stored(archive, some(2, 3))):
        with pytest.raises(Unavailable, match="upgrade"):
            verb()
    assert path.read_bytes() == newer


@pytest.mark.parametrize(
    "name", ["../ledger.db", "/etc/x", "segment-1.zst", 7, None, "manifest.json"]
)
def test_a_manifest_can_name_no_file_that_is_not_a_segment(archive: Archive, name: object):
    """What it names may be unlinked."""
    stored(archive, some(0, 2))
    path = archive.folder / manifest.FILE
    for change in (
        lambda value: value["removed"].append(name),
        lambda value: value["segments"][0].update(name=name),
    ):
        assert manifest.parse(resealed(change, archive), path) is None
    assert manifest.parse(resealed(lambda _: None, archive), path) == archive.manifest()


@pytest.mark.parametrize(
    "change",
    [
        {"segments": 3}, {"segments": [{}]}, {"segments": [[]]}, {"dropped_messages": -1},
        {"dropped_segments": "many"}, {"removed": None}, {"mark": 7},
    ],
)  # fmt: skip
def test_a_manifest_that_is_whole_and_makes_no_sense_is_damaged(archive: Archive, change: dict):
    stored(archive, some(0, 2))
    path = archive.folder / manifest.FILE
    assert manifest.parse(resealed(lambda value: value.update(change), archive), path) is None


def test_a_manifest_keeps_its_mark_until_it_is_made_again(archive: Archive):
    stored(archive, some(0, 2))
    first = archive.manifest().mark
    archive.rewrite(lambda one: one.key == 1)
    stored(archive, some(2, 4))
    assert archive.manifest().mark == first
    (archive.folder / manifest.FILE).write_bytes(b"")
    again = Archive(archive.folder, timeout_s=1).manifest()
    assert again.mark not in ("", first)
    assert manifest.is_begun_after(again, Manifest(mark=first))
    assert not manifest.is_begun_after(again, Manifest())


def test_segments_that_nobody_published_are_adopted(
    archive: Archive, caplog: pytest.LogCaptureFixture
):
    """As after a kill between the writing and the publishing."""
    stored(archive, some(0, 3))
    lost = archive.write(some(3, 6))
    other = Archive(archive.folder, timeout_s=5)
    assert other.adopt(now_s=0) == lost
    assert "not listed" in caplog.text
    assert held(archive.folder).keys() == ids(0, 6)
    archive.publish(add=lost)  # the writer was alive after all
    assert len(archive.manifest().entries) == 2
    assert other.adopt(now_s=0) == []


def test_what_is_written_since_it_was_looked_is_left_to_who_writes_it(archive: Archive):
    """A process that begins just then has a segment, or a merged one, that is not listed yet."""
    stored(archive, some(0, 3))
    stored(archive, some(3, 6))
    looked: set[str] = set()
    written = [*archive.write(some(6, 9)), *archive.write(some(0, 6))]
    assert Archive(archive.folder, timeout_s=5).adopt(names=looked, now_s=0) == []
    assert {entry.name for entry in written} <= {path.name for path in archive.folder.iterdir()}
    assert held(archive.folder).keys() == ids(0, 6)


def test_what_a_merge_or_a_rewrite_left_behind_is_removed(archive: Archive):
    """Everything in it is listed elsewhere, so listing it would hold each message twice."""
    stored(archive, some(0, 3))
    stored(archive, some(3, 6))
    joined, part = archive.write(some(0, 6)), archive.write(some(4, 6))
    edited = archive.write([made(2, content="edited")])
    assert archive.adopt(now_s=0) == edited
    assert not (archive.folder / joined[0].name).exists()
    assert not (archive.folder / part[0].name).exists()
    with pytest.raises(Conflict):
        archive.publish(add=joined, remove=[archive.manifest().entries[0].name])
    assert held(archive.folder).keys() == ids(0, 6)


def test_a_copy_of_messages_in_a_damaged_segment_is_kept(archive: Archive):
    (bad,) = stored(archive, some(0, 3))
    path = archive.folder / bad.name
    path.write_bytes(path.read_bytes()[:-1])
    copy = archive.write(some(0, 3))
    assert archive.adopt(now_s=0) == copy
    assert archive.find(["m1"])[0]["m1"] == made(1)


def test_a_removed_segment_that_could_not_be_unlinked_does_not_come_back(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A kill before the unlinking is the same: what was erased must not be adopted."""
    (old,) = stored(archive, some(0, 4))
    with monkeypatch.context() as patch:

        def refuse(path: object, **_named: object) -> None:
            raise PermissionError(13, "in use", str(path))

        patch.setattr(os, "unlink", refuse)
        assert archive.rewrite(lambda archived: archived.message.id == "m1").removed == 1
    assert (archive.folder / old.name).exists()
    assert "still there" in caplog.text
    other = Archive(archive.folder, timeout_s=5)
    assert held(archive.folder).keys() == {"m0", "m2", "m3"}
    assert other.damaged() == {}
    assert other.adopt(now_s=0) == []
    assert not (archive.folder / old.name).exists()
    assert held(archive.folder).keys() == {"m0", "m2", "m3"}
    stored(other, some(5, 6))
    assert other.manifest().removed == ()


def test_a_stray_that_cannot_be_read_is_left_and_told(
    archive: Archive, caplog: pytest.LogCaptureFixture
):
    stored(archive, some(0, 3))
    (lost,) = archive.write(some(3, 6))
    path = archive.folder / lost.name
    path.write_bytes(b"")
    assert archive.adopt(now_s=0) == []
    assert path.exists()
    assert lost.name in caplog.text
    assert archive.damaged().keys() == {lost.name}
    assert archive.bytes == sum(
        file.stat().st_size for file in archive.folder.iterdir() if file.name != "lock"
    )


def test_unfinished_files_go_once_they_are_an_hour_old(archive: Archive):
    stored(archive, some(0, 3))
    part = archive.folder / f"segment-0000000000000001-00000000.jsonl.zst{PART}"
    part.write_bytes(b"half")
    os.utime(part, (1000, 1000))
    archive.adopt(now_s=1000 + 3600)
    assert part.exists()
    archive.adopt(now_s=1000 + 3601)
    assert not part.exists()
    assert held(archive.folder).keys() == ids(0, 3)


def test_a_change_waits_for_another_process_no_longer_than_it_was_told(archive: Archive):
    stored(archive, some(0, 3))
    new = archive.write(some(3, 4))
    hasty = Archive(archive.folder, timeout_s=0)
    lock = FileLock(archive.folder / "lock")
    lock.acquire(0, 0)
    try:
        with pytest.raises(Busy):
            hasty.publish(add=new)
        assert hasty.manifest() == archive.manifest(), "reading takes no lock"
    finally:
        lock.close()
    assert held(archive.folder).keys() == ids(0, 3)
    hasty.publish(add=new)


def test_every_segment_damaged_or_not_is_told_apart(archive: Archive):
    entries = [stored(archive, some(n, n + 2))[0] for n in range(0, 8, 2)]
    paths = [archive.folder / entry.name for entry in entries]
    paths[0].unlink()
    paths[2].write_bytes(paths[2].read_bytes()[::-1])
    found = archive.damaged()
    assert found.keys() == {entries[0].name, entries[2].name}
    assert "missing" in found[entries[0].name]
    with pytest.raises(Corrupt):
        list(archive.read(entries[2]))


def test_the_manifest_is_one_json_object_to_look_at(archive: Archive):
    (entry,) = stored(archive, some(0, 2))
    value = json.loads((archive.folder / manifest.FILE).read_bytes())
    assert value["segments"] == [asdict(entry)]
