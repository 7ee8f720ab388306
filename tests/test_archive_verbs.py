"""Looking for messages, taking them out, and dropping the oldest."""

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from archives import FIRST, held, made, some, stored
from elytron.archive import Archive, Archived, Rewritten, merging, trailers
from elytron.archive.segments import hash_id
from elytron.errors import Conflict


@pytest.fixture(autouse=True)
def merged_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two segments of a kind are enough to be joined."""
    monkeypatch.setattr(merging, "AT_ONCE", 2)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive", timeout_s=5)


def spoil_trailer(archive: Archive, name: str) -> None:
    path = archive.folder / name
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    data[-50] ^= 1
    path.write_bytes(data)


def test_trailers_tell_which_segments_may_hold_an_id(archive: Archive):
    first, second = stored(archive, some(0, 50))[0], stored(archive, some(40, 90))[0]
    assert archive.holding(["m3", "m45", "m89", "elsewhere", "m3", "\ud800"]) == {
        "m3": [first],
        "m45": [first, second],
        "m89": [second],
        "elsewhere": [],
        "\ud800": [],
    }


def test_each_id_of_a_segment_is_in_its_trailer(archive: Archive):
    (entry,) = stored(archive, some(0, 1000))
    assert all(found == [entry] for found in archive.holding(f"m{n}" for n in range(1000)).values())
    others = archive.holding(f"x{n}" for n in range(10_000))
    assert sum(map(bool, others.values())) <= 1, "a hash of 32 bits errs a few times a million"


def test_a_hash_is_32_bits_of_blake2b():
    """As the format says, so that others may use the trailer."""
    digest = hashlib.blake2b(b"m1", digest_size=4).digest()
    assert hash_id("m1").to_bytes(4, "little") == digest


def test_a_segment_with_a_damaged_trailer_may_hold_anything(archive: Archive):
    (bad,), (good,) = stored(archive, some(0, 5)), stored(archive, some(5, 9))
    spoil_trailer(archive, bad.name)
    assert archive.holding(["m6", "zz"]) == {"m6": [bad, good], "zz": [bad]}
    found, damaged = archive.find(["m6", "zz"])
    assert found == {"m6": made(6)}
    assert damaged.keys() == {bad.name}
    assert bad.name in damaged[bad.name]


def test_looking_up_reads_no_segment_and_a_trailer_only_once(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    stored(archive, some(0, 5))
    archive.holding(["m1"])
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("a file was opened"))
    assert len(archive.holding(["m1"])["m1"]) == 1


def test_trailers_in_memory_keep_within_their_bound(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trailers, "CACHE_MAX_BYTES", 2000)
    entries = [stored(archive, some(n, n + 50))[0] for n in range(0, 500, 50)]
    for _ in range(2):
        holding = archive.holding(f"m{n}" for n in range(0, 500, 50))
        assert [found for (found,) in holding.values()] == entries
        assert 0 < archive._trailers.bytes <= 2000


def test_trailers_of_segments_that_are_gone_leave_the_memory(archive: Archive):
    stored(archive, some(0, 5))
    archive.holding(["m1"])
    other = Archive(archive.folder, timeout_s=5)
    other.rewrite(lambda _: True)
    assert archive.holding(["m1"]) == {"m1": []}
    assert archive._trailers.bytes == 0


def test_the_later_of_two_messages_with_one_id_is_found(archive: Archive):
    stored(archive, [made(1, content="old"), made(2)])
    stored(archive, [made(1, content="new"), made(3)])
    found, damaged = archive.find(["m1", "m2", "m9"])
    assert found == {"m1": made(1, content="new"), "m2": made(2)}
    assert damaged == {}


def test_a_message_that_moves_while_it_is_looked_for_is_found(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    """Another process merges between the look at the trailers and the reading."""
    stored(archive, some(0, 5))
    stored(archive, some(5, 9))
    other = Archive(archive.folder, timeout_s=5)
    plain = archive.read
    merges = []

    def read(entry):
        if not merges:
            merges.append(other.merge())
        return plain(entry)

    monkeypatch.setattr(archive, "read", read)
    assert archive.find(["m1", "m7"]) == ({"m1": made(1), "m7": made(7)}, {})
    assert merges == [1]


def test_a_rewrite_takes_out_what_it_should_and_leaves_other_segments_alone(archive: Archive):
    entries = [stored(archive, some(n, n + 10))[0] for n in (0, 10, 20)]
    bytes_before = (archive.folder / entries[1].name).read_bytes()
    gone = {"m3", "m4", *(f"m{n}" for n in range(20, 30))}
    assert archive.rewrite(lambda one: one.message.id in gone) == Rewritten(12)
    rest = [one for one in some(0, 20) if one.message.id not in gone]
    assert list(held(archive.folder).values()) == rest
    assert len(archive.manifest().entries) == 2
    assert archive.manifest().entries[1] == entries[1]
    assert (archive.folder / entries[1].name).read_bytes() == bytes_before
    on_disk = {path.name for path in archive.folder.glob("segment-*")}
    assert on_disk == archive.manifest().names
    assert archive.rewrite(lambda one: one.message.id in gone) == Rewritten(0)


def test_a_rewrite_looks_only_where_it_is_told(archive: Archive):
    entries = [stored(archive, some(n, n + 10))[0] for n in (0, 10)]
    assert archive.rewrite(lambda _: True, names=[entries[1].name]).removed == 10
    assert archive.manifest().entries == (entries[0],)


def test_a_rewrite_tells_which_segments_it_could_not_read(archive: Archive):
    (bad,), (good,) = stored(archive, some(0, 5)), stored(archive, some(5, 9))
    spoil_trailer(archive, bad.name)
    rewritten = archive.rewrite(lambda _: True)
    assert rewritten.removed == 4
    assert rewritten.damaged.keys() == {bad.name}
    assert archive.manifest().entries == (bad,)
    assert not (archive.folder / good.name).exists()


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("asked_before", [1, 12])
def test_a_rewrite_follows_messages_that_somebody_merges_meanwhile(
    archive: Archive, asked_before: int, named: bool
):
    """The merge comes while *drop* is asked: in the first look, and while the rest is copied."""
    names = [stored(archive, some(n, n + 10))[0].name for n in (0, 10)]
    other = Archive(archive.folder, timeout_s=5)
    asked = 0

    def drop(archived: Archived) -> bool:
        nonlocal asked
        asked += 1
        if asked == asked_before:
            assert other.merge() == 1
        return archived.message.id in ("m2", "m15")

    assert archive.rewrite(drop, names=names if named else None) == Rewritten(2)
    assert held(archive.folder).keys() == {f"m{n}" for n in range(20)} - {"m2", "m15"}
    on_disk = {path.name for path in archive.folder.glob("segment-*")}
    assert on_disk == archive.manifest().names


def test_a_rewrite_gives_up_loudly_if_others_never_stop(archive: Archive):
    stored(archive, some(0, 10))
    other = Archive(archive.folder, timeout_s=5)
    rounds = 0

    def drop(archived: Archived) -> bool:
        nonlocal rounds
        if archived.message.id == "m9":
            rounds += 1
            (old,) = other.manifest().entries
            other.publish(add=other.write(some(0, 10)), remove=[old.name])
        return archived.message.id == "m2"

    with pytest.raises(Conflict, match="5 times"):
        archive.rewrite(drop)
    assert rounds < 20
    assert len(held(archive.folder)) == 10


def test_an_error_of_the_callers_own_leaves_all_as_it_was(archive: Archive):
    entries = stored(archive, some(0, 10))
    asked = 0

    def drop(_archived: Archived) -> bool:
        nonlocal asked
        asked += 1
        if asked == 5:
            raise KeyError("mine")
        return asked == 1

    with pytest.raises(KeyError, match="mine"):
        archive.rewrite(drop)
    assert archive.manifest().entries == tuple(entries)
    assert {path.name for path in archive.folder.iterdir()} == {
        entries[0].name, "manifest.json", "lock"
    }  # fmt: skip


def test_the_oldest_segments_are_dropped_until_the_rest_fits(archive: Archive):
    """Oldest by the latest message in it, not by when it was archived."""
    (new,) = stored(archive, [made(0), *some(41, 50)])
    old, middle = (stored(archive, some(n, n + 10))[0] for n in (1, 20))
    assert archive.drop_oldest(1 << 30).segments == 0
    dropped = archive.drop_oldest(new.bytes + middle.bytes)
    assert (dropped.segments, dropped.messages, dropped.bytes) == (1, 10, old.bytes)
    assert archive.manifest().entries == (new, middle)
    assert not (archive.folder / old.name).exists()
    archive.drop_oldest(new.bytes - 1, skip=lambda: [new.name])
    assert archive.manifest().entries == (new,)
    archive.drop_oldest(0)
    usage = archive.usage()
    assert (usage.messages, usage.segments, usage.dropped, usage.dropped_segments) == (0, 0, 30, 3)


def test_two_who_drop_at_once_drop_no_more_than_one(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    entries = [stored(archive, some(n, n + 10))[0] for n in (0, 10, 20)]
    limit_bytes = sum(entry.bytes for entry in entries[1:])
    other = Archive(archive.folder, timeout_s=5)
    plain = archive.publish

    def publish(**changes):
        if changes["remove"]:
            assert other.drop_oldest(limit_bytes).segments == 1
        plain(**changes)

    monkeypatch.setattr(archive, "publish", publish)
    assert archive.drop_oldest(limit_bytes).segments == 0
    assert archive.manifest().entries == tuple(entries[1:])
    assert archive.manifest().dropped_messages == 10


def test_usage_says_what_is_held_and_from_when(archive: Archive):
    entries = [*stored(archive, some(5, 9)), *stored(archive, some(0, 2))]
    usage = archive.usage()
    assert (usage.messages, usage.segments, usage.dropped) == (6, 2, 0)
    assert usage.first_at == FIRST
    assert usage.last_at == FIRST + timedelta(seconds=8)
    manifest_bytes = (archive.folder / "manifest.json").stat().st_size
    assert usage.bytes == archive.bytes == manifest_bytes + sum(entry.bytes for entry in entries)
