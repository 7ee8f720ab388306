"""The projection with a real worker: a graph that has all that the ledger has, whatever befell."""

import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron.errors import Busy, Corrupt, OverBudget
from elytron.graph import batches, projection
from elytron.graph.client import GraphClient
from elytron.graph.files import GraphFolder
from elytron.ledger import files
from projecting import DEADLINE_S, Graph, clients, fill, graph_folder, projecting, same, why_built

OpenStore = Callable[..., elytron.Store]
MESSAGES = "MATCH (m:Message) RETURN count(*)"
START = datetime(2024, 5, 8, tzinfo=UTC)


@pytest.fixture
def start_client() -> Iterator[Callable[[str], GraphClient]]:
    with clients() as start:
        yield start


@pytest.fixture
def client(start_client: Callable[[str], GraphClient]) -> GraphClient:
    return start_client("ladybug")


@pytest.mark.ledgers
def test_a_question_is_answered_with_all_that_was_saved_before_it(
    bob: elytron.Agent, client: GraphClient
):
    fill(bob, 3)
    with projecting(bob, client) as graph:
        assert graph.rows(MESSAGES) == [(3,)]
        for count in range(4, 8):
            fill(bob, 1, first=100 * count)
            assert graph.rows(MESSAGES) == [(count,)]


def test_before_a_first_question_there_is_no_file_and_no_process(
    bob: elytron.Agent, client: GraphClient, folder: Path
):
    fill(bob, 3)
    with projecting(bob, client) as graph:
        assert client.status().pid is None
        assert not graph_folder(folder).exists()
        graph.catch_up()
        assert client.status().pid is not None


def test_a_graph_that_is_up_to_date_is_asked_in_one_call(
    bob: elytron.Agent, client: GraphClient, monkeypatch: pytest.MonkeyPatch
):
    fill(bob, 3)
    with projecting(bob, client) as graph:
        graph.rows(MESSAGES)
        for verb in ("state", "begin", "load", "finish", "apply"):
            monkeypatch.setattr(client, verb, lambda *_, **__: pytest.fail("called"))
        assert graph.rows(MESSAGES) == [(3,)]


def test_an_agent_that_holds_nothing_any_more_has_an_empty_graph(
    bob: elytron.Agent, client: GraphClient
):
    fill(bob, 3)
    bob.clear()
    with projecting(bob, client) as graph:
        same(graph)
        assert graph.rows(MESSAGES) == [(0,)]


@pytest.mark.ledgers
def test_more_changes_than_are_kept_build_the_graph_anew(
    open_store: OpenStore, client: GraphClient
):
    store = open_store(change_max=100)
    bob = store.agent("bob")
    fill(bob, 50)
    with projecting(bob, client) as graph:
        same(graph)
        for number in range(150):
            bob.edit(f"m{number % 50}", f"new {number}")
        same(graph)
    assert why_built(store) == "more changed than `change_max`"


def test_a_graph_that_is_deleted_while_it_is_compared_with_its_ledger_is_built_again(
    bob: elytron.Agent, client: GraphClient, monkeypatch: pytest.MonkeyPatch
):
    """As by another process that forgets somebody."""
    fill(bob, 3)
    with projecting(bob, client) as graph:
        graph.catch_up()
    plain = client.query

    def query(folder: Path, *arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(client, "query", plain)
        client.drop(folder, deadline=time.monotonic() + DEADLINE_S)
        return plain(folder, *arguments, **named)

    monkeypatch.setattr(client, "query", query)
    with projecting(bob, client) as graph:
        same(graph)
        assert graph.rows(MESSAGES) == [(3,)]


def test_dead_rows_are_given_back_by_building_anew(store: elytron.Store, client: GraphClient):
    bob = store.agent("bob")
    fill(bob, 100)
    with projecting(bob, client) as graph:
        graph.catch_up()
        for turn in range(3):
            for number in range(100):
                bob.edit(f"m{number}", f"turn {turn}")
            graph.catch_up()
        same(graph)
        state = graph.state()
        assert state.dead < 500
    assert why_built(store).endswith("rows were dead")


def test_links_that_are_made_anew_with_their_concept_leave_dead_ones_behind(
    store: elytron.Store, client: GraphClient
):
    bob = store.agent("bob")
    bob.relate("Alice", "is", "somebody")
    fill(bob, 300)
    bob.flush()
    with projecting(bob, client) as graph:
        graph.catch_up()
        for description in ("once", "twice"):
            bob.set_concept("Alice", description=description)
            graph.catch_up()
        same(graph)
    assert why_built(store).endswith("rows were dead")


def test_a_graph_without_room_to_be_brought_up_to_date_is_built_anew_once(
    store: elytron.Store, client: GraphClient
):
    bob = store.agent("bob")
    fill(bob, 50)
    refusals = list[str]()

    def allow(_name: str, _size_bytes: int) -> None:
        if refusals:
            raise OverBudget(refusals.pop())

    with projecting(bob, client, allow=allow) as graph:
        graph.catch_up()
        bob.edit("m1", "something else")
        graph.catch_up()
        fill(bob, 1, first=50)
        refusals += ["in steps", "exactly"]
        same(graph)
        assert why_built(store) == "there was no room to bring it up to date"
        bob.edit("m1", "something else again")
        graph.catch_up()
        fill(bob, 1, first=51)
        refusals += ["no room"] * 100
        with pytest.raises(OverBudget):
            graph.catch_up()
        assert len(refusals) > 90, "tried once more, and not for ever"


@pytest.mark.parametrize("goes_on", [0, 60])
def test_a_graph_of_a_past_that_the_ledger_lost_is_built_anew(
    goes_on: int, open_store: OpenStore, client: GraphClient, folder: Path, tmp_path: Path
):
    """
    An older copy of the ledger is put back, and its numbers are used again for something else.
    """
    with open_store() as store:
        fill(store.agent("bob"), 20)
    agent_folder = files.agent_folder(folder, "bob")
    shutil.copytree(agent_folder, tmp_path / "copy")
    with open_store() as store:
        fill(store.agent("bob"), 20, first=1000)
        with projecting(store.agent("bob"), client) as graph:
            same(graph)
            client.release(graph.folder)
    shutil.copy(tmp_path / "copy" / files.LEDGER, agent_folder / files.LEDGER)
    store = open_store()
    if goes_on:
        fill(store.agent("bob"), goes_on, first=2000)
    with projecting(store.agent("bob"), client) as graph:
        assert graph.rows(MESSAGES) == [(20 + goes_on,)]
        same(graph)
    assert why_built(store) == (
        "it was of another past of the ledger" if goes_on else "the ledger is older than the graph"
    )


@pytest.mark.ledgers
def test_a_graph_is_still_known_when_its_ledger_is_opened_again(
    open_store: OpenStore, client: GraphClient
):
    with open_store() as store:
        fill(store.agent("bob"), 50)
        with projecting(store.agent("bob"), client) as graph:
            same(graph)
    store = open_store()
    bob = store.agent("bob")
    bob.delete("m49")
    bob.edit("m48", "other")
    fill(bob, 5, first=100)
    bob.delete("m100")
    with projecting(bob, client) as graph:
        same(graph)
    assert why_built(store) == "there was none"


def test_another_engine_builds_a_graph_of_its_own(
    open_store: OpenStore, start_client: Callable[[str], GraphClient]
):
    for engine, count in (("ladybug", 5), ("kuzu", 3), ("ladybug", 4)):
        client = start_client(engine)
        with open_store(engine=engine) as store:
            bob = store.agent("bob")
            fill(bob, count, first=100 * count)
            with projecting(bob, client) as graph:
                same(graph)
                client.release(graph.folder)


def test_another_version_of_the_projection_builds_anew(
    store: elytron.Store, client: GraphClient, monkeypatch: pytest.MonkeyPatch
):
    bob = store.agent("bob")
    fill(bob, 5)
    with projecting(bob, client) as graph:
        graph.catch_up()
    monkeypatch.setattr(projection, "VERSION", projection.VERSION + 1)
    with projecting(bob, client) as graph:
        same(graph)
    assert why_built(store) == "it was of another ledger, engine or version"


@pytest.mark.ledgers
def test_saving_goes_on_while_a_graph_is_built(bob: elytron.Agent, client: GraphClient):
    fill(bob, 300)
    bob.remember("Alice likes tea", about=["Alice", "tea"], session="s1")
    stop, saved = threading.Event(), list[int]()

    def save() -> None:
        while not stop.is_set():
            number = 1000 + len(saved)
            fill(bob, 1, first=number)
            bob.edit(f"m{number % 300}", "edited")
            bob.delete(f"m{number - 500}")
            bob.relate("Alice", "saw", f"thing {number % 7}")
            bob.set_concept("tea", rename="Coffee") if number % 2 else None
            bob.set_concept("Coffee", rename="tea") if not number % 2 and saved else None
            saved.append(number)

    with projecting(bob, client) as graph:
        thread = threading.Thread(target=save)
        thread.start()
        try:
            for _ in range(3):
                before = len(saved)
                while len(saved) == before:
                    assert thread.is_alive()
                graph.rebuild()
        finally:
            stop.set()
            thread.join(DEADLINE_S)
        same(graph)


def test_threads_that_ask_at_once_are_all_answered(bob: elytron.Agent, client: GraphClient):
    fill(bob, 10)
    answers = list[Any]()

    def ask(graph: Graph, number: int) -> None:
        fill(bob, 1, first=1000 + number)
        answers.append(graph.rows(MESSAGES)[0][0])

    with projecting(bob, client) as graph:
        threads = [threading.Thread(target=ask, args=(graph, number)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        same(graph)
    assert len(answers) == 12
    assert all(10 < answer <= 22 for answer in answers)


def test_a_worker_that_dies_before_any_call_costs_neither_an_answer_nor_a_change(
    bob: elytron.Agent, client: GraphClient, monkeypatch: pytest.MonkeyPatch
):
    """
    Method: kill the worker before the 1st call of a build and the pages after it, then before the
    2nd, and so on, until a run ends with no kill.
    """
    monkeypatch.setattr(batches, "PAGE_MAX", 20)
    monkeypatch.setattr(batches, "BUILD_MAX", 20)
    calls, fatal = [0], [0]
    for verb in ("state", "begin", "load", "finish", "apply"):
        monkeypatch.setattr(client, verb, killing(client, getattr(client, verb), calls, fatal))
    fill(bob, 50)
    with projecting(bob, client) as graph:
        graph.catch_up()
        for number in itertools.count(1):
            calls[0], fatal[0] = 0, number
            graph.rebuild()
            for edited in range(40):  # as many pages each time
                bob.edit(f"m{edited}", f"round {number}")
            rows = graph.rows(
                "MATCH (m:Message) WHERE m.content = $t RETURN m.id", t=f"round {number}"
            )
            assert len(rows) == 40
            if calls[0] < number:
                break
        assert number > 8
        same(graph)


def killing(
    client: GraphClient, verb: Callable[..., Any], calls: list[int], fatal: list[int]
) -> Callable[..., Any]:
    """A verb of the client that counts, and kills the worker before the fatal call."""

    def call(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        pid = client.status().pid
        if calls[0] == fatal[0] and pid is not None:
            os.kill(pid, signal.SIGKILL)
        return verb(*args, **options)

    return call


def test_a_damaged_graph_is_built_anew_and_the_damage_told(
    store: elytron.Store, client: GraphClient
):
    bob = store.agent("bob")
    fill(bob, 50)
    with projecting(bob, client) as graph:
        same(graph)
        client.release(graph.folder)
        main = GraphFolder(graph.folder, "ladybug").main
        data = bytearray(main.read_bytes())
        data[len(data) // 2] ^= 1
        main.write_bytes(data)
        same(graph)
    assert why_built(store).startswith("the file was damaged: ")


@pytest.mark.ledgers
def test_a_damaged_row_of_the_ledger_is_told_and_nothing_is_changed(
    open_store: OpenStore, client: GraphClient, look: Callable[..., list[Any]]
):
    with open_store() as store:
        fill(store.agent("bob"), 5)
    look("UPDATE messages SET content = 'other' WHERE id = 'm3'")
    with (
        projecting(open_store().agent("bob"), client) as graph,
        pytest.raises(Corrupt, match="row"),
    ):
        graph.catch_up()


def test_time_that_is_over_says_how_far_it_came_and_nothing_is_lost(
    bob: elytron.Agent, client: GraphClient, monkeypatch: pytest.MonkeyPatch
):
    fill(bob, 30)
    monkeypatch.setattr(batches, "PAGE_MAX", 3)
    with projecting(bob, client) as graph:
        graph.catch_up()
        position = graph.state().position
        fill(bob, 30, first=100)
        apply, ends = client.apply, list[float]()

        def apply_late(*args: Any, **options: Any) -> Any:
            """The clock of the projection strikes once the first page was applied."""
            state = apply(*args, **options)
            ends.append(options["deadline"])
            monkeypatch.setattr(projection.time, "monotonic", lambda: ends[0] + 1)
            return state

        monkeypatch.setattr(client, "apply", apply_late)
        with pytest.raises(Busy, match=r"\d+ of \d+ changes were done in time; retry"):
            graph.catch_up()
        monkeypatch.undo()
        reached = graph.state().position
        assert position is not None
        assert reached is not None
        assert position < reached
        same(graph)


def test_a_graph_that_may_not_grow_is_refused_and_leaves_nothing(
    bob: elytron.Agent, client: GraphClient
):
    fill(bob, 50)
    limit_bytes = [100_000]

    def allow(name: str, size_bytes: int) -> None:
        assert name == "bob"
        if size_bytes > limit_bytes[0]:
            raise OverBudget("no room")

    with projecting(bob, client, allow=allow) as graph:
        with pytest.raises(OverBudget):
            graph.catch_up()
        assert graph.state().bytes == 0
        limit_bytes[0] = 100 << 20
        same(graph)
        # Room for one alone: the old one goes before the new one is written.
        limit_bytes[0] = 3 << 20
        assert graph.rebuild().position
        same(graph)
        assert bob.usage().messages == 50


@pytest.mark.ledgers
def test_more_links_than_a_transaction_may_have_build_the_graph_anew(
    store: elytron.Store, client: GraphClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batches, "LINKS_MAX", 5)
    bob = store.agent("bob")
    for number in range(10):
        bob.relate("Alice", "saw", f"thing {number}")
    with projecting(bob, client) as graph:
        same(graph)
        bob.set_concept("Alice", rename="Alicia")
        same(graph)
    assert why_built(store) == "more than 5 links changed at once"


def test_two_processes_that_save_and_ask_are_both_answered(
    store: elytron.Store, client: GraphClient, start_script: Callable[..., Any]
):
    bob = store.agent("bob")
    fill(bob, 20)
    other = start_script(
        """
        import sys
        import time
        import elytron
        from elytron.config import Config
        from elytron.graph.client import GraphClient, Statement
        from elytron.graph.projection import Projection

        client = GraphClient(Config())
        with elytron.open(sys.argv[1]) as store:
            bob = store.agent("bob")
            with store._agents.use("bob", create=False) as agent:
                projection = Projection(client, store._agents.config)
                folder = agent.ledger.folder / "graph"
                print("ready", flush=True)
                for number in range(15):
                    bob.save("user", f"other {number}", id=f"other-{number}")
                    rows = projection.ask(
                        "bob", agent.ledger, folder,
                        Statement("MATCH (m:Message {id: $id}) RETURN m.content",
                                  {"id": f"other-{number}"}),
                        rows_max=10, bytes_max=1000, build_deadline=time.monotonic() + 50,
                        timeout_s=50,
                    ).rows
                    assert rows == [(f"other {number}",)], rows
        client.close()
        """,
        store.path,
    )
    assert other.stdout.readline() == "ready\n"
    with projecting(bob, client) as graph:
        for number in range(15):
            fill(bob, 1, first=1000 + number)
            rows = graph.rows("MATCH (m:Message {id: $id}) RETURN count(*)", id=f"m{1000 + number}")
            assert rows == [(1,)]
        _, complaints = other.communicate(timeout=DEADLINE_S)
        assert other.returncode == 0, complaints
        same(graph)
