"""
Memory profile: the three tools `remember`, `recall` and `forget`.

They are few and plain, since each takes room in every prompt of the model that is given them.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from elytron.agent import Agent
from elytron.errors import InvalidArgument
from elytron.faces.mcp.tools import Answer, Arguments, MemoryTool, Profile, Schema, fields
from elytron.faces.mcp.tools import text as line
from elytron.faces.mcp.tools import texts as lines
from elytron.recall.context import estimate_tokens
from elytron.records import Hit

PAGE_USUAL, PAGE_MAX = 8, 50  # hits of one answer
RECALLED_MAX = 100  # hits of one question, over all its pages
ANSWER_CHARS = 100_000  # of one answer; what is beyond is for the next page
_MARK_BYTES = 4  # of a hit that was shown, within a cursor
_FILTERS = ("session", "user", "kinds", "archived")
_ID = {"minLength": 1, "maxLength": 200}

_INSTRUCTIONS = (
    "A memory that outlasts this conversation. Call `recall` before you answer whatever may rest"
    " on earlier conversations; call `remember` when you learn a fact, preference or decision that"
    " will matter again; call `forget` only when you are asked to."
)
_HIT: Schema = fields(
    {
        "id": line("By which `forget` and `replaces` know it."),
        "kind": line("`message`, or the kind of the memory."),
        "content": line("Its text."),
        "score": {"type": "number", "description": "Compares the hits of one question."},
        "at": line("When it was said or began to hold, ISO 8601."),
        "speaker": line("Who said it; `memory` for what was remembered."),
    },
    {
        "session": line("The conversation that it is of, if it is of one."),
        "about": lines("Names that the memory is about."),
    },
)


def memory_profile(agent: Agent, *, rows_max: int = RECALLED_MAX) -> Profile:
    """The three tools on one agent, which reads at most `rows_max` rows at once."""
    verbs = _Verbs(agent, rows_max=rows_max)
    return Profile("memory", _INSTRUCTIONS, (_remember(verbs), _recall(verbs), _forget(verbs)))


def _remember(verbs: "_Verbs") -> MemoryTool:
    return MemoryTool(
        name="remember",
        title="Remember",
        description=(
            "Keep one fact, preference, decision or summary for later conversations. Write a whole"
            " sentence that can be understood alone, with names instead of pronouns. To correct"
            " something, pass the id of the old memory as `replaces`."
        ),
        takes=_closed(
            {"content": line("What to remember, in a sentence or a few.", minLength=1)},
            {
                "about": lines(
                    "Names of the people, places, things or topics it is about.", maxItems=100
                ),
                "kind": line("Such as fact, preference, decision, summary; fact if left out.",
                    minLength=1, maxLength=200),
                "importance": {
                    "type": "number", "minimum": 0, "maximum": 1,
                    "description": "0 to 1; 0.5 if left out.",
                },
                "session": line("The conversation that it was learned in.", **_ID),
                "replaces": line("Id of a memory that holds no longer.", **_ID),
                "id": line("An id of your own, so that asking again is harmless.", **_ID),
            },
        ),
        gives=fields(
            {
                "id": line("Its id."),
                "new": {"type": "boolean", "description": "False if it was held already."},
            }
        ),
        run=verbs.remember,
    )  # fmt: skip


def _recall(verbs: "_Verbs") -> MemoryTool:
    return MemoryTool(
        name="recall",
        title="Recall",
        description=(
            "Find what was remembered or said that answers a question, best first. Ask in plain"
            " words, with the names that matter. Pass `cursor` from an answer to see more."
        ),
        takes=_closed(
            {"question": line("What you want to know.", minLength=1, maxLength=20_000)},
            {
                "limit": {
                    "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_USUAL,
                    "description": "At most so many.",
                },
                "cursor": line("`nextCursor` of the answer before, to the same question."),
                "session": line("Only of this conversation.", **_ID),
                "user": line("Only messages of this user.", **_ID),
                "kinds": lines(
                    "Only these: `message`, `memory`, or kinds of memories such as `fact`.",
                    minItems=1, maxItems=20,
                ),
                "since": line("Only from this time on, ISO 8601 with a zone."),
                "until": line("Only before this time, ISO 8601 with a zone."),
                "archived": {
                    "type": "boolean", "default": False,
                    "description": "Old messages in the archive too, which takes longer.",
                },
            },
        ),
        gives=fields(
            {
                "hits": {"type": "array", "items": _HIT},
                "chars": {"type": "integer", "description": "Characters of all their contents."},
                "tokens": {"type": "integer", "description": "About as many tokens."},
            },
            {"nextCursor": line("Pass it as `cursor` to see more; absent at the end.")},
        ),
        run=verbs.recall,
        reads=True,
        repeats=True,
    )  # fmt: skip


def _forget(verbs: "_Verbs") -> MemoryTool:
    return MemoryTool(
        name="forget",
        title="Forget",
        description=(
            "Erase for good; this cannot be undone. Pass exactly one of: `id` of a memory or"
            " message, `session` for a whole conversation and what was learned in it, or `user`"
            " for all messages of a user and the replies to them."
        ),
        takes=_closed(
            {},
            {
                "id": line("Of one memory or message, as `recall` shows it.", **_ID),
                "session": line("A whole conversation.", **_ID),
                "user": line("All messages of this user.", **_ID),
            },
        )
        | {"minProperties": 1, "maxProperties": 1},
        gives=fields(
            {
                "messages": {"type": "integer", "description": "Messages that were erased."},
                "memories": {"type": "integer", "description": "Memories that were erased."},
                "remaining": lines("Where some of it may still be, such as in backups."),
            }
        ),
        run=verbs.forget,
        destroys=True,
        repeats=True,
    )


def _closed(needed: Mapping[str, Schema], optional: Mapping[str, Schema]) -> Schema:
    """An object that has nothing else, so that a misspelt argument is told and not ignored."""
    return {**fields(needed, optional), "additionalProperties": False}


class _Verbs:
    """What the three tools do."""

    def __init__(self, agent: Agent, *, rows_max: int) -> None:
        self._agent = agent
        self._hits_max = min(rows_max, RECALLED_MAX)

    def remember(self, asked: Arguments) -> Answer:
        more = {name: value for name, value in asked.items() if name != "content"}
        receipt = self._agent.remember(asked["content"], **more)
        word = "Remembered" if receipt.new else "Held already"
        return Answer(f"{word}: {receipt.id}", {"id": receipt.id, "new": receipt.new})

    def recall(self, asked: Arguments) -> Answer:
        only = {name: asked[name] for name in _FILTERS if name in asked}
        only |= {name: _time(name, asked[name]) for name in ("since", "until") if name in asked}
        question, limit = asked["question"], int(asked.get("limit", PAGE_USUAL))
        asked_mark = _mark(repr((question, sorted(only.items()))))
        shown = _shown(asked.get("cursor"), asked_mark)
        # One more than is given says whether there are others.
        wanted = min(len(shown) + limit + 1, self._hits_max)
        hits = self._agent.recall(question, limit=wanted, **only)
        unseen = [hit for hit in hits if _mark(hit.message.id) not in shown]
        page = _within(unseen[:limit])
        data: dict[str, Any] = {"hits": [_hit(hit) for hit in page]}
        contents = "\n".join(hit.message.content for hit in page)
        data["chars"] = sum(len(hit.message.content) for hit in page)
        data["tokens"] = estimate_tokens(contents)
        shown = [*shown, *(_mark(hit.message.id) for hit in page)]
        if len(unseen) > len(page) and len(shown) < self._hits_max:
            data["nextCursor"] = _cursor(asked_mark, shown)
        return Answer(_told(page, more="nextCursor" in data), data)

    def forget(self, asked: Arguments) -> Answer:
        if "id" in asked:
            memories = int(self._agent.delete_memory(asked["id"]))
            messages = 0 if memories else int(self._agent.delete(asked["id"]))
            return _forgotten(messages, memories, ())
        erased = self._agent.forget(user=asked.get("user"), session=asked.get("session"))
        return _forgotten(erased.messages + erased.archived, erased.memories, erased.remaining)


def _forgotten(messages: int, memories: int, remaining: Iterable[str]) -> Answer:
    left = list(remaining)
    told = f"Erased {messages} messages and {memories} memories."
    if not messages and not memories:
        told = "Nothing of that is held; nothing was erased."
    elif left:
        told += " Some of it may still be in: " + "; ".join(left)
    return Answer(told, {"messages": messages, "memories": memories, "remaining": left})


def _within(hits: Sequence[Hit]) -> list[Hit]:
    """As many as one answer has room for; always the first."""
    page: list[Hit] = []
    chars = 0
    for hit in hits:
        chars += len(hit.message.content)
        if page and chars > ANSWER_CHARS:
            break
        page.append(hit)
    return page


def _hit(hit: Hit) -> dict[str, Any]:
    message = hit.message
    shown = {
        "id": message.id,
        "kind": hit.kind,
        "content": message.content,
        "score": round(hit.score, 4),
        "at": message.at.isoformat(),
        "speaker": message.speaker,
    }
    session = message.session if hit.memory is None else hit.memory.session
    if session is not None:
        shown["session"] = session
    if hit.memory is not None and hit.memory.about:
        shown["about"] = list(hit.memory.about)
    return shown


def _told(page: Sequence[Hit], *, more: bool) -> str:
    if not page:
        return "Nothing is remembered about that."
    told = [
        f"[{hit.message.at:%Y-%m-%d %H:%M}] {hit.message.speaker} ({hit.kind},"
        f" id {hit.message.id}): {_indented(hit.message.content)}"
        for hit in page
    ]
    if more:
        told.append("There is more: call again with the same question and `cursor`.")
    return "\n".join(told)


def _indented(content: str) -> str:
    # Later lines stand in, so that a message cannot pass for the next one.
    return "\n    ".join(content.splitlines())


def _time(name: str, value: str) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except ValueError as error:
        raise InvalidArgument(
            f"{name} must be a time in ISO 8601 with a zone, as 2026-03-02T18:04+01:00"
        ) from error


# -- cursors: which question it was, and which hits were shown, in four bytes each


def _mark(value: str) -> bytes:
    return hashlib.blake2b(value.encode(), digest_size=_MARK_BYTES).digest()


def _cursor(asked: bytes, shown: Sequence[bytes]) -> str:
    return base64.urlsafe_b64encode(asked + b"".join(shown)).decode("ascii")


def _shown(cursor: str | None, asked: bytes) -> list[bytes]:
    """The marks of what was shown before; none without a cursor."""
    if cursor is None:
        return []
    longest = (1 + RECALLED_MAX) * _MARK_BYTES
    try:
        held = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument("the cursor is not one of ours; ask without it") from error
    if not held or len(held) % _MARK_BYTES or len(held) > longest:
        raise InvalidArgument("the cursor is not one of ours; ask without it")
    marks = [held[n : n + _MARK_BYTES] for n in range(0, len(held), _MARK_BYTES)]
    if marks[0] != asked:
        raise InvalidArgument("the cursor is of another question; ask without it")
    return marks[1:]
