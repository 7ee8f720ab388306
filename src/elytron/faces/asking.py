"""
Asking: questions whose evidence is known, put to a memory, and how well it answered.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elytron.records import Hit
from elytron.store import Store

if TYPE_CHECKING:  # rich is imported only by commands that print for people
    from rich.console import RenderableType

LOOKED_AT = 10  # hits among which the evidence is looked for
_TEXT_MAX = 400  # characters of a hit that are shown


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its answer, and the ids of the messages that hold it, if they are known."""

    agent: str
    question: str
    answer: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a memory gave for a question. `rank` is where the first evidence stands, from 1."""

    agent: str
    question: str
    answer: str
    evidence: tuple[str, ...]
    rank: int | None
    milliseconds: float
    hits: tuple[Hit, ...]


def ask(store: Store, questions: Iterable[Question]) -> list[Asked]:
    """Put each question to its agent; the first `LOOKED_AT` hits count."""
    return [_ask(store, question) for question in questions]


def _ask(store: Store, asked: Question) -> Asked:
    agent = store.agent(asked.agent)
    started = time.perf_counter()
    hits = agent.recall(asked.question, limit=min(LOOKED_AT, store.config.max_query_rows))
    milliseconds = (time.perf_counter() - started) * 1000
    rank = next((n for n, hit in enumerate(hits, 1) if hit.message.id in asked.evidence), None)
    return Asked(
        asked.agent,
        asked.question,
        asked.answer,
        asked.evidence,
        rank,
        round(milliseconds, 3),
        tuple(hits),
    )


def shown(
    answers: Iterable[Asked], *, hits_max: int, languages: Iterable[str]
) -> Iterator["RenderableType"]:
    """The questions and their best hits, for people."""
    from rich.text import Text

    from elytron.faces import tables
    from elytron.faces.columns import STRONG
    from elytron.faces.matches import Matches
    from elytron.faces.visible import visible

    languages = tuple(languages)
    answers = tuple(answers)
    for asked in answers:
        yield ""
        yield Text.assemble(("? ", "bold magenta"), (visible(asked.question), STRONG))
        yield from tables.hits(
            asked.hits[:hits_max],
            Matches(asked.question, languages),
            text_max=_TEXT_MAX,
            expected=asked.evidence,
        )
        if not asked.hits:
            yield Text("    no message holds a word of this question", "red")
        if asked.evidence:
            yield _verdict(asked, hits_max)
    with_evidence = [asked for asked in answers if asked.evidence]
    if with_evidence:
        found = sum(asked.rank is not None for asked in with_evidence)
        slowest = max(asked.milliseconds for asked in answers)
        yield ""
        yield Text(
            f"{found} of {len(with_evidence)} found among the first {LOOKED_AT} hits;"
            f" the slowest answer took {slowest:.1f} ms",
            STRONG,
        )


def _verdict(asked: Asked, hits_max: int) -> "RenderableType":
    from rich.padding import Padding
    from rich.text import Text

    from elytron.faces.visible import one_line

    if asked.rank is None:
        mark, style, place = "✗", "red", f"not among the first {LOOKED_AT} hits"
    else:
        mark, style = "✓", "green"
        place = "the best hit" if asked.rank == 1 else f"hit {asked.rank}"
        place += ", not shown" if asked.rank > hits_max else ""
    text = f"{mark} expected: {one_line(asked.answer)} ({place})"
    return Padding(Text(text, style), (0, 0, 0, 4))
