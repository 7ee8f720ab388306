"""
Remote: what Ollama and OpenAI-compatible endpoints are sent, and how their answers are read.

Sources: Ollama, docs/api.md, "Generate Embeddings"; OpenAI, API reference, "Create embeddings".
"""

import re
from typing import Any

from elytron.embed.http import Endpoint
from elytron.embed.prefixes import prefixed
from elytron.errors import EmbedderUnavailable

_MODEL_NAME = re.compile(r"[\w.:/@+-]{1,100}", re.ASCII)


def without_latest(model: str) -> str:
    """An Ollama model's name without the tag that it means anyway."""
    return model.removesuffix(":latest")


class Ollama:
    """Ollama's `/api/embed`."""

    def __init__(self, model: str, *, endpoint: Endpoint) -> None:
        self._model = model
        self._endpoint = endpoint

    def ask(self, texts: list[str], kind: str) -> Any:
        """
        Raises:
            EmbedderUnavailable: of `Endpoint.post`; another model, or not one row for each text.
        """
        answer = self._endpoint.post(
            {
                "model": self._model,
                "input": prefixed(texts, kind, model=self._model),
                "truncate": True,
            },
            n=len(texts),
        )
        model = answer.get("model")
        same = isinstance(model, str) and (
            without_latest(model).casefold() == without_latest(self._model).casefold()
        )
        if not same:
            raise _other_model("ollama", asked=self._model, model=model)
        rows = _listed(answer.get("embeddings"), n=len(texts), source=f"ollama:{self._model}")
        return rows

    def close(self) -> None:
        self._endpoint.close()


class OpenAI:
    """The `/embeddings` that OpenAI, and many servers beside it, answer to."""

    def __init__(self, model: str, *, endpoint: Endpoint) -> None:
        self._model = model
        self._endpoint = endpoint

    def ask(self, texts: list[str], kind: str) -> Any:
        """
        Raises:
            EmbedderUnavailable: of `Endpoint.post`; another model, or not each index once.
        """
        source = f"openai:{self._model}"
        answer = self._endpoint.post(
            {
                "model": self._model,
                "input": prefixed(texts, kind, model=self._model),
                "encoding_format": "float",
            },
            n=len(texts),
        )
        model = answer.get("model")
        # A version may follow: text-embedding-ada-002 answers as text-embedding-ada-002-v2.
        if model is not None and not (isinstance(model, str) and model.startswith(self._model)):
            raise _other_model("openai", asked=self._model, model=model)
        return _in_order(_listed(answer.get("data"), n=len(texts), source=source), source=source)

    def close(self) -> None:
        self._endpoint.close()


def _listed(rows: Any, *, n: int, source: str) -> list[Any]:
    if not isinstance(rows, list) or len(rows) != n:
        found = f"{len(rows):,}" if isinstance(rows, list) else "no list of"
        raise EmbedderUnavailable(
            f"{source} answered with {found} vectors for {n:,} texts; nothing of it is used"
        )
    return rows


def _in_order(items: list[Any], *, source: str) -> list[Any]:
    """The vectors by their index, each of which has to be there once. As long as *items*."""
    rows: dict[int, Any] = {}
    for item in items:
        index = item.get("index") if isinstance(item, dict) else None
        if type(index) is int and 0 <= index < len(items):
            rows[index] = item.get("embedding")
    if len(rows) != len(items):
        raise EmbedderUnavailable(
            f"{source} answered with {len(rows):,} different indexes for {len(items):,} texts;"
            " each must be there once"
        )
    return [rows[index] for index in range(len(items))]


def _other_model(provider: str, *, asked: str, model: Any) -> EmbedderUnavailable:
    # Only what looks like a name is shown: it is the provider's word, and might be anything.
    readable = isinstance(model, str) and _MODEL_NAME.fullmatch(model)
    return EmbedderUnavailable(
        f"{provider} was asked for the model {asked} and answered for"
        f" {model if readable else 'none that has a readable name'}; set `embedding_model` to what"
        " it serves",
        permanent=True,
    )
