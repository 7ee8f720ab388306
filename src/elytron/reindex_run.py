"""One reindexing of one agent: all messages and memories analysed anew, in commits of a page."""

from collections.abc import Callable
from typing import Any

from elytron.ledger.learned import ReindexMemories
from elytron.ledger.ops import Reindex
from elytron.ledger.rows import to_us
from elytron.records import Memory, Message
from elytron.text import Analyzer
from elytron.write.remembering import memory_terms

_ENTRY_BYTES = 300  # what rewriting a message's index may write besides the terms, both times
_MEMORY_BYTES = 3 * 4096


def reindex_all(
    *,
    read: Callable[[int], list[tuple[int, Message]]],
    write: Callable[[Reindex], Any],
    analyzer: Analyzer,
    commit_max_bytes: int,
    on_progress: Callable[[int], None] | None,
) -> int:
    """
    Analyse and write all messages again; returns how many.

    Args:
        read: gives the next page of (key, message) after a key; empty at the end.
        write: commits one step.
    """
    done, after = 0, 0
    while page := read(after):
        entries: list[tuple[int, str, bytes]] = []
        size_bytes = 0
        for key, message in page:
            terms = analyzer.document(message.content, speaker=message.speaker, at=message.at)
            entry_bytes = _ENTRY_BYTES + 10 * len(terms)
            if entries and size_bytes + entry_bytes > commit_max_bytes:
                write(Reindex(tuple(entries), None, size_bytes))
                entries, size_bytes = [], 0
            entries.append((key, message.content, terms))
            size_bytes += entry_bytes
        write(Reindex(tuple(entries), None, size_bytes))
        after = page[-1][0]
        done += len(page)
        if on_progress is not None:
            on_progress(done)
    # Last, so that a reindexing that was cut short is known to be unfinished.
    write(Reindex((), ",".join(analyzer.names), 0))
    return done


def reindex_memories(
    *,
    read: Callable[[int], list[tuple[int, Memory]]],
    write: Callable[[ReindexMemories], Any],
    analyzer: Analyzer,
    commit_max_bytes: int,
) -> None:
    """The same for memories; before the messages, whose end says that all is done."""
    after = 0
    while page := read(after):
        entries: list[tuple[int, str, bytes]] = []
        size_bytes = 0
        for key, memory in page:
            terms = memory_terms(memory.content, memory.about, to_us(memory.created), analyzer)
            # The row is written again, with its text.
            entry_bytes = _MEMORY_BYTES + 2 * (len(memory.content.encode()) + len(terms))
            if entries and size_bytes + entry_bytes > commit_max_bytes:
                write(ReindexMemories(tuple(entries), size_bytes))
                entries, size_bytes = [], 0
            entries.append((key, memory.content, terms))
            size_bytes += entry_bytes
        write(ReindexMemories(tuple(entries), size_bytes))
        after = page[-1][0]
