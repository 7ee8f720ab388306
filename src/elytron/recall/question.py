"""
Question: what is asked, with all that narrows it; and whom it names. Pure.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from elytron.ledger.knowledge import Sought
from elytron.ledger.reads import Filter
from elytron.text import QueryTerm, fold, folded_words, is_stop_word

if TYPE_CHECKING:
    from elytron.embed.reduced import Floats

_NAME_WORDS_MAX = 3
_TOKEN = re.compile(r"[^\W_]+")
_OWNING = re.compile(r"['\u2019]s\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Question:
    """
    One question to a memory.

    Attributes:
        terms: its words.
        at: when it is asked, by which "last week" is understood.
        accept: which messages may be hits; None for none.
        sought: which memories may be; None for none.
        limit: the hits wanted.
        vector: what the embedder makes of it; None for words alone.
    """

    text: str
    terms: tuple[QueryTerm, ...]
    at: datetime
    accept: Filter | None
    sought: Sought | None
    limit: int
    vector: "Floats | None" = None


def possible_names(question: str) -> list[str]:
    """Every run of one to three words of the question, folded as the users' ids are."""
    words = folded_words(question)
    return [
        " ".join(words[start : start + size])
        for size in range(1, _NAME_WORDS_MAX + 1)
        for start in range(len(words) - size + 1)
    ]


def without_names(question: str, names: Iterable[str]) -> str:
    """
    The question as it is embedded: without the names of users, folded, that it has.

    "Melanie" pulls towards what is said to her, which others say; who speaks is weighed elsewhere.
    If no more than stop words would be left it stays as it is.
    """
    wanted = {tuple(name.split()) for name in names}
    if not wanted:
        return question
    tokens = [(m.start(), m.end(), fold(m.group())) for m in _TOKEN.finditer(question)]
    kept, place, n = [], 0, 0
    while n < len(tokens):
        for size in range(min(_NAME_WORDS_MAX, len(tokens) - n), 0, -1):
            run = tuple([word for _, _, word in tokens[n : n + size]])
            if run in wanted:
                kept.append(question[place : tokens[n][0]])
                place = tokens[n + size - 1][1]
                owning = _OWNING.match(question, place)
                if owning:
                    place = owning.end()
                n += size
                break
        else:
            n += 1
    left = "".join([*kept, question[place:]])
    return left if not all(map(is_stop_word, folded_words(left))) else question
