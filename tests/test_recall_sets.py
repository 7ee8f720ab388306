"""The sets of questions that recall is measured on: the carried one, and how files are read."""

import copy
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parent.parent / "bench"
RUN_MAX_S = 60


def module_of(name: str, path: Path) -> ModuleType:
    """A script of the bench. That folder is not on the path, where its names would hide others."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


sets = module_of("recall_sets", BENCH / "recall_sets.py")
bench = module_of("recall_bench", BENCH / "recall.py")


@pytest.fixture(scope="module")
def own() -> Any:
    return sets.own()


# -- the carried set


def test_the_carried_set_has_its_agents_and_each_has_much_to_search(own: Any) -> None:
    assert len(own) >= 6
    assert all(len(talk.messages) >= 60 for talk in own)
    assert all(len({message["session"] for message in talk.messages}) >= 6 for talk in own)


def test_ids_are_unique_in_the_whole_carried_set(own: Any) -> None:
    ids = Counter(one["id"] for talk in own for one in (*talk.messages, *talk.memories))
    assert [id_ for id_, times in ids.items() if times > 1] == []


def test_every_id_of_evidence_is_held_by_the_agent_that_is_asked(own: Any) -> None:
    for talk in own:
        ids = {one["id"] for one in (*talk.messages, *talk.memories)}
        for question in talk.questions:
            assert question.evidence
            assert question.evidence <= ids


def test_the_carried_questions_are_enough_of_each_kind_and_language(own: Any) -> None:
    questions = [question for talk in own for question in talk.questions]
    assert len(questions) >= 150
    assert sum(question.language == "fr" for question in questions) >= 30
    assert {question.kind for question in questions} == set(sets.KINDS)
    levels = Counter(question.level for question in questions)
    assert set(levels) == set(sets.LEVELS)
    assert min(levels.values()) >= len(questions) / 5


def test_no_agent_is_asked_the_same_twice(own: Any) -> None:
    for talk in own:
        texts = Counter(question.text for question in talk.questions)
        assert [text for text, times in texts.items() if times > 1] == []


def test_questions_to_two_agents_have_other_evidence_at_each(own: Any) -> None:
    asked = Counter(
        question.text
        for talk in own
        for question in talk.questions
        if question.kind == "other-agent"
    )
    assert sum(times > 1 for times in asked.values()) >= 7


def test_no_question_of_the_carried_set_repeats_its_evidence(own: Any) -> None:
    for talk in own:
        contents = {one["id"]: one["content"] for one in (*talk.messages, *talk.memories)}
        for question in talk.questions:
            words = question.text.rstrip(" ?.!").casefold().split()
            for start in range(len(words) - 5):
                run = " ".join(words[start : start + 6])
                assert not any(run in contents[id_].casefold() for id_ in question.evidence)


def test_times_of_the_carried_set_are_aware_and_rise_within_a_session(own: Any) -> None:
    for talk in own:
        latest: dict[str, datetime] = {}
        for message in talk.messages:
            assert message["at"].tzinfo is not None
            assert latest.get(message["session"], message["at"]) <= message["at"]
            latest[message["session"]] = message["at"]
        assert all(question.at is not None and question.at.tzinfo for question in talk.questions)


def test_what_the_readme_counts_is_so(own: Any) -> None:
    text = (sets.OWN_FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"{sum(len(talk.questions) for talk in own)} questions" in text
    for talk in own:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{talk.agent}.json`")]
        assert row.endswith(f"| {len(talk.messages)} | {len(talk.questions)} |")
    for kind, times in Counter(q.kind for talk in own for q in talk.questions).items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{kind}`")]
        assert row.endswith(f"| {times} |")
    levels = Counter(q.level for talk in own for q in talk.questions)
    assert (
        f"{levels['easy']} are easy, {levels['middling']} middling, {levels['hard']} hard" in text
    )


# -- files of the project's own form


def talk_of_two() -> dict[str, Any]:
    return {
        "agent": "two",
        "language": "en",
        "messages": [
            {
                "id": f"t{number}",
                "session": "s",
                "at": f"2025-03-01T10:0{number}:00+01:00",
                "role": "user",
                "user": "Ada",
                "content": f"line {number}",
            }
            for number in range(3)
        ],
        "memories": [
            {
                "id": "old",
                "content": "was so",
                "kind": "fact",
                "about": ["Ada"],
                "importance": 0.5,
                "valid_from": None,
                "valid_to": "2025-02-01T00:00:00+01:00",
            }
        ],
        "questions": [
            {
                "question": "Which line?",
                "language": "en",
                "kind": "fact",
                "level": "easy",
                "at": "2025-03-02T10:00:00+01:00",
                "evidence": ["t1"],
            }
        ],
    }


def test_a_file_of_our_form_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "two.json").write_text(json.dumps(talk_of_two()), encoding="utf-8")
    (talk,) = sets.own(tmp_path)
    assert [message["id"] for message in talk.messages] == ["t0", "t1", "t2"]
    assert talk.memories[0]["valid_to"] == datetime(2025, 1, 31, 23, tzinfo=UTC)
    assert talk.relations == ()
    assert talk.questions[0].evidence == {"t1"}


def without(entry: dict[str, Any], *path: Any) -> None:
    *way, last = path
    for step in way:
        entry = entry[step]
    del entry[last]


def setting(entry: Any, value: Any, *path: Any) -> None:
    *way, last = path
    for step in way:
        entry = entry[step]
    entry[last] = value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: without(e, "agent"), "`agent` is missing"),
        (lambda e: without(e, "messages", 1, "content"), "message 2: `content` is missing"),
        (lambda e: without(e, "messages", 1, "at"), "message 2: `at` is missing"),
        (lambda e: setting(e, "2025-03-01T10:00:00", "messages", 0, "at"), "no zone"),
        (lambda e: setting(e, "in March", "messages", 0, "at"), "no ISO time"),
        (lambda e: setting(e, "2025-03-01T09:00:00+01:00", "messages", 2, "at"), "earlier"),
        (lambda e: setting(e, "t0", "messages", 2, "id"), "used twice"),
        (lambda e: setting(e, "t0", "memories", 0, "id"), "used twice"),
        (lambda e: setting(e, ["t9"], "questions", 0, "evidence"), "of which 0"),
        (lambda e: setting(e, [], "questions", 0, "evidence"), "has 0 ids"),
        (lambda e: setting(e, [["t1"]], "questions", 0, "evidence"), "of which 0"),
        (lambda e: setting(e, ["old"], "questions", 0, "evidence"), "does not hold"),
        (lambda e: setting(e, "riddle", "questions", 0, "kind"), "one of fact, changed"),
        (lambda e: setting(e, "de", "questions", 0, "language"), "one of en, fr"),
        (lambda e: setting(e, "here", "messages"), "`messages` must be a list"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_with_its_place(
    tmp_path: Path, change: Any, said: str
) -> None:
    entry = copy.deepcopy(talk_of_two())
    change(entry)
    (tmp_path / "two.json").write_text(json.dumps(entry), encoding="utf-8")
    with pytest.raises(sets.BadSet, match=r"two\.json") as caught:
        sets.own(tmp_path)
    assert said in str(caught.value)


def test_a_folder_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sets.BadSet, match=r"no \*.json"):
        sets.own(tmp_path)


# -- LongMemEval


def entry_of(name: str, *, marked: bool = True) -> dict[str, Any]:
    answer: dict[str, Any] = {"role": "user", "content": "The boiler is from 1998."}
    if marked:
        answer["has_answer"] = True
    return {
        "question_id": name,
        "question_type": "single-session-user",
        "question": "How old is the boiler?",
        "answer": "from 1998",
        "question_date": "2023/05/30 (Tue) 23:40",
        "haystack_session_ids": ["b", "a"],
        "haystack_dates": ["2023/05/25 (Thu) 08:00", "2023/05/20 (Sat) 02:21"],
        "haystack_sessions": [
            [answer, {"role": "assistant", "content": "I see."}],
            [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": " "}],
        ],
        "answer_session_ids": ["b"],
    }


def written(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_longmemeval_turns_with_the_answer_are_the_evidence(tmp_path: Path) -> None:
    (talk,) = sets.longmemeval(written(tmp_path / "lme.json", [entry_of("q1")]))
    assert talk.agent == "q1"
    assert [message["content"] for message in talk.messages] == [
        "Hello",
        "The boiler is from 1998.",
        "I see.",
    ]
    assert [message["at"] for message in talk.messages] == sorted(
        message["at"] for message in talk.messages
    )
    (question,) = talk.questions
    assert question.evidence == {talk.messages[1]["id"]}
    assert not question.by_session
    assert question.at == datetime(2023, 5, 30, 23, 40, tzinfo=UTC)


def test_longmemeval_without_marked_turns_is_judged_by_session(tmp_path: Path) -> None:
    path = written(tmp_path / "lme.json", [entry_of("q1", marked=False)])
    (talk,) = sets.longmemeval(path)
    (question,) = talk.questions
    assert question.by_session
    assert question.evidence == {talk.messages[1]["session"]}


def test_longmemeval_abstentions_are_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "lme.json", [entry_of("q1_abs"), entry_of("q2")])
    assert [talk.agent for talk in sets.longmemeval(path)] == ["q2"]
    with pytest.raises(sets.BadSet, match="abstentions"):
        sets.longmemeval(written(tmp_path / "only.json", [entry_of("q1_abs")]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: without(e, "question_id"), "`question_id` is missing"),
        (lambda e: without(e, "haystack_sessions"), "`haystack_sessions` is missing"),
        (lambda e: without(e, "question_date"), "2023/05/20 (Sat) 02:21"),
        (lambda e: setting(e, "2023/02/30 (Sat) 02:21", "haystack_dates", 0), "calendar"),
        (lambda e: setting(e, ["b"], "haystack_session_ids"), "1 session ids, 2 dates"),
        (lambda e: without(e, "haystack_sessions", 0, 0, "role"), "session 1, turn 1: `role`"),
        (lambda e: setting(e, None, "haystack_sessions", 0, 0, "content"), "`content`"),
        (lambda e: setting(e, "x", "haystack_sessions", 0), "expected a list of turns"),
        (lambda e: setting(e, "x", "haystack_sessions", 0, 0), "expected an object"),
    ],
)
def test_a_longmemeval_entry_of_another_form_is_refused(
    tmp_path: Path, change: Any, said: str
) -> None:
    entry = entry_of("q1")
    change(entry)
    with pytest.raises(sets.BadSet, match="entry 1") as caught:
        sets.longmemeval(written(tmp_path / "lme.json", [entry]))
    assert said in str(caught.value)


def test_longmemeval_without_any_evidence_is_refused(tmp_path: Path) -> None:
    entry = entry_of("q1", marked=False) | {"answer_session_ids": ["z"]}
    with pytest.raises(sets.BadSet, match="has_answer"):
        sets.longmemeval(written(tmp_path / "lme.json", [entry]))


# -- LoCoMo


def sample() -> dict[str, Any]:
    return {
        "sample_id": "c1",
        "conversation": {
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ada", "dia_id": "D1:1", "text": "The kiln is warm."},
                {"speaker": "Bo", "dia_id": "D1:2", "text": "See", "blip_caption": "a kiln"},
            ],
        },
        "qa": [
            {"question": "Is it warm?", "category": 4, "evidence": ["D1:1; D1:2"]},
            {"question": "Is it blue?", "category": 5, "evidence": ["D1:1"]},
            {"question": "And then?", "category": 1, "evidence": ["D7:1"]},
        ],
    }


def test_locomo_questions_have_their_kind_and_the_turns_that_are_there(tmp_path: Path) -> None:
    (talk,) = sets.locomo(written(tmp_path / "locomo.json", [sample()]))
    assert talk.messages[1]["content"] == "See [shared photo: a kiln]"
    assert [(q.kind, set(q.evidence)) for q in talk.questions] == [
        ("single-hop", {"D1:1", "D1:2"}),
        (sets.ADVERSARIAL, {"D1:1"}),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: without(e, "conversation"), "`conversation` is missing"),
        (lambda e: without(e, "qa"), "`qa` is missing"),
        (lambda e: setting(e, 9, "qa", 0, "category"), "1 to 5"),
        (lambda e: without(e, "conversation", "session_1", 0, "dia_id"), "not as published"),
        (lambda e: setting(e, "May", "conversation", "session_1_date_time"), "not as published"),
    ],
)
def test_a_locomo_sample_of_another_form_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    entry = sample()
    change(entry)
    with pytest.raises(sets.BadSet, match="sample 1") as caught:
        sets.locomo(written(tmp_path / "locomo.json", [entry]))
    assert said in str(caught.value)


# -- what all files have in common


@pytest.mark.parametrize("read", [sets.locomo, sets.longmemeval])
def test_what_is_no_list_in_json_is_refused(tmp_path: Path, read: Any) -> None:
    for name, content in (("text", "no json"), ("empty", "[]"), ("object", "{}")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "bytes").write_bytes(b"\xff[]")
    (tmp_path / "deep").write_text("[" * 100_000, encoding="utf-8")
    for name in ("text", "empty", "object", "bytes", "deep", "missing"):
        with pytest.raises(sets.BadSet, match=name):
            read(tmp_path / name)


def test_the_bench_ends_with_2_and_says_what_is_missing(tmp_path: Path) -> None:
    entry = entry_of("q1")
    del entry["haystack_dates"]
    path = written(tmp_path / "lme.json", [entry])
    command = [sys.executable, str(BENCH / "recall.py"), "--set", "longmemeval"]
    ended = subprocess.run(
        [*command, "--longmemeval", str(path)],
        capture_output=True,
        text=True,
        timeout=RUN_MAX_S,
        check=False,
    )
    assert ended.returncode == 2
    assert "entry 1: `haystack_dates` is missing" in ended.stderr


# -- the figures


def test_a_share_counts_each_piece_of_evidence_once() -> None:
    evidence = frozenset({"a", "b"})
    assert bench.scored(["x", "a", "a"], evidence, limit=10) == (0.5, 0.5, 0.5)
    assert bench.scored([*"uvwxyab"], evidence, limit=10) == (1.0, 0.0, 1 / 6)
    assert bench.scored([*"uvwxyab"], evidence, limit=6) == (0.5, 0.0, 1 / 6)
    assert bench.scored([], evidence, limit=10) == (0.0, 0.0, 0.0)


def test_a_fold_is_chosen_without_the_conversation_that_it_tests() -> None:
    """The first weights win only on c; left out, c is tested with the second."""
    shares = {"w=1": {"a": 0.5, "b": 0.5, "c": 1.0}, "w=2": {"a": 0.6, "b": 0.6, "c": 0.1}}
    chosen = {fold.agent: (fold.chosen, fold.share) for fold in bench.folds(shares)}
    assert chosen == {"a": ("w=1", 0.5), "b": ("w=1", 0.5), "c": ("w=2", 0.1)}


def test_equal_weights_leave_it_at_the_first() -> None:
    shares = {"w=1": {"a": 0.5, "b": 0.5}, "w=2": {"a": 0.5, "b": 0.5}}
    assert [fold.chosen for fold in bench.folds(shares)] == ["w=1", "w=1"]


def test_a_grid_has_every_combination_and_an_end() -> None:
    grid = bench.grid_of([("a", "1,2"), ("b", "x,y")])
    assert grid[:2] == [{"a": "1", "b": "x"}, {"a": "1", "b": "y"}]
    assert len(grid) == 4
    many = ",".join(map(str, range(30)))
    with pytest.raises(sets.BadSet, match="900 combinations, at most 500"):
        bench.grid_of([("a", many), ("b", many)])
