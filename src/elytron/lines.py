"""Lines: messages as JSON Lines, the format of `docs/formats.md`, on their way out."""

import json
from collections.abc import Callable, Iterable
from typing import IO, Any

from elytron.records import DEFAULT_IMPORTANCE, Message

_REPORT_EVERY = 500


def to_line(message: Message) -> dict[str, Any]:
    """A message as the members of its line; those without a value are left out."""
    members = {
        "id": message.id,
        "role": message.role,
        "session": message.session,
        "user": message.user,
        "at": message.at.isoformat(),
        "metadata": dict(message.metadata) or None,
        "importance": None if message.importance == DEFAULT_IMPORTANCE else message.importance,
        "pinned": message.pinned or None,
        "embed": message.embed,
        "content": message.content,
    }
    return {name: value for name, value in members.items() if value is not None}


def write_lines(
    messages: Iterable[Message],
    target: IO[str],
    *,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Write each message as a line; returns how many."""
    count = 0
    for count, message in enumerate(messages, 1):
        target.write(json.dumps(to_line(message), ensure_ascii=False) + "\n")
        if on_progress is not None and count % _REPORT_EVERY == 0:
            on_progress(count)
    if on_progress is not None:
        on_progress(count)
    return count
