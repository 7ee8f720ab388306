"""Merging: few small segments, none too large, and no message written again and again."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archives import held, made, some, stored
from elytron.archive import Archive, Entry, merging
from elytron.archive.entries import SEGMENT_MESSAGES_MAX, SEGMENT_TEXT_MAX_BYTES
from elytron.archive.merging import AT_ONCE, SMALL, TINY, kind, plan_merge

SIZES = st.tuples(
    st.sampled_from((1, 50, 99, 100, 500, 999, 1000, 1200, 4999, 5000)),
    st.sampled_from((10, 99_999, 100_000, 999_999, 1_000_000, 8 << 20)),
)


@pytest.fixture
def merged_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are enough to be joined."""
    monkeypatch.setattr(merging, "AT_ONCE", 2)


def entry(number: int, messages: int, text_bytes: int) -> Entry:
    """One that takes a byte a message."""
    return Entry(f"segment-{number}", messages, messages, text_bytes, 0, 0, "")


def merged(entries: list[Entry], group: list[Entry], number: int) -> list[Entry]:
    """The listing once a group has become one segment."""
    place = entries.index(group[0])
    assert entries[place : place + len(group)] == group, "only neighbours, in their order"
    messages = sum(one.messages for one in group)
    text_bytes = sum(one.text_bytes for one in group)
    joined = entry(number, messages, text_bytes)
    return [*entries[:place], joined, *entries[place + len(group) :]]


@given(st.lists(SIZES, max_size=30), st.sampled_from([None, 0, 150, 2000]))
def test_a_merge_keeps_the_limits_and_leaves_nothing_for_a_second(
    sizes: list[tuple[int, int]], bytes_max: int | None
):
    entries = [entry(number, *size) for number, size in enumerate(sizes)]
    for number, group in enumerate(plan_merge(entries, bytes_max=bytes_max), 100):
        assert len(group) > 1
        assert sum(one.messages for one in group) <= SEGMENT_MESSAGES_MAX
        assert sum(one.text_bytes for one in group) <= SEGMENT_TEXT_MAX_BYTES
        assert bytes_max is None or sum(one.bytes for one in group) <= bytes_max
        entries = merged(entries, group, number)
    assert plan_merge(entries, bytes_max=bytes_max) == []


def test_what_is_written_anew_still_counts_as_of_when_it_left_the_ledger(tmp_path, merged_soon):
    archive = Archive(tmp_path / "archive", timeout_s=5)
    archive.folder.parent.mkdir(exist_ok=True)
    for number, written_us in ((0, 1_000), (10, 3_000), (20, 9_000_000)):
        entries = archive.write(some(number, number + 10), written_us=written_us)
        archive.publish(add=entries)
    assert archive.written_since(3_000) == 20
    assert archive.merge(skip=lambda: {entries[0].name}) == 1
    assert (archive.written_since(2_000), archive.written_since(2_001)) == (30, 10)
    assert archive.rewrite(lambda one: one.message.id == "m3").removed == 1
    assert (archive.written_since(2_000), archive.written_since(2_001)) == (29, 10)


@given(st.lists(st.integers(1, 999), max_size=60))
def test_few_small_segments_stay_whatever_small_ones_come(additions: list[int]):
    entries: list[Entry] = []
    numbers = itertools.count()
    for messages in additions:
        entries.append(entry(next(numbers), messages, 100 * messages))
        for group in plan_merge(entries):
            entries = merged(entries, group, next(numbers))
        kinds = [kind(one.messages, one.text_bytes) for one in entries]
        assert kinds.count(TINY) < AT_ONCE
        assert kinds.count(SMALL) < AT_ONCE
        assert kinds == sorted(kinds, reverse=True), "the smaller behind the larger"


@pytest.mark.parametrize("each", [1, 3, 10, 50, 100, 400])
@pytest.mark.parametrize("bytes_max", [None, 350])
def test_no_message_is_written_again_and_again(each: int, bytes_max: int | None):
    """Additions of one size; a segment's number stands for how often its messages were written."""
    entries: list[Entry] = []
    worst = again = 0
    for _ in range(6000 // each):
        entries.append(entry(0, each, 150 * each))
        for group in plan_merge(entries, bytes_max=bytes_max):
            written = 1 + max(int(one.name.removeprefix("segment-")) for one in group)
            worst = max(worst, written)
            again += sum(one.messages for one in group)
            entries = merged(entries, group, written)
    most = math.ceil(100 / (each * (AT_ONCE - 1))) + 2
    assert worst <= most
    assert again <= 6000 * most


@given(st.lists(SIZES, max_size=8), st.sets(st.integers(0, 7)))
def test_segments_to_skip_stay_and_are_not_joined_across(
    sizes: list[tuple[int, int]], places: set[int]
):
    entries = [entry(number, *size) for number, size in enumerate(sizes)]
    skip = {f"segment-{place}" for place in places}
    for group in plan_merge(entries, skip=skip):
        assert not skip & {one.name for one in group}
        place = entries.index(group[0])
        assert entries[place : place + len(group)] == group


def test_merging_joins_neighbours_and_loses_nothing(tmp_path):
    archive = Archive(tmp_path / "archive", timeout_s=5)
    for start in range(0, 80, 10):
        assert archive.merge() == 0, "so few wait"
        stored(archive, some(start, start + 10))
    assert archive.merge() == 7
    (joined,) = archive.manifest().entries
    assert list(archive.read(joined)) == some(0, 80)
    assert [path.name for path in archive.folder.glob("segment-*")] == [joined.name]
    assert archive.merge() == 0


@pytest.mark.usefixtures("merged_soon")
def test_what_two_segments_have_is_in_the_merged_one_once(tmp_path):
    """Two processes archived the same, and died before either could know of the other."""
    archive = Archive(tmp_path / "archive", timeout_s=5)
    edited = made(7, content="Another text under the same key")
    for messages in (some(0, 10), some(5, 15), [edited], some(20, 30)):
        stored(archive, messages)
    assert archive.merge() > 0
    (entry,) = archive.manifest().entries
    assert list(archive.read(entry)) == [*some(0, 15), edited, *some(20, 30)]
    assert entry.messages == archive.usage().messages == 26


@pytest.mark.usefixtures("merged_soon")
def test_a_merged_segment_stands_where_its_parts_stood(tmp_path):
    """So that of two messages with one id the later is still found."""
    archive = Archive(tmp_path / "archive", timeout_s=5)
    stored(archive, [made(0, content="old"), *some(1, 5)])
    stored(archive, some(5, 10))
    (third,) = stored(archive, [made(0, content="new")])
    assert archive.merge(skip=lambda: [third.name]) == 1
    assert archive.manifest().entries[1] == third
    assert archive.find(["m0"])[0]["m0"].message.content == "new"
    archive.merge()
    assert archive.find(["m0"])[0]["m0"].message.content == "new"


@pytest.mark.usefixtures("merged_soon")
def test_a_damaged_segment_is_left_and_its_neighbours_are_merged(tmp_path):
    archive = Archive(tmp_path / "archive", timeout_s=5)
    names = [stored(archive, some(n, n + 5))[0].name for n in range(0, 25, 5)]
    path = archive.folder / names[2]
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert archive.merge() == 2
    assert [one.messages for one in archive.manifest().entries] == [10, 5, 10]
    assert path.read_bytes() == good[:-1]
    path.write_bytes(good)
    assert len(held(archive.folder)) == 25
