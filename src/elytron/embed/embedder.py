"""
An embedder: texts in, rows of unit length out, whoever computes them.

Here is what holds for all of them: which texts are taken, how many at a time, that one model keeps
one dimension, and that nothing but checked numbers comes out. Who computes is a `Provider` (see
`local` and `remote`); which one a name means is for `providers` to say. Nothing is tried twice:
that is for the caller, who knows how urgent it is.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from elytron.config_values import shown
from elytron.errors import Closed, EmbedderUnavailable, InvalidArgument

if TYPE_CHECKING:  # numpy is an extra, and is not imported before it is needed
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

KINDS = ("document", "query")
TEXT_MAX_CHARS = 8_000  # about 2,000 tokens, which is as far as most models read
TEXTS_MAX = 1_000  # texts in one call

EmbedFunction = Callable[[Sequence[str], str], "ArrayLike"]


class Embedder(Protocol):
    """
    What turns texts into vectors. Two threads may ask one at the same time.

    `name` is stored with the data, as "ollama:nomic-embed-text". `dim` is None until it is known.
    """

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int | None: ...

    def embed(self, texts: Sequence[str], kind: str) -> "NDArray[np.float32]": ...

    def close(self) -> None: ...


class Provider(Protocol):
    """Who computes. `ask` gives one row a text, in order; nobody believes it before checking."""

    def ask(self, texts: list[str], kind: str) -> Any: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EmbedderSettings:
    """
    How an embedder is asked. Checked by `providers.make_embedder`.

    Attributes:
        model: None for the provider's usual one.
        url: where the endpoint is, without a key in it; None for the provider's own.
        timeout_s: for one batch over HTTP, from connecting to the last byte; elsewhere how long
            a call waits for another that is using the same model. 0.05 to 600.
        api_key_env: the name of the environment variable that holds the key, read at each call.
            None is OPENAI_API_KEY for `openai` at its own address, and no key anywhere else.
        batch_max: texts in one request, 1 to 1,000.
        proxy_url: an HTTP proxy to go through. Those of the environment are not used.
    """

    model: str | None = None
    url: str | None = None
    timeout_s: float = 30.0
    api_key_env: str | None = None
    batch_max: int = 64
    proxy_url: str | None = field(default=None, repr=False)  # it may hold a password


def prepared(texts: Sequence[str], kind: str) -> list[str]:
    """
    The texts as they may be embedded, each cut to `TEXT_MAX_CHARS`.

    Raises:
        InvalidArgument: an unknown kind, none or over `TEXTS_MAX` texts, or one that is no text or
            only white space (no model has a meaning for that).

    Pure. A lone surrogate, which no encoding can carry, becomes a question mark.
    """
    if kind not in KINDS:
        raise InvalidArgument(f"`kind` must be one of {', '.join(KINDS)}; got {shown(kind)}")
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
        raise InvalidArgument(f"`texts` must be a list of texts; got a {type(texts).__name__}")
    if not 1 <= len(texts) <= TEXTS_MAX:
        raise InvalidArgument(
            f"`texts` must hold 1 to {TEXTS_MAX:,} texts; got {len(texts):,}: split them"
        )
    cut = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidArgument(f"text {index} must be a str; got a {type(text).__name__}")
        kept = text[:TEXT_MAX_CHARS]
        if not kept.strip():
            raise InvalidArgument(
                f"text {index} is empty in its first {TEXT_MAX_CHARS:,} characters; leave it out"
            )
        cut.append(kept.encode("utf-8", "replace").decode("utf-8"))
    return cut


def missing(package: str, install: str) -> EmbedderUnavailable:
    """The error for a library that is not installed."""
    return EmbedderUnavailable(
        f"{package} is not installed; run `pip install {install}`", permanent=True
    )


class Turns:
    """One caller at a time, where a model is not made for two; nobody waits without an end."""

    def __init__(self, name: str, *, timeout_s: float) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._lock = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """
        Raises:
            EmbedderUnavailable: another call kept the model for longer than the timeout.
        """
        if not self._lock.acquire(timeout=self._timeout_s):
            raise EmbedderUnavailable(
                f"{self._name} is busy with another call for over {self._timeout_s:g} s;"
                " retry later, or raise the embedder's timeout"
            )
        try:
            yield
        finally:
            self._lock.release()


class CheckedEmbedder:
    """The embedder that all providers share: batches their texts and believes none of them."""

    def __init__(
        self, provider: Provider, *, name: str, batch_max: int, dim: int | None = None
    ) -> None:
        self.name = name
        self._provider = provider
        self._batch_max = batch_max
        self._dim = dim
        self._lock = threading.Lock()
        self._closed = False

    @property
    def dim(self) -> int | None:
        """Numbers in a vector: None before the first answer, where it is not known at once."""
        return self._dim

    def embed(self, texts: Sequence[str], kind: str) -> "NDArray[np.float32]":
        """
        Embed each of *texts*.

        Args:
            texts: 1 to 1,000 texts, none of them empty; of each the first 8,000 characters count.
            kind: "document" for what is stored, "query" for what is asked: some models tell the
                two apart.

        Returns:
            Shape (n, dim), C-contiguous, rows of unit length in the order of the texts.

        Raises:
            InvalidArgument: see `prepared`. Nobody was asked.
            EmbedderUnavailable: no answer, or a wrong one. Nothing of it is used.
            Closed: after `close`.

        Cost: one request for each `batch_max` texts, one after another, each with a timeout of
        its own.
        """
        asked = prepared(texts, kind)
        try:
            import numpy as np

            from elytron.embed.checked import checked
        except ImportError as error:
            raise missing("numpy", '"elytron[vectors]"') from error
        parts = []
        for start in range(0, len(asked), self._batch_max):
            if self._closed:
                raise Closed(f"the embedder {self.name} was closed; open the store again")
            batch = asked[start : start + self._batch_max]
            answer = self._provider.ask(batch, kind)
            rows = checked(answer, n=len(batch), dim=self._dim, source=self.name)
            self._settle(rows.shape[1])
            parts.append(rows)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _settle(self, dim: int) -> None:
        """The first answer says what dimension all others have; two may be the first at once."""
        with self._lock:
            if self._dim is None:
                self._dim = dim
            elif self._dim != dim:
                raise EmbedderUnavailable(
                    f"{self.name} gave vectors of {dim} and of {self._dim} numbers;"
                    " one model has one length",
                    permanent=True,
                )

    def close(self) -> None:
        """Let go of the model or the connections. A call under way may fail; once is enough."""
        self._closed = True
        self._provider.close()
