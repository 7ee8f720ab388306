"""Embedders in this process: the caller's own function, and the libraries."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import pytest

from elytron.embed.embedder import CheckedEmbedder, EmbedderSettings
from elytron.embed.prefixes import prefixes
from elytron.embed.providers import make_embedder
from elytron.errors import Closed, EmbedderUnavailable, InvalidSetting

np = pytest.importorskip("numpy")


def make(spec, **settings):
    return make_embedder(spec, settings=EmbedderSettings(**settings))


def lengths(texts, kind):
    """An honest, if simple, embedder."""
    return [[len(text), 1.0, kind == "query"] for text in texts]


def refusal(embedder, texts=("one", "two")):
    with pytest.raises(EmbedderUnavailable) as caught:
        embedder.embed(list(texts), "document")
    return caught.value


# -- a function


def test_a_function_gets_the_texts_and_their_kind_as_they_are():
    asked = []

    def function(texts, kind):
        asked.append((list(texts), kind))
        return lengths(texts, kind)

    embedder = make(function, batch_max=2)
    rows = embedder.embed(["a", "bb", "ccc"], "query")
    assert asked == [(["a", "bb"], "query"), (["ccc"], "query")]
    assert rows.shape == (3, 3)
    assert embedder.dim == 3


def test_a_functions_name_is_its_own_or_that_of_its_definition():
    assert make(lengths).name == "callable:lengths"
    assert make(partial(lengths)).name == "callable:partial"

    class Named:
        name = "ours-v2"

        def __call__(self, texts, kind):
            return lengths(texts, kind)

    assert make(Named()).name == "callable:ours-v2"
    for name in ("", " x", "a\nb", "x" * 201, 3):
        Named.name = name
        with pytest.raises(InvalidSetting):
            make(Named())


def test_a_function_that_raises_is_an_error_that_does_not_repeat_it():
    def failing(texts, kind):
        raise KeyError(texts[0])

    error = refusal(make(failing), ["the number is 4711"])
    assert "KeyError" in str(error)
    assert "4711" not in str(error)
    assert isinstance(error.__cause__, KeyError)
    assert not error.permanent


def test_a_function_may_say_itself_that_it_is_unavailable():
    def resting(texts, kind):
        raise EmbedderUnavailable("back in a minute", wait_s=60)

    assert refusal(make(resting)).wait_s == 60


def test_a_function_that_changes_its_dimension_is_not_believed():
    answers = iter([[[1, 2]], [[1, 2, 3]], [[2, 1]]])
    embedder = make(lambda texts, kind: next(answers))
    embedder.embed(["a"], "query")
    error = refusal(embedder, ["a"])
    assert error.permanent
    assert "3 numbers, not of 2" in str(error)
    assert embedder.embed(["a"], "query").shape == (1, 2)


def test_two_first_answers_of_different_dimensions_are_not_both_believed():
    """
    Method: the provider is asked by two threads, and its answers become arrays only when both are
    being checked, neither with a dimension to check against.
    """
    together = threading.Barrier(2)

    class Answer:
        def __init__(self, text):
            self.row = [1.0] * len(text)

        def __array__(self, *args, **named):
            together.wait(60)
            return np.array([self.row])

    provider = SimpleNamespace(ask=lambda texts, kind: Answer(texts[0]), close=lambda: None)
    embedder = CheckedEmbedder(provider, name="it", batch_max=1)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(embedder.embed, [text], "query") for text in ("xx", "xxx")]
        errors = [future.exception(60) for future in asked]
    (error,) = [error for error in errors if error is not None]
    assert isinstance(error, EmbedderUnavailable)
    assert error.permanent


def test_a_function_is_asked_by_one_thread_at_a_time():
    """Method: each call waits a moment for the other to come in beside it, which it must not."""
    together = threading.Barrier(2)

    def meeting(texts, kind):
        with pytest.raises(threading.BrokenBarrierError):
            together.wait(0.1)
        return lengths(texts, kind)

    embedder = make(meeting)
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(embedder.embed, ["a"], "query") for _ in range(2)]:
            assert future.result(60).shape == (1, 3)


def test_nobody_waits_for_ever_behind_a_function_that_hangs():
    inside, release = threading.Event(), threading.Event()

    def hanging(texts, kind):
        inside.set()
        assert release.wait(60)
        return lengths(texts, kind)

    embedder = make(hanging, timeout_s=0.2)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(embedder.embed, ["a"], "document")
        assert inside.wait(60)
        assert "busy with another call for over 0.2 s" in str(refusal(embedder))
        release.set()
        assert first.result(60).shape == (1, 3)
    embedder.close()
    with pytest.raises(Closed):
        embedder.embed(["a"], "query")


# -- libraries, played by others


class Transformer:
    """What is used of sentence-transformers, and no more."""

    made: ClassVar[list] = []
    default_prompt_name = "query"

    def __init__(self, model, *, device, local_files_only=False):
        if model == "missing":
            raise OSError("no such model")
        self.made.append((model, device, local_files_only))

    def encode(self, texts, *, normalize_embeddings, convert_to_numpy, show_progress_bar):
        assert (normalize_embeddings, convert_to_numpy, show_progress_bar) == (True, True, False)
        assert self.default_prompt_name is None
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


@pytest.fixture
def transformers(monkeypatch):
    monkeypatch.setattr(Transformer, "made", [])
    library = SimpleNamespace(SentenceTransformer=Transformer)
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    return Transformer.made


def test_sentence_transformers_is_loaded_once_and_on_first_use(transformers):
    embedder = make("sentence-transformers:intfloat/e5-small-v2")
    assert transformers == []
    for text, kind in (("abc", "document"), ("abc", "query")):
        row = embedder.embed([text], kind)[0]
        length = len({"document": "passage: ", "query": "query: "}[kind] + text)
        assert row[0] / row[1] == pytest.approx(length)
    assert transformers == [("intfloat/e5-small-v2", "cpu", False)]


def test_a_model_in_a_folder_is_not_downloaded(transformers):
    make("sentence-transformers:/models/e5-small-v2").embed(["a"], "query")
    assert transformers == [("/models/e5-small-v2", "cpu", True)]


def test_a_model_that_cannot_be_loaded_says_so_and_is_tried_again(transformers):
    embedder = make("sentence-transformers:missing")
    for _ in range(2):
        error = refusal(embedder)
        assert "OSError" in str(error)
        assert error.permanent


class TextEmbedding:
    """What is used of fastembed, and no more."""

    made: ClassVar[list] = []

    def __init__(self, model_name, *, threads, cuda, **named):
        assert (threads, cuda) == (1, False)
        self.made.append((model_name, named))

    @classmethod
    def list_supported_models(cls):
        return [{"model": "BAAI/bge-small-en-v1.5", "dim": 384}, {"model": "other/thing"}]

    def embed(self, documents):
        yield from (np.array([len(text), 1.0], dtype=np.float32) for text in documents)


@pytest.fixture
def fastembed(monkeypatch):
    monkeypatch.setattr(TextEmbedding, "made", [])
    monkeypatch.setitem(sys.modules, "fastembed", SimpleNamespace(TextEmbedding=TextEmbedding))
    return TextEmbedding.made


def test_fastembed_is_loaded_once_and_on_first_use(fastembed):
    embedder = make("fastembed")
    assert fastembed == []
    row = embedder.embed(["abc"], "query")[0]
    assert row[0] / row[1] == pytest.approx(len(prefixes("bge-small-en").query) + 3)
    embedder.embed(["abc"], "document")
    assert fastembed == [("BAAI/bge-small-en-v1.5", {})]


def test_fastembed_finds_by_its_name_what_a_folder_holds(fastembed):
    make("fastembed:/models/bge-small-en-v1.5").embed(["a"], "query")
    assert fastembed == [
        (
            "BAAI/bge-small-en-v1.5",
            {"specific_model_path": "/models/bge-small-en-v1.5", "local_files_only": True},
        )
    ]
    error = refusal(make("fastembed:/models/whatever"))
    assert "whatever" in str(error)
    assert error.permanent
