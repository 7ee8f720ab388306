"""
LoCoMo: long conversations of two people, with questions about them.

Source: Maharana et al., "Evaluating Very Long-Term Conversational Memory of LLM Agents",
arXiv:2402.17753. Each sample becomes an agent of its own.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.importers.pieces import AgentBegins, Found, LeftOut, Piece, Reading, bad
from elytron.importers.source import Source
from elytron.ledger.files import check_name
from elytron.records import BadLine

QUESTIONS = "questions"
OTHER_SECTIONS = "sections beside the conversation and its questions"
_SESSION = re.compile(r"session_([0-9]{1,6})")
_TIME = re.compile(
    r"\s*([0-9]{1,2}):([0-9]{2})\s*([ap]m)\s+on\s+([0-9]{1,2})\s+([a-z]+),?\s+([0-9]{4})\s*",
    re.IGNORECASE,
)
# Not by strptime, whose month names follow the user's language.
_MONTHS = (
    "january february march april may june july august september october november december"
).split()
_EVIDENCE = re.compile(r"D[0-9]+:[0-9]+")
_KEPT = ("img_url", "query", "blip_caption")


class CarriedQuestion(NamedTuple):
    """A question that a file brings with it, its answer, and the ids of the messages behind it."""

    agent: str
    question: str
    answer: str
    evidence: tuple[str, ...]


def reading(source: Source, _config: Config) -> Reading:
    return Reading("item", lambda: _pieces(source))


def _pieces(source: Source) -> Iterator[Piece]:
    for item in source.items():
        if isinstance(item, BadLine):
            yield item
            continue
        try:
            name, conversation = _sample(item.value)
        except InvalidArgument as error:
            yield BadLine(item.number, str(error))
            continue
        yield AgentBegins(name)
        for number, turns in _sessions(conversation):
            yield from _session(item.number, number, turns, conversation)
        questions = item.value.get("qa")
        if isinstance(questions, list) and questions:
            yield LeftOut(QUESTIONS, len(questions))
        others = [n for n in item.value if n not in ("sample_id", "conversation", "qa")]
        if others:
            yield LeftOut(OTHER_SECTIONS, len(others))


def _sample(value: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, dict) or not isinstance(value.get("conversation"), dict):
        raise InvalidArgument("expected a sample with a `conversation`")
    return check_name(value.get("sample_id")), value["conversation"]


def _sessions(conversation: dict[str, Any]) -> list[tuple[int, Any]]:
    """(number, turns) of each session, in order. Some have a time and no turns: nothing there."""
    found = [(_SESSION.fullmatch(name), turns) for name, turns in conversation.items()]
    return sorted(
        [(int(match[1]), turns) for match, turns in found if match], key=lambda pair: pair[0]
    )


def _session(line: int, number: int, turns: Any, conversation: dict[str, Any]) -> Iterator[Piece]:
    name = f"session_{number}"
    try:
        if not isinstance(turns, list):
            raise InvalidArgument(f"expected a list of turns; got {type(turns).__name__}")
        begins = _time(conversation.get(f"{name}_date_time"))
    except InvalidArgument as error:
        yield bad(line, name, str(error))
        return
    for place, turn in enumerate(turns):
        where = f"{name}, turn {place + 1}"
        try:
            message = _turn(turn)
            message["at"] = begins + timedelta(seconds=place)
        except InvalidArgument as error:
            yield bad(line, where, str(error))
            continue
        except OverflowError:
            yield bad(line, where, "its time is beyond the calendar")
            continue
        message["session"] = name
        yield Found(line, message, where)


def _turn(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise InvalidArgument(f"expected a turn; got {type(turn).__name__}")
    for name in ("speaker", "dia_id", "text"):
        if not isinstance(turn.get(name), str):
            raise InvalidArgument(f"the turn has no `{name}`")
    content = turn["text"]
    if isinstance(turn.get("blip_caption"), str) and turn["blip_caption"].strip():
        content = f"{content} [shares a photo: {turn['blip_caption'].strip()}]".lstrip()
    message = {
        "id": turn["dia_id"], "role": "user", "user": turn["speaker"], "content": content
    }  # fmt: skip
    metadata = {name: turn[name] for name in _KEPT if turn.get(name)}
    if metadata:
        message["metadata"] = metadata
    return message


def _time(text: object) -> datetime:
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidArgument("its time is not as in `1:56 pm on 8 May, 2023`")
    hour, minute, half, day, month, year = match.groups()
    try:
        # 12 am is the first hour of the day, 12 pm the first after noon.
        return datetime(
            int(year),
            _MONTHS.index(month.lower()) + 1,
            int(day),
            _hour(int(hour), half.lower()),
            int(minute),
            tzinfo=UTC,
        )
    except ValueError as error:
        raise InvalidArgument("its time is no date of the calendar") from error


def _hour(hour: int, half: str) -> int:
    if not 1 <= hour <= 12:
        raise ValueError(hour)
    return hour % 12 + (12 if half == "pm" else 0)


def questions(source: Source, limit: int) -> list[CarriedQuestion]:
    """
    At most *limit* of the questions that have an answer, one of each sample in turn.

    Samples that an import would not take have none.
    """
    by_sample: list[list[CarriedQuestion]] = []
    for item in source.items():
        if isinstance(item, BadLine):
            continue
        with_answers = _questions(item.value, limit)
        if with_answers:
            by_sample.append(with_answers)
        if len(by_sample) == limit:
            break
    in_turn = [
        (place, sample, question)
        for sample, found in enumerate(by_sample)
        for place, question in enumerate(found)
    ]
    return [question for _, _, question in sorted(in_turn)[:limit]]


def _questions(value: Any, limit: int) -> list[CarriedQuestion]:
    try:
        name, _ = _sample(value)
    except InvalidArgument:
        return []
    found: list[CarriedQuestion] = []
    for entry in value["qa"] if isinstance(value.get("qa"), list) else []:
        if len(found) == limit:
            break
        if not isinstance(entry, dict) or not isinstance(entry.get("question"), str):
            continue
        answer = entry.get("answer")
        # Those of category 5 have none: the conversation does not say.
        if isinstance(answer, str | int | float):
            found.append(CarriedQuestion(name, entry["question"], str(answer), _evidence(entry)))
    return found


def _evidence(entry: dict[str, Any]) -> tuple[str, ...]:
    """The ids in a question's evidence, which is written by hand: `D8:6; D9:17`, `D:11:26`."""
    texts = entry.get("evidence")
    texts = texts if isinstance(texts, list) else [texts]
    found = [name for text in texts if isinstance(text, str) for name in _EVIDENCE.findall(text)]
    return tuple(dict.fromkeys(found))
