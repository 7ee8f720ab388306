"""Embedders: what they are made from, what they take, and what is believed of their answers."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytron.embed.embedder import TEXT_MAX_CHARS, TEXTS_MAX, EmbedderSettings, prepared
from elytron.embed.prefixes import Prefixes, prefixes
from elytron.embed.providers import MODELS, make_embedder
from elytron.errors import EmbedderUnavailable, InvalidArgument, InvalidSetting

np = pytest.importorskip("numpy")
checking = pytest.importorskip("elytron.embed.checked")

SEARCH = "Represent this sentence for searching relevant passages: "


def make(spec, **settings):
    return make_embedder(spec, settings=EmbedderSettings(**settings))


def lengths(texts, kind):
    """An honest, if simple, embedder."""
    return [[len(text), 1.0, kind == "query"] for text in texts]


def answering(answer):
    """An embedder whose function answers so, whatever it is asked."""
    return make(lambda texts, kind: answer)


def refusal(embedder, texts=("one", "two")):
    with pytest.raises(EmbedderUnavailable) as caught:
        embedder.embed(list(texts), "document")
    return caught.value


# -- names and settings


@pytest.mark.parametrize("provider", MODELS)
def test_each_provider_has_a_usual_model_and_says_it(provider):
    embedder = make(provider)
    assert embedder.name == f"{provider}:{MODELS[provider]}"
    assert embedder.dim == (256 if provider == "wordllama" else None)
    embedder.close()


def test_a_model_follows_the_colon_or_is_a_setting():
    assert make("ollama:bge-m3:567m").name == "ollama:bge-m3:567m"
    assert make("ollama:bge-m3:latest").name == "ollama:bge-m3"
    assert make("ollama", model="bge-m3").name == "ollama:bge-m3"
    assert make("ollama:bge-m3", model="bge-m3").name == "ollama:bge-m3"
    path = "sentence-transformers:/models/e5-small"
    assert make(path).name == path


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("olama", "did you mean `ollama`?"),
        ("sentence_transformers", "did you mean `sentence-transformers`?"),
        ("word-llama:x", "did you mean `wordllama`?"),
        ("", "ollama"),
        (":x", "ollama"),
        (3, "ollama"),
        (None, "ollama"),
        (["ollama"], "ollama"),
        ("ollama:", "model"),
        ("ollama: x", "model"),
        ("ollama:a\nb", "model"),
        ("ollama:" + "x" * 201, "model"),
        ("wordllama:l3_supercat", "l2_supercat"),
    ],
)
def test_what_is_no_embedder_is_refused_with_the_way_out(spec, said):
    with pytest.raises(InvalidSetting, match=said.replace("?", r"\?")):
        make(spec)


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        ("ollama:a", {"model": "b"}),
        ("ollama", {"timeout_s": 0}),
        ("ollama", {"timeout_s": 601}),
        ("ollama", {"timeout_s": float("nan")}),
        ("ollama", {"batch_max": 0}),
        ("ollama", {"batch_max": 1_001}),
        ("ollama", {"batch_max": 1.5}),
        ("wordllama", {"url": "http://127.0.0.1"}),
        ("fastembed", {"api_key_env": "KEY"}),
        ("sentence-transformers", {"proxy_url": "http://127.0.0.1"}),
        (lengths, {"url": "http://127.0.0.1"}),
        (lengths, {"model": "x"}),
    ],
)
def test_settings_that_make_no_sense_are_refused(spec, settings):
    with pytest.raises(InvalidSetting):
        make(spec, **settings)


@pytest.mark.parametrize("setting", ["url", "proxy_url"])
@pytest.mark.parametrize(
    "url",
    [
        "localhost:11434", "ftp://4711", "file:///4711", "http://", "http://:80", "http://a:99999",
        "http://a:0", "http://a:b4711", "http://a/?key=4711", "http://a/#4711", "http://a b/",
        "http://a/\n4711", "http://[::1", "http://a/" + "x" * 2_000, 4711,
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_and_not_shown(setting, url):
    with pytest.raises(InvalidSetting) as caught:
        make("openai", **{setting: url})
    assert f"`{setting}`" in str(caught.value)
    assert "4711" not in str(caught.value)


def test_a_password_in_the_address_is_refused_and_not_shown():
    with pytest.raises(InvalidSetting) as caught:
        make("openai", url="https://me:4711@example.org/v1")
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-4711", "", "4711", "A B", "A" * 101, 4711])
def test_a_key_in_the_place_of_its_variables_name_is_not_shown(key):
    with pytest.raises(InvalidSetting) as caught:
        make("openai", api_key_env=key)
    assert "4711" not in str(caught.value)


def test_making_any_embedder_imports_no_library():
    """Method: another process makes all of them, and says which libraries it has then."""
    script = (
        "import sys\n"
        "from elytron.embed.embedder import EmbedderSettings\n"
        "from elytron.embed.providers import MODELS, make_embedder\n"
        "for spec in (*MODELS, lambda texts, kind: [[1, 2]]):\n"
        "    make_embedder(spec, settings=EmbedderSettings()).close()\n"
        "heavy = ('numpy', 'urllib3', 'wordllama', 'fastembed', 'sentence_transformers', 'torch',\n"
        "         'requests', 'tokenizers', 'onnxruntime')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("spec", "module", "install"),
    [
        ("fastembed", "fastembed", "pip install fastembed"),
        ("sentence-transformers", "sentence_transformers", "pip install sentence-transformers"),
        ("wordllama", "wordllama", 'pip install "elytron[wordllama]"'),
        ("ollama", "urllib3", 'pip install "elytron[vectors]"'),
        ("openai", "urllib3", 'pip install "elytron[vectors]"'),
        (lengths, "numpy", 'pip install "elytron[vectors]"'),
    ],
)
def test_a_library_that_is_missing_is_named_with_its_command(monkeypatch, spec, module, install):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    for name in ("elytron.embed.checked", "elytron.embed.connections"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    embedder = make(spec)
    error = refusal(embedder)
    assert install in str(error)
    assert error.permanent
    embedder.close()


# -- texts


def test_texts_are_cut_and_otherwise_left_alone():
    long = "é" * (TEXT_MAX_CHARS + 1)
    assert prepared(["a", long, " b\n"], "document") == ["a", long[:-1], " b\n"]
    assert prepared(("a",), "query") == ["a"]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        ([], "document"), ("text", "document"), (b"text", "document"), (None, "document"),
        ({"a"}, "document"), (iter(["a"]), "document"), ([""], "document"), ([" \t"], "query"),
        (["a", "\u2003\n"], "query"), ([" " * TEXT_MAX_CHARS + "a"], "query"), ([None], "query"),
        ([b"a"], "query"), ([3], "query"), (["a"] * (TEXTS_MAX + 1), "query"), (["a"], "Query"),
        (["a"], "passage"), (["a"], None),
    ],
)  # fmt: skip
def test_texts_that_cannot_be_embedded_are_refused_before_the_call(texts, kind):
    embedder = make(lambda texts, kind: pytest.fail("was asked"))
    with pytest.raises(InvalidArgument):
        embedder.embed(texts, kind)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_what_is_prepared_can_be_encoded_and_is_as_long_as_it_was(texts):
    try:
        kept = prepared(texts, "query")
    except InvalidArgument:
        assert any(not text.strip() for text in texts)
        return
    assert [len(text) for text in kept] == [len(text) for text in texts]
    assert "".join(kept).encode()


# -- prefixes


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nomic-embed-text", ("search_document: ", "search_query: ")),
        ("nomic-embed-text:v1.5", ("search_document: ", "search_query: ")),
        ("nomic-ai/nomic-embed-text-v2-moe", ("search_document: ", "search_query: ")),
        ("intfloat/e5-small-v2", ("passage: ", "query: ")),
        ("intfloat/multilingual-e5-base", ("passage: ", "query: ")),
        ("/models/multilingual-e5-large/", ("passage: ", "query: ")),
        ("BAAI/bge-small-en-v1.5", ("", SEARCH)),
        ("BAAI/bge-base-en", ("", SEARCH)),
        ("bge-large", ("", SEARCH)),
        ("snowflake-arctic-embed:33m", ("", SEARCH)),
        ("Snowflake/snowflake-arctic-embed-m-v1.5", ("", SEARCH)),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", ("", "query: ")),
        ("snowflake-arctic-embed2", ("", "query: ")),
        ("mixedbread-ai/mxbai-embed-large-v1", ("", SEARCH)),
        ("BAAI/bge-m3", ("", "")),
        ("BAAI/bge-small-zh-v1.5", ("", "")),
        ("all-minilm", ("", "")),
        ("text-embedding-3-small", ("", "")),
        ("some5-model", ("", "")),
        ("", ("", "")),
    ],
)
def test_a_model_gets_the_prefixes_that_its_card_names(model, expected):
    assert prefixes(model) == Prefixes(*expected)


def test_an_instructed_e5_gets_its_instruction_for_questions_only():
    found = prefixes("intfloat/multilingual-e5-large-instruct")
    assert found.document == ""
    assert found.query.startswith("Instruct: ")


# -- what is believed


def test_right_rows_come_back_as_unit_float32_of_their_own():
    for dtype in (np.float16, np.float32, np.float64, np.longdouble, np.int8, np.uint64):
        given_rows = np.array([[3, 4], [0, 5]], dtype=dtype)
        rows = checking.checked(given_rows, n=2, dim=2, source="it")
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        assert not np.shares_memory(rows, given_rows)
        assert rows == pytest.approx(np.array([[0.6, 0.8], [0, 1]]))
    turned = checking.checked(np.array([[3.0, 0.0], [4.0, 5.0]]).T, n=2, dim=None, source="it")
    assert turned.flags.c_contiguous


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=n, max_size=n
        )
    )
)
def test_whatever_the_numbers_rows_are_finite_and_of_unit_length_or_refused(rows):
    try:
        got = checking.checked(rows, n=len(rows), dim=3, source="it")
    except EmbedderUnavailable:
        assert not np.isfinite(rows).all() or not np.any(rows, axis=1).all()
        return
    assert np.linalg.norm(got, axis=1) == pytest.approx(1, abs=1e-6)
    scaled = np.array(rows) / np.abs(rows).max(axis=1, keepdims=True)  # nothing overflows then
    assert got == pytest.approx(scaled / np.linalg.norm(scaled, axis=1, keepdims=True), abs=1e-6)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "NoneType"),
        ("text", "str"),
        ({}, "dict"),
        (5, "shape ()"),
        ([], "shape (0,)"),
        ([[1, 2]], "shape (1, 2) for 2"),
        ([1, 2], "shape (2,)"),
        ([[1, 2], [3]], "different lengths"),
        ([[1, 2], None], "different lengths"),
        ([["1", "2"], ["3", "4"]], "plain numbers"),
        ([[1j, 2], [3, 4]], "complex128"),
        ([[True, False], [True, True]], "bool"),
        ([[None, 1], [2, 3]], "object"),
        ([[1, float("nan")], [2, 3]], "text 0 with NaN"),
        ([[1, 2], [2, float("-inf")]], "text 1 with NaN or infinite numbers (1 of 2 rows)"),
        ([[1, 2], [2, 1e300]], "text 1 with NaN or infinite"),
        ([[0, 0], [0, -0.0]], "text 0 with nothing but zeros (2 of 2 rows)"),
        ([[1], [2]], "1 numbers"),
        ([[], []], "0 numbers"),
        ([[1] * 8193] * 2, "8,193"),
        ([10**400, 1], "object"),
        ((row for row in ([1, 2], [3, 4])), "generator"),
    ],
)
def test_a_function_that_answers_wrongly_is_not_believed(answer, said):
    error = refusal(answering(answer))
    assert said in str(error)
    assert "callable:" in str(error)


def test_an_answer_that_fails_when_it_is_looked_at_is_an_error():
    class Trap:
        def __array__(self, *args, **named):
            raise RuntimeError("4711")

    error = refusal(answering(Trap()))
    assert "RuntimeError" in str(error)
    assert "4711" not in str(error)
