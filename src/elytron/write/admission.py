"""
Admission: what may enter a memory, and in what form.

Pure but for the clock and the id: from the caller's values and the settings, a `Draft` or an
`InvalidArgument` that names the number, the limit and the way out.
"""

import json
import math
import random
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from elytron.config import Config
from elytron.embed import policy
from elytron.errors import InvalidArgument
from elytron.records import DEFAULT_IMPORTANCE, DEFAULT_SESSION, ROLES, Draft, Message
from elytron.text import Analyzer, plain, unprintable_at

ID_MAX = 200  # characters of a message's, session's or user's id
METADATA_DEPTH_MAX = 100
_ID_TIMES = 6  # twice, and three bytes a character
QUESTION_MAX = 20_000  # characters
KINDS_MAX = 100
MESSAGE, MEMORY = "message", "memory"  # what `kinds` may name besides kinds of memories
MEMBERS = (
    "role", "content", "session", "user", "at", "metadata", "id", "importance", "pinned", "embed"
)  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ROW_BYTES = 400  # what a message takes in the ledger besides its text and index
_INDEXED_TIMES = 5  # the hashed terms themselves, and what their index takes


class IdClock:
    """Makes ids that rise: UUIDv7 (RFC 9562, method 1), counting within a millisecond."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._last = 0
        self._chance = random.Random(secrets.randbits(128))  # ids have to differ, not be secret

    def next(self, now_us: int) -> str:
        """48 bits of milliseconds, 12 of a counter, 62 of chance."""
        with self._mutex:
            # The counter runs on into the next millisecond, so ids rise whatever the clock does.
            self._last = stamp = max(self._last + 1, now_us // 1000 << 12)
        value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64
        text = f"{value | 0x2 << 62 | self._chance.getrandbits(62):032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def admit(
    role: str,
    content: str,
    *,
    session: str | None,
    user: str | None,
    at: datetime | None,
    metadata: Mapping[str, Any] | None,
    id: str | None,
    importance: float | None = None,
    pinned: bool | None = False,
    embed: bool | None = None,
    config: Config,
    analyzer: Analyzer,
    ids: IdClock,
) -> Draft:
    """
    Check one message and make it ready to be written.

    Raises:
        InvalidArgument: an unknown role; content that is empty, too long, or holds a NUL or a
            lone surrogate; an id that is empty, too long or holds control characters; a time
            without a zone, before 1970 or too far ahead; metadata that is not JSON; an
            importance outside 0 to 1.
    """
    role = check_role(role)
    if importance is not None:
        importance = check_importance(importance)
    for name, switch in (("pinned", pinned), ("embed", embed)):
        if switch is not None and not isinstance(switch, bool):
            raise InvalidArgument(f"{name} must be true or false; got {switch!r:.50}")
    arrived_us = time.time_ns() // 1000
    content, text_bytes = check_content(content, config)
    session = DEFAULT_SESSION if session is None else check_id(session, "session")
    if user is not None:
        user = check_id(user, "user")
    if at is None:
        at_us, offset_min, at_given = arrived_us, 0, False
        at = _EPOCH + timedelta(microseconds=at_us)
    else:
        at_us, offset_min = _check_time(at, arrived_us, config)
        at_given = True
    stored_metadata = None if metadata is None else check_metadata(metadata)
    if stored_metadata is not None:
        text_bytes += utf8_bytes(stored_metadata, "metadata")
        _check_size(text_bytes, "content and metadata together", config)
    terms = analyzer.document(content, speaker=user or role, at=at)
    return Draft(
        ids.next(arrived_us) if id is None else check_id(id, "id"),
        role,
        content,
        session,
        user,
        at_us,
        offset_min,
        at_given,
        arrived_us,
        stored_metadata,
        terms,
        _ROW_BYTES
        + text_bytes
        + _INDEXED_TIMES * len(terms)
        # Each stands in a table and in its index; the user's name also without accents.
        + _ID_TIMES * (len(id or "") + len(session) + 2 * len(user or "")),
        policy.decide(role, content, wanted=embed, config=config),
        # What every message has needs no row of its own.
        None if importance == DEFAULT_IMPORTANCE else importance,
        bool(pinned),
    )


def admit_many(
    messages: Iterable[Mapping[str, Any] | Message],
    *,
    config: Config,
    analyzer: Analyzer,
    ids: IdClock,
) -> tuple[Draft, ...]:
    """
    Check messages that will be written as one. Limits: `queue_max` messages, and as many bytes
    as fit into the write-ahead log.

    Raises:
        InvalidArgument: naming the first message that is not acceptable, counted from 0.
    """
    if not isinstance(messages, Iterable) or isinstance(messages, str | bytes | Mapping):
        raise InvalidArgument(
            f"expected messages, one after the other; got {type(messages).__name__}"
        )
    drafts: list[Draft] = []
    size_bytes = 0
    for number, message in enumerate(messages):
        try:
            members = _members(message)
            draft = admit(**members, config=config, analyzer=analyzer, ids=ids)
        except InvalidArgument as error:
            raise InvalidArgument(f"message {number}: {error}") from error
        drafts.append(draft)
        size_bytes += draft.size_bytes
        if len(drafts) > config.queue_max:
            raise InvalidArgument(
                f"more than {config.queue_max} messages at once; save them in parts, or raise"
                " `queue_max`"
            )
        if size_bytes > config.wal_limit_bytes:
            raise InvalidArgument(
                f"the first {len(drafts)} messages would write {size_bytes} bytes in one commit"
                f" of at most {config.wal_limit_bytes}; save them in parts, or raise `wal_limit_mb`"
            )
    return tuple(drafts)


def _members(message: Mapping[str, Any] | Message) -> dict[str, Any]:
    if isinstance(message, Message):
        return {name: getattr(message, name, None) for name in MEMBERS}
    if not isinstance(message, Mapping):
        raise InvalidArgument(f"expected a mapping or a Message; got {type(message).__name__}")
    unknown = [name for name in message if name not in MEMBERS]
    if unknown:
        raise InvalidArgument(
            f"unknown member {unknown[0]!r:.50}; a message has {', '.join(MEMBERS)}"
        )
    for name in ("role", "content"):
        if name not in message:
            raise InvalidArgument(f"`{name}` is missing")
    return {name: message.get(name) for name in MEMBERS}


def is_same(draft: Draft, message: Message) -> bool:
    """Whether a draft says what *message* says, so that saving it again is a retry."""
    metadata = json.loads(draft.metadata) if draft.metadata else {}
    return (draft.session, draft.user, draft.role, draft.content, metadata) == (
        message.session,
        message.user,
        message.role,
        message.content,
        message.metadata,
    ) and (not draft.at_given or draft.at_us == (message.at - _EPOCH) // _MICROSECOND)


def check_role(role: object) -> str:
    """One of the roles that are known."""
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidArgument(f"role {role!r:.50} is unknown; use one of {', '.join(ROLES)}")
    return plain(role)


def check_content(content: object, config: Config) -> tuple[str, int]:
    """An acceptable content, and its size in UTF-8 bytes."""
    if not isinstance(content, str):
        raise InvalidArgument(f"content must be a string; got {type(content).__name__}")
    content = plain(content)
    if not content or content.isspace():
        raise InvalidArgument("content is empty")
    if "\0" in content:
        raise InvalidArgument(f"content has a NUL character at {content.index(chr(0))}; remove it")
    size_bytes = utf8_bytes(content, "content")
    _check_size(size_bytes, "content", config)
    return content, size_bytes


def _check_size(size_bytes: int, what: str, config: Config) -> None:
    if size_bytes > config.max_message_bytes:
        raise InvalidArgument(
            f"{what} has {size_bytes} bytes, at most {config.max_message_bytes};"
            " split it, or raise `max_message_kb`"
        )


def check_id(value: object, what: str) -> str:
    """An id of 1 to 200 characters, none of them a control character."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} must be a string; got {type(value).__name__}")
    value = plain(value)
    if not value or value.isspace():
        raise InvalidArgument(f"{what} is empty; leave it out, or give it a value")
    if len(value) > ID_MAX:
        raise InvalidArgument(f"{what} has {len(value)} characters, at most {ID_MAX}; shorten it")
    bad = unprintable_at(value)
    if bad is not None:
        kind = "lone surrogate" if "\ud800" <= value[bad] <= "\udfff" else "control character"
        raise InvalidArgument(f"{what} has a {kind} at {bad}; remove it")
    return value


def check_importance(value: object) -> float:
    """A number from 0 to 1."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:  # type: ignore[operator]
        raise InvalidArgument(f"importance must be a number from 0 to 1; got {value!r:.50}")
    return float(value) + 0.0  # type: ignore[arg-type]  # -0.0 would come back as 0.0


def check_kinds(kinds: object) -> tuple[bool, tuple[str, ...] | None]:
    """Whether messages are asked for, and memories of which kinds; None for all kinds."""
    if kinds is None:
        return True, None
    if isinstance(kinds, str) or not isinstance(kinds, Iterable):
        raise InvalidArgument(f"kinds must be a list, as [{MESSAGE!r}, 'fact']; got {kinds!r:.50}")
    names = list(kinds)
    if not 1 <= len(names) <= KINDS_MAX:
        raise InvalidArgument(f"{len(names)} kinds, of 1 to {KINDS_MAX}; None for all")
    names = list(dict.fromkeys([check_id(name, "a kind") for name in names]))
    if MEMORY in names:
        return MESSAGE in names, None
    return MESSAGE in names, tuple([name for name in names if name != MESSAGE])


def check_limit(limit: object, maximum: int, *, what: str = "limit") -> int:
    """A count from 1 to *maximum*."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= maximum:
        setting = " (`max_query_rows`)" if what == "limit" else ""
        raise InvalidArgument(
            f"{what} must be a whole number from 1 to {maximum}{setting}; got {limit!r:.50}"
        )
    return limit


def check_question(question: object) -> str:
    """A question of 1 to 20,000 characters."""
    if not isinstance(question, str) or not question.strip():
        raise InvalidArgument("the question is empty; ask with at least one word")
    if len(question) > QUESTION_MAX:
        raise InvalidArgument(
            f"the question has {len(question)} characters, at most {QUESTION_MAX}; shorten it"
        )
    return question


def check_aware(at: object, what: str) -> datetime:
    """A time that says its zone."""
    if not isinstance(at, datetime):
        raise InvalidArgument(
            f"{what} must be a datetime; got {type(at).__name__}: for text use"
            " datetime.fromisoformat"
        )
    if at.tzinfo is None or at.utcoffset() is None:
        raise InvalidArgument(
            f"{what} has no time zone; add one, as datetime.now(timezone.utc) does"
        )
    return at


def _check_time(at: object, now_us: int, config: Config) -> tuple[int, int]:
    checked = check_aware(at, "at")
    at_us = (checked - _EPOCH) // _MICROSECOND
    if at_us < 0:
        raise InvalidArgument(f"at is {checked.isoformat()}, before 1970; check its unit")
    if at_us > now_us + config.max_future_s * 1e6:
        raise InvalidArgument(
            f"at is {checked.isoformat()}, more than {config.max_future_s:g} s ahead of the"
            " clock; check its unit, or raise `max_future_s`"
        )
    offset = checked.utcoffset()
    assert offset is not None
    # Towards zero: whole minutes of any offset are an offset again.
    return at_us, int(offset.total_seconds() / 60)


def check_metadata(metadata: object) -> str | None:
    """Metadata as JSON; None if there is nothing in it."""
    if not isinstance(metadata, Mapping):
        raise InvalidArgument(f"metadata must be a mapping; got {type(metadata).__name__}")
    if not metadata:
        return None
    if _depth_exceeds(metadata, METADATA_DEPTH_MAX):
        raise InvalidArgument(
            f"metadata is not JSON that could be read back: it is nested more than"
            f" {METADATA_DEPTH_MAX} levels deep; flatten it"
        )
    try:
        # Sorted, so that a retry is the same text.
        stored = json.dumps(
            dict(metadata), ensure_ascii=False, allow_nan=False, sort_keys=True,
            separators=(",", ":"),
        )  # fmt: skip
        same = json.loads(stored) == metadata
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"metadata is not JSON: {error}") from error
    if not same:
        raise InvalidArgument(
            "metadata would come back changed: use lists, and mappings whose names are strings"
        )
    return stored


def _depth_exceeds(value: object, levels: int) -> bool:
    """Whether lists and mappings lie in each other more than *levels* deep."""
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, Mapping | list | tuple)
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
        ]
        if not layer:
            return False
    return True


def utf8_bytes(text: str, what: str) -> int:
    """How many bytes a text has, which must be one that can be written."""
    try:
        return len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"{what} has a lone surrogate at {error.start}; decode it properly"
        ) from error


def check_timeout(timeout_s: object) -> float:
    """A wait in seconds, finite and not negative."""
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)):
        raise InvalidArgument(f"timeout_s must be a number of seconds; got {timeout_s!r:.50}")
    if not math.isfinite(timeout_s) or timeout_s < 0:
        raise InvalidArgument(f"timeout_s must be finite and not negative; got {timeout_s!r}")
    return float(timeout_s)
