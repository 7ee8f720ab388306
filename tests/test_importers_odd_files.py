"""Files that cannot be read, are no file of messages, or were damaged."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import elytron
from elytron import InvalidArgument
from elytron.importers import FORMATS, detect_format, import_file, questions, source
from test_importers_common import DATA, GOOD, SAMPLES, everything, writing


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    return writing(tmp_path)


@pytest.mark.parametrize("format", ["auto", *FORMATS])
@pytest.mark.parametrize(
    "data",
    [
        b"", b" \n\t ", b"\xef\xbb\xbf", b"PK\x03\x04more", b"\x1f\x8bmore", b"\xff\xfe[\0]\0",
        b"\xfe\xff\0[\0]", b"SQLite format 3\0more", b"\0\0\0\0", b"null", b"5", b'"text"',
        b"hello", b"{", b"[", b"{}", b"[1, 2]", b"[[]]", b"[{}]", b"[null", b"[}", b"[,]",
        b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"1" * 5000 + b"]", b"[NaN]", b"[1e999]",
        b'[{"mapping": []}]', b'[{"mapping": 5, "id": "a"}]', b'[{"conversation": {}}]',
        b'[{"role": "user", "content": "x"}', b'{"messages": 5}', b'{"messages": [5]}',
        b'{"messages": [{"role": "user", "content": "x"}', b"[{}] x",
        b'[{"role": "user", "content": "x"}, {"role": "user", "content": "\xff"}]',
    ],
    ids=lambda data: repr(data[:24]),
)  # fmt: skip
def test_a_file_that_is_none_gets_a_named_error(data, format, store, folder, write):
    path = write(data, name="odd.json")
    with pytest.raises(InvalidArgument) as caught:
        import_file(store, path, format=format)
    assert str(path) in str(caught.value)
    assert not folder.exists()


def test_an_unknown_file_is_told_which_formats_there_are(store, write):
    with pytest.raises(InvalidArgument, match="jsonl, openai, chatgpt, locomo"):
        import_file(store, write('{"title": "x"}'))


def test_an_unknown_format_is_refused(store, write):
    with pytest.raises(InvalidArgument, match=r"'csv' is unknown; use auto or one of jsonl"):
        import_file(store, write(GOOD), format="csv")


@pytest.mark.parametrize("ask", [import_file, lambda _, path: detect_format(path)])
def test_a_missing_file_is_not_found(ask, store, write):
    for path in ("nothing.json", write(GOOD) / "below"):
        with pytest.raises(elytron.NotFound):
            ask(store, path)


def test_a_folder_a_pipe_and_a_device_are_refused(store, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("", tmp_path, tmp_path / "pipe", os.devnull):
        with pytest.raises(InvalidArgument, match="give a file"):
            import_file(store, path)


def test_a_path_with_a_nul_or_far_too_long_is_refused(store):
    with pytest.raises(InvalidArgument, match="NUL"):
        import_file(store, "a\0b")
    with pytest.raises(elytron.Unavailable):
        import_file(store, "a" * 5000)


def test_a_file_without_permission_is_unavailable(store, write):
    path = write(GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(elytron.Unavailable, match="cannot be read"):
        import_file(store, path)


def test_a_ledger_is_never_opened_by_an_import(store, folder):
    store.agent("bob").save("user", "x")
    (ledger,) = folder.glob("agents/*/ledger.db")
    with pytest.raises(InvalidArgument, match="a file of the store itself"):
        import_file(store, ledger)


def test_a_bad_agent_name_is_refused_before_the_file_is_read(store, write):
    with pytest.raises(InvalidArgument, match="control character"):
        import_file(store, write("[" * 50), agent="a\nb", format="jsonl")


def test_a_closed_store_imports_nothing(store, write):
    store.close()
    with pytest.raises(elytron.Closed):
        import_file(store, write(GOOD))


def test_questions_take_a_limit_of_at_least_one():
    for limit in (0, -1, True, "3"):
        with pytest.raises(InvalidArgument, match="limit"):
            questions(DATA / "locomo.json", limit)


def test_a_file_whose_format_only_its_user_knows_has_no_questions(write):
    assert questions(write("nonsense", GOOD), 3) == []


JSON_TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"null", b"true", b"1e999", b"-1", b"NaN",
    b"{}", b"[]", b'""', b"0", b"\\ud800", b"\\u0000", b"\xff", b"\0", b"\n", b"1" * 5000,
)  # fmt: skip


@given(data=st.data())
def test_whatever_is_done_to_a_file_nothing_is_lost_unsaid(data, tmp_path_factory):
    """
    Any damage gives a named error and changes nothing, or is reported piece by piece.

    Method: put tokens of JSON into a good file, in place of a few bytes, and cut it.
    """
    draw = data.draw
    sample = draw(st.sampled_from(SAMPLES))
    content = (DATA / sample.file).read_bytes()
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        behind = content[place + draw(st.sampled_from((0, 1, 6))) :]
        content = content[:place] + draw(st.sampled_from(JSON_TOKENS)) + behind
    if draw(st.booleans()):
        content = content[: draw(st.integers(1, len(content)))]
    tmp = tmp_path_factory.mktemp("damage")
    path = tmp / sample.file
    path.write_bytes(content)
    with elytron.open(tmp / "strict", reserve_mb=0) as store:
        outcome = attempt(store, path, sample.format, skip_bad=False)
        assert isinstance(outcome, list) or store.agents() == []
    calls: list[tuple[int, int]] = []
    with elytron.open(tmp / "lenient", reserve_mb=0) as store:
        reports = attempt(
            store, path, sample.format, skip_bad=True, on_progress=lambda *call: calls.append(call)
        )
        if not isinstance(reports, list):
            assert store.agents() == []
            return
        dealt_with = sum(r.imported + r.already_held + len(r.bad) for r in reports)
        assert (calls[-1] if calls else (0, 0)) == (dealt_with, dealt_with)
        assert sum(map(len, everything(store).values())) == sum(r.imported for r in reports)
        again = attempt(store, path, sample.format, skip_bad=True)
        assert not any(report.imported for report in again)


def attempt(store: elytron.Store, path: Path, format: str, **options: Any) -> Any:
    """The reports, or else what the named error says, which is that nothing was imported."""
    try:
        return import_file(store, path, format=format, **options)
    except InvalidArgument as error:
        said = str(error)
    assert "nothing was imported" in said
    return said


def test_a_piece_over_the_limit_is_passed_over_and_the_next_one_read(store, write, monkeypatch):
    monkeypatch.setattr(source, "PIECE_MAX_BYTES", 1000)
    big = json.dumps([{"role": "user", "content": "x" * 2000}, {"role": "user", "content": "y"}])
    (report,) = import_file(store, write(big, name="big.json"), format="openai", skip_bad=True)
    assert (report.imported, report.bad[0].line) == (1, 1)
    assert "at most 1000" in report.bad[0].reason
