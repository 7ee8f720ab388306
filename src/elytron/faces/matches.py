"""
Matches: where the words of a question stand in a text, so that they can be emphasised.

Only for the eye. A hit says which words of the question it holds; here the text's own words
are stemmed once more, and those with the same stems are emphasised.
"""

import re
from collections.abc import Iterable

from rich.text import Text

from elytron.faces.visible import clip
from elytron.records import Hit
from elytron.text import Analyzer, split_words

_TOKEN = re.compile(r"[^\W_]+")
_TERMS_MAX = 1000  # different words of a question
_STYLE = "bold yellow"


class Matches:
    """The words of one question."""

    def __init__(self, question: str, languages: Iterable[str]) -> None:
        self._analyzer = Analyzer(languages)
        terms = self._analyzer.query(question, terms_max=_TERMS_MAX)
        self._hashes = {term.word: term.hashes for term in terms}

    def emphasise(self, text: Text, hit: Hit) -> Text:
        """Style the words of *text* by which *hit* matched. Returns *text*."""
        for start, end in self._spans(text.plain, hit):
            text.stylize(_STYLE, start, end)
        return text

    def excerpt(self, text: str, hit: Hit, *, limit: int) -> Text:
        """At most *limit* characters of a long text, where the first match stands; emphasised."""
        begin = 0
        if len(text) > limit:
            first = next(iter(self._spans(text, hit)), (0, 0))
            if first[1] > limit:
                begin = first[0] - limit // 4
        shown = Text("… " if begin else "")
        shown.append(clip(text[begin:], limit))
        return self.emphasise(shown, hit)

    def _spans(self, text: str, hit: Hit) -> list[tuple[int, int]]:
        wanted = {hashed for word in hit.matched for hashed in self._hashes.get(word, ())}
        if not wanted:
            return []
        known: dict[str, bool] = {}  # most words of a text come more than once
        spans = []
        for token in _TOKEN.finditer(text):
            for start, end, word in _words(token):
                if word not in known:
                    terms = self._analyzer.query(word, terms_max=1)
                    known[word] = any(not wanted.isdisjoint(term.hashes) for term in terms)
                if known[word]:
                    spans.append((start, end))
        return spans


def _words(token: "re.Match[str]") -> list[tuple[int, int, str]]:
    """(start, end, word) of each word of a run of letters; of each pair, where it is cut so."""
    words = split_words(token[0])
    start = token.start()
    if len(words) == 1:
        return [(start, token.end(), words[0])]
    if len(words) == len(token[0]) - 1:
        return [(start + i, start + i + 2, word) for i, word in enumerate(words)]
    return []  # scripts mixed in one run: not worth the trouble
