"""
Recall: a question, what is found, and what speaks for each hit.

The question goes over the page's own connection, so it is in no address, history or log.
"""

import time

from nicegui import ui

from elytron.faces.dashboard.frame import Shown, page
from elytron.faces.dashboard.parts import box, button, empty, text_field, words
from elytron.faces.tables import moment
from elytron.faces.visible import clip, counted, one_line
from elytron.records import Hit

PATH = "/recall"
_HITS = 8
_TEXT_MAX = 2000  # characters of a hit
# What each part of a score stands for.
PARTS = {
    "words": "the question's words in it",
    "neighbours": "words in the messages around it",
    "vectors": "near in meaning",
    "session": "others of its conversation fit too",
    "concepts": "names something related to the question",
    "speaker": "said by whom the question names",
    "role": "said by the user",
    "memory": "learned, not only said",
    "asking": "only asks something itself",
    "when": "tells a time, which is asked for",
    "date": "of the date that the question names",
    "importance": "how important it is",
}


@page(PATH, "Recall", of_agent=True)
async def recall(shown: Shown) -> None:
    _Recall(shown).build()


class _Recall:
    """The page, and what was asked on it last."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._wanted = ("", False)

    def build(self) -> None:
        with box("section", "card"):
            words("h2", "Ask this memory")

            async def ask() -> None:
                await self._shown.act(self._ask, str(field.value or ""), bool(archive.value))

            with box("div", "ask", role="search"):
                field = text_field("Question", ask, placeholder="where does Alice live?")
                field.classes("grow").props("autofocus")
                button("Recall", ask, "strong")
            archive = ui.checkbox("Search the archive too")
        self._found = box("div", "hits", aria_live="polite")
        with self._found:
            empty("Nothing asked yet.", "Hits come best first, each with what speaks for it.")

    async def _ask(self, question: str, archived: bool) -> None:
        if not question.strip():
            return
        self._wanted = wanted = (question, archived)
        started = time.perf_counter()
        limit = self._shown.rows(_HITS)
        hits = await self._shown.agent.recall(question, limit=limit, archived=archived)
        took_ms = (time.perf_counter() - started) * 1000
        if self._wanted != wanted:
            return  # something else was asked meanwhile
        self._found.clear()
        with self._found:
            _show(hits, took_ms)


def _show(hits: list[Hit], took_ms: float) -> None:
    if not hits:
        empty(
            "Nothing was found.",
            "No message or memory has a word of it. Ask in other words, or search the archive too.",
        )
        return
    words("p", f"{counted(len(hits), 'hit', 'hits')} in {took_ms:.0f} ms", "soft")
    most = max(abs(part) for hit in hits for part in hit.why.values())
    for rank, hit in enumerate(hits, 1):
        _hit(rank, hit, most or 1.0)


def _hit(rank: int, hit: Hit, most: float) -> None:
    message = hit.message
    with box("article", "card hit", aria_label=f"Hit {rank}"):
        with box("div", "line"):
            words("span", f"{rank}", "rank")
            words("span", one_line(message.speaker), "strong")
            words("span", moment(message.at), "soft")
            session = message.session if hit.memory is None else hit.memory.session
            if session is not None:
                words("span", one_line(session), "soft session")
            if hit.archived:
                words("span", "archived", "tag")
            if hit.memory is not None:
                words("span", one_line(hit.kind), "tag")
            words("span", f"score {hit.score:.2f}", "soft end")
        words("p", clip(message.content, _TEXT_MAX), "said")
        if hit.matched:
            words("p", "has " + ", ".join(map(one_line, hit.matched)), "soft")
        with box("ul", "why", aria_label="Why"):
            for part, share in sorted(hit.why.items(), key=lambda pair: -abs(pair[1])):
                if abs(share) >= 0.005:
                    _part(part, share, most)


def _part(part: str, share: float, most: float) -> None:
    with box("li", "part"):
        words("span", PARTS.get(part, part), "part-name")
        with box("div", "track", aria_hidden="true"):
            fill = box("div", "fill minus" if share < 0 else "fill")
            fill.style(f"width: {abs(share) / most * 100:.1f}%")
        words("span", f"{share:+.2f}", "number")
