"""
Candidates: the messages and memories worth ranking for a question, with what ranking needs of each.

Words find them: the best by FTS5's own BM25, and their neighbours in the session, since a
question's words often stand in the message that the answer replies to. Vectors find what means the
same in other words (`nearest.py`), dates what was said then, concepts some more (`reach.py`).
Memories are not in the index of messages: there are few beside them, and each is scored.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from typing import Protocol

from elytron.config import Config
from elytron.ledger import ahead, knowledge, reads, vector_reads, word_reads
from elytron.ledger.database import Database
from elytron.recall.question import Question, possible_names
from elytron.recall.reach import Reach
from elytron.recall.remembered import postings, rank_memories
from elytron.text import HASH_BYTES, QueryTerm

# So many of the newest memories are looked at, times the kinds that are named; older ones if they
# are pinned, as many at most, or near by their vectors.
MEMORIES_MAX = 20_000
_RARE_ENOUGH = 1000  # messages; reading so many postings costs half a millisecond
_POSTINGS_MAX = 30_000  # of all words that are sought; some 20 ms
_MEMORIES_BEST = 50
# How many times more of the nearest are looked at where a filter leaves too few, and their most.
_NEAR_TIMES, _NEAR_MAX = (1, 10, 40), 4000
_EACH_MAX = 5000  # that are each compared instead: messages of a session, or what a filter leaves
_AMONG_MAX = 100_000  # newest messages among which the latter are sought; some 30 ms


class Finding(Protocol):
    """Finds what is near a question by its vector; see `Nearest`."""

    def __call__(self, *, count: int, accept: reads.Filter | None = None) -> list[int]: ...


class Comparing(Protocol):
    """How near messages and memories are, of those that have a vector; see `Nearest`."""

    def __call__(self, keys: Sequence[int], /) -> dict[int, float]: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """
    Where candidates come from besides words.

    Attributes:
        near: the nearest by vectors.
        cosines: how near each of some is.
        reach: what concepts lead to, given `total`, the number of messages held.
        dated: groups of hashed terms; a message that has all of a group is of a wanted day.
        readings: what these will ask, to be asked together with the rest.
    """

    near: Finding | None = None
    cosines: Comparing | None = None
    reach: Callable[..., Reach] | None = None
    dated: tuple[tuple[bytes, ...], ...] = ()
    readings: tuple[ahead.Reading, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidates:
    """
    What one question found.

    Attributes:
        places: the found messages and their neighbours, and the memories.
        accepted: keys of those that may be hits; the others only lend their score.
        terms: the question's words that are held anywhere, with the number of messages and
            memories.
        total: messages and memories held.
        mean_length: their mean number of terms.
        speakers: keys of the users whom the question names.
        reached: what messages are worth for the concepts that they name, by key.
        cosines: of those that have a vector, by key.
    """

    places: tuple[reads.Place, ...]
    accepted: frozenset[int]
    terms: tuple[tuple[QueryTerm, int], ...]
    total: int
    mean_length: float
    speakers: tuple[int, ...]
    reached: Mapping[int, float] = field(default_factory=dict)
    cosines: Mapping[int, float] = field(default_factory=dict)

    @property
    def dialogue(self) -> bool:
        """Whether an assistant speaks here, so that roles tell something."""
        return any(place.role == "assistant" for place in self.places)


def find(
    db: Database,
    question: Question,
    *,
    config: Config,
    source: object,
    sources: Sources,
) -> Candidates | None:
    """
    Look for what may answer a question, in one snapshot. None if nothing leads anywhere.

    Args:
        source: the ledger's name, for errors.
    """
    if question.accept is not None and reads.names_nobody(db, question.accept):
        question = replace(question, accept=None)
    hashes = {hashed for term in question.terms for hashed in term.hashes}
    names = possible_names(question.text)
    looked = _looked(db, question, hashes, names, config, source, sources)
    memories = _Memories(db, question, source)
    newest = reads.unindexed(db, source)
    indexed = _frequencies(looked.frequencies, hashes, newest)
    frequencies = {hashed: indexed[hashed] + len(memories.found[hashed]) for hashed in hashes}
    held = tuple(
        (term, count)
        for term in question.terms
        if (count := sum([frequencies[hashed] for hashed in term.hashes]))
    )
    total = looked.messages + len(newest) + len(memories.held)
    length = looked.terms + memories.length
    length += sum(len(place.terms) for place in newest) // HASH_BYTES
    if memories.full and sources.near is not None:
        sources = replace(sources, near=memories.finding(db, sources.near))
    near, sure = _near(db, question, memories.held, config, sources)
    keys, reached = list[int](), Reach({})
    if question.accept is not None:
        reached = sources.reach(total=total) if sources.reach else reached
        keys = _by_words(db, held, indexed, newest, question, looked, total=total, config=config)
        keys += reached.messages(db)
        common = _common(total, config)
        rare = {hashed for hashed in hashes if 0 < indexed[hashed] <= common}
        keys += _by_date(db, sources.dated, rare, newest, question, config)
    places = _places(db, keys, near, question, memories.held, source)
    if not sure and _are_few(near, places, question, memories.held, config):
        near, _ = _near(db, question, memories.held, config, sources, checked=True)
        places = _places(db, keys, near, question, memories.held, source)
    accepted = set[int]()
    if question.accept is not None:
        accepted = {place.key for place in places}
        if question.accept.where()[0]:
            accepted = reads.accepted(db, list(accepted), question.accept)
    best = memories.best(question, near, config)
    if not places and not best:
        return None
    every = (*places, *best)
    return Candidates(
        places=every,
        accepted=frozenset(accepted | {place.key for place in best}),
        terms=held,
        total=total,
        mean_length=length / max(1, total),
        speakers=tuple(reads.users_named(db, names)),
        reached=reached.scores(db, list(accepted)),
        cosines=sources.cosines([place.key for place in every]) if sources.cosines else {},
    )


def _looked(
    db: Database,
    question: Question,
    hashes: set[bytes],
    names: list[str],
    config: Config,
    source: object,
    sources: Sources,
) -> word_reads.Looked:
    """What the index says of the words; with it is asked what else will be asked in any case."""
    wanted = max(question.limit, config.candidates_max)

    def look(db: Database) -> word_reads.Looked:
        return word_reads.look(db, hashes, question.accept, limit=wanted)

    ahead.ask(
        db,
        look,
        lambda db: _memory_terms(db, question, source),
        lambda db: reads.unindexed(db, source),
        lambda db: reads.users_named(db, names),
        *sources.readings,
    )
    return look(db)


class _Memories:
    """The memories that may be hits: key -> hashed terms, the newest first."""

    def __init__(self, db: Database, question: Question, source: object) -> None:
        terms = _memory_terms(db, question, source)
        self._sought = question.sought
        self._source = source
        self.held = dict(terms)
        self.full = len(terms) >= _memories_max(question)  # there may be older ones
        self.length = sum(map(len, self.held.values())) // HASH_BYTES
        self.found = postings(terms, {h for term in question.terms for h in term.hashes})

    def finding(self, db: Database, near: Finding) -> Finding:
        """*near*, by which those of the older ones that it finds are held too."""

        def find(*, count: int, accept: reads.Filter | None = None) -> list[int]:
            keys = near(count=count, accept=accept)
            older = [key for key in keys if key not in self.held]
            if older and self._sought is not None:
                self.held.update(
                    knowledge.memory_terms_of(db, self._sought, older, source=self._source)
                )
            return keys

        return find

    def best(self, question: Question, near: Iterable[int], config: Config) -> list[reads.Place]:
        """The memories worth ranking: by their words, and by their vectors."""
        if not self.held:
            return []
        keys = rank_memories(
            list(self.held.items()),
            question.terms,
            limit=max(question.limit, _MEMORIES_BEST),
            config=config,
            found=self.found,
        )
        keys += [key for key in near if key in self.held]
        return [
            reads.Place(key, -key, 0, None, "memory", 2 * len(self.held[key]), self.held[key])
            for key in dict.fromkeys(keys)
        ]


def _memory_terms(db: Database, question: Question, source: object) -> list[tuple[int, bytes]]:
    if question.sought is None:
        return []
    limit = _memories_max(question)
    return knowledge.memory_terms(db, question.sought, limit=limit, source=source)


def _memories_max(question: Question) -> int:
    kinds = () if question.sought is None else question.sought.kinds or ()
    return MEMORIES_MAX * max(1, len(kinds))


def _near(
    db: Database,
    question: Question,
    memories: Mapping[int, bytes],
    config: Config,
    sources: Sources,
    *,
    checked: bool = False,
) -> tuple[list[int], bool]:
    """
    The keys of those nearest by their vectors among what may be hits, and whether that is sure.

    Where all messages may be, it is not, unless they are to be *checked*: some may be gone, or
    memories that are not sought. That is seen when their places are read.

    Where too few of the nearest 4,000 pass a filter, the newest 5,000 messages that do, of the
    newest 100,000 of all, are compared each, and 5,000 memories; 40,000 where no messages may be.
    """
    if sources.near is None or sources.cosines is None:
        return [], True
    wanted = _wanted_near(question, config)
    few = _few(db, question, memories)
    if few is not None:
        cosines = sources.cosines(few)
        return nlargest(wanted, cosines, key=lambda key: cosines[key]), True
    if not checked and question.accept is not None and not question.accept.where()[0]:
        return sources.near(count=wanted), False
    found: list[int] = []
    for times in _NEAR_TIMES:
        count = min(wanted * times, max(wanted, _NEAR_MAX))
        near = sources.near(count=count, accept=question.accept)
        held = set(memories)
        if question.accept is not None:
            held |= reads.accepted(db, [key for key in near if key not in held], question.accept)
        found = [key for key in near if key in held]
        if len(found) >= wanted or len(near) < count:
            return found, True
        if count >= _NEAR_MAX:
            break
    each = list(memories)
    if question.accept is None:
        each = each[: 2 * MEMORIES_MAX]  # with the pinned ones
    else:
        each = each[:_EACH_MAX]
        each += vector_reads.newest(db, question.accept, limit=_EACH_MAX, among=_AMONG_MAX)
    cosines = sources.cosines([*found, *each])
    return nlargest(wanted, cosines, key=lambda key: cosines[key]), True


def _wanted_near(question: Question, config: Config) -> int:
    return max(question.limit, config.vector_candidates_max)


def _are_few(
    near: list[int],
    places: list[reads.Place],
    question: Question,
    memories: Mapping[int, bytes],
    config: Config,
) -> bool:
    """Whether more of the nearest have to be looked at, since too few of these may be hits."""
    wanted = _wanted_near(question, config)
    if len(near) < wanted:
        return False  # there are no more
    there = {place.key for place in places}
    return sum([key in there or key in memories for key in near]) < wanted


def _places(
    db: Database,
    keys: list[int],
    near: list[int],
    question: Question,
    memories: Mapping[int, bytes],
    source: object,
) -> list[reads.Place]:
    """The places of what was found, and of what stands beside it."""
    if question.accept is None:
        return []
    found = dict.fromkeys(keys)
    found.update(dict.fromkeys([key for key in near if key not in memories]))
    return reads.places(db, list(found), source) if found else []


def _few(db: Database, question: Question, memories: Mapping[int, bytes]) -> list[int] | None:
    """
    All that may be hits, where these are so few that each is compared: memories, or one session
    beside. Else None: among the nearest of a large agent there may be none of them.
    """
    accept = question.accept
    if accept is None:
        return list(memories) if len(memories) < MEMORIES_MAX else None
    if accept.session is None:
        return None
    of_session = reads.newest(db, accept.session, limit=_EACH_MAX + 1)
    if len(of_session) > _EACH_MAX:
        return None
    return [*reads.accepted(db, of_session, accept), *memories]


def _by_words(
    db: Database,
    held: tuple[tuple[QueryTerm, int], ...],
    frequencies: dict[bytes, int],
    newest: list[reads.Place],
    question: Question,
    looked: word_reads.Looked,
    *,
    total: int,
    config: Config,
) -> list[int]:
    """The keys of the messages that hold the question's words best."""
    assert question.accept is not None, "else no message is looked for"
    held = tuple([pair for pair in held if any(frequencies[hashed] for hashed in pair[0].hashes)])
    if not held:
        return []
    sought = _hashes(_selective(held, common=_common(total, config)), frequencies)
    wanted = max(question.limit, config.candidates_max)
    if looked.best is not None and looked.frequencies.keys() <= set(sought):
        keys = looked.best[:]
    else:
        keys = word_reads.match(db, sought, question.accept, limit=wanted)
    if len(keys) < question.limit and len(sought) < sum(map(bool, frequencies.values())):
        # Too few hold the rare words, here or in what the filter leaves: seek the common ones.
        sought = _hashes([term for term, _ in held], frequencies)
        keys = word_reads.match(db, sought, question.accept, limit=wanted)
    keys += [place.key for place in newest if any(hashed in place.terms for hashed in sought)]
    return keys


def _by_date(
    db: Database,
    days: tuple[tuple[bytes, ...], ...],
    rare: set[bytes],
    newest: list[reads.Place],
    question: Question,
    config: Config,
) -> list[int]:
    """
    Messages of the days that the question speaks of, those that have a word of it first.

    Args:
        rare: hashes of its words that not too many messages hold.
    """
    if not days or question.accept is None:
        return []
    wanted = config.candidates_max // 2
    words = rare.difference(*days)
    keys = word_reads.match_days(db, days, words, question.accept, limit=wanted) if words else []
    if len(keys) < question.limit:
        keys += word_reads.match_days(db, days, (), question.accept, limit=wanted)
    keys += [
        place.key
        for place in newest
        if any(all(hashed in place.terms for hashed in day) for day in days)
    ]
    return keys


def _hashes(terms: list[QueryTerm], frequencies: dict[bytes, int]) -> list[bytes]:
    return [hashed for term in terms for hashed in term.hashes if frequencies[hashed]]


def _frequencies(
    indexed: dict[bytes, int], hashes: set[bytes], newest: list[reads.Place]
) -> dict[bytes, int]:
    """In how many messages each of the terms stands, those not indexed yet among them."""
    return {
        hashed: indexed.get(hashed, 0) + sum([hashed in place.terms for place in newest])
        for hashed in hashes
    }


def _common(total: int, config: Config) -> float:
    """A word in more messages than that is common."""
    return max(_RARE_ENOUGH, total * config.common_word_ratio)


def _selective(held: tuple[tuple[QueryTerm, int], ...], *, common: float) -> list[QueryTerm]:
    """
    The terms by which candidates are sought: not the common ones; the rarest first, until they
    have 30,000 postings.

    An OR reads every posting of every word; at 100,000 messages leaving out the common ones
    takes 6 ms instead of 15 to 50. They still count in the ranking.
    """
    rarest = sorted(held, key=lambda pair: pair[1])
    chosen, postings = [rarest[0][0]], rarest[0][1]
    for term, frequency in rarest[1:]:
        postings += frequency
        if frequency > common or postings > _POSTINGS_MAX:
            break
        chosen.append(term)
    return chosen
