"""
Prefixes: what some models want to read before a text, by the model's name. Pure.

Models that were trained with a prefix find less without it, and silently. What is changed here
changes the vectors of a model that keeps its name: then what is stored has to be embedded anew.

Sources: the model cards. nomic-ai/nomic-embed-text-v1.5 and -v2-moe ("task instruction prefixes");
intfloat/e5-small-v2 and multilingual-e5-base ("query: " and "passage: "), multilingual-e5-large-
instruct (an instruction for queries only); BAAI/bge-*-en-v1.5 (instruction for queries of short
text, none for passages; bge-m3 has none); Snowflake/snowflake-arctic-embed-m and -v1.5, and -l-v2.0
("query: "); mixedbread-ai/mxbai-embed-large-v1 ("prompt" for queries).
"""

import re
from typing import NamedTuple

_SEARCH = "Represent this sentence for searching relevant passages: "
_INSTRUCT = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
)


class Prefixes(NamedTuple):
    """What goes before a text of each kind; empty for nothing."""

    document: str = ""
    query: str = ""


# The first that fits counts.
_BY_NAME = (
    (r"nomic-embed-text", Prefixes("search_document: ", "search_query: ")),
    (r"(?:.*-)?e5-.*instruct.*", Prefixes("", _INSTRUCT)),
    (r"(?:.*-)?e5-", Prefixes("passage: ", "query: ")),
    (r"bge-(?:small|base|large)-en\b", Prefixes("", _SEARCH)),
    (r"bge-large$", Prefixes("", _SEARCH)),  # so ollama calls bge-large-en-v1.5
    (r"snowflake-arctic-embed(?:2|-[ml]-v2)", Prefixes("", "query: ")),
    (r"snowflake-arctic-embed", Prefixes("", _SEARCH)),
    (r"mxbai-embed-large", Prefixes("", _SEARCH)),
)


def prefixes(model: str) -> Prefixes:
    """
    The prefixes of a model, by the last part of its name, without ollama's tag.

    A folder's name counts as the model's: "models/e5-small-v2" is of the e5 family.
    """
    last = re.split(r"[/\\]", model.rstrip("/\\"))[-1].lower().partition(":")[0]
    for pattern, found in _BY_NAME:
        if re.match(pattern, last):
            return found
    return Prefixes()


def prefixed(texts: list[str], kind: str, *, model: str) -> list[str]:
    """The texts with what *model* wants before those of their kind."""
    prefix = getattr(prefixes(model), kind)
    return [prefix + text for text in texts]
