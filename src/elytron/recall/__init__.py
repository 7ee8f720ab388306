"""
Recall: from a question to the messages that answer it.

`candidates.py` asks the ledger, `rank.py` decides (pure), `context.py` packs hits for a prompt.
"""

from elytron.archive import Archive
from elytron.config import Config
from elytron.ledger import reads
from elytron.ledger.sqlite import Ledger
from elytron.recall import archived, candidates, rank
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
) -> list[Hit]:
    """
    The *limit* best hits for a question whose words are *terms*, from one snapshot.

    Args:
        archive: search it too, if it is given.
    """
    if not terms:
        return []
    with ledger.reading(snapshot=True) as db:
        found = candidates.find(
            db, question, terms, accept, limit=limit, config=config, source=ledger.path
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
