"""Small graphs of numbered notes: a client, and ways to build, to change and to ask."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elytron.config import Config
from elytron.graph.client import GraphClient, GraphState, Statement

ENGINES = ("ladybug", "kuzu")
IDENTITY = "a ledger, version 1"
SCHEMA = [Statement("CREATE NODE TABLE Note(id STRING PRIMARY KEY, number INT64)")]
CREATE = "UNWIND $rows AS r CREATE (:Note {id: r.id, number: r.number})"
COUNT = "MATCH (n:Note) RETURN count(n)"
# Some ten seconds, in no memory to speak of; both engines can be interrupted in it.
SLOW = "MATCH (a:Note), (b:Note), (c:Note), (d:Note) RETURN sum(a.number * b.number * c.number)"
HUNGRY = "UNWIND range(1, 100000000000) AS x RETURN sum(x)"
WAIT_S = 30.0


def soon(seconds: float = WAIT_S) -> float:
    return time.monotonic() + seconds


@contextmanager
def clients(**settings: Any) -> Iterator[Callable[[], GraphClient]]:
    """Make clients; they are closed at the end."""
    made: list[GraphClient] = []

    def make() -> GraphClient:
        made.append(GraphClient(Config(**settings)))
        return made[-1]

    try:
        yield make
    finally:
        for client in made:
            client.close()


def agent(tmp_path: Path, name: str = "bob") -> Path:
    """The graph's folder of an agent; the agent's own is there, the graph's is not."""
    (tmp_path / name).mkdir(exist_ok=True)
    return tmp_path / name / "graph"


def notes(first: int, count: int) -> Statement:
    rows = [{"id": str(number), "number": number} for number in range(first, first + count)]
    return Statement(CREATE, {"rows": rows})


def build(client: GraphClient, folder: Path, count: int = 100) -> GraphState:
    """A graph of notes 0 to *count* - 1, whose position is their number."""
    client.begin(folder, SCHEMA, identity=IDENTITY, because="a test", deadline=soon())
    client.load(folder, [notes(0, count)], added=count, deadline=soon())
    return client.finish(folder, position=count, deadline=soon())


def add(
    client: GraphClient, folder: Path, expected: int, count: int = 1, within_s: float = WAIT_S
) -> GraphState:
    return client.apply(
        folder,
        [notes(expected, count)],
        expected=expected,
        position=expected + count,
        added=count,
        removed=0,
        deadline=soon(within_s),
    )


def ask(
    client: GraphClient,
    folder: Path,
    text: str = COUNT,
    *,
    needs: int = 0,
    within_s: float = WAIT_S,
    rows_max: int = 1000,
    bytes_max: int = 1 << 20,
    identity: str = IDENTITY,
    **params: Any,
) -> list[tuple[Any, ...]]:
    return client.query(
        folder,
        Statement(text, params),
        needs=needs,
        identity=identity,
        rows_max=rows_max,
        bytes_max=bytes_max,
        deadline=soon(within_s),
    ).rows


def state(client: GraphClient, folder: Path) -> GraphState:
    return client.state(folder, deadline=soon())


def eventually(condition: Callable[[], Any], what: str) -> None:
    """Look until *condition* holds, for a bounded time."""
    deadline, pause = soon(), threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        pause.wait(0.01)


def running_calls(client: GraphClient) -> int:
    """How many calls wait for the worker."""
    worker = client._worker
    return 0 if worker is None else len(worker._calls)


class Call(threading.Thread):
    """A call in a thread of its own, started at once: what it returned or raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self._call()
        except Exception as error:  # noqa: BLE001 - whoever asks for the outcome gets it
            self.error = error

    def outcome(self) -> Any:
        """What it returned, or the error that it raised. It has to end."""
        self.join(2 * WAIT_S)
        assert not self.is_alive(), "the call never ended"
        return self.error if self.error is not None else self.value
