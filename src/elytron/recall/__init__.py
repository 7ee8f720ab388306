"""
Recall: from a question to the messages that answer it.

`candidates.py` asks the ledger, `reach.py` its concepts, `rank.py` decides (pure), `context.py`
packs hits for a prompt.
"""

from functools import partial

from elytron.archive import Archive
from elytron.concepts.known import KnownNames
from elytron.config import Config
from elytron.ledger import reads
from elytron.ledger.sqlite import Ledger
from elytron.recall import archived, candidates, rank, reach
from elytron.records import Hit, Message
from elytron.text import Analyzer, QueryTerm


def answer(
    ledger: Ledger,
    question: str,
    terms: tuple[QueryTerm, ...],
    accept: reads.Filter,
    *,
    limit: int,
    config: Config,
    analyzer: Analyzer,
    archive: Archive | None = None,
    known: KnownNames | None = None,
) -> list[Hit]:
    """
    The *limit* best hits for a question whose words are *terms*, from one snapshot.

    Args:
        archive: search it too, if it is given.
        known: the names of the agent's concepts, by which messages are reached; without them it
            is by words alone.
    """
    if not terms:
        return []
    with ledger.reading(snapshot=True) as db:
        over = None
        if known is not None and config.concept_weight > 0:
            over = partial(
                reach.reach, db, known, question, terms, analyzer=analyzer, source=ledger.path
            )
        found = candidates.find(
            db,
            question,
            terms,
            accept,
            limit=limit,
            config=config,
            source=ledger.path,
            reach=over,
        )
        gone: dict[int, Message] = {}
        if archive is not None:
            found, gone = archived.join(
                found, archive, terms, accept, analyzer=analyzer, config=config
            )
        if found is None:
            return []
        best = rank.rank(found, limit=limit, config=config)
        held = [ranked.key for ranked in best if ranked.key not in gone]
        messages = reads.messages(db, held, ledger.path)
    ledger.uses.note(held)
    return [
        Hit(
            gone[ranked.key] if ranked.key in gone else messages[ranked.key],
            ranked.score,
            ranked.why,
            ranked.matched,
            archived=ranked.key in gone,
        )
        for ranked in best
    ]
