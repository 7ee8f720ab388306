"""
Proposals: which new concepts a text may be about, by how it is written. Pure.

Taken are runs of capitalised words ("Marie Curie", "Café de Flore"), acronyms, names such as
`FastAPI`, and terms in quotes. None of it is sure, so what is found is only counted; it becomes a
concept once it recurs. English and French have rules here; other languages that capitalise names
only are served by the same. Where German is among the languages, capitals say nothing.
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from elytron.text import fold, folded_words, is_stop_word

TIMES_MIN = 3  # messages that have to have it
_CONFIDENCE_MIN, _CONFIDENCE_STEP, _CONFIDENCE_MAX = 0.3, 0.05, 0.6
_TEXT_MAX = 20_000  # characters of a message that are looked at
_FOUND_MAX = 50
_RUN_MAX = 4  # capitalised words; a longer run is a heading
_QUOTED_WORDS_MAX = 4
_ACRONYM_MAX = 10
_NO_TERM = re.compile(r"[!?…;:=(){}]")
_NAME_MIN, _NAME_MAX = 2, 80  # characters

# An address from its first character on: to try at each one takes a second for a long text.
_CODE = re.compile(
    r"```.*?(?:```|\Z)|https?://\S+|(?<!\S)\S+@\S+|(?:[~.]{0,2}/[\w.\-]+){2,}", re.DOTALL
)
_QUOTED = re.compile(
    r'(?<![\w"])"([^"\n]{2,80})"(?![\w"])|«\s?([^«»\n]{2,80}?)\s?»|“([^“”\n]{2,80})”'
    r"|`([^`\n]{2,80})`|「([^「」\n]{2,20})」|『([^『』\n]{2,20})』|《([^《》\n]{2,20})》"
)
_TOKEN = re.compile(r"[^\W_]+(?:['’\-_.][^\W_]+)*|[^\w\s]+|\n")
_ELISION = re.compile(r"((?:[dljmntsc]|qu|jusqu|lorsqu|puisqu)['’])(?=\w)", re.IGNORECASE)
_CONTRACTION = re.compile(r"(?:n['’]t|['’](?:s|m|re|ve|ll|d))\Z", re.IGNORECASE)
_GLUE = re.compile(r"[ \u00a0]|-| & ")
_ENDS = frozenset('.!?…:;\n|•–—"“”«»([{。！？')
# They stand within a name, but neither begin nor end it; the second ones after one of the first.
_WITHIN = frozenset("de du des d of van von der den da di do dos del".split())
_THEN = frozenset("la le les the der den".split())
_TITLES = frozenset("mr mrs ms dr prof st mme mlle me".split())
_SNAKE = re.compile(r"[^\W_]+(?:_[^\W_]+)+")
_IN_HEADINGS = _WITHIN | _THEN | frozenset("and a an to for in on with by et à en pour".split())
_GREETINGS = frozenset(
    "hi hello hey hiya dear bye goodbye thanks thank welcome congrats sorry yes yeah no ok okay oh"
    " wow yo bonjour bonsoir salut coucou merci adieu oui non cher chere".split()
)
_ORDINARY = frozenset(
    fold(
        """
        monday tuesday wednesday thursday friday saturday sunday january february march april may
        june july august september october november december jan feb mar apr jun jul aug sep sept
        oct nov dec mon tue tues wed thu thur thurs fri sat sun lundi mardi mercredi jeudi
        vendredi samedi dimanche janvier février mars avril mai juin juillet août septembre
        octobre novembre décembre hi hello hey hiya yo dear bye goodbye cheers thanks thank thx
        welcome congrats congratulations please sorry yes yeah yep yup no nope nah ok okay oh ah
        aw aww wow woah whoa haha hahaha lol omg btw imo imho fyi asap tbh idk brb rofl lmao ps am
        pm tv diy faq eta rsvp etc aka ie eg well sure great good nice cool awesome amazing
        absolutely definitely exactly totally really maybe perhaps anyway also still yet today
        tomorrow yesterday tonight morning afternoon evening later soon finally recently first
        second third next last another every let lets glad happy love sounds looks looking keep
        take got get see hope guess gotta gonna wanna mom mum mommy dad daddy grandma grandpa sir
        madam user assistant system tool human bot ai god goodness gosh gee hooray yay hmm mmm ugh
        phew uh um bonjour bonsoir salut coucou merci adieu ciao cher chère alright especially
        anything even oui non si ouais voilà bravo super génial parfait bref enfin alors ainsi
        puis ensuite hier demain maintenant aujourd'hui peut-être bien bon bonne désolé pardon
        bienvenue félicitations maman papa monsieur madame mademoiselle dieu hélas tiens dis
        écoute regarde note attention
        """
    ).split()
)


class Candidate(NamedTuple):
    """A name as it was first written, and what its spellings have in common."""

    folded: str
    name: str


class _Word(NamedTuple):
    """A word, without elision or contraction."""

    text: str
    begin: int
    first: bool  # of its sentence
    joined: bool  # it may go on with the name that the word before it is of


def confidence(times: int) -> float:
    """How sure one may be of a concept whose name *times* messages have: 0.3 to 0.6."""
    more = max(0, times - TIMES_MIN)
    return min(_CONFIDENCE_MAX, round(_CONFIDENCE_MIN + _CONFIDENCE_STEP * more, 2))


def candidates(text: str, *, capitals: bool = True) -> list[Candidate]:
    """
    What a text may be about, each once, at most 50. Looks at the first 20,000 characters.

    Args:
        capitals: whether a capital says something; not in German.
    """
    text = _CODE.sub(" . ", text[:_TEXT_MAX])
    found: dict[str, Candidate] = {}
    for name in (*_quoted(text), *_named(_QUOTED.sub(" . ", text), capitals=capitals)):
        folded = " ".join(folded_words(name))
        if folded and _NAME_MIN <= len(name) <= _NAME_MAX:
            found.setdefault(folded, Candidate(folded, name))
            if len(found) == _FOUND_MAX:
                break
    return list(found.values())


def _quoted(text: str) -> Iterator[str]:
    """Terms in quotes of one to four words, which are no whole sentence."""
    for match in _QUOTED.finditer(text):
        term = next(group for group in match.groups() if group).strip(" ,.")
        words = folded_words(term)
        short = len(term.split()) <= _QUOTED_WORDS_MAX and not _NO_TERM.search(term)
        if short and not all(_is_ordinary(word) for word in words):
            yield term


def _named(text: str, *, capitals: bool) -> Iterator[str]:
    lower = set[str]()
    runs = list[list[_Word]]()
    for sentence in _sentences(text):
        shouted = _is_shouted(sentence)
        lower.update([word.text for word in sentence if word.text.islower()])
        for word in sentence:
            if _is_coined(word.text, shouted=shouted):
                yield word.text
        if capitals and not shouted and not _is_heading(sentence):
            runs.extend(_runs(sentence))
    for run in runs:
        name = _run_name(run, text)
        # A word that stands there in lower case too has its capital for another reason.
        if name is not None and name.lower() not in lower:
            yield name


def _sentences(text: str) -> Iterator[list[_Word]]:
    sentence = list[_Word]()
    end, contracted = 0, False
    for match in _TOKEN.finditer(text):
        piece = match.group()
        if not piece[0].isalnum():
            title = piece == "." and sentence and fold(sentence[-1].text) in _TITLES
            if title:
                end = match.end()
            elif _ends_sentence(piece):
                if sentence:
                    yield sentence
                sentence = []
            continue
        apostrophe = "'" in piece or "’" in piece
        elided = _ELISION.match(piece) if apostrophe else None
        begin = match.start() + (elided.end() if elided else 0)
        whole = text[begin : match.end()]
        word = _CONTRACTION.sub("", whole) if apostrophe else whole
        joined = (
            bool(sentence) and not contracted and bool(_GLUE.fullmatch(text, end, match.start()))
        )
        if elided:
            joined = joined and _may_elide(elided.group(1), sentence[-1].text)
        if word:
            sentence.append(_Word(word, begin, not sentence, joined))
        end, contracted = match.end(), word != whole
    if sentence:
        yield sentence


def _may_elide(elision: str, before: str) -> bool:
    """Whether a name may go on with an elided word: Côte d'Azur, Place de l'Opéra."""
    return elision[0] in "dD" or (elision[0] in "lL" and before in _WITHIN)


def _ends_sentence(token: str) -> bool:
    # A picture ends one too.
    return not _ENDS.isdisjoint(token) or any(unicodedata.category(sign) == "So" for sign in token)


def _is_shouted(sentence: list[_Word]) -> bool:
    """Whether capitals say nothing, since most of a sentence is written in them."""
    long = [word.text for word in sentence if len(word.text) > 1 and word.text.isalpha()]
    return len(long) > 2 and 2 * sum([word.isupper() for word in long]) > len(long)


def _is_heading(sentence: list[_Word]) -> bool:
    """Whether capitals say nothing, since all its words have them: "Next Steps"."""
    return (
        len(sentence) > 1
        and fold(sentence[0].text) not in _GREETINGS
        and all(word.joined for word in sentence[1:])
        and all(_is_capital(word.text) or word.text in _IN_HEADINGS for word in sentence)
    )


def _is_coined(word: str, *, shouted: bool) -> bool:
    """Whether a word shows by itself that it is a name: FastAPI, max_db_size, NASA."""
    if (word.islower() and "_" not in word) or _is_ordinary(fold(word)):
        return False
    if _SNAKE.fullmatch(word) or any(a.islower() and b.isupper() for a, b in pairwise(word)):
        return True
    return not shouted and _is_acronym(word)


def _is_acronym(word: str) -> bool:
    stem = word.removesuffix("s")
    letters = sum(map(str.isupper, stem))
    return stem.isupper() and stem.isalnum() and letters > 1 and len(stem) <= _ACRONYM_MAX


def _is_ordinary(word: str) -> bool:
    return is_stop_word(word) or word in _ORDINARY or word.isdecimal()


def _is_capital(word: str) -> bool:
    return word[0].isupper() and "." not in word


def _runs(sentence: list[_Word]) -> Iterator[list[_Word]]:
    """Capitalised words that stand together, with what may stand within a name."""
    run = list[_Word]()
    for word in sentence:
        capital = _is_capital(word.text)
        if run and not (word.joined and (capital or _is_within(word.text, run[-1].text))):
            yield run
            run = []
        if run or capital:
            run.append(word)
    if run:
        yield run


def _is_within(word: str, before: str) -> bool:
    return word in _WITHIN or (word in _THEN and before in _WITHIN)


def _run_name(run: list[_Word], text: str) -> str | None:
    """What of a run is a name, if anything is."""
    while run and not _is_capital(run[-1].text):
        run = run[:-1]
    while run and (_is_plain(run[0].text) or not _is_capital(run[0].text)):
        run = run[1:]
    while run and (_is_plain(run[-1].text) or not _is_capital(run[-1].text)):
        run = run[:-1]
    capitals = sum([_is_capital(word.text) for word in run])
    # The first word of a sentence has its capital anyway.
    if not run or capitals > _RUN_MAX or (run[0].first and capitals == 1):
        return None
    return text[run[0].begin : run[-1].begin + len(run[-1].text)]


def _is_plain(word: str) -> bool:
    folded = fold(word)
    return folded in _TITLES or _is_ordinary(folded) or all(map(_is_ordinary, folded_words(word)))
