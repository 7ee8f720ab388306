"""
Names: which known concepts a text names. Pure.

A name is found as whole words, without case or accents, the longest first: in "New York Times"
is no New York. Inflections are not matched. Scripts without spaces have no whole words, so a name
is found anywhere in a run of them.

A name that is an ordinary word is found only as it is spelt and where a capital means something,
else a concept "Will" or "The Who" would be in every message; one that is spelt like the word
("that"), or is a digit or "I", is never found.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from elytron.text import fold, folded_words, is_stop_word, is_unspaced

# Names, oftener met as words.
_WORDS_TOO = frozenset(
    "art bill chase drew faith frank grace grant guy hope joy mark may miles rich rob us".split()
)
_SENTENCE_ENDS = ".!?…:;\n"
_BESIDE = " \t\r\"'“”‘’«»()[]*_-–—>#"  # what may stand between a sentence's end and its beginning


def name_words(name: str) -> tuple[str, ...]:
    """The words by which a name is found; none for one of signs alone."""
    return tuple(folded_words(name))


def folded_name(name: str) -> str:
    """What two spellings of one name have in common."""
    return " ".join(folded_words(name)) or fold(name)


class _Known(NamedTuple):
    """A name: its words but the first, and what it takes to be sure of it."""

    key: int
    confidence: float
    rest: tuple[str, ...]
    # Of a script without spaces: found as words, it has to stand there in one piece.
    solid: str | None
    # An ordinary word: the text has to have it in this spelling.
    spelt: str | None


class _Match(NamedTuple):
    start: int
    end: int  # the next word after it
    known: _Known


class Names:
    """The names of known concepts. Changed by one thread at a time; asked by many meanwhile."""

    def __init__(self, names: Iterable[tuple[int, str, float]] = ()) -> None:
        """
        Args:
            names: (key, name, confidence) of each concept.
        """
        self._words: dict[int, tuple[str, ...]] = {}
        # First word -> those that begin with it, longest first. A value is replaced, never changed.
        self._beginning: dict[str, tuple[_Known, ...]] = {}
        for key, name, confidence in names:
            self.put(key, name, confidence)

    def __len__(self) -> int:
        return len(self._words)

    def put(self, key: int, name: str, confidence: float) -> None:
        """Add a concept, or give it another name. What stays of its name is found all the while."""
        words = name_words(name)
        spelt = _spelling(name, words) if words else ""
        if spelt == "":  # never to be found
            self.drop(key)
            return
        if self._words.get(key, words)[0] != words[0]:
            self.drop(key)
        solid = unicodedata.normalize("NFKC", fold(name)) if _has_unspaced(words) else None
        known = _Known(key, confidence, words[1:], solid, spelt)
        others = [one for one in self._beginning.get(words[0], ()) if one.key != key]
        ordered = sorted((*others, known), key=lambda one: (-len(one.rest), one.key))
        self._beginning[words[0]] = tuple(ordered)
        self._words[key] = words

    def drop(self, key: int) -> None:
        """Remove a concept, if it is there."""
        words = self._words.pop(key, None)
        if words is None:
            return
        left = tuple([one for one in self._beginning[words[0]] if one.key != key])
        if left:
            self._beginning[words[0]] = left
        else:
            del self._beginning[words[0]]

    def find(self, text: str) -> dict[int, float]:
        """
        Which concepts a text names: key -> confidence.

        Some microseconds a text, however many names are known; `bench/linking.py` measures it.
        """
        words = folded_words(text)
        beginning = self._beginning
        # Most texts name nobody, and then that is all.
        if beginning.keys().isdisjoint(words):
            return {}
        matches = [match for match in self._matches(words) if _is_meant(match.known, text)]
        return {match.known.key: match.known.confidence for match in _chosen(matches, words, text)}

    def _matches(self, words: list[str]) -> Iterator[_Match]:
        get = self._beginning.get
        for start, word in enumerate(words):
            for known in get(word, ()):
                end = start + 1 + len(known.rest)
                if not known.rest or tuple(words[start + 1 : end]) == known.rest:
                    yield _Match(start, end, known)


def _chosen(matches: list[_Match], words: list[str], text: str) -> list[_Match]:
    """The longest of those that overlap; of those as long, the first."""
    chosen = list[_Match]()
    taken = set[int]()  # places of words
    solid = _solid(text) if any(match.known.solid for match in matches) else ""
    for match in sorted(matches, key=lambda match: (match.start - match.end, match.start)):
        end = match.end
        if solid and end < len(words) and _goes_on(words[end - 1], words[end], solid):
            end += 1  # the pairs of an unspaced run overlap by a character
        if taken.isdisjoint(range(match.start, end)):
            taken.update(range(match.start, end))
            chosen.append(match)
    return chosen


def _goes_on(word: str, following: str, solid: str) -> bool:
    """Whether two pairs come from one run."""
    return word[-1] == following[0] and is_unspaced(word) and word + following[1:] in solid


def _is_meant(known: _Known, text: str) -> bool:
    if known.solid is not None and known.solid not in _solid(text):
        return False  # its pairs are there, but of two runs
    return known.spelt is None or _is_spelt(known.spelt, text)


def _solid(text: str) -> str:
    return unicodedata.normalize("NFKC", fold(text)).casefold()


def _has_unspaced(words: tuple[str, ...]) -> bool:
    return any(is_unspaced(word) for word in words)


def _spelling(name: str, words: tuple[str, ...]) -> str | None:
    """
    The spelling that a text has to have of a name of ordinary words, or of one letter; None of
    any other name, and empty if it is never to be found.
    """
    if not all(_is_ordinary(word) for word in words):
        return None
    spelt = unicodedata.normalize("NFC", name.strip())
    return "" if spelt == spelt.lower() or spelt == "I" else spelt


def _is_ordinary(word: str) -> bool:
    one_letter = len(word) == 1 and word.isascii()
    return one_letter or word in _WORDS_TOO or is_stop_word(word)


def _is_spelt(spelt: str, text: str) -> bool:
    """
    Whether a text has a name in just this spelling.

    Not where a sentence begins, if its only capital is the first: any word has one there.
    """
    text = unicodedata.normalize("NFC", text)
    if spelt not in text:
        return False
    anywhere = spelt[1:] != spelt[1:].lower() or spelt[0] == spelt[0].lower()
    for found in re.finditer(rf"(?<!\w){re.escape(spelt)}(?![\w'’])", text):
        before = text[: found.start()].rstrip(_BESIDE)
        if anywhere or (before and before[-1] not in _SENTENCE_ENDS):
            return True
    return False
