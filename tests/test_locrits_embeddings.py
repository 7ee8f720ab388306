"""The origin's class with embeddings: who makes them, of what, and how they are found by."""

from pathlib import Path
from typing import Any

import pytest

import embedding_server as servers
from elytron.adapters import locrits_shapes, locrits_stores
from elytron.adapters.locrits import KuzuMemoryService, MemoryManagerService
from elytron.adapters.locrits_stores import Wished
from elytron.errors import InvalidSetting
from locrits import base_path, open_service, run

pytest.importorskip("wordllama")

base = base_path()
KITTEN = "We adopted a small kitten yesterday"
RENT = "She paid the rent for the whole year"


def enable(**settings: str) -> None:
    """The program's own `config.yaml`, with embeddings on."""
    lines = [f"  {name}: {value}\n" for name, value in settings.items()]
    Path("config.yaml").write_text("memory:\n  enable_embeddings: true\n" + "".join(lines))


# -- who makes them


def test_ollama_makes_them_with_the_model_that_the_program_names(base: Path) -> None:
    enable()
    assert locrits_stores.settings(Wished()).embedder == "ollama"
    assert locrits_stores.settings(Wished()).embedding_model == "nomic-embed-text"
    assert locrits_stores.settings(Wished("bge-m3")).embedding_model == "bge-m3"


def test_a_model_or_an_embedder_of_the_settings_wins(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable(embedding_model="mxbai-embed-large", embedding_url="http://127.0.0.1:1")
    found = locrits_stores.settings(Wished("bge-m3"))
    assert (found.embedder, found.embedding_model) == ("ollama", "mxbai-embed-large")
    assert found.embedding_url == "http://127.0.0.1:1"
    enable(embedder="wordllama")
    for wished in (Wished(), Wished("bge-m3"), Wished(mode="other")):
        found = locrits_stores.settings(wished)
        assert (found.embedder, found.embedding_model) == ("wordllama", None)
    enable()
    monkeypatch.setenv("ELYTRON_EMBEDDER", "wordllama")
    assert locrits_stores.settings(Wished()).embedder == "wordllama"


@pytest.mark.parametrize("block", ["", "memory:\n", "memory:\n  ", "ollama: {}\n"])
def test_without_a_word_of_them_they_are_off(base: Path, block: str) -> None:
    Path("config.yaml").write_text(block)
    assert locrits_stores.settings(Wished()) == locrits_stores.settings()
    assert locrits_stores.settings(Wished(mode="other")).enable_embeddings is False


def test_a_named_file_and_the_environment_enable_them_too(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("other.yaml").write_text("enable_embeddings: true\nqueue_max: 5\n")
    with monkeypatch.context() as patched:
        patched.setenv("ELYTRON_CONFIG", "other.yaml")
        found = locrits_stores.settings(Wished("bge-m3"))
        assert (found.embedding_model, found.queue_max) == ("bge-m3", 5)
        patched.setenv("ELYTRON_ENABLE_EMBEDDINGS", "false")
        assert locrits_stores.settings(Wished()).enable_embeddings is False
        patched.setenv("ELYTRON_CONFIG", "nowhere.yaml")
        with pytest.raises(InvalidSetting, match="cannot be read"):
            locrits_stores.settings(Wished())
    monkeypatch.setenv("ELYTRON_ENABLE_EMBEDDINGS", "true")
    assert locrits_stores.settings(Wished("bge-m3")).embedding_model == "bge-m3"


def test_a_mode_that_is_not_known_is_refused_with_the_way_out(base: Path) -> None:
    enable()

    async def use() -> None:
        bob = KuzuMemoryService("Bob", base, inference_mode="other")
        with pytest.raises(InvalidSetting, match="name an `embedder`"):
            await bob.initialize()

    run(use())
    assert not base.exists()


def test_two_services_of_one_base_path_have_one_embedder(base: Path) -> None:
    async def use(*, refused: bool) -> None:
        async with open_service(base, "Bob"):
            dora = KuzuMemoryService("Dora", base, embedding_model="bge-m3")
            if not refused:
                assert await dora.initialize()
            else:
                with pytest.raises(InvalidSetting, match=r"'bge-m3' \(ollama\) is asked for"):
                    await dora.initialize()
            await dora.close()

    run(use(refused=False))  # they are off, so it makes no difference
    enable(embedder="wordllama")
    run(use(refused=False))  # the settings say which, whoever asks for what
    enable()
    run(use(refused=True))


def test_what_is_off_stays_as_it_was(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            assert bob.embeddings_enabled is False
            await bob.save_message("user", KITTEN, "s", generate_embedding=True)
            assert (await bob.search_memories("kitten"))[0]["content"] == KITTEN
            assert await bob.search_memories("pet cat animal") == []
            assert (await bob.get_memory_usage())["estimated_embedding_size_mb"] == 0
            usage = await (await bob._memory()).usage()
            assert usage.embeddings.reasons == {"disabled": 1}

    run(use())


# -- of what


@pytest.mark.parametrize(
    ("role", "content", "asked", "wanted"),
    [
        ("user", "x" * 21, None, True),
        ("user", "x" * 20, None, False),
        ("tool", "x" * 21, None, True),
        ("system", "x" * 21, None, False),
        ("system", "x", True, True),
        ("user", "x" * 21, False, False),
        ("user", None, None, False),
    ],
)
def test_the_origins_rule_says_what_gets_a_vector(
    role: str, content: Any, asked: bool | None, wanted: bool
) -> None:
    assert locrits_shapes.wants_vector(role, content, asked=asked) is wanted


def test_messages_get_vectors_by_that_rule_and_their_size_is_told(base: Path) -> None:
    enable(embedder="wordllama")

    async def use() -> None:
        async with open_service(base) as bob:
            assert bob.embeddings_enabled is True
            await bob.save_message("user", KITTEN, "s")
            await bob.save_message("tool", RENT, "s")
            await bob.save_message("user", "ok", "s", generate_embedding=True)
            await bob.save_message("user", RENT + " long", "s", generate_embedding=False)
            await bob.save_message("system", "You are kind and answer in short", "s")
            memory = await bob._memory()
            await memory.flush()
            usage = await memory.usage()
            assert usage.embeddings.reasons == {"embedded": 3, "declined": 2}
            told = await bob.get_memory_usage()
            assert told["estimated_embedding_size_mb"] == usage.bytes.vectors / (1 << 20) > 0
        assert bob.embeddings_enabled is True

    run(use())


def test_ollama_is_asked_in_earnest(base: Path) -> None:
    async def use(server: servers.Server) -> None:
        async with open_many(base) as many:
            await many.save_message("Bob", "user", KITTEN, "s")
            bob = await many.get_memory_service("Bob")
            await (await bob._memory()).flush()
            rows = await many.search_memories("Bob", "kitten")
            assert [row["content"] for row in rows] == [KITTEN]
            assert {request.body["model"] for request in server.requests} == {"nomic-embed-text"}
            assert {request.path for request in server.requests} == {"/api/embed"}

    with servers.running() as server:
        enable(embedding_url=server.url)
        run(use(server))


class open_many:  # noqa: N801 - used as a function
    """All memories of a base path, open for the length of an `async with`."""

    def __init__(self, base: Path) -> None:
        self._many = MemoryManagerService(base)

    async def __aenter__(self) -> MemoryManagerService:
        await self._many.initialize()
        return self._many

    async def __aexit__(self, *_: object) -> None:
        await self._many.close_all()


# -- finding by them


def test_what_shares_no_word_is_found_and_kinds_stay_apart(base: Path) -> None:
    enable(embedder="wordllama", embed_query_timeout_s="60")  # else words alone answer

    async def use() -> None:
        async with open_service(base) as bob:
            await bob.save_message("user", KITTEN, "s", "alice")
            await bob.save_message("user", RENT, "t", "alice")
            cat = await bob.add_memory("The old cat was ill in spring", 0.9)
            flat = await bob.add_memory("Alice prefers a quiet flat", 0.2)
            await (await bob._memory()).flush()
            rows = await bob.search_memories("pet animal", 1)
            assert [(row["content"], row["similarity_score"]) for row in rows] == [(KITTEN, 1.0)]
            only = await bob.vector_search_messages("pet animal", session_id="t")
            assert {row["session_id"] for row in only} == {"t"}
            found = await bob.vector_search_memories("pet animal")
            assert found[0]["id"] == cat
            assert {row["id"] for row in found} <= {cat, flat}
            kept = await bob.vector_search_memories("pet animal", min_importance=0.5)
            assert [row["id"] for row in kept] == [cat]
            known = await bob.get_contextual_memories("pet animal", session_id="s")
            assert {row["type"] for row in known[:2]} == {"message", "memory"}
            assert known[0]["relevance"] == 1.0
            assert all(0 <= row["relevance"] <= 1 for row in known)

    run(use())


def test_memories_that_matter_are_found_among_many_that_do_not(base: Path) -> None:
    """A recall ranks the best fifty memories; the one that matters is beyond them."""

    async def use() -> None:
        async with open_service(base) as bob:
            for number in range(60):
                await bob.add_memory(f"zebra {number}", 0.1)
            wanted = await bob.add_memory("one zebra among a lot of other words " * 5, 0.9)
            rows = await bob.vector_search_memories("zebra", min_importance=0.5)
            assert [row["id"] for row in rows] == [wanted]
            everything = await bob.vector_search_memories("zebra", limit=100)
            assert len({row["id"] for row in everything}) == len(everything) == 61
            scores = [row["similarity_score"] for row in everything]
            assert scores == sorted(scores, reverse=True)
            assert scores[-1] > 0

    run(use())
