"""
Sets of questions for `recall.py`, each read into one shape: conversations with questions, and for
each question the ids of what answers it.

Three kinds of files: the set that lies in `questions/`, LoCoMo, and LongMemEval. What cannot be
used is refused whole, with the place and what is missing: a figure over half a set misleads.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

OWN_FOLDER = Path(__file__).parent / "questions"
LOCOMO_PATH = Path(__file__).parents[2] / "shared" / "data" / "locomo-dev.json"

KINDS = ("fact", "changed", "date", "multi", "paraphrase", "who", "memory", "other-agent")
LEVELS = ("easy", "middling", "hard")
LANGUAGES = ("en", "fr")
ADVERSARIAL = "adversarial"
_LOCOMO_KINDS = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: ADVERSARIAL}
_LOCOMO_ID = re.compile(r"D\d+:\d+")
_LONGMEMEVAL_TIME = re.compile(r"(\d{4})/(\d{2})/(\d{2}) \([A-Za-z]+\) (\d{2}):(\d{2})")
_ABSTENTION = "_abs"  # how the ids of LongMemEval's unanswerable questions end
_TURN_S = 10  # seconds between turns where a file has only the session's time


class BadSet(ValueError):
    """A file is not there or not of the expected form. Nothing of the set was used."""


@dataclass(frozen=True, slots=True)
class Question:
    """
    `evidence` has the ids of the messages and memories that answer it, at least one; of sessions
    where `by_session`. `at` is when it is asked; None where the set does not say.
    """

    text: str
    kind: str
    evidence: frozenset[str]
    at: datetime | None = None
    by_session: bool = False
    language: str | None = None
    level: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """
    What one agent is told, and asked.

    `messages` are as `Agent.import_` takes them; `memories` and `relations` are the keywords of
    `Agent.remember` and of `Agent.relate`.
    """

    agent: str
    messages: tuple[Mapping[str, Any], ...]
    memories: tuple[Mapping[str, Any], ...]
    relations: tuple[Mapping[str, Any], ...]
    questions: tuple[Question, ...]


# -- what all files have in common


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSet(
            f"{path} cannot be read: {error.strerror}; give the path of the file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadSet(f"{path} is not JSON in UTF-8; fetch it again") from error


def _entries(path: Path) -> list[Any]:
    entries = _read(path)
    if not isinstance(entries, list) or not entries:
        raise BadSet(f"{path}: expected a list with at least one entry")
    return entries


def _need(entry: Any, name: str, of: type, where: str) -> Any:
    """The value called *name*, if it is there and *of* the type."""
    if not isinstance(entry, dict):
        raise BadSet(f"{where}: expected an object, got {type(entry).__name__}")
    if name not in entry:
        raise BadSet(f"{where}: `{name}` is missing")
    value = entry[name]
    if not isinstance(value, of) or (of is str and not value.strip()):
        raise BadSet(f"{where}: `{name}` must be a {of.__name__} that is not empty")
    return value


def _one_of(entry: Any, name: str, allowed: tuple[str, ...], where: str) -> str:
    value: str = _need(entry, name, str, where)
    if value not in allowed:
        raise BadSet(f"{where}: `{name}` must be one of {', '.join(allowed)}; got {value!r:.40}")
    return value


def _time(entry: Any, name: str, where: str) -> datetime:
    text = _need(entry, name, str, where)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadSet(f"{where}: `{name}` is no ISO time") from error
    if found.tzinfo is None:
        raise BadSet(f"{where}: `{name}` has no zone; add one, as +01:00")
    return found


def _time_or_none(entry: dict[str, Any], name: str, where: str) -> datetime | None:
    return None if entry.get(name) is None else _time(entry, name, where)


# -- the set that the project carries


def own(folder: Path = OWN_FOLDER) -> tuple[Conversation, ...]:
    """
    The project's own set: every `*.json` of *folder*, whose README.md explains the form.

    Raises:
        BadSet: no file, or one that is not of that form, or ids that are used twice.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise BadSet(f"{folder} has no *.json: no questions to ask")
    found = tuple([_own_conversation(_read(path), path.name) for path in paths])
    _refuse_twice([talk.agent for talk in found], "agents of the set")
    return found


def _own_conversation(entry: Any, where: str) -> Conversation:
    agent = _need(entry, "agent", str, where)
    messages = tuple(
        [
            _own_message(message, f"{where}, message {number}")
            for number, message in enumerate(_need(entry, "messages", list, where), 1)
        ]
    )
    memories = tuple(
        [
            _own_memory(memory, f"{where}, memory {number}")
            for number, memory in enumerate(entry.get("memories", []), 1)
        ]
    )
    relations = tuple(
        [
            _own_relation(relation, f"{where}, relation {number}")
            for number, relation in enumerate(entry.get("relations", []), 1)
        ]
    )
    _refuse_twice([one["id"] for one in messages + memories], f"{where}: ids")
    _check_order(messages, where)
    ids = {message["id"] for message in messages}
    held = {memory["id"]: memory for memory in memories}
    questions = tuple(
        [
            _own_question(question, ids, held, f"{where}, question {number}")
            for number, question in enumerate(_need(entry, "questions", list, where), 1)
        ]
    )
    return Conversation(agent, messages, memories, relations, questions)


def _own_message(entry: Any, where: str) -> Mapping[str, Any]:
    message = {
        name: _need(entry, name, str, where) for name in ("id", "session", "role", "content")
    }
    if entry.get("user") is not None:
        message["user"] = _need(entry, "user", str, where)
    message["at"] = _time(entry, "at", where)
    return message


def _own_memory(entry: Any, where: str) -> Mapping[str, Any]:
    return {
        "id": _need(entry, "id", str, where),
        "content": _need(entry, "content", str, where),
        "kind": _need(entry, "kind", str, where),
        "about": tuple(_need(entry, "about", list, where)),
        "importance": entry.get("importance"),
        "valid_from": _time_or_none(entry, "valid_from", where),
        "valid_to": _time_or_none(entry, "valid_to", where),
    }


def _own_relation(entry: Any, where: str) -> Mapping[str, Any]:
    relation: dict[str, Any] = {
        name: _need(entry, name, str, where) for name in ("source", "relation", "target")
    }
    for name in ("valid_from", "valid_to"):
        relation[name] = _time_or_none(entry, name, where)
    return relation


def _own_question(
    entry: Any, messages: set[str], memories: Mapping[str, Mapping[str, Any]], where: str
) -> Question:
    text = _need(entry, "question", str, where)
    evidence = _need(entry, "evidence", list, where)
    known = [key for key in evidence if str(key) in messages or str(key) in memories]
    if not evidence or len(known) < len(evidence):
        raise BadSet(
            f"{where}: `evidence` has {len(evidence)} ids, of which {len(known)} are of a message"
            " or memory; all must be, and there must be one"
        )
    at = _time_or_none(entry, "at", where)
    for key in evidence:
        if at is not None and key in memories and not _holds(memories[key], at):
            raise BadSet(f"{where}: the memory {key!r:.80} does not hold when it is asked")
    return Question(
        text,
        _one_of(entry, "kind", KINDS, where),
        frozenset(evidence),
        at,
        language=_one_of(entry, "language", LANGUAGES, where),
        level=_one_of(entry, "level", LEVELS, where),
    )


def _holds(memory: Mapping[str, Any], at: datetime) -> bool:
    begins, ends = memory["valid_from"], memory["valid_to"]
    return (begins is None or begins <= at) and (ends is None or at < ends)


def _refuse_twice(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadSet(f"{what}: {name!r:.80} is used twice")
        seen.add(name)


def _check_order(messages: Iterable[Mapping[str, Any]], where: str) -> None:
    """Time never runs back within a session."""
    latest: dict[str, datetime] = {}
    for message in messages:
        session, at = message["session"], message["at"]
        if session in latest and at < latest[session]:
            raise BadSet(f"{where}: {message['id']!r:.80} is earlier than what stands before it")
        latest[session] = at


# -- LoCoMo


def locomo(path: Path) -> tuple[Conversation, ...]:
    """
    LoCoMo's samples. Questions whose evidence names no turn of the sample are left out.

    Raises:
        BadSet: the file is not there, or a sample has not the published form.

    Source: Maharana et al., arXiv:2402.17753.
    """
    found = []
    for number, sample in enumerate(_entries(path), 1):
        where = f"{path.name}, sample {number}"
        name = _need(sample, "sample_id", str, where)
        conversation = _need(sample, "conversation", dict, where)
        try:
            messages = tuple(turns(conversation))
        except (KeyError, TypeError, ValueError) as error:
            raise BadSet(f"{where}: a session is not as published: {error!r:.80}") from error
        ids = {message["id"] for message in messages}
        questions = [
            _locomo_question(entry, ids, f"{where}, question {place}")
            for place, entry in enumerate(_need(sample, "qa", list, where), 1)
        ]
        answered = tuple([question for question in questions if question.evidence])
        found.append(Conversation(name, messages, (), (), answered))
    return tuple(found)


def turns(conversation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of one LoCoMo conversation, a second apart within a session."""
    messages = []
    number = 1
    while f"session_{number}" in conversation:
        start = datetime.strptime(
            conversation[f"session_{number}_date_time"], "%I:%M %p on %d %B, %Y"
        ).replace(tzinfo=UTC)
        for position, turn in enumerate(conversation[f"session_{number}"]):
            caption = turn.get("blip_caption")
            messages.append(
                {
                    "role": "user",
                    "content": turn["text"] + (f" [shared photo: {caption}]" if caption else ""),
                    "user": turn["speaker"],
                    "session": f"session_{number}",
                    "at": start + timedelta(seconds=position),
                    "id": turn["dia_id"],
                }
            )
        number += 1
    return messages


def _locomo_question(entry: Any, ids: set[str], where: str) -> Question:
    text = _need(entry, "question", str, where)
    kind = _LOCOMO_KINDS.get(_need(entry, "category", int, where))
    if kind is None:
        raise BadSet(f"{where}: `category` must be 1 to {len(_LOCOMO_KINDS)}")
    named = _LOCOMO_ID.findall(" ".join(map(str, _need(entry, "evidence", list, where))))
    return Question(text, kind, frozenset(ids.intersection(named)))


# -- LongMemEval


def longmemeval(path: Path) -> tuple[Conversation, ...]:
    """
    LongMemEval as published (`longmemeval_s.json` and the like): each entry is its own agent with
    its own sessions and one question.

    The evidence is the turns with `has_answer`; where an entry marks none, the sessions of
    `answer_session_ids`. Abstention questions, whose id ends with `_abs`, have no evidence and are
    left out; so are turns without text.

    Raises:
        BadSet: the file is not there, an entry has not the published form, or none can be asked.

    The whole file is held in memory, some five times its size.

    Source: Wu et al., arXiv:2410.10813.
    """
    found = []
    for number, entry in enumerate(_entries(path), 1):
        where = f"{path.name}, entry {number}"
        name = _need(entry, "question_id", str, where)
        if not name.endswith(_ABSTENTION):
            found.append(_longmemeval_entry(name, entry, where))
    if not found:
        raise BadSet(f"{path.name}: all questions are abstentions, which have no evidence")
    _refuse_twice([talk.agent for talk in found], f"{path.name}: question ids")
    return tuple(found)


def _longmemeval_entry(name: str, entry: Any, where: str) -> Conversation:
    ids = _need(entry, "haystack_session_ids", list, where)
    dates = _need(entry, "haystack_dates", list, where)
    sessions = _need(entry, "haystack_sessions", list, where)
    if not len(ids) == len(dates) == len(sessions):
        raise BadSet(
            f"{where}: {len(ids)} session ids, {len(dates)} dates and {len(sessions)} sessions;"
            " there must be as many of each"
        )
    answering = set(map(str, _need(entry, "answer_session_ids", list, where)))
    messages: list[dict[str, Any]] = []
    marked: set[str] = set()
    holding: set[str] = set()
    for place, (called, date, session) in enumerate(zip(ids, dates, sessions, strict=True), 1):
        there = f"{where}, session {place}"
        begins = _longmemeval_time(date, there)
        if not isinstance(session, list):
            raise BadSet(f"{there}: expected a list of turns, got {type(session).__name__}")
        # A session may stand in a haystack twice, so its place is part of its name.
        key = f"{place}:{called}"
        if str(called) in answering:
            holding.add(key)
        for turn_place, turn in enumerate(session, 1):
            message = _longmemeval_turn(turn, f"{there}, turn {turn_place}")
            if not message["content"].strip():
                continue
            message["id"] = f"{key}:{turn_place}"
            message["session"] = key
            message["at"] = begins + timedelta(seconds=_TURN_S * turn_place)
            messages.append(message)
            if turn.get("has_answer") is True:
                marked.add(message["id"])
    if not marked and not holding:
        raise BadSet(
            f"{where}: no turn has `has_answer`, and no session is in `answer_session_ids`"
        )
    question = Question(
        _need(entry, "question", str, where),
        _need(entry, "question_type", str, where),
        frozenset(marked or holding),
        _longmemeval_time(entry.get("question_date"), where),
        by_session=not marked,
    )
    messages.sort(key=lambda message: message["at"])  # sessions are not always listed by time
    return Conversation(name, tuple(messages), (), (), (question,))


def _longmemeval_turn(turn: Any, where: str) -> dict[str, Any]:
    role = _one_of(turn, "role", ("user", "assistant"), where)
    if not isinstance(turn.get("content"), str):
        raise BadSet(f"{where}: `content` is missing")
    return {"role": role, "content": turn["content"]}


def _longmemeval_time(text: object, where: str) -> datetime:
    # Not by strptime, whose names of days follow the user's language.
    match = _LONGMEMEVAL_TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise BadSet(f"{where}: its date is not as in `2023/05/20 (Sat) 02:21`")
    year, month, day, hour, minute = map(int, match.groups())
    try:
        return datetime(year, month, day, hour, minute, tzinfo=UTC)
    except ValueError as error:
        raise BadSet(f"{where}: its date is none of the calendar") from error
