"""The commands of embeddings: making vectors, finding by them, and what is told of them."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import elytron
import embedding_server as servers
from elytron.faces import embedding
from ledgers import ledger_path
from test_cli import Outcome, run

pytest.importorskip("wordllama")

Run = Callable[..., Outcome]
AT = datetime(2026, 3, 2, 18, 4, tzinfo=UTC)
WORDS = ("--embedder", "wordllama")
SET = ("--set", "embedder=wordllama")
PATIENT = (*SET, "--set", "embed_query_timeout_s=60")  # else words alone answer after two seconds
TEXTS = (
    "We adopted a small kitten yesterday",
    "The dentist appointment was moved to Friday",
    "Our train leaves from the central station",
    "She paid the rent for the whole year",
)


@pytest.fixture
def held(folder: Path) -> Run:
    """`elytron` on a store in which bob and eve hold what was saved while embeddings were off."""
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save_many(
            {"role": "user", "content": text, "session": "web", "id": f"m{n}", "at": AT}
            for n, text in enumerate(TEXTS)
        )
        bob.save("assistant", TEXTS[0], id="again")
        bob.save("user", "ok", id="short")
        bob.save("system", "You are kind and answer in one sentence.", id="system")
        bob.remember("Alice prefers a quiet flat", kind="preference", id="flat")
        bob.remember("The cat was ill in spring", session="web", id="ill")
        store.agent("eve").save("user", "The sea is cold and grey today")
    return lambda *words, **more: run(*words, store=folder, **more)


@pytest.fixture
def failing() -> Iterator[servers.Server]:
    """An Ollama that serves another model than it is asked for, however often it is asked."""
    with servers.running() as server:
        other = servers.altered(lambda answer: {**answer, "model": "another"})
        server.answers += [other] * 1000
        yield server


def at_server(server: servers.Server) -> tuple[str, ...]:
    return ("--set", "embedder=ollama", "--set", f"embedding_url={server.url}")


# -- making vectors


def test_what_was_saved_without_gets_its_vectors_and_the_table_says_how_many(held):
    shown = held("embed", "bob", *WORDS)
    assert (shown.code, shown.err) == (0, "")
    head, _, row = shown.out.splitlines()
    assert head.split("  ")[0] == "agent"
    assert row.split(maxsplit=4) == ["bob", "6", "1", "0", "1 of other roles, 1 too short"]
    again = held("embed", "bob", *SET).out.splitlines()[-1]
    assert again.split(maxsplit=4)[:4] == ["bob", "0", "0", "7"]


def test_programs_get_the_numbers_of_each_agent(held):
    assert held("embed", *WORDS, "--json").document == [
        {
            "agent": "bob", "embedded": 6, "shared": 1, "held": 0,
            "left_out": {"short": 1, "role": 1},
        },
        {"agent": "eve", "embedded": 1, "shared": 0, "held": 0, "left_out": {}},
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["embed", "reembed"])
def test_without_an_embedder_the_way_out_is_named(held, command):
    refused = held(command, "bob")
    assert (refused.code, refused.out) == (2, "")
    assert "embeddings are off" in refused.err
    assert "--embedder wordllama" in refused.err
    off = held(command, "bob", *WORDS, "--set", "enable_embeddings=false")
    assert off.code == 2
    assert "`enable_embeddings`" in off.err


def test_an_embedder_that_is_unknown_is_told_the_nearest(held):
    refused = held("embed", "bob", "--embedder", "wordlama")
    assert (refused.code, refused.out) == (2, "")
    assert "wordllama" in refused.err


def test_who_is_not_there_is_named_and_nothing_is_made(held, tmp_path):
    refused = held("embed", "bbo", *WORDS)
    assert (refused.code, refused.out) == (3, "")
    assert "did you mean 'bob'?" in refused.err
    nowhere = tmp_path / "nowhere"
    assert run("embed", *WORDS, store=nowhere).err == f"{nowhere} holds no agents\n"
    assert not nowhere.exists()


def test_ctrl_c_keeps_what_is_made_and_the_next_run_goes_on(folder, monkeypatch):
    """Method: the interrupt comes when the first page of messages is reported."""
    with elytron.open(folder) as store:
        store.agent("bob").save_many(
            {"role": "user", "content": f"This is message number {n}"} for n in range(450)
        )
    seen: list[tuple[int, int | None]] = []

    @contextlib.contextmanager
    def stop(*_args: Any, **_more: Any) -> Iterator[Callable[[int, int | None], None]]:
        def on_progress(done: int, total: int | None) -> None:
            seen.append((done, total))
            raise KeyboardInterrupt

        yield on_progress

    with monkeypatch.context() as patched:
        patched.setattr(embedding, "stepping", stop)
        stopped = run("embed", "bob", *WORDS, store=folder)
    assert stopped.code == 130
    ((done, total),) = seen
    assert (done, total) == (200, 450)
    (report,) = run("embed", "bob", *WORDS, "--json", store=folder).document
    assert (report["embedded"], report["held"]) == (450 - done, done)


def test_a_damaged_agent_keeps_the_others_from_nothing(held, folder):
    ledger_path(folder, "bob").write_bytes(b"")
    outcome = held("embed", *WORDS, "--json")
    assert outcome.code == 8
    bob, eve = outcome.document
    assert bob["cause"]["error"] == "corrupt"
    assert eve["embedded"] == 1


def test_an_embedder_that_fails_ends_with_13_and_is_asked_for_no_other_agent(held, failing):
    outcome = held("embed", *at_server(failing), "--json")
    assert outcome.code == 13
    (bob,) = outcome.document
    assert bob["agent"] == "bob"
    assert bob["cause"]["error"] == "embedder-unavailable"
    assert "kitten" not in outcome.out + outcome.err
    shown = held("embed", *at_server(failing))
    assert shown.out.splitlines()[-1].split() == ["bob", "embedder-unavailable"]


def test_with_another_embedder_one_is_told_to_reembed_and_can(held):
    held("embed", "bob", *WORDS)
    with servers.running() as server:
        other = at_server(server)
        for words in (("recall", "bob", "kitten"), ("embed", "bob")):
            refused = held(*words, *other)
            assert refused.code == 2
            assert "run `elytron reembed`" in refused.err
        (report,) = held("reembed", "bob", *other, "--json").document
        assert (report["embedded"], report["shared"], report["held"]) == (6, 1, 0)
        assert held("recall", "bob", "kitten", *other).code == 0
        assert held("usage", "bob", *other, "--json").document["embeddings"]["dim"] == servers.DIM


def test_what_there_is_no_room_for_is_told_with_the_setting(folder):
    with elytron.open(folder) as store:
        store.agent("bob").save_many(
            {"role": "user", "content": f"This is message number {n}"} for n in range(300)
        )
    shown = run("embed", *WORDS, "--set", "max_vector_mb=0.05", store=folder, COLUMNS="80")
    assert shown.code == 0
    assert "no room" in shown.out
    assert shown.out.splitlines()[-1].startswith("1 agent has no more room; raise `max_vector_mb`")


# -- saving


def test_saving_says_whether_a_vector_follows(held):
    text = "Something of more than twenty characters"

    def said(*words: str) -> str:
        return str(held("save", "bob", *words, "--json").document["embedding"])

    assert said("user", text, *SET) == "queued"
    assert said("user", text, "--no-embed", *SET) == "declined"
    assert said("tool", text, *SET) == "role"
    assert said("tool", "ok", "--embed", *SET) == "queued"
    assert said("user", text) == "disabled"


def test_who_asks_for_a_vector_where_there_are_none_is_told(held):
    shown = held("save", "bob", "user", "hello", "--embed", "--id", "h")
    assert (shown.code, shown.out) == (0, "saved h\n")
    assert shown.err.startswith("it gets no vector: embeddings are off")
    assert held("save", "bob", "user", "hello", "--id", "i").err == ""


# -- finding


def test_what_shares_no_word_is_found_by_its_vector(held):
    question = ("recall", "bob", "pet cat animal", "--kind", "message", "--limit", "1")
    assert held(*question, "--json").document == []
    held("embed", "bob", *WORDS)
    (hit,) = held(*question, *PATIENT, "--json").document
    assert hit["message"]["content"] == TEXTS[0]
    assert (hit["kind"], hit["memory"], hit["matched"]) == ("message", None, [])
    shown = held(*question, *PATIENT, "--why", COLUMNS="120").out
    assert "vectors 0." in shown
    for nothing in ("words", "date", "when", "speaker", "0.00"):
        assert nothing not in shown.splitlines()[2].partition("matched")[0]
    assert "matched: no word of its own" in shown


def test_memories_among_the_hits_are_marked_with_their_kind(held):
    shown = held("recall", "bob", "quiet flat", "--ids").out.splitlines()
    assert shown[0].split() == ["1", *shown[0].split()[1:3], "preference", "(memory)"]
    assert shown[1:3] == ["    Alice prefers a quiet flat", "    id flat"]
    of_session = held("recall", "bob", "ill cat").out.splitlines()[0]
    assert of_session.split()[-3:] == ["fact", "web", "(memory)"]
    (hit,) = held("recall", "bob", "quiet flat", "--json").document
    assert (hit["kind"], hit["memory"]["id"]) == ("preference", "flat")


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        ((), {"m0", "ill"}),
        (("message",), {"m0"}),
        (("memory",), {"ill"}),
        (("fact",), {"ill"}),
        (("preference",), set()),
        (("message", "fact"), {"m0", "ill"}),
    ],
)
@pytest.mark.parametrize("command", ["recall", "context"])
def test_only_the_kinds_that_are_named_are_hits(held, command, kinds, found):
    words = [word for kind in kinds for word in ("--kind", kind)]
    document = held(command, "bob", "kitten in spring", *words, "--json").document
    hits = document if command == "recall" else document["hits"]
    # Neighbours are hits too; those that hold a word of the question are enough here.
    holding = {hit["message"]["id"] for hit in hits if hit["matched"]}
    assert holding - {"again"} == found


def test_a_question_may_be_asked_at_another_time(folder):
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        ended = AT + timedelta(days=10)
        bob.remember("Alice lives in Lyon", id="then", valid_from=AT, valid_to=ended)
        bob.remember("Alice lives in Nantes", id="now", valid_from=ended)
    question = ("recall", "bob", "where does Alice live", "--json")

    def found(*words: str) -> list[str]:
        return [hit["memory"]["id"] for hit in run(*question, *words, store=folder).document]

    assert found() == ["now"]
    assert found("--at", "2026-03-05T12:00Z") == ["then"]
    assert run(*question, "--at", "soon", store=folder).code == 2


def test_where_options_narrow_nothing_found_does_not_speak_of_every_message(held):
    shown = held("recall", "bob", "kitten", "--session", "elsewhere")
    assert (shown.code, shown.out) == (0, "")
    assert shown.err == (
        "nothing was found: nothing that these options allow holds a word of this question\n"
    )


def test_while_the_embedder_fails_words_answer_and_a_note_says_so(held):
    with servers.running() as server:
        assert held("embed", "bob", *at_server(server)).code == 0
        server.answers += [servers.status(500)] * 50
        shown = held("recall", "bob", "kitten", *at_server(server))
        assert (shown.code, TEXTS[0] in shown.out) == (0, True)
        assert shown.err.startswith("words alone answered: ollama:nomic-embed-text")
        assert len(shown.err.splitlines()) == 1
        assert held("recall", "bob", "kitten", "--json", *at_server(server)).err == ""
        packed = held("context", "bob", "kitten", *at_server(server))
        assert TEXTS[0] in packed.out
        assert packed.err.startswith("words alone answered: ")


# -- what it costs


def test_usage_tells_what_made_the_vectors_and_why_others_have_none(held):
    assert "vectors  " not in held("usage", "bob").out.replace("indexes", "")
    held("embed", "bob", *WORDS)
    rows = {
        line.split("  ")[0]: line.split("  ", 1)[1].strip()
        for line in held("usage", "bob", *SET, COLUMNS="120").out.splitlines()
        if "  " in line
    }
    assert rows["vectors"].startswith("wordllama:l2_supercat, 256 dimensions, ")
    assert rows["vectors"].endswith(" of at most 25.0 MB")
    assert rows["embedded"] == "5 messages, 1 of them share one of an equal text"
    assert rows["without"] == "2 saved while embeddings were off"
    assert "embedder" not in rows


def test_usage_for_programs_carries_the_embeddings(held):
    held("embed", *WORDS)
    bob = held("usage", "bob", "--json").document
    found = bob["embeddings"]
    assert bob["embedded"] == 5
    assert found["reasons"] == {"embedded": 4, "shared": 1, "disabled": 2}
    assert (found["model"], found["dim"], found["queued"]) == ("wordllama:l2_supercat", 256, 0)
    assert 0 < found["bytes"] < found["limit_bytes"] == 25 << 20
    agents = held("usage", "--json").document["agents"]
    assert [agent["embeddings"]["model"] for agent in agents] == ["wordllama:l2_supercat"] * 2
