"""
Local: models that compute in this process, and the caller's own function.

A library is imported, and a model loaded, by the first call. One call at a time: none of them says
that it may be used by two threads. What hangs inside them cannot be ended from here; callers
behind it get an error after the timeout.

Sources: fastembed 0.9, `TextEmbedding`; sentence-transformers 6.2, `SentenceTransformer.encode`;
wordllama 0.4, `WordLlama.load`.
"""

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elytron.embed.embedder import EmbedFunction, Turns, missing
from elytron.embed.prefixes import prefixed
from elytron.errors import Closed, ElytronError, EmbedderUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WORDLLAMA_MODEL = "l2_supercat"  # the one whose weights lie in the wheel
WORDLLAMA_DIM = 256
_PADDED_MAX_BYTES = 32_000  # of text, a batch of wordllama's: it pads all to the longest

Compute = Callable[[list[str], str], Any]


class Local:
    """A model that is loaded by the first call and then asked by one thread at a time."""

    def __init__(self, name: str, load: Callable[[], Compute], *, timeout_s: float) -> None:
        """
        Args:
            load: makes the function that computes. Called again if it failed.
        """
        self._name = name
        self._load = load
        self._turns = Turns(name, timeout_s=timeout_s)
        self._compute: Compute | None = None
        self._closed = False

    def ask(self, texts: list[str], kind: str) -> Any:
        """
        Raises:
            EmbedderUnavailable: the library is not there (`permanent`), the model cannot be loaded
                (`permanent`), computing failed, or another call took too long.
            Closed: after `close`.
        """
        with self._turns.taken():
            if self._closed:
                raise Closed(f"the embedder {self._name} was closed; open the store again")
            compute = self._compute or self._loaded()
            self._compute = compute
            try:
                return compute(texts, kind)
            except ElytronError:
                raise
            except Exception as error:  # of a library, or of the caller's function; handed on
                raise EmbedderUnavailable(
                    f"{self._name} failed on {len(texts):,} texts ({type(error).__name__});"
                    " see the error that caused this one"
                ) from error

    def _loaded(self) -> Compute:
        try:
            return self._load()
        except ElytronError:
            raise
        except Exception as error:  # libraries raise anything here; handed on
            raise EmbedderUnavailable(
                f"{self._name} cannot be loaded ({type(error).__name__}); give the name of a model"
                " that is there, or the path of its folder, or let it be downloaded once",
                permanent=True,
            ) from error

    def close(self) -> None:
        """Let go of the model; one that is computing goes at its end."""
        self._closed = True
        self._compute = None


def from_function(function: EmbedFunction) -> Compute:
    """The caller's function, which is told the kind and gets no prefixes."""
    return lambda texts, kind: function(texts, kind)


def load_fastembed(model: str) -> Compute:
    """
    fastembed's model of that name, or the one in a folder, on one thread of the processor.

    A folder has to be named as its model is (".../bge-small-en-v1.5"): fastembed takes from its
    own list how the model is to be read. It is never downloaded then.
    """
    text_embedding = _library("fastembed", "fastembed").TextEmbedding
    options: dict[str, Any] = {"threads": 1, "cuda": False}
    if _is_folder(model):
        known = [each["model"] for each in text_embedding.list_supported_models()]
        options |= {
            "model_name": _named(Path(model).expanduser().name, known),
            "specific_model_path": str(Path(model).expanduser()),
            "local_files_only": True,
        }
    else:
        options["model_name"] = model
    embedding = text_embedding(**options)
    return lambda texts, kind: list(embedding.embed(prefixed(texts, kind, model=model)))


def _named(folder: str, known: list[str]) -> str:
    """The model whose name ends as the folder does."""
    for name in known:
        if name.rpartition("/")[2].lower() == folder.lower():
            return name
    raise EmbedderUnavailable(
        f"none of fastembed's {len(known):,} models is named as the folder {folder};"
        " name the folder as its model is, for example bge-small-en-v1.5",
        permanent=True,
    )


def load_sentence_transformers(model: str) -> Compute:
    """The model of that name, or in that folder (then without a download), on the processor."""
    library = _library("sentence_transformers", "sentence-transformers")
    if _is_folder(model):
        folder = str(Path(model).expanduser())
        transformer = library.SentenceTransformer(folder, device="cpu", local_files_only=True)
    else:
        transformer = library.SentenceTransformer(model, device="cpu")
    transformer.default_prompt_name = None  # else a model that names one gets two prefixes

    def compute(texts: list[str], kind: str) -> Any:
        return transformer.encode(
            prefixed(texts, kind, model=model),
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )

    return compute


def _library(module: str, install: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing(module, install) from error


def _is_folder(model: str) -> bool:
    """
    Whether a model is a path. One that does not exist is still no name of a hub's.

    "BAAI/bge-small" is a hub's name, even where there is such a folder by chance.
    """
    return model.startswith(("/", "./", "../", "~", ".\\", "..\\")) or Path(model).is_absolute()


def load_wordllama() -> Compute:
    """
    wordllama's own model, from its wheel: no network, and nothing is written anywhere.

    `disable_download` alone does not find the tokenizer, which lies in "tokenizers" while
    wordllama looks beside itself in "tokenizer"; below a cache folder it looks in the right one.
    """
    with _root_logging_kept():
        wordllama = _library("wordllama", '"elytron[wordllama]"')
    model = wordllama.WordLlama.load(
        config=WORDLLAMA_MODEL,
        dim=WORDLLAMA_DIM,
        cache_dir=Path(str(wordllama.__file__)).parent,
        disable_download=True,
    )
    return lambda texts, _kind: embed_evenly(texts, model.embed)


def embed_evenly(
    texts: list[str], embed: Callable[[list[str]], "NDArray[np.float32]"]
) -> "NDArray[np.float32]":
    """
    Embed short texts with short ones and long ones with long ones, and put them in order again.

    wordllama pads a batch to its longest text and holds one vector for each token of each: with
    one text of 8,000 characters among 64 that is 200 MB and more. Here it is some 64 MB at most.
    """
    import numpy as np

    sizes = [len(text.encode()) for text in texts]
    order = sorted(range(len(texts)), key=sizes.__getitem__)
    rows = None
    for batch in _batches(order, sizes):
        part = embed([texts[index] for index in batch])
        if rows is None:
            rows = np.empty((len(texts), part.shape[1]), dtype=np.float32)
        rows[batch] = part
    assert rows is not None, "nobody asks for no texts"
    return rows


def _batches(order: list[int], sizes: list[int]) -> Iterator[list[int]]:
    """Cut *order*, shortest first, so that each batch padded to its last is within the bound."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * sizes[index] > _PADDED_MAX_BYTES:
            yield batch
            batch = []
        batch.append(index)
    yield batch


@contextmanager
def _root_logging_kept() -> Iterator[None]:
    """Undo what wordllama's import does to the program's logging: a handler, and level INFO."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in [each for each in root.handlers if each not in handlers]:
            root.removeHandler(handler)
