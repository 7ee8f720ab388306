"""
A hundred agents' graphs, asked and changed in turn: the worker's memory, open graphs, failures.

With default settings the engines fail at the sixteenth. Each agent has a graph of 500 messages;
in every round it is brought forward by ten and asked two questions.
"""

import tempfile
import time
from pathlib import Path

from elytron.config import Config
from elytron.config_values import ENGINES
from elytron.graph.client import GraphClient, Statement

AGENTS, ROUNDS, MESSAGES, MORE = 100, 3, 500, 10
SCHEMA = [
    Statement("CREATE NODE TABLE Session(id STRING PRIMARY KEY)"),
    Statement("CREATE NODE TABLE Message(id STRING PRIMARY KEY, number INT64, content STRING)"),
    Statement("CREATE REL TABLE PART_OF(FROM Message TO Session, position INT64)"),
]
CREATE = "UNWIND $rows AS r CREATE (:Message {id: r.id, number: r.number, content: r.content})"
JOIN = (
    "UNWIND $rows AS r MATCH (m:Message) WHERE m.id = r.id MATCH (s:Session) WHERE s.id = r.session"
    " CREATE (m)-[:PART_OF {position: r.number}]->(s)"
)
QUESTIONS = (
    "MATCH (m:Message {id: 'm7'}) RETURN m.content",
    "MATCH (m:Message)-[p:PART_OF]->(s:Session) RETURN s.id, count(m), max(p.position)",
)


def messages(first: int, count: int) -> list[Statement]:
    rows = [
        {"id": f"m{n}", "number": n, "content": f"message {n} of many, " * 5, "session": "s"}
        for n in range(first, first + count)
    ]
    return [Statement(CREATE, {"rows": rows}), Statement(JOIN, {"rows": rows})]


def run(engine: str, folder: Path) -> str:
    config = Config(engine=engine)
    client = GraphClient(config)
    largest, most_open, failures, waits = 0, 0, 0, []
    folders = [folder / str(number) / "graph" for number in range(AGENTS)]
    started = time.perf_counter()
    for at in folders:
        deadline = time.monotonic() + 60
        at.parent.mkdir(parents=True)
        client.begin(at, SCHEMA, identity="x", because="bench", deadline=deadline)
        session = Statement("CREATE (:Session {id: 's'})")
        client.load(at, [session, *messages(0, MESSAGES)], added=2 * MESSAGES, deadline=deadline)
        client.finish(at, position=MESSAGES, deadline=deadline)
        largest = max(largest, client.status().rss_bytes)
    built_s = time.perf_counter() - started
    for turn in range(ROUNDS):
        for at in folders:
            begun = time.perf_counter()
            deadline = time.monotonic() + 10
            held = MESSAGES + turn * MORE
            try:
                client.apply(
                    at,
                    messages(held, MORE),
                    expected=held,
                    position=held + MORE,
                    added=2 * MORE,
                    removed=0,
                    deadline=deadline,
                )
                for text in QUESTIONS:
                    rows = client.query(
                        at,
                        Statement(text),
                        needs=held + MORE,
                        identity="x",
                        rows_max=10,
                        bytes_max=1 << 20,
                        deadline=deadline,
                    ).rows
                failures += rows != [("s", held + MORE, held + MORE - 1)]
            except Exception as error:  # noqa: BLE001 - counted, and shown
                failures += 1
                print(f"{engine}: {error}")
            waits.append(time.perf_counter() - begun)
            status = client.status()
            largest, most_open = max(largest, status.rss_bytes), max(most_open, status.open_graphs)
    starts = client.status().starts
    client.close()
    waits.sort()
    assert not failures, failures
    assert most_open <= config.max_open_graphs, most_open
    assert largest <= config.max_worker_bytes, largest
    return (
        f"{engine:8} {built_s * 1e3 / AGENTS:12.0f} {waits[len(waits) // 2] * 1e3:10.1f}"
        f" {waits[int(len(waits) * 0.99)] * 1e3:7.1f} {most_open:6} {largest / 2**20:8.0f}"
        f" {starts:7} {failures:9}"
    )


def main() -> None:
    config = Config()
    print(
        f"{AGENTS} agents' graphs, {ROUNDS} rounds: bring forward, ask twice; targets: no failure,"
        f" at most {config.max_open_graphs} open, under {config.max_worker_mb:.0f} MB"
    )
    print("engine   build ms each  median ms  p99 ms   open   RSS MB  starts  failures")
    for engine in ENGINES:
        with tempfile.TemporaryDirectory() as folder:
            print(run(engine, Path(folder)))


if __name__ == "__main__":
    main()
