"""wordllama: the embedder that works as installed, without any network."""

import logging
import random
import socket
from pathlib import Path

import pytest

from elytron.embed.embedder import EmbedderSettings
from elytron.embed.local import embed_evenly
from elytron.embed.providers import make_embedder

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")
pytest.importorskip("safetensors")


@pytest.fixture
def embedder(monkeypatch):
    """One that has not loaded its model yet, in a process without a network."""

    def refuse(*args):
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    made = make_embedder("wordllama", settings=EmbedderSettings())
    yield made
    made.close()


def test_it_works_without_a_network_and_knows_its_dimension(embedder, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    vectors = embedder.embed(["One text.", "Un autre texte."], "document")
    assert (embedder.name, embedder.dim) == ("wordllama:l2_supercat", 256)
    assert vectors.shape == (2, 256)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        (
            "My sister has moved to Lyon.",
            "Her new flat is in a French city.",
            "The printer is out of paper again.",
        ),
        (
            "The doctor told me to take these pills twice a day.",
            "medicine prescribed for an illness",
            "a long walk on the beach with the dog",
        ),
        (
            "Je cherche un nouveau travail.",
            "Elle a trouvé un emploi.",
            "Le chat dort sur le canapé.",
        ),
    ],
)
def test_a_paraphrase_is_nearer_than_something_else(embedder, text, near, far):
    one, two, three = embedder.embed([text, near, far], "document")
    assert one @ two > one @ three


def test_texts_of_any_length_and_script_have_a_vector(embedder):
    texts = ["a", "?", "日本語のテキスト", "🙂" * 20_000, "word " * 100_000, "\u200b", "\x00", "نص"]
    vectors = embedder.embed(texts, "document")
    assert vectors.shape == (8, 256)
    alone = np.concatenate([embedder.embed([text], "query") for text in texts])
    assert vectors == pytest.approx(alone, abs=1e-5)


def test_batches_of_mixed_lengths_come_back_in_order_and_within_bounds():
    """No batch that is padded to its longest text is over the bound, but a long text alone."""
    rng = random.Random(7)
    texts = [chr(65 + n % 26) * rng.choice([1, 20, 300, 8_000]) for n in range(64)]
    batches = []

    def embed(batch):
        batches.append(batch)
        return np.array([[ord(text[0]), len(text)] for text in batch], dtype=np.float32)

    rows = embed_evenly(texts, embed)
    assert rows.tolist() == [[ord(text[0]), len(text)] for text in texts]
    assert sum(len(batch) for batch in batches) == 64
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= 32_000


def test_the_programs_logging_is_left_as_it_was(embedder, monkeypatch):
    """Method: the library's modules are forgotten, so that it is imported anew."""
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "wordllama"]:
        monkeypatch.delitem(sys.modules, name)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.ERROR)
    embedder.embed(["a"], "query")
    assert root.handlers == []
    assert root.level == logging.ERROR


def test_nothing_is_written_beside_the_library(embedder):
    import wordllama

    folder = Path(wordllama.__file__).parent

    def written() -> list[Path]:
        found = folder.rglob("*")  # what was compiled is of anybody who imports it just now
        return sorted(path for path in found if "__pycache__" not in path.parts)

    before = written()
    embedder.embed(["a"], "query")
    assert written() == before
