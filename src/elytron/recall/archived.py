"""
Archived: candidates among the messages that left the ledger.

The archive has no index: its segments are read one after the other, those that cannot hold an
accepted message left out. So it takes a second for some 20,000 messages, and is asked only by
those who say so.
"""

import heapq
import itertools
import logging
import time
from collections.abc import Iterator

from elytron.archive import Archive, Archived, Entry, read_all
from elytron.config import Config
from elytron.errors import Busy
from elytron.ledger import reads, rows
from elytron.recall.candidates import Candidates
from elytron.records import Message
from elytron.text import HASH_BYTES, Analyzer, QueryTerm

_log = logging.getLogger("elytron.recall")


def join(
    found: Candidates | None,
    archive: Archive,
    terms: tuple[QueryTerm, ...],
    accept: reads.Filter,
    *,
    analyzer: Analyzer,
    config: Config,
) -> tuple[Candidates | None, dict[int, Message]]:
    """
    What the ledger found, and what the archive has, as one; and the archive's messages by key.

    Words weigh by both, so that scores can be compared.

    Raises:
        Busy: reading the archive took longer than `read_timeout_s`.
    """
    hashes = {hashed for term in terms for hashed in term.hashes}
    counts = dict.fromkeys(hashes, 0)
    best: list[tuple[int, int, Archived, bytes]] = []
    total = length = 0
    number = itertools.count()
    known = {place.key for place in found.places} if found else set()
    for archived in _read(archive, accept, timeout_s=config.read_timeout_s):
        message = archived.message
        held = analyzer.document(message.content, speaker=message.speaker, at=message.at)
        total += 1
        length += len(held) // HASH_BYTES
        matched = [hashed for hashed in hashes if hashed in held]
        for hashed in matched:
            counts[hashed] += 1
        # In both for a moment: the ledger's is the one that counts.
        if matched and archived.key not in known and _accepts(accept, message):
            heapq.heappush(best, (len(matched), next(number), archived, held))
            if len(best) > config.candidates_max:
                heapq.heappop(best)
    if not best:
        return found, {}
    return _joined(found, best, terms, counts, total=total, length=length), {
        archived.key: archived.message for _, _, archived, _ in best
    }


def _joined(
    found: Candidates | None,
    best: list[tuple[int, int, Archived, bytes]],
    terms: tuple[QueryTerm, ...],
    counts: dict[bytes, int],
    *,
    total: int,
    length: int,
) -> Candidates:
    places = tuple(
        [
            reads.Place(
                archived.key,
                archived.session_key,
                archived.message.position,
                None,
                archived.message.role,
                len(archived.message.content.encode("utf-8", "replace")),
                held,
                "?" in archived.message.content,
            )
            for _, _, archived, held in best
        ]
    )
    before = dict(found.terms) if found else {}
    frequencies = [
        (term, before.get(term, 0) + sum([counts[hashed] for hashed in term.hashes]))
        for term in terms
    ]
    all_length = length + (found.mean_length * found.total if found else 0)
    all_total = total + (found.total if found else 0)
    return Candidates(
        places=(found.places if found else ()) + places,
        accepted=(found.accepted if found else frozenset()) | {place.key for place in places},
        terms=tuple([(term, frequency) for term, frequency in frequencies if frequency]),
        total=all_total,
        mean_length=all_length / all_total,
        speakers=found.speakers if found else (),
        reached=found.reached if found else {},
        cosines=found.cosines if found else {},
    )


def _read(archive: Archive, accept: reads.Filter, *, timeout_s: float) -> Iterator[Archived]:
    if not archive.exists():
        return
    deadline = time.monotonic() + timeout_s

    def wanted(entry: Entry) -> bool:
        return (accept.since_us is None or entry.last_us >= accept.since_us) and (
            accept.until_us is None or entry.first_us < accept.until_us
        )

    seen = set[int]()
    # A damaged segment does not keep the others from answering.
    for archived in read_all(archive, wanted=wanted, on_damage=lambda e: _log.warning("%s", e)):
        if archived.key not in seen:
            seen.add(archived.key)
            yield archived
        if time.monotonic() > deadline:
            raise Busy(
                f"reading the archive took longer than {timeout_s:g} s; narrow the question by"
                " `since` and `until`, or raise `read_timeout_s`"
            )


def _accepts(accept: reads.Filter, message: Message) -> bool:
    at_us = rows.to_us(message.at)
    return (
        (accept.session is None or message.session == accept.session)
        and (accept.user is None or message.user == accept.user)
        and (accept.role is None or message.role == accept.role)
        and (accept.since_us is None or at_us >= accept.since_us)
        and (accept.until_us is None or at_us < accept.until_us)
    )
