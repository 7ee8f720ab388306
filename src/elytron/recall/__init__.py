"""
Recall: from a question to the messages that answer it.

`candidates.py` asks the ledger, `rank.py` decides (pure), `context.py` packs hits for a prompt.
"""

from elytron.config import Config
from elytron.ledger import reads
from elytron.ledger.sqlite import Ledger
from elytron.recall import candidates, rank
from elytron.records import Hit
from elytron.text import QueryTerm


def answer(
    ledger: Ledger,
    question: str,
    terms: tuple[QueryTerm, ...],
    accept: reads.Filter,
    *,
    limit: int,
    config: Config,
) -> list[Hit]:
    """The *limit* best hits for a question whose words are *terms*, from one snapshot."""
    if not terms:
        return []
    with ledger.reading(snapshot=True) as db:
        found = candidates.find(
            db, question, terms, accept, limit=limit, config=config, source=ledger.path
        )
        if found is None:
            return []
        best = rank.rank(found, limit=limit, config=config)
        messages = reads.messages(db, [ranked.key for ranked in best], ledger.path)
    return [Hit(messages[ranked.key], ranked.score, ranked.why, ranked.matched) for ranked in best]
