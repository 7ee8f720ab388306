"""What may happen to a graph's worker, its files and its folder; the caller always gets to know."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elytron.errors import (
    Busy,
    DeadlineExceeded,
    DiskFull,
    ElytronError,
    GraphUnavailable,
    Unavailable,
)
from elytron.graph import client as client_module
from elytron.graph.client import Behind, GraphClient, GraphState
from elytron.graph.engines import Fault, fault_of
from elytron.graph.files import GraphFolder
from graphs import (
    COUNT,
    ENGINES,
    IDENTITY,
    SCHEMA,
    WAIT_S,
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

ROUNDS = 12  # of three signals to three kinds of call: 108
SHORT_S = 0.4  # a deadline that a healthy worker easily keeps
BUSY_QUERY = "UNWIND range(1, 2000) AS x UNWIND range(1, 1000) AS y RETURN sum(x * y)"


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


def settled(client: GraphClient, folder: Path) -> tuple[GraphState, int]:
    """Where the graph is and how many notes it holds, once a stopped worker was found out."""
    for n in range(1, 8):  # the next one has longer: to start may take a busy machine a while
        within_s = SHORT_S * 2**n
        try:
            found = client.state(folder, deadline=soon(within_s))
            return found, ask(client, folder, COUNT, within_s=within_s)[0][0]
        except DeadlineExceeded:
            assert client.status().last_error
    raise AssertionError("never answered")


def strike(client: GraphClient, call: Call, number: int, after_s: float) -> None:
    """
    Send a signal to the worker, a moment after it was asked; one that kills has killed by the end.

    On a busy machine a worker may answer for a while after it was struck: the next call would be
    struck twice.
    """
    eventually(lambda: running_calls(client) or not call.is_alive(), "a call is under way")
    threading.Event().wait(after_s)  # a fault may come at any moment; nothing waits for this
    pid = client.status().pid
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):  # it was late, and ended just now
            os.kill(pid, number)
        if number != signal.SIGSTOP:
            eventually(lambda: client.status().pid != pid, "it is dead")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("verb", ["query", "apply", "load"])
def test_a_worker_struck_at_any_moment_costs_an_answer_at_most(tmp_path, number, verb):
    """
    The caller gets an answer, or an error that says what happened; and what the graph holds is
    what its position says.

    Method: strike the worker at some moment of a call, again and again. A worker that is stopped
    cannot be told from one that is slow, so there the deadline is short.
    """
    dice, folder = random.Random(f"{number} {verb}"), agent(tmp_path)
    failed: list[Exception] = []
    with clients() as make:
        client = make()
        build(client, folder, 10)
        for _ in range(ROUNDS):
            position = settled(client, folder)[0].position
            within_s = SHORT_S if number == signal.SIGSTOP else WAIT_S

            def work(position: int = position, within_s: float = within_s) -> object:
                if verb == "query":
                    return ask(client, folder, BUSY_QUERY, within_s=within_s)
                if verb == "apply":
                    return add(client, folder, position, 2000, within_s)
                deadline = soon(within_s)
                client.begin(folder, SCHEMA, identity=IDENTITY, because="a test", deadline=deadline)
                for first in range(0, 6000, 2000):
                    client.load(folder, [notes(first, 2000)], added=2000, deadline=deadline)
                return client.finish(folder, position=6000, deadline=deadline)

            call = Call(work)
            strike(client, call, number, dice.random() * 0.06)
            outcome = call.outcome()
            if verb == "apply" and isinstance(outcome, Behind) and outcome.state.set_aside:
                # Struck in the middle of a record of the engine's log: the copy is made anew.
                assert "WAL" in outcome.state.set_aside
                build(client, folder, 10)
                continue
            if isinstance(outcome, Exception):
                assert isinstance(outcome, DeadlineExceeded | GraphUnavailable | Behind), outcome
                failed.append(outcome)
            now, count = settled(client, folder)
            assert now.set_aside is None
            assert count == now.position
            if verb == "apply":
                assert now.position in (position, position + 2000)
    if verb != "load" and number != signal.SIGSTOP:
        assert not failed, "asking again is enough"


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("something")


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut in half": truncate,
    "zeroed": zero,
    "empty": empty,
    "a folder": make_folder,
    "a pipe": make_pipe,
    "flipped at its start": lambda path: flip(path, 5),
    "flipped within": lambda path: flip(path, path.stat().st_size // 2),
    "flipped at its end": lambda path: flip(path, path.stat().st_size - 9),
    "without its state": lambda path: (path.parent / "state.json").unlink(),
    "with a state that is no JSON": lambda path: (path.parent / "state.json").write_text("{"),
    "with a state that is too long": lambda path: (path.parent / "state.json").write_text(
        json.dumps({"pad": "x" * 70_000})
    ),
    "one that the engine died of": lambda path: (path.parent / "state.json").write_text(
        json.dumps(json.loads((path.parent / "state.json").read_text()) | {"opening": 2})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_as_it_was_left_is_set_aside_and_told(make, folder, engine, damage):
    first = make()
    build(first, folder)
    first.close()
    DAMAGES[damage](folder / f"graph.{engine}")
    client = make()
    with pytest.raises(Behind) as behind:
        ask(client, folder)
    assert behind.value.state.position is None
    assert behind.value.state.set_aside
    kept = folder / f"damaged.{engine}"
    assert os.path.lexists(kept)
    assert not os.path.lexists(folder / f"graph.{engine}")
    assert build(client, folder).set_aside is None
    assert ask(client, folder) == [(100,)]
    assert client.status().starts == 1, "nothing of this ends the worker"


def test_of_damaged_files_the_newest_alone_is_kept(make, folder, engine):
    for size in (40, 60):
        client = make()
        build(client, folder, size)
        client.close()
        truncate(folder / f"graph.{engine}")
        client = make()
        assert state(client, folder).set_aside
        client.close()
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith("damaged")) == [
        f"damaged.{engine}"
    ]


@pytest.mark.parametrize("harm", [truncate, zero, empty, lambda path: flip(path, 40), Path.unlink])
def test_a_damaged_log_costs_what_was_in_it_at_most(make, folder, engine, harm):
    """Either the graph is as it was at some earlier position, or it is set aside."""
    first = make()
    build(first, folder)
    for position in range(100, 120):
        add(first, folder, position)
    os.kill(first.status().pid, signal.SIGKILL)
    harm(folder / f"graph.{engine}.wal")
    client = make()
    found = state(client, folder)
    if found.position is None:
        assert found.set_aside
        build(client, folder)
    else:
        assert 100 <= found.position <= 120
        assert ask(client, folder) == [(found.position,)]


def test_a_graph_of_a_newer_format_is_set_aside(make, folder, engine):
    """Method: raise the version in the header, and say that this is how it was left."""
    first = make()
    build(first, folder)
    first.close()
    path = folder / f"graph.{engine}"
    with path.open("r+b") as file:
        file.seek(4)
        file.write((99).to_bytes(8, "little"))
    kept = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(kept | {"checkpointing": True}))
    assert "engine" in state(make(), folder).set_aside


def test_a_checkpoint_that_was_cut_short_is_recovered_by_the_engine(make, folder, engine):
    first = make()
    build(first, folder)
    add(first, folder, 100)
    first.close()
    kept = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(
        json.dumps(kept | {"checkpointing": True, "crc32": 1, "bytes": 1})
    )
    second = make()
    assert ask(second, folder, needs=101) == [(101,)]
    second.close()
    assert "checkpointing" not in json.loads((folder / "state.json").read_text())
    assert ask(make(), folder, needs=101) == [(101,)]


def test_a_file_that_another_program_has_open_is_never_taken_for_damaged(
    make, folder, engine, start_script
):
    first = make()
    build(first, folder)
    first.close()
    path = folder / f"graph.{engine}"
    holder = start_script(
        """
        import importlib, importlib.util, sys
        engine = importlib.import_module(sys.argv[1])
        database = engine.Database(sys.argv[2], buffer_pool_size=1 << 26, max_db_size=1 << 30)
        engine.Connection(database).execute("RETURN 1").close()
        print("open", flush=True)
        sys.stdin.read()
        """,
        engine,
        path,
    )
    assert holder.stdout.readline() == "open\n"
    client = make()
    for _ in range(3):  # more often than the engine may die of it
        with pytest.raises(Busy, match=f"process {holder.pid}"):
            state(client, folder)
    flip(path, 5)
    with pytest.raises(Busy, match=f"process {holder.pid}"):
        state(client, folder)
    flip(path, 5)
    holder.kill()
    holder.wait(30)
    assert ask(client, folder) == [(100,)]


def as_mortal() -> list[str]:
    """What to put before a command, so that permissions hold for it even if root runs it."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root, and no setpriv to give its rights away")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def test_a_file_that_may_not_be_written_to_is_set_aside_and_a_folder_is_named(folder, engine):
    with clients(engine=engine) as make:
        build(make(), folder)
    script = (
        "import sys; sys.path[:] = sys.argv[3:]\n"
        "from pathlib import Path\n"
        "from graphs import clients, state\n"
        "with clients(engine=sys.argv[1]) as make:\n"
        "    try:\n"
        "        print(state(make(), Path(sys.argv[2])).set_aside)\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    command = [*as_mortal(), sys.executable, "-c", script, engine, str(folder), *sys.path]

    def said() -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    (folder / f"graph.{engine}").chmod(0o444)
    folder.chmod(0o555)
    refused = said()
    folder.chmod(0o755)
    assert refused.startswith("Unavailable")
    assert str(folder) in refused
    assert "may not be read and written" in said()


def test_a_file_in_the_place_of_the_folder_is_named(make, folder):
    folder.write_text("not a folder")
    client = make()
    assert state(client, folder).position is None
    with pytest.raises(Unavailable, match="graph"):
        build(client, folder)


def test_a_disk_that_fails_ends_the_worker_and_not_the_graph(make, folder):
    """Method: files may not grow beyond what they are, from one moment on."""
    client = make()
    build(client, folder)
    add(client, folder, 100)
    largest = max(path.stat().st_size for path in folder.iterdir())
    limits = (largest, largest)
    resource.prlimit(client.status().pid, resource.RLIMIT_FSIZE, limits)
    reached = [101]

    def grow() -> None:
        while reached[-1] < 2_000_000:
            reached.append(add(client, folder, reached[-1], 5000).position)

    with pytest.raises((Unavailable, DiskFull)):
        grow()
    assert "disk" in client.status().last_error
    found = state(client, folder)
    if found.position is None:  # LadybugDB takes no log that ends within a record
        assert "WAL" in found.set_aside
        found = build(client, folder)
    else:
        assert found.position >= reached[-1]
    assert ask(client, folder) == [(found.position,)]
    add(client, folder, found.position)


def test_a_full_disk_is_called_so(folder, monkeypatch):
    def called(why: str) -> type[Exception]:
        return type(client_module.disk_error(folder.parent, why))

    assert called("IO exception: No space left on device") is DiskFull
    assert called("IO exception: it broke") is Unavailable
    monkeypatch.setattr(client_module, "free_bytes", lambda _: 1000)
    assert called("IO exception: it broke") is DiskFull


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ('Conversion exception: Cast failed. Could not convert "{}" to INT64.', Fault.QUERY),
        ("Binder exception: Variable {} is not in scope.", Fault.QUERY),
        ("Runtime exception: Found duplicated primary key value {}, which", Fault.QUERY),
        ("IO exception: {}", Fault.DISK),
        ("Runtime exception: {}", Fault.DISK),
    ],
)
def test_what_an_error_quotes_does_not_say_what_it_means(said, fault):
    for quoted in ("No space left on device", "a panic state", "Checkpoint failed"):
        assert fault_of(said.format(quoted)) is fault


def test_an_agent_whose_folder_is_deleted_meanwhile_is_let_go(make, folder):
    client = make()
    build(client, folder)
    shutil.rmtree(folder.parent)
    eventually(lambda: _position(client, folder) is None, "the graph is gone")
    folder.parent.mkdir()
    build(client, folder)
    assert ask(client, folder) == [(100,)]


def _position(client: GraphClient, folder: Path) -> int | None:
    try:
        return state(client, folder).position
    except ElytronError:
        return None


def test_two_processes_that_ask_one_graph_at_once_are_both_answered(
    engine, folder, tmp_path, start_script
):
    """Each adds to the graph and asks, in turn with the other, which does the same."""
    with clients(engine=engine) as make:
        build(make(), folder)
    source = """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        from elytron.graph.client import Behind
        from graphs import add, ask, clients, state
        folder, added = Path(sys.argv[2]), 0
        with clients(engine=sys.argv[1]) as make:
            client = make()
            while added < 10:
                position = state(client, folder).position
                try:
                    add(client, folder, position)
                    added += 1
                except Behind:
                    continue  # the other was faster
                assert ask(client, folder, needs=position + 1)[0][0] > position
            print(client.status().starts, flush=True)
            sys.stdin.read()  # the graph stays with whoever had it last, until both are done
        """
    processes = [start_script(source, engine, folder, Path(__file__).parent) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["1\n", "1\n"]
    for process in processes:
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, complaints
    with clients(engine=engine) as make:
        assert ask(make(), folder, needs=120) == [(120,)]


def test_the_folder_tells_its_files_apart(tmp_path):
    files = GraphFolder(tmp_path, "ladybug")
    names = ("graph.ladybug", "graph.ladybug.wal", "graph.kuzu", "building.ladybug", "state.json")
    for name in names:
        (tmp_path / name).write_text("x")
    assert files.bytes() == len(names)
    files.set_aside()
    assert {path.name for path in tmp_path.iterdir()} == {
        "damaged.ladybug", "graph.kuzu", "building.ladybug"
    }  # fmt: skip
    (tmp_path / "building.ladybug.wal").write_text("y")
    (tmp_path / "lock").write_text("1")
    files.install()
    assert {path.name for path in tmp_path.iterdir()} == {
        "damaged.ladybug", "graph.ladybug", "graph.ladybug.wal", "lock"
    }  # fmt: skip
    assert files.remove() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
