"""Which Cypher may be asked: by its text, and what the engines then really do with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elytron.errors import ElytronError, InvalidArgument
from elytron.graph.client import GraphClient
from elytron.graph.readonly import QUERY_MAX_CHARS, question
from graphs import COUNT, ENGINES, agent, ask, build, clients

SECRET = "the secret of the other file"

READING = (
    "MATCH (n) RETURN n",
    "  match (n)\nRETURN n;",
    "OPTIONAL MATCH (n:Note) RETURN count(*) ; ;",
    "UNWIND [1, 2] AS x WITH x WHERE x > 1 RETURN x",
    "MATCH (n:COPY)-[r:LOAD|SET]->(m) RETURN n.delete, {create: 1, set : 2}.set",
    "MATCH (n) WHERE n.text CONTAINS 'COPY this; DELETE that' RETURN n",
    "MATCH (n) RETURN n.text AS `load`",
    'RETURN "LOAD \\" FROM \\\\" // COPY what\n, 1 /* SET\n DELETE */',
    "CALL show_tables() RETURN *",
    "EXPLAIN MATCH (n) RETURN n",
    "RETURN $copy, $`set`, $1",
    "RETURN 'écopyé'",
)
REFUSED = {
    "": "empty",
    " // nothing\n": "empty",
    "COPY (MATCH (n) RETURN n) TO 'x.csv'": "COPY at line 1, column 1",
    "MATCH (n)\n  SET n.a = 1": "SET at line 2, column 3",
    "MATCH (n) DETACH DELETE n": "DETACH at line 1, column 11",
    "MERGE (n:Note {id: 1})": "MERGE",
    "LOAD FROM 'x.csv' RETURN *": "LOAD",
    "MATCH (n) LOAD FROM 'x.csv' RETURN *": "LOAD",
    "MATCH (n) WHERE n.a = 1. LOAD FROM 'x.csv' RETURN *": "LOAD",
    "MATCH (n) WHERE n.a = 1.LOAD FROM 'x.csv' RETURN *": "LOAD",
    "RETURN 1; RETURN 2": "one statement at a time",
    "RETURN 1; COPY (RETURN 1) TO 'x'": "one statement at a time",
    "CALL threads=1": "CALL",
    "CALL show_tables=1": "CALL",
    "CALL create_fts_index('a', 'b', ['c'])": "CALL",
    "MATCH (n) CALL read_csv('x') RETURN *": "CALL",
    "EXPLAIN COPY (RETURN 1) TO 'x'": "COPY",
    "PROFILE ANALYZE": "begins with 'ANALYZE'",
    "EXPORT DATABASE 'x'": "EXPORT",
    "BEGIN TRANSACTION": "BEGIN",
    "RETRUN 1": "begins with 'RETRUN' at line 1, column 1",
    "`MATCH` (n)": "begins with",
    "RETURN 'abc": "never closed",
    "RETURN `abc": "never closed",
    "RETURN 'a' COPY": "COPY at line 1, column 12",
}  # fmt: skip


@pytest.mark.parametrize("query", READING)
def test_what_reads_is_let_through(query):
    assert len(question(query).text) == len(query)


@pytest.mark.parametrize(("query", "named"), REFUSED.items())
def test_what_does_more_is_refused_with_its_word_and_place(query, named):
    with pytest.raises(InvalidArgument) as refused:
        question(query)
    assert named in str(refused.value)


def test_parameters_are_found_and_comments_are_blank():
    asked = question("RETURN $a, '$b', $`c d` // $e\n, /* $f */ $_g1")
    assert asked.parameters == {"a", "c d", "_g1"}
    assert asked.text == "RETURN $a, '$b', $`c d`      \n,          $_g1"


def test_a_query_has_a_largest_size():
    question("RETURN 1" + " " * (QUERY_MAX_CHARS - 8))
    with pytest.raises(InvalidArgument, match=f"{QUERY_MAX_CHARS:,}"):
        question("RETURN 1" + " " * (QUERY_MAX_CHARS - 7))


@pytest.fixture(scope="module", params=ENGINES)
def asked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GraphClient, Path]]:
    """A graph to ask, beside a file that must not be read, where no other may appear."""
    with clients(engine=request.param) as make:
        client, folder = make(), agent(tmp_path_factory.mktemp("asked"))
        build(client, folder, 3)
        (folder.parent / "secret.csv").write_text(f"{SECRET}\n")
        yield client, folder


MORE = (
    "COPY (RETURN 1 AS x) TO 'WITNESS'", "LOAD FROM 'SECRET' RETURN *", "EXPORT DATABASE 'WITNESS'",
    "CREATE (:Note {id: 'new'})", "DELETE n", "CALL threads=1",
)  # fmt: skip
GLUE = (
    " ", ";", " ; ", "\n", "\r", "; ", "'", '"', "`", "\\", "/*", "*/", "*", "//", "--", "#", "1.",
    "..", ".", ":", "|", "(", ")", "$", "é", "\u00a0", "\x00", "\x1c", "EXPLAIN ", "WITH n ",
)  # fmt: skip
FIRST = ("RETURN 1", "MATCH (n:Note) ", "MATCH (n:Note) WHERE n.number = ", "")


@given(
    st.sampled_from(FIRST),
    st.lists(st.sampled_from(GLUE), max_size=3),
    st.sampled_from(MORE),
    st.lists(st.sampled_from(GLUE), max_size=2),
)
@settings(max_examples=1500)
def test_no_mixture_of_words_and_quotes_gets_past_reading(asked, first, before, more, after):
    """
    Method: real engines are asked what more than a thousand mixtures of words, quotes, escapes
    and comments let through; no file may appear, none be read, and the graph stays as it is.
    """
    client, folder = asked
    text = "".join([first, *before, more, *after])
    text = text.replace("WITNESS", str(folder.parent / "witness.csv"))
    text = text.replace("SECRET", str(folder.parent / "secret.csv"))
    try:
        rows = ask(client, folder, text)
    except ElytronError:
        rows = []
    assert not any(SECRET in str(row) for row in rows)
    assert not list(folder.parent.glob("witness*"))
    assert ask(client, folder, COUNT) == [(3,)]


def test_a_comment_that_the_engine_ends_elsewhere_hides_nothing(asked):
    """For the engines `/***/` only begins a comment; so they are shown none."""
    client, folder = asked
    witness = folder.parent / "witness.csv"
    text = f' /* */ COPY (RETURN 1 AS x) TO "{witness}" // '
    assert ask(client, folder, f"/***/ RETURN '{text}'") == [(text,)]
    assert not witness.exists()


@pytest.mark.parametrize(
    "query",
    ["MATCH (n:Note) SET n.number = 1", "COMMENT ON TABLE Note IS 'x'", "DROP TABLE Note"],
)
def test_the_engine_itself_refuses_to_write_where_the_text_did_not(asked, monkeypatch, query):
    """Method: the look at the text is taken away."""
    client, folder = asked
    module = __import__("elytron.graph.client", fromlist=["question"])
    monkeypatch.setattr(module, "question", lambda text: question("RETURN 1")._replace(text=text))
    with pytest.raises(InvalidArgument, match="can only read"):
        ask(client, folder, query)
    monkeypatch.undo()
    assert ask(client, folder, "MATCH (n:Note) RETURN sum(n.number)") == [(3,)]
