"""
Admitting: messages checked before they are sent, by the same rules as over there.

So what is wrong is said at once, as here, and nothing that JSON would turn into something else is
sent. Each gets its id, so that sending it twice writes it once.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

from elytron.config import Config
from elytron.errors import InvalidSetting
from elytron.records import Message
from elytron.text import Analyzer
from elytron.write.admission import MEMBERS, IdClock, admit, admit_many

LIMITS = ("max_message_kb", "max_future_s", "queue_max", "wal_limit_mb")  # that admission reads


class _NoTerms:
    """In the place of an analyzer: words are indexed where the store is."""

    def document(self, _content: str, *, speaker: str, at: datetime) -> bytes:  # noqa: ARG002
        return b""


class Admitting:
    """The admission of one server's messages."""

    def __init__(self, limits: object) -> None:
        """`limits` are the server's own, by name; one that is not told is as by default."""
        self.ids = IdClock()
        self._config = _config(limits)
        self._analyzer = cast(Analyzer, _NoTerms())

    def one(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """
        The arguments of a save, with an id.

        Raises:
            InvalidArgument: as `Agent.save`.
        """
        values = {**dict.fromkeys(MEMBERS), **arguments}
        draft = admit(**values, config=self._config, analyzer=self._analyzer, ids=self.ids)
        return {**arguments, "id": draft.id}

    def many(self, messages: Iterable[Mapping[str, Any] | Message]) -> list[dict[str, Any]]:
        """
        The same of several messages.

        Raises:
            InvalidArgument: as `Agent.save_many`.
        """
        kept: list[Mapping[str, Any] | Message] = []

        def keeping() -> Iterable[Mapping[str, Any] | Message]:
            for message in messages:
                kept.append(message)
                yield message

        checked = keeping() if _is_iterable(messages) else messages
        drafts = admit_many(checked, config=self._config, analyzer=self._analyzer, ids=self.ids)
        return [
            {**members(message), "id": draft.id}
            for message, draft in zip(kept, drafts, strict=True)
        ]


def members(message: Mapping[str, Any] | Message) -> dict[str, Any]:
    """A message to save as a mapping of what it says."""
    if not isinstance(message, Message):
        return dict(message)
    found = {name: getattr(message, name, None) for name in MEMBERS}
    return {name: value for name, value in found.items() if value is not None}


def _is_iterable(messages: object) -> bool:
    return isinstance(messages, Iterable) and not isinstance(messages, str | bytes | Mapping)


def _config(limits: object) -> Config:
    told = limits if isinstance(limits, Mapping) else {}
    known = {name: told[name] for name in LIMITS if name in told}
    try:
        # Room for any WAL: of the bytes on its disk the server knows alone.
        return Config(**known, max_db_size_mb=1_000_000)
    except InvalidSetting:  # of a server with other ranges; it refuses by itself
        return Config()
