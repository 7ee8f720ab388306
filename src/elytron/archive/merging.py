"""
Merging: which neighbours among small segments become one.

Pure. A segment is tiny (under 100 messages and 100 KB of lines), small (under 1000 and 1 MB) or
large. Two neighbours are joined if the later is not of a lesser kind than the earlier, unless
that is large. So after additions of any size below 1000 there are at most one small segment and
one tiny one behind it. With n messages an addition, a message is written again at most 100 / n
times while its segment is tiny and about 10 times while it is small; with one kind alone it
would be 1000 / n times.
"""

from collections.abc import Collection, Sequence

from elytron.archive.entries import SEGMENT_MESSAGES_MAX, SEGMENT_TEXT_MAX_BYTES, Entry

_KINDS = ((100, 100_000), (1000, 1_000_000))  # under so many messages and bytes of lines
LARGE = len(_KINDS)


def kind(messages: int, text_bytes: int) -> int:
    """0 for tiny, 1 for small, 2 for large."""
    for number, (messages_limit, text_limit_bytes) in enumerate(_KINDS):
        if messages < messages_limit and text_bytes < text_limit_bytes:
            return number
    return LARGE


def plan_merge(entries: Sequence[Entry], *, skip: Collection[str] = ()) -> list[list[Entry]]:
    """
    Groups of at least two neighbours, each to become one segment within the limits.

    Those named in *skip* stay alone, and what is on their two sides is not joined across them.
    """
    groups: list[list[Entry]] = []
    for entry in entries:
        groups.append([entry])
        while (
            len(groups) > 1
            and entry.name not in skip
            and groups[-2][-1].name not in skip
            and _belong_together(groups[-2], groups[-1])
        ):
            later = groups.pop()
            groups[-1] += later
    return [group for group in groups if len(group) > 1]


def _belong_together(earlier: list[Entry], later: list[Entry]) -> bool:
    messages, text_bytes = _size(earlier)
    more_messages, more_bytes = _size(later)
    earlier_kind = kind(messages, text_bytes)
    return (
        earlier_kind < LARGE
        and earlier_kind <= kind(more_messages, more_bytes)
        and messages + more_messages <= SEGMENT_MESSAGES_MAX
        and text_bytes + more_bytes <= SEGMENT_TEXT_MAX_BYTES
    )


def _size(group: list[Entry]) -> tuple[int, int]:
    return sum(entry.messages for entry in group), sum(entry.text_bytes for entry in group)
