"""
Merging: which neighbours among small segments become one.

Pure. A segment is tiny (under 100 messages and 100 KB of lines), small (under 1000 and 1 MB) or
large. Neighbours wait until there are eight of a kind and are then joined at once, so that what is
archived little by little is not written again with each addition: of n messages at a time each is
written again some 14 / n times while its segment is tiny, and once or twice while it is small.
Joined with the one before as they came, those that leave by fifties were written again five times.
"""

from collections.abc import Collection, Iterator, Sequence

from elytron.archive.entries import SEGMENT_MESSAGES_MAX, SEGMENT_TEXT_MAX_BYTES, Entry

_KINDS = ((100, 100_000), (1000, 1_000_000))  # under so many messages and bytes of lines
TINY, SMALL, LARGE = range(3)
AT_ONCE = 8  # of a kind, to be joined
_Group = list[Entry]


def kind(messages: int, text_bytes: int) -> int:
    """0 for tiny, 1 for small, 2 for large."""
    for number, (messages_limit, text_limit_bytes) in enumerate(_KINDS):
        if messages < messages_limit and text_bytes < text_limit_bytes:
            return number
    return LARGE


def plan_merge(
    entries: Sequence[Entry], *, skip: Collection[str] = (), bytes_max: int | None = None
) -> list[list[Entry]]:
    """
    Groups of at least two neighbours, each to become one segment within the limits.

    Those named in *skip* stay alone, and what is on their two sides is not joined across them.
    Where the limits let all groups be joined, at most seven small and seven tiny ones stay, behind
    what is large.

    Args:
        bytes_max: what a group may take on the disk; None for no such limit.
    """
    groups = [[entry] for entry in entries]
    for largest in (TINY, SMALL):
        groups = list(_joined(groups, largest, skip, bytes_max))
    return [group for group in groups if len(group) > 1]


def _joined(
    groups: Sequence[_Group], largest: int, skip: Collection[str], bytes_max: int | None
) -> Iterator[_Group]:
    """The groups, those of a kind up to *largest* joined where enough of them are neighbours."""
    run: list[_Group] = []
    for group in groups:
        alone = group[0].name in skip
        if not alone and _kind(group) <= largest:
            run.append(group)
            continue
        together = _flat([*run, group])
        if run and not alone and _fits(together, bytes_max):
            yield together  # what is left before a larger one goes with it
        else:
            yield from _of_run(run, largest, bytes_max)
            yield group
        run = []
    yield from _of_run(run, largest, bytes_max)


def _of_run(run: Sequence[_Group], largest: int, bytes_max: int | None) -> Iterator[_Group]:
    """Neighbours, joined if there are enough of the kind; what is behind the last of it waits."""
    places = [place for place, group in enumerate(run) if _kind(group) == largest]
    if len(places) < AT_ONCE:
        yield from run
        return
    end = places[-1] + 1
    parts: list[list[_Group]] = [[]]
    for group in run[:end]:
        if parts[-1] and not _fits(_flat([*parts[-1], group]), bytes_max):
            parts.append([])
        parts[-1].append(group)
    waiting = parts.pop() if len(parts) > 1 else []  # for more that fit beside it
    yield from map(_flat, parts)
    yield from (*waiting, *run[end:])


def _flat(groups: Sequence[_Group]) -> _Group:
    return [entry for group in groups for entry in group]


def _kind(group: _Group) -> int:
    return kind(*_size(group))


def _fits(group: _Group, bytes_max: int | None) -> bool:
    messages, text_bytes = _size(group)
    within = messages <= SEGMENT_MESSAGES_MAX and text_bytes <= SEGMENT_TEXT_MAX_BYTES
    return within and (bytes_max is None or sum([entry.bytes for entry in group]) <= bytes_max)


def _size(group: _Group) -> tuple[int, int]:
    return sum([entry.messages for entry in group]), sum([entry.text_bytes for entry in group])
