"""
Read-only: which Cypher may be asked, decided from its text alone. Pure.

An engine's read-only transaction refuses to change the graph, but not to write or read other
files (`COPY ... TO`, `LOAD FROM`), to change settings (`CALL threads=1`), or to run a second
statement behind a semicolon. So a question is taken apart here as the engines' lexers do it:
it has to begin as a question does, to be one, and to hold none of the words that do more. What
an engine might read otherwise than this module, comments, is not passed on to it.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from elytron.errors import InvalidArgument

QUERY_MAX_CHARS = 20_000
_FIRST = frozenset("MATCH OPTIONAL UNWIND WITH RETURN CALL".split())
_BEFORE = frozenset("EXPLAIN PROFILE LOGICAL".split())
_WRITES = frozenset("CREATE MERGE SET DELETE DETACH REMOVE DROP ALTER".split())
_MORE = frozenset(
    "COPY EXPORT IMPORT LOAD INSTALL UNINSTALL ATTACH USE BEGIN COMMIT ROLLBACK CHECKPOINT".split()
)
# Tables of the engines that say what is in the graph, and no more.
_CALLS = frozenset("SHOW_TABLES TABLE_INFO SHOW_CONNECTION DB_VERSION".split())
_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\n\r\f\v]+)
    | (?P<comment>//[^\n\r]*|/\*.*?\*/)
    | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<name>`[^`]*`)
    | (?P<parameter>\$(?:[A-Za-z_]\w*|[0-9]+|`[^`]*`))
    | (?P<number>[0-9]+)
    | (?P<word>[A-Za-z_][A-Za-z_0-9]*)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Question(NamedTuple):
    text: str  # as the engine is given it: without comments
    parameters: frozenset[str]  # names that it uses


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


@lru_cache(maxsize=256)
def question(query: str) -> Question:
    """
    *query*, if it only reads.

    Raises:
        InvalidArgument: it is empty or too long, writes, or is more than one statement; with the
            word and its place. Whether it is right otherwise, the engine says.

    Some 30 microseconds for a line; the last 256 are remembered.
    """
    if len(query) > QUERY_MAX_CHARS:
        raise InvalidArgument(
            f"the query has {len(query):,} characters; at most {QUERY_MAX_CHARS:,}"
        )
    tokens = [
        _Token(str(match.lastgroup), match.group(), match.start())
        for match in _TOKEN.finditer(query)
    ]
    meant = [token for token in tokens if token.kind not in ("space", "comment")]
    while meant and meant[-1].text == ";":
        meant.pop()
    _check_start(query, meant)
    for place, token in enumerate(meant):
        if token.text == ";":
            raise InvalidArgument(f"one statement at a time: leave out the `;` {_at(query, token)}")
        if token.kind == "sign" and token.text in "'\"`":
            raise InvalidArgument(f"the {token.text} {_at(query, token)} is never closed")
        if token.kind == "word" and not _is_name(meant, place):
            _check_word(query, meant, place)
    return Question(
        "".join(_blank(t.text) if t.kind == "comment" else t.text for t in tokens),
        frozenset(t.text[1:].strip("`") for t in meant if t.kind == "parameter"),
    )


def _check_start(query: str, meant: list[_Token]) -> None:
    if not meant:
        raise InvalidArgument("the query is empty")
    place = 0
    while place + 1 < len(meant) and meant[place].text.upper() in _BEFORE:
        place += 1
    first = meant[place]
    if first.text.upper() in _WRITES | _MORE:
        _check_word(query, meant, place)
    if first.text.upper() not in _FIRST:
        raise InvalidArgument(
            f"a question begins with MATCH, OPTIONAL MATCH, UNWIND, WITH, RETURN or CALL; this one"
            f" begins with {first.text[:40]!r} {_at(query, first)}"
        )


def _is_name(meant: list[_Token], place: int) -> bool:
    """Whether a word can only be a name: a property, a label, the key of a map."""
    before = meant[place - 1] if place else None
    after = meant[place + 1] if place + 1 < len(meant) else None
    if after is not None and after.text == ":":
        return True
    if before is None:
        return False
    if before.text == ".":  # but `1.LOAD` may be a number and a word
        return place > 1 and meant[place - 2].kind != "number"
    return before.text in (":", "|")


def _check_word(query: str, meant: list[_Token], place: int) -> None:
    token = meant[place]
    word = token.text.upper()
    if word in _WRITES:
        raise InvalidArgument(
            f"{word} {_at(query, token)} would change the graph, and a query can only read; use"
            f" the verbs of the agent, or `{token.text}` in back-quotes if it is a name"
        )
    if word in _MORE:
        raise InvalidArgument(
            f"{word} {_at(query, token)} does more than ask the graph, and is refused; write"
            f" `{token.text}` in back-quotes if it is a name"
        )
    if word == "CALL":
        called = meant[place + 1].text.upper() if place + 1 < len(meant) else ""
        opened = meant[place + 2].text if place + 2 < len(meant) else ""
        if called not in _CALLS or opened != "(":
            raise InvalidArgument(
                f"CALL {_at(query, token)} may only ask {', '.join(sorted(_CALLS)).lower()}"
            )


def _at(query: str, token: _Token) -> str:
    """In the words of whoever has to find it; columns count from 1."""
    line = query.count("\n", 0, token.start) + 1
    column = token.start - (query.rfind("\n", 0, token.start) + 1) + 1
    return f"at line {line}, column {column}"


def _blank(comment: str) -> str:
    """As long, so that the places in the engine's errors are those of the query."""
    return re.sub(r"[^\n]", " ", comment)
