"""What one client or one process may keep the others from, however it behaves."""

import asyncio
import contextlib
import time
from pathlib import Path
from types import SimpleNamespace

import urllib3

import elytron
import elytron.aio
from dashboards import served as dashboard_served
from elytron.faces.http import tokens, transfers
from elytron.ledger.lock import FileLock
from elytron.lines import to_line
from elytron.open_agent import _LOOK_AGAIN_S, Chase
from elytron.upkeep.gate import Gate
from serving import served

STEPS, PATIENCE_S = 40, 0.1


class Counted(Gate):
    """Counts how often somebody looks whether it is free, for a moment each time."""

    looks = 0

    def passing(self, *, wait_s: float = 0.0) -> contextlib.AbstractContextManager[bool]:
        self.looks += 1
        return super().passing(wait_s=wait_s)


def test_a_process_that_stopped_at_the_gate_delays_whoever_asks_once_and_not_each_step(
    tmp_path: Path,
) -> None:
    """Else 2,000 texts take longer than `save_timeout_s`, and a question misses some of them."""
    steps: list[float] = []

    def step(until_s: float) -> bool:
        steps.append(until_s)
        return True

    path = tmp_path / "gate"
    gate = Counted(path)
    chase = Chase(
        step,
        goal=lambda _until_s: lambda: len(steps) == STEPS,
        gate=gate,
        patience_s=PATIENCE_S,
    )
    with contextlib.closing(FileLock(path)) as stopped:
        assert stopped.try_acquire()
        chase.to_end(timeout_s=30, what="it")
    assert len(steps) == STEPS
    assert STEPS <= gate.looks <= STEPS + 2 * PATIENCE_S / _LOOK_AGAIN_S + 1


def test_a_graph_that_another_process_brings_on_meanwhile_is_not_taken_for_one_of_another_past(
    store: elytron.Store, bob: elytron.Agent
) -> None:
    """Else it is set aside as damaged and built anew, and `check` complains."""
    bob.save_many([{"role": "user", "content": f"Number {n}"} for n in range(60)])
    bob.cypher("RETURN 1 AS one")
    with store._agents.use("bob", create=False) as opened:
        assert opened is not None
        graphs = store._agents.upkeep.graphs
        projection = graphs._projecting("bob", opened.ledger)
        folder, deadline = graphs.folder("bob"), time.monotonic() + 60
        work = projection._begin("bob", opened.ledger, folder, deadline)
        state = projection._state(work)
        bob.save_many([{"role": "user", "content": f"Later {n}"} for n in range(10)])
        bob.cypher("RETURN 1 AS one")
        assert projection._agrees(state, work)


def test_a_body_for_where_no_token_is_asked_for_is_kept_small(tmp_path: Path) -> None:
    """Eight of the largest, announced and never sent, took up what all bodies may have."""
    file = tmp_path / "tokens.json"
    tokens.add(file, "one")
    with served(tmp_path / "store", tokens=file) as one:
        big = {"Content-Length": str(16 << 20)}
        assert one.request("POST", "/login", b"token=x", headers=big).status == 413
        assert one.request("POST", "/login", b"token=x").status == 404


def test_what_strangers_ask_the_dashboard_for_and_is_not_there_opens_no_page_and_is_not_logged(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    with (
        dashboard_served(tmp_path / "store", log=log) as address,
        urllib3.PoolManager(retries=False, timeout=20) as pool,
    ):
        for number in range(80):  # more than the pages that may be open
            answer = pool.request("GET", f"{address}/_nicegui/nothing?of=alice-{number}")
            assert answer.status == 404
        assert b"<html" not in answer.data
        assert pool.request("GET", f"{address}/").status == 200
    assert "alice" not in log.read_text()


def test_an_export_is_sent_in_pieces_of_bounded_bytes(tmp_path: Path) -> None:
    """A reader who does not read holds one; a hundred of the longest messages were 25 MB."""
    text = "x" * 100_000

    async def sent() -> list[int]:
        async with elytron.aio.open(tmp_path / "store") as store:
            bob = store.agent("bob")
            await bob.save_many([{"role": "user", "content": text} for _ in range(20)])
            asked = SimpleNamespace(check_still=lambda: None)
            return [len(piece) async for piece in transfers._pieces(bob, False, to_line, asked)]

    sizes = asyncio.run(sent())
    assert sum(sizes) > 20 * len(text)
    assert max(sizes) < transfers._BATCH_BYTES + 2 * len(text)
