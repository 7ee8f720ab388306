"""
The origin's pattern beside Elytron, in one run: saves a second, memory, lost writes.

The pattern: Kuzu with its default settings, five connections, eight writers, and for each message
seven statements, each a commit of its own: the message, its session, its user, and the relations
SENT, PART_OF and RESPONDS_TO; no embeddings on either side. Elytron is called through the class
that takes the origin's place, by eight writers with an event loop each. Each side is a process of
its own, and is asked afterwards what it holds: a write that was acknowledged and is not there is
lost; one of which only some statements went through is half saved.

Needs kuzu. Prints a table.
"""

import asyncio
import contextlib
import json
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

WRITERS, EACH, CONNECTIONS = 8, 300, 5
TEXT = "I'm swamped with the kids and work. What's up with you? Anything new?"
_RUN_MAX_S = 600
_SCHEMA = (
    "CREATE NODE TABLE User(id STRING, name STRING, created_at TIMESTAMP, PRIMARY KEY(id))",
    "CREATE NODE TABLE Session(id STRING, name STRING, created_at TIMESTAMP, PRIMARY KEY(id))",
    "CREATE NODE TABLE Message(id STRING, role STRING, content STRING, timestamp TIMESTAMP,"
    " session_id STRING, metadata STRING, PRIMARY KEY(id))",
    "CREATE REL TABLE SENT(FROM User TO Message, weight DOUBLE)",
    "CREATE REL TABLE PART_OF(FROM Message TO Session, position INT64)",
    "CREATE REL TABLE RESPONDS_TO(FROM Message TO Message, delay_seconds DOUBLE)",
)
_SAVE = (
    "CREATE (:Message {id: $id, role: 'user', content: $content, session_id: $session,"
    " metadata: '{}', timestamp: current_timestamp()})",
    "MERGE (s:Session {id: $session}) ON CREATE SET s.name = $session",
    "MERGE (u:User {id: $user}) ON CREATE SET u.name = $user",
    "MATCH (u:User {id: $user}), (m:Message {id: $id}) CREATE (u)-[:SENT {weight: 1.0}]->(m)",
    "MATCH (m:Message {id: $id}), (s:Session {id: $session})"
    " CREATE (m)-[:PART_OF {position: 0}]->(s)",
    "MATCH (m:Message {id: $id}), (p:Message {id: $before})"
    " CREATE (m)-[:RESPONDS_TO {delay_seconds: 0.0}]->(p)",
)
_HEADS = (
    ("saved", 8), ("a second", 10), ("refused", 9), ("lost", 6), ("half", 6), ("RSS MB", 8)
)  # fmt: skip
_WHOLE = "MATCH (:User)-[:SENT]->(m:Message)-[:PART_OF]->(:Session)"


def peak_mb() -> float:
    """The most memory that this process had at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def race(save: Any) -> tuple[list[str], dict[str, int], float]:
    """Eight writers at once: (ids that were acknowledged, refusals by their words, seconds)."""
    barrier = threading.Barrier(WRITERS + 1)
    acknowledged: list[str] = []
    refused: dict[str, int] = {}
    mutex = threading.Lock()

    def work(mine: int) -> None:
        before = ""
        barrier.wait()
        for number in range(EACH):
            name = f"m-{mine}-{number}"
            try:
                save(mine, name, before)
            except RuntimeError as error:
                with mutex:
                    words = str(error).splitlines()[0][:70]
                    refused[words] = refused.get(words, 0) + 1
            else:
                before = name
                with mutex:
                    acknowledged.append(name)
        barrier.wait()

    crew = [threading.Thread(target=work, args=(mine,)) for mine in range(WRITERS)]
    for thread in crew:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    barrier.wait()
    took = time.perf_counter() - start
    for thread in crew:
        thread.join()
    return acknowledged, refused, took


def locked(folder: Path) -> dict[str, Any]:
    """The pattern with a lock that its programs do not have: one save at a time."""
    return origin(folder, lock=threading.Lock())


def origin(folder: Path, *, lock: Any = None) -> dict[str, Any]:
    """The pattern, as its programs have it."""
    import kuzu

    path = str(folder / "kuzu.db")
    database = kuzu.Database(path)
    pool: queue.Queue[Any] = queue.Queue()
    for _ in range(CONNECTIONS):
        pool.put(kuzu.Connection(database))
    first = pool.get()
    for statement in _SCHEMA:
        first.execute(statement)
    pool.put(first)

    def save(mine: int, name: str, before: str) -> None:
        connection = pool.get(timeout=_RUN_MAX_S)
        known = {
            "id": name, "content": f"{TEXT} {name}", "session": f"s{mine}", "user": f"u{mine}",
            "before": before,
        }  # fmt: skip
        try:
            with lock or contextlib.nullcontext():
                for statement in _SAVE:
                    params = {key: value for key, value in known.items() if f"${key}" in statement}
                    connection.execute(statement, params)
        finally:
            pool.put(connection)

    acknowledged, refused, took = race(save)
    while not pool.empty():
        pool.get().close()
    database.close()
    peak = peak_mb()
    with kuzu.Database(path) as database, kuzu.Connection(database) as connection:
        held = ids(connection, "MATCH (m:Message) RETURN m.id")
        whole = ids(
            connection, "MATCH (:User)-[:SENT]->(m:Message)-[:PART_OF]->(:Session) RETURN m.id"
        )
    return told(acknowledged, refused, took, held, whole, peak)


def ids(connection: Any, query: str) -> set[str]:
    found = set()
    answer = connection.execute(query)
    while answer.has_next():
        found.add(answer.get_next()[0])
    return found


def elytron(folder: Path) -> dict[str, Any]:
    """The same program with one import changed."""
    from elytron.adapters.locrits import KuzuMemoryService
    from elytron.errors import ElytronError

    service = KuzuMemoryService("bench", folder / "memory")
    asyncio.run(service.initialize())
    loops = [asyncio.new_event_loop() for _ in range(WRITERS)]

    def save(mine: int, name: str, _before: str) -> None:
        try:
            loops[mine].run_until_complete(
                service.save_message(
                    "user", f"{TEXT} {name}", f"s{mine}", f"u{mine}", message_id=name
                )
            )
        except ElytronError as error:
            raise RuntimeError(str(error)) from error

    acknowledged, refused, took = race(save)
    for loop in loops:
        loop.close()
    asyncio.run(service.close())
    peak = peak_mb()

    async def look() -> tuple[set[str], float]:
        again = KuzuMemoryService("bench", folder / "memory")
        await again.initialize()
        found = [
            row["id"]
            for mine in range(WRITERS)
            for row in await again.get_conversation_history(f"s{mine}", EACH)
        ]
        connection = await again.get_connection()
        graph = await asyncio.to_thread(
            connection.execute,
            f"{_WHOLE} RETURN count(*)",
        )
        assert graph.get_next() == [len(found)]
        worker = again._shared.store._store.usage().worker.rss_bytes / 2**20
        await again.close()
        return set(found), worker

    held, worker_mb = asyncio.run(look())
    return told(acknowledged, refused, took, held, held, peak, worker_mb=worker_mb)


def told(
    acknowledged: list[str],
    refused: dict[str, int],
    took: float,
    held: set[str],
    whole: set[str],
    peak: float,
    **more: float,
) -> dict[str, Any]:
    return {
        "rate": len(acknowledged) / took,
        "acknowledged": len(acknowledged),
        "refused": sum(refused.values()),
        "words": max(refused, key=lambda words: refused[words], default=""),
        "lost": len(set(acknowledged) - held),
        "half": len(held - whole),
        "peak_mb": peak,
        **more,
    }


def run(side: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, side, folder],
            capture_output=True,
            text=True,
            timeout=_RUN_MAX_S,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{side} ended with {done.returncode}: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    sides = {side: run(side) for side in ("origin", "locked", "elytron")}
    print(f"{WRITERS} writers, {EACH} messages each, {WRITERS * EACH} in all")
    print(
        f"{'':10} {'saved':>7} {'a second':>9} {'refused':>8} {'lost':>5} {'half':>5} {'RSS MB':>7}"
    )
    for side, found in sides.items():
        print(
            f"{side:10}{found['acknowledged']:>8}{found['rate']:>10.0f}{found['refused']:>9}"
            f"{found['lost']:>6}{found['half']:>6}{found['peak_mb']:>8.0f}"
        )
    theirs, best, ours = sides["origin"], sides["locked"], sides["elytron"]
    print(
        f"elytron saved {ours['rate'] / max(theirs['rate'], 1e-9):.0f} x as many a second, and"
        f" {ours['rate'] / best['rate']:.1f} x as many as the pattern with a lock; of its"
        f" {WRITERS * EACH} none may be refused or lost:"
        f" {ours['refused']} refused, {ours['lost']} lost; its graph's worker, asked afterwards,"
        f" took {ours.get('worker_mb', 0):.0f} MB"
    )
    if theirs["words"]:
        print(f"the origin's refusals: {theirs['words']}")


SIDES = {"origin": origin, "locked": locked, "elytron": elytron}

if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(SIDES[sys.argv[1]](Path(sys.argv[2]))))
    else:
        main()
