"""
Remembering: what may be learned, and in what form: memories, names of concepts, relations.

Pure but for the clock and the id, as `admission.py`: from the caller's values and the settings an
op, or an `InvalidArgument` that names the number, the limit and the way out.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from elytron.concepts.names import folded_name
from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.ledger.knowledge import ORIGINS
from elytron.ledger.learned import (
    CloseMemory,
    EditMemory,
    MemoryDraft,
    Name,
    Relate,
    Remember,
    SetConcept,
    Unrelate,
)
from elytron.ledger.rows import to_us
from elytron.records import DEFAULT_IMPORTANCE, Memory
from elytron.text import Analyzer, plain, unprintable_at
from elytron.write.admission import (
    MEMORY,
    MESSAGE,
    IdClock,
    check_aware,
    check_content,
    check_id,
    check_importance,
    check_metadata,
    utf8_bytes,
)

NAME_MAX = 200  # characters of a concept's name, of a relation, of a kind
ABOUT_MAX = 100  # names of one memory
DESCRIPTION_MAX = 2000  # characters
_ROW_BYTES = 400
_PAGE_BYTES = 4096
_UNRELATED_MAX = 200  # facts closed in one commit
_YEAR_1_US, _YEAR_10000_US = -62_135_596_800_000_000, 253_402_300_800_000_000


def admit_memory(
    content: str,
    *,
    about: Iterable[str],
    kind: str,
    importance: float | None,
    pinned: bool,
    session: str | None,
    valid_from: datetime | None,
    valid_to: datetime | None,
    metadata: Mapping[str, Any] | None,
    id: str | None,
    replaces: str | None,
    config: Config,
    analyzer: Analyzer,
    ids: IdClock,
) -> Remember:
    """
    Check one memory and make it ready to be written.

    Raises:
        InvalidArgument: as `Agent.remember` has it.
    """
    created_us = time.time_ns() // 1000
    content, text_bytes = check_content(content, config)
    names = check_about(about)
    stored = None if metadata is None else check_metadata(metadata)
    if stored is not None:
        text_bytes += utf8_bytes(stored, "metadata")
        if text_bytes > config.max_message_bytes:
            raise InvalidArgument(
                f"content and metadata together have {text_bytes} bytes, at most"
                f" {config.max_message_bytes}; split it, or raise `max_message_kb`"
            )
    from_us, to_us = check_span(valid_from, valid_to)
    if replaces is not None:
        replaces = check_id(replaces, "replaces")
        if replaces == id:
            raise InvalidArgument("a memory cannot replace itself: use `edit_memory`")
        if from_us is None:  # where the other ends
            from_us = created_us
            if to_us is not None and to_us <= from_us:
                raise InvalidArgument("valid_to is in the past: give a valid_from before it")
    draft = MemoryDraft(
        ids.next(created_us) if id is None else check_id(id, "id"),
        content,
        _check_kind(kind),
        DEFAULT_IMPORTANCE if importance is None else check_importance(importance),
        check_switch(pinned, "pinned"),
        None if session is None else check_id(session, "session"),
        from_us,
        to_us,
        valid_from is not None,
        created_us,
        stored,
        terms := memory_terms(content, [name.shown for name in names], created_us, analyzer),
        _ROW_BYTES + 2 * text_bytes + len(terms) + 6 * (len(id or "") + len(session or "")),
    )
    op = Remember(draft, names, replaces)
    if names and op.size_bytes > config.wal_limit_bytes:
        raise InvalidArgument(
            f"a memory about {len(names)} names may write {op.size_bytes} bytes in one commit of"
            f" at most {config.wal_limit_bytes}: name fewer, or raise `wal_limit_mb`"
        )
    return op


def memory_terms(content: str, about: Iterable[str], created_us: int, analyzer: Analyzer) -> bytes:
    """What a memory is found by: its words, the names that it is about, and its date."""
    at = datetime.fromtimestamp(created_us // 1_000_000, UTC)
    return analyzer.document(content, speaker=" ".join(about), at=at)


def admit_edit(memory: Memory, content: str, config: Config, analyzer: Analyzer) -> EditMemory:
    """Check a memory's new content and make it ready to be written."""
    content, size_bytes = check_content(content, config)
    created_us = to_us(memory.created)
    terms = memory_terms(content, memory.about, created_us, analyzer)
    most = 2 * (size_bytes + config.max_message_bytes) + len(terms)
    return EditMemory(memory.id, content, terms, _ROW_BYTES + 8 * _PAGE_BYTES + most)


def admit_end(id: str, at: datetime | None) -> CloseMemory:
    """Check until when a memory held."""
    return CloseMemory(check_id(id, "id"), to_us(check_as_of(at, "at")), at is not None)


def admit_relation(
    source: str,
    relation: str,
    target: str,
    *,
    strength: float,
    valid_from: datetime | None,
    valid_to: datetime | None,
    replaces: bool,
) -> Relate:
    """
    Check one fact and make it ready to be written.

    Raises:
        InvalidArgument: as `Agent.relate` has it.
    """
    from_us, end_us = check_span(valid_from, valid_to)
    now_us = time.time_ns() // 1000
    op = Relate(
        to_name(source, "source"),
        check_relation(relation),
        to_name(target, "target"),
        check_share(strength, "strength"),
        from_us,
        end_us,
        check_switch(replaces, "replaces"),
        now_us,
    )
    if replaces and from_us is None and end_us is not None and end_us <= now_us:
        raise InvalidArgument("valid_to is in the past: give a valid_from before it")
    return op


def admit_unrelate(
    source: str, relation: str | None, target: str | None, at: datetime | None, config: Config
) -> Unrelate:
    """Check which facts are to be closed."""
    return Unrelate(
        to_name(source, "source").folded,
        None if relation is None else check_relation(relation),
        None if target is None else to_name(target, "target").folded,
        to_us(check_as_of(at, "at")),
        max(1, min(_UNRELATED_MAX, config.commit_bytes // (4 * _PAGE_BYTES))),
    )


def admit_change(
    name: str,
    *,
    rename: str | None,
    type: str | None,
    description: str | None,
    confidence: float | None,
) -> SetConcept:
    """Check what is to be changed of a concept."""
    kind = check_line(type, "type") if type else type
    description = check_description(description) if description else description
    for value, what in ((kind, "type"), (description, "description")):
        if value is not None and not isinstance(value, str):
            raise InvalidArgument(f"{what} must be a string; got {value!r:.50}")
    return SetConcept(
        to_name(name).folded,
        None if rename is None else to_name(rename, "rename"),
        kind,
        description,
        None if confidence is None else check_share(confidence, "confidence"),
    )


# -- single values


def check_name(value: object, what: str = "name") -> str:
    """A concept's name of 1 to 200 characters, without control characters or space around it."""
    return check_line(value, what)


def to_name(value: object, what: str = "name") -> Name:
    """A concept's name, and what two spellings of it have in common."""
    shown = check_name(value, what)
    folded = folded_name(shown)
    if not folded:
        raise InvalidArgument(f"{what} has nothing but accents; give it a letter or a sign")
    return Name(shown, folded)


def check_about(about: object) -> tuple[Name, ...]:
    """At most 100 names, each once."""
    if isinstance(about, str | bytes | Mapping) or not isinstance(about, Iterable):
        raise InvalidArgument(f"about must be names, one after the other; got {about!r:.50}")
    names = dict[str, Name]()
    for number, value in enumerate(about):
        if number == ABOUT_MAX:
            raise InvalidArgument(f"about has more than {ABOUT_MAX} names; name fewer")
        name = to_name(value, "a name of `about`")
        names.setdefault(name.folded, name)
    return tuple(names.values())


def check_relation(value: object) -> str:
    """What ties two concepts, 1 to 200 characters, with single spaces."""
    return " ".join(check_line(value, "relation").split())


def _check_kind(kind: object) -> str:
    """A kind of memories; `recall(kinds=)` has two words of its own."""
    checked = check_line(kind, "kind")
    if checked in (MESSAGE, MEMORY):
        raise InvalidArgument(f"kind must not be {checked!r}, which means all of them in `kinds`")
    return checked


def check_line(value: object, what: str) -> str:
    """Text of 1 to 200 characters, without control characters or space around it."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} must be a string; got {value!r:.50}")
    line = plain(value).strip()
    if not line:
        raise InvalidArgument(f"{what} is empty; give it a value")
    if len(line) > NAME_MAX:
        raise InvalidArgument(f"{what} has {len(line)} characters, at most {NAME_MAX}; shorten it")
    bad = unprintable_at(line)
    if bad is not None:
        kind = "lone surrogate" if "\ud800" <= line[bad] <= "\udfff" else "control character"
        raise InvalidArgument(f"{what} has a {kind} at {bad}; remove it")
    return line


def check_description(value: object) -> str:
    """Text of 1 to 2000 characters."""
    if not isinstance(value, str):
        raise InvalidArgument(f"description must be a string; got {value!r:.50}")
    value = plain(value)
    if len(value) > DESCRIPTION_MAX:
        raise InvalidArgument(
            f"description has {len(value)} characters, at most {DESCRIPTION_MAX}; shorten it"
        )
    if "\0" in value:
        raise InvalidArgument(
            f"description has a NUL character at {value.index(chr(0))}; remove it"
        )
    utf8_bytes(value, "description")
    return value


def check_share(value: object, what: str) -> float:
    """A number from 0 to 1."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:  # type: ignore[operator]
        raise InvalidArgument(f"{what} must be a number from 0 to 1; got {value!r:.50}")
    return float(value) + 0.0  # type: ignore[arg-type]  # -0.0 would come back as 0.0


def check_switch(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{what} must be true or false; got {value!r:.50}")
    return value


def check_origin(value: object) -> int:
    """The number of a way in which a concept came to be known."""
    if not isinstance(value, str) or value not in ORIGINS:
        raise InvalidArgument(f"origin {value!r:.50} is unknown; use one of {', '.join(ORIGINS)}")
    return ORIGINS.index(value)


def check_as_of(value: object, what: str = "as_of") -> datetime:
    """A time with a zone; now if None."""
    if value is None:
        return datetime.now(UTC)
    at = check_aware(value, what)
    if not _YEAR_1_US <= to_us(at) < _YEAR_10000_US:
        raise InvalidArgument(f"{what} is {at.isoformat()}, in UTC outside the years 1 to 9999")
    return at


def check_span(valid_from: object, valid_to: object) -> tuple[int | None, int | None]:
    """When something holds, in microseconds: it begins before it ends."""
    from_us = None if valid_from is None else to_us(check_as_of(valid_from, "valid_from"))
    end_us = None if valid_to is None else to_us(check_as_of(valid_to, "valid_to"))
    if from_us is not None and end_us is not None and end_us <= from_us:
        raise InvalidArgument("valid_to is not after valid_from; swap them, or leave one out")
    return from_us, end_us
