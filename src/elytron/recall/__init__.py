"""
Recall: from a question to the messages and memories that answer it.

`candidates.py` asks the ledger, `nearest.py` its vectors, `reach.py` its concepts, `rank.py`
decides (pure), `dates.py` knows what "last week" is, `context.py` packs hits for a prompt.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from elytron.archive import Archive
from elytron.concepts.known import KnownNames
from elytron.config import Config
from elytron.ledger import ahead, knowledge, reads, vectors
from elytron.ledger.database import Database
from elytron.ledger.ledgers import Ledger
from elytron.ledger.rows import Held, to_us
from elytron.recall import archived, candidates, rank, reach
from elytron.recall.looking import Looking, Text, identity
from elytron.recall.nearest import Asked, Nearest
from elytron.recall.question import Question
from elytron.records import Hit, Memory, Message
from elytron.text import Analyzer

_DUPLICATES = 14  # beyond the hits wanted, what the second pass may leave out as equal
_MORE_TIMES = 4  # that many more are looked at while too few of them differ
_WIDER_TIMES = 10  # and that many more candidates are sought, once


def answer(
    ledger: Ledger,
    question: Question,
    *,
    config: Config,
    analyzer: Analyzer,
    nearest: Nearest,
    archive: Archive | None = None,
    known: KnownNames | None = None,
) -> list[Hit]:
    """
    The best hits for a question, from one snapshot.

    Args:
        archive: search it too, if it is given.
        known: the names of the agent's concepts, by which messages are reached; without them it
            is by words alone.
    """
    looking = Looking(question)
    dates = looking.terms(analyzer, question.terms)
    question = replace(question, terms=(*question.terms, *dates))
    with ledger.reading(snapshot=True) as db:
        sources = _sources(
            db, question, config, analyzer, nearest, known, looking=looking, source=ledger.source
        )
        found = candidates.find(db, question, config=config, source=ledger.source, sources=sources)
        gone: dict[int, Message] = {}
        if archive is not None and question.accept is not None and question.terms:
            found, gone = archived.join(
                found, archive, question.terms, question.accept, analyzer=analyzer, config=config
            )
        if found is None:
            return []
        best, texts = _best(
            db, found, gone, limit=question.limit, config=config, source=ledger.source
        )
        if _different(texts) < question.limit <= len(best) and not gone:
            # Equal texts took the places of the candidates: there may be others behind them.
            wider = replace(question, limit=question.limit + _WIDER_TIMES * config.candidates_max)
            found = candidates.find(db, wider, config=config, source=ledger.source, sources=sources)
            assert found is not None, "what was found is there still"
            best, texts = _best(
                db, found, gone, limit=question.limit, config=config, source=ledger.source
            )
    asking = not found.dialogue  # of an assistant one asks for what one tells
    looked = {key: looking.at(text, asking=asking) for key, text in texts.items()}
    hits = rank.refine(best, looked, when=looking.when, limit=question.limit, config=config)
    ledger.uses.note([hit.key for hit in hits if hit.key not in gone])
    cosines = found.cosines
    return [
        _hit(one, texts[one.key], archived=one.key in gone, cosine=cosines.get(one.key))
        for one in hits
    ]


def memories(
    ledger: Ledger, question: Question, *, config: Config, nearest: Nearest
) -> list[Memory]:
    """
    The memories alone that answer a question, best first, by its words and by its vector: those
    that it seeks, all that hold one of its words, and the nearest.
    """
    with ledger.reading(snapshot=True) as db:
        sources = candidates.Sources(*_by_vectors(db, question, nearest))
        found = candidates.find(db, question, config=config, source=ledger.source, sources=sources)
        if found is None:
            return []
        keys = [one.key for one in rank.rank(found, limit=question.limit, config=config)]
        held = knowledge.memories_of(db, keys, ledger.source)
    ledger.uses.note(keys)
    return [held[key] for key in keys]


def _best(
    db: Database,
    found: candidates.Candidates,
    gone: dict[int, Message],
    *,
    limit: int,
    config: Config,
    source: object,
) -> tuple[list[rank.Ranked], dict[int, Text]]:
    """The best, so many that *limit* of their texts differ if as many do; and these texts."""
    most = max(rank.LOOKED_AT, limit + _DUPLICATES)
    read: dict[int, Text] = {}
    read.update(gone)
    while True:
        best = rank.rank(found, limit=most, config=config)
        read.update(_texts(db, [one.key for one in best if one.key not in read], found, source))
        texts = {one.key: read[one.key] for one in best}
        if len(best) < most or _different(texts) >= limit:
            return best, texts
        most *= _MORE_TIMES


def _different(texts: Mapping[int, Text]) -> int:
    """How many there are, equal ones once."""
    return len({identity(text) for text in texts.values()})


def _sources(
    db: Database,
    question: Question,
    config: Config,
    analyzer: Analyzer,
    nearest: Nearest,
    known: KnownNames | None,
    *,
    looking: Looking,
    source: object,
) -> candidates.Sources:
    """Where candidates come from, as the settings have it."""
    over = None
    readings: tuple[ahead.Reading, ...] = ()
    if known is not None and config.concept_weight > 0:
        readings = (partial(known.at, source=source),)
        over = partial(
            reach.reach,
            db,
            known,
            question.text,
            question.terms,
            at_us=to_us(question.at),
            analyzer=analyzer,
            source=source,
        )
    near, cosines = _by_vectors(db, question, nearest)
    return candidates.Sources(near, cosines, over, looking.days(analyzer), readings)


def _by_vectors(
    db: Database, question: Question, nearest: Nearest
) -> tuple[candidates.Finding | None, candidates.Comparing | None]:
    """What finds the nearest, and what compares; None where there are no vectors."""
    held = None if question.vector is None else vectors.state(db)
    if held is None or question.vector is None:
        return None, None
    if len(question.vector) != held.dim:  # all were made anew since it was embedded
        return None, None
    asked = Asked(nearest, db, held, question.vector)
    return asked.keys, asked.scores


def _texts(
    db: Database, keys: list[int], found: candidates.Candidates, source: object
) -> dict[int, Text]:
    """The messages and memories of these keys, verified."""
    held = {place.key: place for place in found.places}
    said = [key for key in keys if held[key].session >= 0]
    sessions = {held[key].session for key in said}
    users = {user for key in said if (user := held[key].user) is not None}
    ahead.ask(
        db,
        lambda db: reads.held(db, said, source),
        lambda db: reads.session_ids(db, sessions, source),
        lambda db: reads.user_ids(db, users, source),
    )
    texts: dict[int, Text] = {}
    texts.update(reads.held(db, said, source))
    remembered = [key for key in keys if held[key].session < 0]
    if remembered:
        texts.update(knowledge.memories_of(db, remembered, source))
    return texts


def _hit(one: rank.Ranked, text: Text, *, archived: bool, cosine: float | None) -> Hit:
    memory = text if isinstance(text, Memory) else None
    match text:
        case Memory():
            message = text.as_message()
        case Held():
            message = text.message()
        case _:
            message = text
    return Hit(message, one.score, one.why, one.matched, archived, memory, cosine)
