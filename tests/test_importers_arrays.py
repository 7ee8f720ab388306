"""JSON arrays taken apart item by item."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytron.importers import arrays
from elytron.importers.arrays import ArrayItems
from elytron.importers.repeats import Repeats


def items(
    data: bytes, *, read_bytes: int = 1 << 20, item_max_bytes: int = 1000
) -> list[bytes | str]:
    file = io.BytesIO(data)
    return list(
        ArrayItems(lambda size: file.read(min(size, read_bytes)), item_max_bytes=item_max_bytes)
    )


texts = st.text(st.sampled_from('ab"\\[]{},: \né😀\u2028'), max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=9,
)


@given(
    array=st.lists(values, max_size=5),
    indent=st.sampled_from((None, 1)),
    ascii=st.booleans(),
    read_bytes=st.integers(1, 9),
)
def test_the_items_of_any_array_are_those_that_json_finds(array, indent, ascii, read_bytes):
    data = json.dumps(array, indent=indent, ensure_ascii=ascii).encode()
    found = items(b" " + data + b"\n", read_bytes=read_bytes)
    assert [json.loads(item) for item in found] == array


@given(
    data=st.lists(st.sampled_from(b'[]{},:"\\a1 '), max_size=12).map(bytes), read=st.integers(1, 4)
)
def test_whatever_it_reads_it_ends_and_agrees_with_json(data, read):
    """Any text: where `json` takes it for an array, so do we; else some item says what is wrong."""
    found = items(data, read_bytes=read)
    try:
        array = json.loads(data)
    except ValueError:
        array = None
    try:
        ours = [json.loads(item) if isinstance(item, bytes) else None for item in found]
        sound = not any(isinstance(item, str) for item in found)
    except ValueError:
        ours, sound = [], False
    assert sound == isinstance(array, list)
    if sound:
        assert ours == array


@given(
    data=st.lists(st.sampled_from(b'[]{},:"\\a1 '), max_size=12).map(bytes), read=st.integers(1, 4)
)
def test_how_much_is_read_at_once_makes_no_difference(data, read):
    assert items(data, read_bytes=read) == items(data)


def test_an_item_of_just_the_limit_is_given_and_one_byte_more_is_not():
    for read_bytes in (1, 3, 100):
        given, refused, after = items(
            b'["12345678", "123456789", {}]', read_bytes=read_bytes, item_max_bytes=10
        )
        assert given == b'"12345678"'
        assert refused == "it has 11 bytes, at most 10; split it"
        assert after == b"{}"


def test_a_huge_item_is_never_held_whole(monkeypatch):
    """Method: look at all that is held, at each of the reads."""
    monkeypatch.setattr(arrays, "_CHUNK_BYTES", 100)
    held: list[int] = []
    file = io.BytesIO(b'[{"a": "' + b"x" * 50_000 + b'"}, ' + b"[" * 5000 + b"]" * 5000 + b", 7]")

    def read(size: int) -> bytes:
        held.append(len(found._buffer) + len(found._item))
        return file.read(size)

    found = ArrayItems(read, item_max_bytes=1000)
    kinds = [type(item) for item in found]
    assert kinds == [str, str, bytes]
    assert max(held) <= 1200


@pytest.mark.parametrize(
    ("data", "last"),
    [
        (b"", "expected an array"),
        (b"{}", "expected an array"),
        (b"[", "ends before its array"),
        (b"[1,", "ends before its array"),
        (b"[{}", "ends before its array"),
        (b'[{"a', "ends in the middle"),
        (b'["a\\', "ends in the middle"),
        (b"[12", "ends in the middle"),
        (b"[1 2]", "expected a comma"),
        (b"[{}}]", "expected a comma"),
        (b"[1,]", "no item after it"),
        (b"[] []", "more after the end"),
    ],
)
def test_a_broken_array_says_how_it_is_broken(data, last):
    assert last in items(data)[-1]


# -- what came before


def test_keys_are_counted_and_keep_their_first_value():
    with Repeats() as repeats:
        assert [repeats.count(b"a"), repeats.count(b"b"), repeats.count(b"a")] == [0, 0, 1]
    with Repeats() as repeats:
        assert repeats.first(b"a", b"one") == b"one"
        assert repeats.first(b"a", b"two") == b"one"
        assert repeats.first(b"b", b"two") == b"two"
