"""What holds for an import of any format: nothing twice, nothing by halves, nothing unsaid."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron import BadLine, InvalidArgument
from elytron.importers import FORMATS, detect_format, import_file, passes, questions
from elytron.importers.passes import Passes
from elytron.importers.pieces import Found, Reading
from elytron.importers.source import open_source
from test_importers_common import DATA, GOOD, NO_SAMPLES, SAMPLES, contents, everything, writing

every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=[s.file for s in SAMPLES])


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    return writing(tmp_path)


# -- what is good


@every_sample
def test_a_format_is_told_by_what_is_in_the_file_and_not_by_its_name(sample, write):
    path = write((DATA / sample.file).read_bytes(), name="no-ending")
    assert detect_format(path) == sample.format


def test_there_is_a_sample_of_every_format():
    assert {sample.format for sample in SAMPLES} == set(FORMATS) - set(NO_SAMPLES)


@every_sample
def test_each_message_arrives_and_the_report_says_so(sample, store):
    reports = import_file(store, DATA / sample.file)
    assert {report.agent: report.imported for report in reports} == sample.messages
    assert [(report.already_held, report.bad) for report in reports] == [(0, ())] * len(reports)
    assert {name: len(held) for name, held in everything(store).items()} == sample.messages


@every_sample
def test_importing_twice_adds_nothing_twice(sample, store):
    import_file(store, DATA / sample.file)
    before = everything(store)
    reports = import_file(store, DATA / sample.file)
    assert {report.agent: report.already_held for report in reports} == sample.messages
    assert not any(report.imported for report in reports)
    assert everything(store) == before


@every_sample
def test_a_byte_order_mark_changes_nothing(sample, store, write):
    path = write(b"\xef\xbb\xbf" + (DATA / sample.file).read_bytes(), name=sample.file)
    reports = import_file(store, path)
    assert {report.agent: report.imported for report in reports} == sample.messages


@every_sample
def test_naming_the_format_is_the_same_as_having_it_found(sample, store):
    found = import_file(store, DATA / sample.file)
    named = import_file(store, DATA / sample.file, format=sample.format)
    assert [report.agent for report in named] == [report.agent for report in found]
    assert [report.left_out for report in named] == [report.left_out for report in found]


@every_sample
def test_only_a_file_with_questions_has_some(sample):
    assert bool(questions(DATA / sample.file, 3)) == (sample.format == "locomo")


def test_an_agent_that_is_named_gets_the_file(store):
    (report,) = import_file(store, DATA / "messages.jsonl", agent="Bob Technique")
    assert report.agent == "Bob Technique"
    assert store.agents() == ["Bob Technique"]


def test_progress_rises_to_the_number_of_messages(store, write, monkeypatch):
    monkeypatch.setattr(passes, "_COMMIT_MAX", 3)
    lines = [f'{{"role": "user", "content": "number {n}"}}' for n in range(10)]
    lines[4] = "nonsense"
    calls: list[tuple[int, int]] = []
    (report,) = import_file(
        store, write(*lines), format="jsonl", skip_bad=True,
        on_progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert len(calls) > 3
    assert {total for _, total in calls} == {10}
    assert done[-1] == 10 == report.imported + report.already_held + len(report.bad)


def test_nothing_is_reported_before_the_file_is_checked(store, write):
    calls: list[tuple[int, int]] = []
    with pytest.raises(InvalidArgument):
        import_file(store, write(GOOD, "nonsense"), on_progress=lambda *call: calls.append(call))
    assert calls == []


def test_a_file_with_nothing_to_keep_makes_no_agent(store, write):
    (report,) = import_file(store, write("[]", name="none.json"), format="chatgpt")
    assert (report.agent, report.imported) == ("none", 0)
    assert store.agents() == []


# -- what is bad

BAD_LINES = {
    "no JSON": ("nonsense", "not JSON"),
    "cut off": ('{"role": "user", "content": "x', "not JSON"),
    "an array": ("[1]", "expected an object; got list"),
    "an unknown member": ('{"role": "user", "content": "x", "mood": 1}', "'mood'"),
    "a member that the import itself uses": (
        '{"role": "user", "content": "x", "line": 1}', "'line'",
    ),
    "no role": ('{"content": "x"}', "`role` is missing"),
    "no content": ('{"role": "user"}', "`content` is missing"),
    "an unknown role": ('{"role": "king", "content": "x"}', "'king'"),
    "a role that is no string": ('{"role": ["user"], "content": "x"}', "role"),
    "empty content": ('{"role": "user", "content": " "}', "content is empty"),
    "content that is no string": ('{"role": "user", "content": 5}', "content must be a string"),
    "a NUL": ('{"role": "user", "content": "a\\u0000b"}', "NUL"),
    "a raw NUL": ('{"role": "user", "content": "a\0b"}', "not JSON"),
    "a lone surrogate": ('{"role": "user", "content": "a\\ud800b"}', "surrogate"),
    "a naive time": ('{"role": "user", "content": "x", "at": "2026-03-02T18:04:10"}', "zone"),
    "a time that is none": ('{"role": "user", "content": "x", "at": "soon"}', "ISO 8601"),
    "a time in numbers": ('{"role": "user", "content": "x", "at": 1700000000}', "at must be"),
    "a time before 1970": (
        '{"role": "user", "content": "x", "at": "0001-01-01T00:00:00+14:00"}', "before 1970",
    ),
    "a time far ahead": (
        '{"role": "user", "content": "x", "at": "9999-12-31T23:59:59-14:00"}', "max_future_s",
    ),
    "metadata that is no object": (
        '{"role": "user", "content": "x", "metadata": []}', "metadata must be an object",
    ),
    "an id that is no string": ('{"role": "user", "content": "x", "id": 7}', "id must be"),
    "a long session": (
        f'{{"role": "user", "content": "x", "session": "{"s" * 201}"}}', "at most 200",
    ),
    "two members of one name": (
        '{"role": "user", "content": "x", "content": "y"}', "two members of one name",
    ),
    "NaN": ('{"role": "user", "content": "x", "metadata": {"a": NaN}}', "NaN"),
    "infinity": ('{"role": "user", "content": "x", "metadata": {"a": -Infinity}}', "Infinity"),
    "a float out of range": (
        '{"role": "user", "content": "x", "metadata": {"a": 1e999}}', "not JSON",
    ),
    "a number of many digits": (
        f'{{"role": "user", "content": "x", "metadata": {{"a": {"1" * 5000}}}}}', "4300 digits",
    ),
    "nested without end": (
        f'{{"role": "user", "content": "x", "metadata": {{"a": {"[" * 50_000}}}}}', "too deep",
    ),
    "not UTF-8": (b'{"role": "user", "content": "caf\xe9"}', "not UTF-8"),
    "a surrogate in UTF-8": (b'{"role": "user", "content": "\xed\xa0\x80"}', "not UTF-8"),
}  # fmt: skip
every_bad_line = pytest.mark.parametrize("kind", BAD_LINES)


@every_bad_line
def test_a_bad_line_is_named_and_nothing_is_imported(kind, store, folder, write):
    line, reason = BAD_LINES[kind]
    path = write(GOOD, "", line, GOOD)
    with pytest.raises(InvalidArgument) as caught:
        import_file(store, path, format="jsonl")
    assert f"{path}, line 3: " in str(caught.value)
    assert reason in str(caught.value)
    assert "nothing was imported" in str(caught.value)
    assert not folder.exists()


@every_bad_line
def test_a_bad_line_is_passed_over_and_reported_if_that_is_asked(kind, store, write):
    line, reason = BAD_LINES[kind]
    (report,) = import_file(store, write(GOOD, "", line, GOOD), format="jsonl", skip_bad=True)
    assert report.imported == 2
    ((number, text),) = [(bad.line, bad.reason) for bad in report.bad]
    assert number == 3
    assert reason in text
    assert contents(store.agent("file")) == ["fine", "fine"]


def test_a_line_without_end_is_not_read_into_memory(store, write):
    path = write(GOOD, b'{"content": "' + b"x" * 5_000_000, GOOD)
    (report,) = import_file(store, path, skip_bad=True)
    assert report.imported == 2
    assert [bad.line for bad in report.bad] == [2]
    assert "max_message_kb" in report.bad[0].reason


def test_the_longest_message_that_may_be_saved_may_be_imported(store, write):
    longest = {"role": "user", "content": "\x01" * (128 << 10), "metadata": {"a": "b" * 131_000}}
    (report,) = import_file(store, write(json.dumps(longest)))
    assert report.imported == 1


def test_a_thousand_bad_lines_are_reported_and_the_rest_counted(store, write, monkeypatch):
    monkeypatch.setattr(passes, "BAD_MAX", 10)
    (report,) = import_file(store, write(GOOD, *["nonsense"] * 25), skip_bad=True)
    assert [bad.line for bad in report.bad] == list(range(2, 12))
    assert report.left_out == {passes.BEYOND: 15}


def test_an_id_with_two_contents_in_one_file_is_found_before_anything_is_written(
    store, folder, write
):
    path = write(*[json.dumps({"role": "user", "content": text, "id": "a"}) for text in "xxy"])
    with pytest.raises(InvalidArgument, match="line 3: id 'a' came before in the file"):
        import_file(store, path)
    assert not folder.exists()
    (report,) = import_file(store, path, skip_bad=True)
    assert (report.imported, report.already_held) == (1, 1)
    assert [bad.line for bad in report.bad] == [3]


@pytest.mark.parametrize(
    "change",
    [
        {"content": "other"},
        {"role": "assistant"},
        {"session": "other"},
        {"user": "other"},
        {"metadata": {"a": 1.0}},
        {"at": "2026-03-02T18:04:11+01:00"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_id_that_is_held_with_other_content_is_found_before_anything_is_written(
    change, store, write
):
    held = {
        "id": "a", "role": "user", "content": "x", "user": "alice", "session": "s",
        "metadata": {"a": 1}, "at": "2026-03-02T18:04:10+01:00",
    }  # fmt: skip
    import_file(store, write(json.dumps(held)), agent="bob")
    before = everything(store)
    path = write(GOOD, json.dumps(held), json.dumps({**held, **change}), name="next.jsonl")
    with pytest.raises(InvalidArgument, match=r"line 3: id 'a' .* other content"):
        import_file(store, path, agent="bob")
    assert everything(store) == before
    (report,) = import_file(store, path, agent="bob", skip_bad=True)
    assert (report.imported, report.already_held) == (1, 1)
    assert [bad.line for bad in report.bad] == [3]


@pytest.mark.parametrize("line", [1, 4, 5, 9, 10])
def test_an_id_that_is_archived_with_other_content_is_found_before_anything_is_written(
    line, store, write, monkeypatch
):
    """Method: looked up in parts of four, the last of them not full."""
    monkeypatch.setattr(passes, "_COMMIT_MAX", 4)
    said = [{"role": "user", "content": f"number {n}", "id": f"m{n}"} for n in range(1, 11)]
    bob = store.agent("bob")
    bob.save_many(said)
    assert bob.archive(older_than_days=0, keep=3).archived == 7
    assert bob.get("m1") is None
    bob.archive(older_than_days=0, keep=0)
    before = everything(store)
    changed = [{**one, "content": "other"} if one["id"] == f"m{line}" else one for one in said]
    new = {"role": "user", "content": "new", "id": "m0"}
    path = write(json.dumps(new), *map(json.dumps, changed), name="next.jsonl")
    with pytest.raises(InvalidArgument, match=rf"line {line + 1}: id 'm{line}' is archived .*"):
        import_file(store, path, agent="bob")
    assert everything(store) == before
    (report,) = import_file(store, path, agent="bob", skip_bad=True)
    assert (report.imported, report.already_held) == (1, 9)
    assert [bad.line for bad in report.bad] == [line + 1]


def test_an_id_whose_content_is_held_under_wider_limits_is_a_conflict(open_store, write):
    with open_store() as wide:
        wide.agent("bob").save("user", "x" * 5000, id="a")
    path = write(json.dumps({"role": "user", "content": "x", "id": "a"}))
    with pytest.raises(InvalidArgument, match="held with other content"):
        import_file(open_store(max_message_kb=1), path, agent="bob")


def test_a_message_without_a_time_finds_itself_held_with_one(store, write):
    store.agent("bob").save("user", "x", id="a")
    path = write(json.dumps({"role": "user", "content": "x", "id": "a"}))
    (report,) = import_file(store, path, agent="bob")
    assert report.already_held == 1


def test_other_programs_may_write_between_the_two_readings_and_nothing_goes_unsaid(store, write):
    """Method: a reading whose second time gives what its first did not."""
    turns = iter([[], [BadLine(7, "new")]])

    def pieces() -> Iterator[Any]:
        yield Found(1, {"role": "user", "content": "x", "id": "a"})
        yield from next(turns)
        yield Found(8, {"role": "user", "content": "y", "id": "b"})

    with open_source(write(GOOD)) as opened:
        run = Passes(
            store, opened, Reading("line", pieces), agent="bob", skip_bad=False, on_progress=None
        )
        with pytest.raises(InvalidArgument, match=r"line 7: new.* 2 messages .* at least 0 were"):
            run.run()


def test_a_conflict_that_comes_between_the_two_readings_is_told_with_its_line(store, write):
    def pieces() -> Iterator[Any]:
        yield Found(3, {"role": "user", "content": "x", "id": "a"})
        # Reached in the first pass only after its check of the one above.
        store.agent("bob").save("user", "other", id="a")

    with open_source(write(GOOD)) as opened:
        run = Passes(
            store, opened, Reading("line", pieces), agent="bob", skip_bad=False, on_progress=None
        )
        with pytest.raises(InvalidArgument, match=r"line 3: id 'a' is held with other content"):
            run.run()


def test_a_file_that_changes_while_it_is_read_is_not_imported(store, folder, write):
    path = write(GOOD)

    def pieces() -> Iterator[Any]:
        yield Found(1, {"role": "user", "content": "x", "id": "a"})
        with path.open("a") as file:
            file.write("\n" + GOOD)

    with open_source(path) as opened:
        run = Passes(
            store, opened, Reading("line", pieces), agent="bob", skip_bad=False, on_progress=None
        )
        with pytest.raises(InvalidArgument, match=r"changed while it was read; nothing was"):
            run.run()
    assert not folder.exists()


def test_an_import_that_meets_a_limit_says_how_far_it_came(open_store, write):
    store = open_store(max_db_size_mb=6, auto_cleanup=False)
    lines = [json.dumps({"role": "user", "content": f"{n} " * 400}) for n in range(3000)]
    path = write(*lines)
    with pytest.raises(elytron.OverBudget, match=r"Of the 3000 messages .* at least \d+ were"):
        import_file(store, path, agent="bob")
    assert 0 < store.agent("bob").usage().messages < 3000
