"""
What the store for LangGraph costs with 5,000 items in 50 namespaces.

Run it in the environment of that adapter, after `make test-adapter-langgraph`:
`.venv-adapters/langgraph/bin/python tests_adapters/measure_langgraph.py`
"""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import elytron
from elytron.adapters.langgraph import ElytronStore

ITEMS = 5000
SPACES = 50


def measure(what: str, times: int, do: Callable[[int], Any]) -> None:
    """Print the median of *times* calls."""
    took = []
    for number in range(times):
        started = time.perf_counter()
        do(number)
        took.append(time.perf_counter() - started)
    print(f"{what:<40} {sorted(took)[times // 2] * 1e3:8.2f} ms")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, elytron.open(folder) as opened:
        agent = opened.agent("langgraph")
        store = ElytronStore(agent)
        one = ("memories", "user7")

        def put(number: int) -> None:
            value = {"text": f"item {number} is about topic{number % 100}", "n": number}
            store.put(("memories", f"user{number % SPACES}"), str(number), value)

        measure("put, new", ITEMS, put)
        measure("put, over", 200, lambda _: store.put(one, "7", {"text": "changed"}))
        measure("put with a time to live, over", 200, lambda _: store.put(one, "7", {}, ttl=10))
        measure("get", 1000, lambda _: store.get(one, "7"))
        measure("search, one namespace", 50, lambda _: store.search(one))
        measure("the same, with a query", 50, lambda _: store.search(one, query="topic7"))
        measure("search, all namespaces", 20, lambda _: store.search(()))
        measure("the same, with a query", 20, lambda _: store.search((), query="topic7"))
        few = {"n": {"$gte": ITEMS - 5}}
        measure("the same, with a filter", 20, lambda _: store.search((), filter=few))
        measure("list_namespaces", 20, lambda _: store.list_namespaces())
        measure("delete", 200, lambda number: store.delete(("memories", "user0"), str(50 * number)))
        print(f"{agent.usage().bytes.total / ITEMS:.0f} bytes an item on disk")


if __name__ == "__main__":
    main()
