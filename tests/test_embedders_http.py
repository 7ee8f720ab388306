"""Embedders over HTTP, against a real server on this machine that misbehaves as it is told."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import embedding_server as serving
from elytron.errors import InvalidArgument
from embedding_server import KEY, at, refusal

np = pytest.importorskip("numpy")
pytest.importorskip("urllib3")

BOTH = ("ollama", "openai")


@pytest.fixture
def server():
    with serving.running() as running:
        yield running


@pytest.fixture
def embedder(request, server):
    """An embedder of the kind that the test's parameter names, at the server."""
    made = at(server, request.param)
    yield made
    made.close()


def rows_of(texts, prefix=""):
    rows = np.array([serving.vector(prefix + text) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


both = pytest.mark.parametrize("embedder", BOTH, indirect=True)


# -- right answers


def test_ollama_is_asked_as_its_interface_wants(server):
    embedder = at(server, "ollama")
    vectors = embedder.embed(["one", "two"], "document")
    (request,) = server.requests
    assert request.path == "/api/embed"
    assert request.body == {
        "model": "nomic-embed-text",
        "input": ["search_document: one", "search_document: two"],
        "truncate": True,
    }
    assert "Authorization" not in request.headers
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert vectors == pytest.approx(rows_of(["one", "two"], "search_document: "), abs=1e-6)
    assert (embedder.name, embedder.dim) == ("ollama:nomic-embed-text", serving.DIM)
    embedder.close()


def test_openai_is_asked_as_its_interface_wants(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    embedder = at(server, "openai:embed-it", url=f"{server.url}/v1/", api_key_env="MY_KEY")
    vectors = embedder.embed(["one", "two"], "query")
    (request,) = server.requests
    assert request.path == "/v1/embeddings"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "embed-it",
        "input": ["one", "two"],
        "encoding_format": "float",
    }
    assert vectors == pytest.approx(rows_of(["one", "two"]), abs=1e-6)
    assert embedder.name == "openai:embed-it"
    embedder.close()


def test_a_question_gets_the_prefix_of_questions(server):
    embedder = at(server, "ollama")
    embedder.embed(["one"], "query")
    assert server.requests[0].body["input"] == ["search_query: one"]
    embedder.close()


@both
def test_many_texts_go_in_batches_and_come_back_in_order(server, request, embedder):
    texts = [f"text {n}" for n in range(150)]
    prefix = "search_document: " if embedder.name.startswith("ollama") else ""
    vectors = embedder.embed(texts, "document")
    assert [len(each.body["input"]) for each in server.requests] == [64, 64, 22]
    assert vectors == pytest.approx(rows_of(texts, prefix), abs=1e-6)
    assert len(server.connections) == 1  # which was kept


def test_rows_of_openai_are_put_in_the_order_of_their_indexes(server):
    server.answers = [serving.altered(lambda answer: answer["data"].reverse())]
    embedder = at(server, "openai")
    assert embedder.embed(["a", "b", "c"], "query") == pytest.approx(
        rows_of(["a", "b", "c"]), abs=1e-6
    )
    embedder.close()


@both
def test_an_enormous_text_is_cut_before_it_is_sent(server, embedder):
    embedder.embed(["x" * 3_000_000], "document")
    (sent,) = server.requests[0].body["input"]
    assert sent.count("x") == 8_000


@both
def test_empty_texts_are_refused_before_anybody_is_asked(server, embedder):
    for texts in ([""], ["fine", " \n\t "], []):
        with pytest.raises(InvalidArgument):
            embedder.embed(texts, "document")
    assert server.requests == []


@both
def test_a_lone_surrogate_is_no_obstacle(server, embedder):
    assert embedder.embed(["broken \ud83d emoji"], "document").shape == (1, serving.DIM)
    assert server.requests[0].body["input"][0].endswith("broken ? emoji")


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("ollama:mxbai-embed-large", "mxbai-embed-large:latest"),
        ("ollama:mxbai-embed-large:latest", "mxbai-embed-large"),
        ("openai:text-embedding-ada-002", "text-embedding-ada-002-v2"),
        ("openai:text-embedding-ada-002", None),
    ],
)
def test_other_spellings_of_the_same_model_are_taken(server, asked, answered):
    server.answers = [serving.altered(lambda answer: answer.update(model=answered))]
    embedder = at(server, asked)
    assert embedder.embed(["one"], "document").shape == (1, serving.DIM)
    embedder.close()


def test_two_threads_may_ask_at_the_same_time(server):
    together = threading.Barrier(2)

    def both_there(exchange):
        together.wait(60)
        serving.well_behaved(exchange)

    server.answers = [both_there, both_there]
    embedder = at(server, "ollama", timeout_s=60)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(embedder.embed, [text], "query") for text in ("one", "two")]
        for text, future in zip(("one", "two"), asked, strict=True):
            expected = rows_of([text], "search_query: ")
            assert future.result(60) == pytest.approx(expected, abs=1e-6)
    embedder.close()


def test_a_connection_that_the_server_closed_is_made_anew(server):
    def last_one(exchange):
        serving.raw(json.dumps(serving.answer_to(exchange.request)).encode())(exchange)
        exchange.hang_up()

    server.answers = [last_one]
    embedder = at(server, "ollama")
    for _ in range(3):
        embedder.embed(["one"], "query")
    assert len(server.connections) == 2
    embedder.close()


# -- wrong answers


def replaced(*values):
    """The right answer for the first texts, with these vectors instead."""

    def change(answer):
        if "embeddings" in answer:
            answer["embeddings"] = list(values)
        else:
            answer["data"] = [{"index": n, "embedding": row} for n, row in enumerate(values)]

    return serving.altered(change)


@both
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (([1.0, 2.0], [1.0, 2.0, 3.0]), "different lengths"),
        (([1.0, 2.0], [1.0, "2.0"]), "plain numbers"),
        (([1.0, 2.0], [1.0, None]), "plain numbers"),
        (([1.0, 2.0], None), "different lengths"),
        ((None, None), "plain numbers"),
        (("AACAPw==", "AACAPw=="), "plain numbers"),
        (([1.0, 2.0], [0.0, 0.0]), "text 1 with nothing but zeros (1 of 2 rows)"),
        (([1.0, 1e39], [1.0, 1.0]), "text 0 with NaN or infinite"),
        (([1.0, 10**400], [1.0, 1.0]), "plain numbers"),
        (([[1.0, 2.0]], [[1.0, 2.0]]), "shape (2, 1, 2)"),
        (([1.0], [1.0]), "1 numbers"),
        (([], []), "0 numbers"),
        (([0.5] * 8193, [0.5] * 8193), "8,193 numbers"),
        (([1.0, 2.0],), "1 "),
        ((), "0 "),
        (([1.0, 2.0], [1.0, 2.0], [1.0, 2.0]), "3 "),
    ],
)
def test_wrong_vectors_are_refused(server, embedder, rows, said):
    server.answers = [replaced(*rows)]
    assert said in str(refusal(embedder, ["one", "two 4711"]))
    assert embedder.embed(["one", "two"], "document").shape == (2, serving.DIM)  # as before


@both
@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_are_none_are_refused(server, embedder, literal):
    def answer(exchange):
        body = json.dumps(serving.answer_to(exchange.request)).encode()
        number = json.dumps(serving.vector(exchange.request.body["input"][0])[3]).encode()
        assert body.count(number) >= 1
        serving.raw(body.replace(number, literal, 1))(exchange)

    server.answers = [answer]
    assert "finite" in str(refusal(embedder))


@both
def test_another_dimension_than_before_is_refused_until_it_is_right_again(server, embedder):
    first = embedder.embed(["one"], "document")
    server.answers = [serving.altered(lambda answer: None, dim=12)]
    error = refusal(embedder)
    assert "12" in str(error)
    assert str(serving.DIM) in str(error)
    assert error.permanent
    assert (embedder.embed(["one"], "document") == first).all()


@both
def test_another_dimension_in_the_second_batch_is_refused(server, embedder):
    server.answers = [serving.well_behaved, serving.altered(lambda answer: None, dim=12)]
    assert refusal(embedder, ["text 4711"] * 65).permanent


@both
@pytest.mark.parametrize(
    "model", ["another-model", "", 7, [], "the safe's number is 4711", "x" * 101]
)
def test_an_answer_for_another_model_is_refused(server, embedder, model):
    server.answers = [serving.altered(lambda answer: answer.update(model=model))]
    error = refusal(embedder)
    assert error.permanent
    assert ("another-model" in str(error)) == (model == "another-model")


def test_ollama_has_to_name_the_model(server):
    server.answers = [serving.altered(lambda answer: answer.pop("model") and None)]
    embedder = at(server, "ollama")
    assert refusal(embedder).permanent
    embedder.close()


@pytest.mark.parametrize("indexes", [(0, 0), (0, 2), (-1, 0), (0, None), (0, "1"), (0, True)])
def test_each_index_has_to_be_there_once(server, indexes):
    def change(answer):
        for item, index in zip(answer["data"], indexes, strict=True):
            item["index"] = index

    server.answers = [serving.altered(change)]
    embedder = at(server, "openai")
    assert "1 different indexes for 2 texts" in str(refusal(embedder, ["one", "two"]))
    embedder.close()


def test_items_that_are_no_objects_are_refused(server):
    server.answers = [serving.altered(lambda answer: answer.update(data=[[1.0], None]))]
    embedder = at(server, "openai")
    assert "0 different indexes" in str(refusal(embedder, ["one", "two"]))
    embedder.close()


@both
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>the safe's number is 4711</html>",
        b'{"model": "nomic',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"[]",
        b"null",
        b"3",
        b'"4711"',
        b"\xff\xfe\x00",
        b'{"model": ' + b"9" * 10_000 + b"}",
    ],
    ids=range(11),
)
def test_a_body_that_is_no_json_object_is_refused(server, embedder, body):
    server.answers = [serving.raw(body)]
    error = refusal(embedder)
    assert f"{len(body):,} bytes" in str(error)
    assert error.__cause__ is None  # a JSON error carries the body


@both
@pytest.mark.parametrize("listed", [None, 3, "4711", {"0": [1.0, 2.0]}])
def test_no_list_of_vectors_is_refused(server, embedder, listed):
    change = lambda answer: answer.update(embeddings=listed, data=listed)  # noqa: E731
    server.answers = [serving.altered(change)]
    assert "no list" in str(refusal(embedder))
