"""The graph's worker process and its client, with both engines."""

import datetime as dt
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import psutil
import pytest

from elytron.config import Config
from elytron.errors import Busy, Closed, DeadlineExceeded, GraphUnavailable, InvalidArgument
from elytron.graph.client import Behind, GraphClient, Statement
from graphs import (
    ENGINES,
    HUNGRY,
    IDENTITY,
    SCHEMA,
    SLOW,
    Call,
    add,
    agent,
    ask,
    build,
    clients,
    eventually,
    notes,
    running_calls,
    soon,
    state,
)

NOON = dt.datetime(2024, 5, 8, 12, 30, tzinfo=dt.UTC)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(engine: str) -> Iterator[Callable[[], GraphClient]]:
    with clients(engine=engine) as made:
        yield made


@pytest.fixture
def client(make: Callable[[], GraphClient]) -> GraphClient:
    return make()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return agent(tmp_path)


def test_a_graph_is_built_asked_and_brought_forward(client, folder):
    assert state(client, folder).position is None
    assert not folder.exists(), "asking makes no file"
    built = build(client, folder)
    assert (built.position, built.identity, built.live, built.dead) == (100, IDENTITY, 100, 0)
    assert built.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert ask(client, folder, needs=100) == [(100,)]
    after = client.apply(
        folder,
        [notes(100, 5), Statement("MATCH (n:Note) WHERE n.id = $id DELETE n", {"id": "0"})],
        expected=100,
        position=107,
        added=5,
        removed=1,
        deadline=soon(),
    )
    assert (after.position, after.live, after.dead) == (107, 104, 1)
    assert ask(client, folder, needs=107) == [(104,)]


def test_who_asks_for_more_than_the_graph_has_is_told_where_it_is(client, folder):
    with pytest.raises(Behind) as none:
        ask(client, folder)
    assert none.value.state.position is None
    build(client, folder)
    for wrong in ({"needs": 101}, {"identity": "another ledger"}):
        with pytest.raises(Behind) as behind:
            ask(client, folder, **wrong)
        assert behind.value.state.position == 100
    with pytest.raises(Behind):
        add(client, folder, 99)
    assert ask(client, folder) == [(100,)]


def test_a_graph_is_there_again_after_closing_and_after_a_kill(make, folder):
    first = make()
    build(first, folder)
    add(first, folder, 100)
    first.close()
    second = make()
    assert ask(second, folder, needs=101) == [(101,)]
    add(second, folder, 101)
    os.kill(second.status().pid, signal.SIGKILL)
    assert ask(second, folder, needs=102) == [(102,)]
    told = second.status()
    assert told.starts == 2
    assert "SIGKILL" in told.last_error
    assert state(second, folder).set_aside is None


def test_a_build_that_was_lost_is_told_and_leaves_the_graph_as_it_was(client, folder):
    build(client, folder)
    client.begin(folder, SCHEMA, identity="next", because="a test", deadline=soon())
    client.load(folder, [notes(0, 3)], added=3, deadline=soon())
    os.kill(client.status().pid, signal.SIGKILL)
    with pytest.raises(Behind) as behind:
        client.load(folder, [notes(3, 3)], added=3, deadline=soon())
    with pytest.raises(Behind):
        client.finish(folder, position=6, deadline=soon())
    assert ask(client, folder, needs=100) == [(100,)]
    assert behind.value.state.set_aside is None


def test_a_build_takes_the_place_of_the_graph_while_that_is_asked(client, folder):
    build(client, folder)
    client.begin(folder, SCHEMA, identity="next", because="a test", deadline=soon())
    client.load(folder, [notes(0, 3)], added=3, deadline=soon())
    assert ask(client, folder, needs=100) == [(100,)]
    assert client.finish(folder, position=3, deadline=soon()).identity == "next"
    assert ask(client, folder, identity="next") == [(3,)]


def test_values_of_every_type_come_back_plain(client, folder):
    build(client, folder)
    moment = dt.datetime(2024, 5, 8, 14, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    given = {
        "none": None, "flag": True, "number": -3, "large": 2**40, "real": 0.5,
        "text": "Élan 🐞 \x00end", "time": moment, "day": dt.date(2020, 2, 29),
        "span": dt.timedelta(days=3, seconds=4), "items": ["a", "b"], "inner": {"a": 1, "b": ["x"]},
        "id": uuid.UUID(int=5), "price": Decimal("1.25"),
    }  # fmt: skip
    for name, value in given.items():
        wanted = {"time": NOON, "id": str(uuid.UUID(int=5)), "price": "1.25"}.get(name, value)
        try:
            assert ask(client, folder, "RETURN $value", value=value) == [(wanted,)], name
        except InvalidArgument:
            assert name in ("id", "price"), name  # types that Kuzu takes as no parameter
    results = {
        "gen_random_uuid()": str,
        "cast(1.25 AS DECIMAL(5, 2))": str,
        "sum(1)": int,
        "blob('\\\\xAA')": bytes,
        "map([1, 2], ['a', 'b'])": dict,
        "cast('2020-01-01 10:00:00+02:00' AS TIMESTAMP_TZ)": dt.datetime,
        "timestamp('2020-01-01 10:00:00')": dt.datetime,
        "interval('3 days')": dt.timedelta,
    }
    for expression, kind in results.items():
        ((value,),) = ask(client, folder, f"RETURN {expression}")
        assert type(value) is kind, expression
        assert kind is not dt.datetime or value.tzinfo is dt.UTC


def test_nodes_look_the_same_with_both_engines(client, folder):
    build(client, folder)
    ((node,),) = ask(client, folder, "MATCH (n:Note {id: $id}) RETURN n", id="7")
    assert node.pop("_ID").keys() == {"offset", "table"}
    assert node == {"_LABEL": "Note", "id": "7", "number": 7}


def test_a_wrong_query_is_told_with_its_place(client, folder):
    build(client, folder)
    wrong = {
        "MATCH (n:Nope) RETURN n": "Nope",
        "MATCH (n:Note) RETURN n.nope": "nope",
        "MATCH (n:Note) RETURM n": "line: 1, offset: 15",
        "RETURN 1 / 0": "zero",
        "RETURN $a": r"\$a",
    }
    for query, named in wrong.items():
        with pytest.raises(InvalidArgument, match=named):
            ask(client, folder, query)
    assert client.status().starts == 1
    assert ask(client, folder, "RETURN $a", a=1, unused=2) == [(1,)]


def test_rows_and_bytes_have_a_limit(client, folder):
    build(client, folder)
    numbers = "UNWIND range(1, $count) AS x RETURN x"
    assert len(ask(client, folder, numbers, count=50, rows_max=50)) == 50
    with pytest.raises(InvalidArgument, match=r"more than 50 rows.*max_query_rows"):
        ask(client, folder, numbers, count=51, rows_max=50)
    with pytest.raises(InvalidArgument, match="max_result_mb"):
        ask(client, folder, "RETURN range(1, 300000)")


def test_values_that_no_graph_takes_are_refused_before_they_are_sent(client, folder):
    build(client, folder)
    for value in (object(), "\ud800", 2**200, [[[object()]]]):
        with pytest.raises(InvalidArgument):
            ask(client, folder, "RETURN $value", value=value)
    assert client.status().starts == 1


def test_a_query_that_runs_away_ends_at_its_deadline_and_harms_nobody(client, folder):
    """Method: a question that would take minutes, and others beside it."""
    build(client, folder, 400)
    slow = Call(lambda: ask(client, folder, SLOW, within_s=1.0))
    eventually(lambda: running_calls(client) or not slow.is_alive(), "the slow call runs")
    for _ in range(5):
        assert ask(client, folder) == [(400,)]
    assert isinstance(slow.outcome(), DeadlineExceeded)
    assert ask(client, folder) == [(400,)]


def test_a_query_that_eats_memory_is_ended_and_its_neighbours_are_answered(client, folder):
    """
    Method: three slow but harmless questions run when the hungry one makes the worker end; all
    four are asked again, one by one, and only the hungry one fails.
    """
    build(client, folder, 100)
    harmless = [Call(lambda: ask(client, folder, SLOW)) for _ in range(3)]
    eventually(
        lambda: running_calls(client) == 3 or not all(call.is_alive() for call in harmless),
        "all of them run",
    )
    hungry = Call(lambda: ask(client, folder, HUNGRY))
    error = hungry.outcome()
    assert isinstance(error, DeadlineExceeded)
    assert "max_worker_mb" in str(error)
    answers = {tuple(call.outcome()) for call in harmless}
    # On a slow machine they may have ended before the worker did.
    answers.add(tuple(ask(client, folder, SLOW)))
    assert len(answers) == 1
    assert client.status().starts > 1


def refused(client: GraphClient, folder: Path) -> str:
    """
    What is said to whoever asks while it is taken, once it is and that is said in time: the next
    question has longer, as to start may take a busy machine a while.
    """
    for n in range(5):
        error = Call(partial(ask, client, folder, within_s=0.5 * 2**n)).outcome()
        if isinstance(error, Busy):
            return str(error)
        assert isinstance(error, DeadlineExceeded)
    raise AssertionError("never refused")


def test_a_connection_is_waited_for_in_time_only(engine, folder):
    with clients(engine=engine, max_connections=1) as make:
        client = make()
        build(client, folder, 400)
        slow = Call(lambda: ask(client, folder, SLOW))
        eventually(lambda: running_calls(client), "the slow call runs")
        assert "max_connections" in refused(client, folder)
        client.close()  # else it goes on
        assert isinstance(slow.outcome(), Closed | DeadlineExceeded)


def test_sixteen_threads_over_six_graphs_all_get_their_own_answers(engine, tmp_path):
    """At most two graphs may be open, so that each call may have to open and close some."""
    with clients(engine=engine, max_open_graphs=2) as make:
        client = make()
        folders = [agent(tmp_path, f"agent {number}") for number in range(6)]
        for number, folder in enumerate(folders):
            build(client, folder, 10 + number)
        most = 0

        def work(worker: int) -> list[int]:
            nonlocal most
            wrong = []
            for turn in range(12):
                number = (worker + turn) % len(folders)
                if ask(client, folders[number]) != [(10 + number,)]:
                    wrong.append(number)
                most = max(most, client.status().open_graphs)
            return wrong

        calls = [Call(lambda worker=worker: work(worker)) for worker in range(16)]
        assert [call.outcome() for call in calls] == [[]] * 16
        assert 1 <= most <= 2
        assert client.status().starts == 1


def test_writers_of_one_graph_come_one_after_another(client, folder):
    """Of eight that expect the same position one writes, and the others are told."""
    build(client, folder)
    calls = [Call(lambda: add(client, folder, 100)) for _ in range(8)]
    outcomes = [call.outcome() for call in calls]
    assert sum(isinstance(outcome, Behind) for outcome in outcomes) == 7
    assert ask(client, folder) == [(101,)]


def test_the_log_is_brought_into_the_file_now_and_then(client, folder):
    build(client, folder)
    position = checkpoints = largest = 0
    position = 100
    while not checkpoints:
        after = add(client, folder, position, 5000)
        position, checkpoints = after.position, after.checkpoints
        largest = max(largest, after.bytes)
        assert position < 2_000_000
    assert not any(path.stat().st_size > 4 << 20 for path in folder.glob("*.wal"))
    os.kill(client.status().pid, signal.SIGKILL)
    assert ask(client, folder, needs=position) == [(position,)]
    assert state(client, folder).checkpoints == checkpoints


def test_dropping_deletes_all_of_it_and_needs_no_worker(make, folder):
    client = make()
    assert client.drop(folder, deadline=soon()) == 0
    assert client.status().starts == 0
    size = build(client, folder).bytes
    assert client.drop(folder, deadline=soon()) >= size - 100
    assert {path.name for path in folder.iterdir()} <= {"lock", "wanted"}
    with pytest.raises(Behind):
        ask(client, folder)
    build(client, folder)
    client.close()
    other = make()
    assert other.drop(folder, deadline=soon()) > 0
    assert other.status().starts == 0


def test_a_graph_that_is_released_is_free_at_once(make, folder):
    first, second = make(), make()
    build(first, folder)
    first.release(folder)
    assert ask(second, folder) == [(100,)]
    third = make()
    third.release(folder)
    assert third.status().starts == 0


def test_a_graph_that_another_worker_waits_for_is_given_back(make, folder):
    first, second = make(), make()
    build(first, folder)
    for client in (second, first, second):
        assert ask(client, folder) == [(100,)]
    assert state(first, folder).set_aside is None


def test_a_graph_that_is_not_given_back_names_who_has_it(make, folder):
    first, second = make(), make()
    first.begin(folder, SCHEMA, identity=IDENTITY, because="a test", deadline=soon())
    assert f"process {first.status().pid}" in refused(second, folder)


def test_unused_graphs_are_closed_and_the_worker_ends(engine, folder):
    with clients(engine=engine, graph_idle_s=0.2) as make:
        client = make()
        build(client, folder)
        worker = client._worker
        assert worker is not None
        eventually(lambda: not client.status().running, "an unused worker ends")
        assert not psutil.pid_exists(worker.pid)
        starts = client.status().starts
        assert ask(client, folder) == [(100,)]
        told = client.status()
        assert told.starts > starts
        assert told.last_error is None


def test_closing_ends_what_runs_and_may_be_repeated(client, folder):
    build(client, folder, 400)
    worker = psutil.Process(client.status().pid)
    calls = [Call(lambda: ask(client, folder, SLOW)) for _ in range(3)]
    eventually(lambda: running_calls(client) == 3, "all of them run")
    client.close()
    client.close()
    # Whoever was faster: the engine is told to end what runs, and the worker itself ends.
    assert all(isinstance(c.outcome(), Closed | DeadlineExceeded) for c in calls)
    assert not worker.is_running()
    with pytest.raises(Closed):
        ask(client, folder)


def test_a_worker_that_has_seen_too_many_queries_is_replaced_between_two(engine, folder):
    """LadybugDB keeps every text for ever; the calls go on beside it."""
    with clients(engine=engine) as make:
        client = make()
        build(client, folder)
        for number in range(2100):
            assert ask(client, folder, f"RETURN {number}") == [(number,)]
        assert client.status().starts == 2
        assert client.status().last_error == "it had grown"


def test_a_worker_ends_when_its_parent_is_killed(engine, folder, start_script):
    parent = start_script(
        """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        from graphs import agent, build, clients
        with clients(engine=sys.argv[1]) as make:
            client = make()
            build(client, Path(sys.argv[2]))
            print(client.status().pid, flush=True)
            sys.stdin.read()
        """,
        engine,
        folder,
        Path(__file__).parent,
    )
    worker = psutil.Process(int(parent.stdout.readline()))
    assert worker.is_running()
    parent.kill()
    parent.wait(30)
    eventually(lambda: not worker.is_running(), "the worker ends")


def test_a_forked_child_is_refused_and_the_parent_goes_on(engine, folder, run_script):
    """Children are forked while threads ask; one that hangs is ended by its alarm, and counts."""
    printed = run_script(
        """
        import os, signal, sys, warnings
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        from elytron.errors import Forked
        from graphs import Call, ask, build, clients
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        folder, failed = Path(sys.argv[2]), 0
        with clients(engine=sys.argv[1]) as make:
            client = make()
            build(client, folder)
            calls = [Call(lambda: [ask(client, folder) for _ in range(200)]) for _ in range(3)]
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    signal.alarm(40)
                    try:
                        ask(client, folder)
                        os._exit(3)
                    except Forked:
                        client.close()
                        del client
                        sys.exit(0)
                failed += os.waitpid(child, 0)[1] != 0
            right = [call.outcome() == [[(100,)]] * 200 for call in calls]
            print(failed, right, client.status().starts)
        """,
        engine,
        folder,
        Path(__file__).parent,
    )
    assert printed.split("\n")[0] == "0 [True, True, True] 1"


def test_the_surroundings_of_the_program_do_not_reach_the_worker(
    engine, folder, tmp_path, monkeypatch
):
    """A file in the working directory, or a switch for another backend, must not take over."""
    (tmp_path / "msgpack.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LBUG_PYTHON_BACKEND", "capi")
    with clients(engine=engine) as make:
        build(make(), folder)


def test_an_engine_that_is_not_installed_is_named_with_what_installs_it(
    engine, folder, tmp_path, monkeypatch
):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / f"{engine}.py").write_text(
        f"raise ModuleNotFoundError('No module named {engine}', name='{engine}')"
    )
    monkeypatch.syspath_prepend(tmp_path / "hidden")
    monkeypatch.setattr("elytron.graph.client._REFUSED_S", 60.0)
    wanted = {"ladybug": "pip install ladybug==0.22.0", "kuzu": r'pip install "elytron\[kuzu\]"'}
    with clients(engine=engine) as make:
        client = make()
        for _ in range(2):
            with pytest.raises(GraphUnavailable, match=wanted[engine]):
                state(client, folder)
        assert client.status().starts == 1, "it is not looked for at every call"
        assert client.drop(folder, deadline=soon()) == 0


def test_no_engine_is_ever_imported_beside_the_program(client, folder):
    build(client, folder)
    assert not {"ladybug", "kuzu"} & set(sys.modules)


def test_a_client_that_is_never_asked_starts_nothing():
    client = GraphClient(Config())
    assert client.status() == (False, None, 0, 0, 0, None, None)
    client.close()
    with pytest.raises(Closed):
        client.status()
