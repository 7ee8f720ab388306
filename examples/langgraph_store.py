"""
LangGraph with its long-term memory in Elytron.

Needs `pip install . langgraph`, in the project's folder. The one node of the graph stands where a
model would be, so that this runs without a key and without a network.
"""

import tempfile
from pathlib import Path
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

import elytron
from elytron.adapters.langgraph import ElytronStore


class State(TypedDict):
    said: str
    answer: str


def respond(state: State, runtime: Runtime) -> dict[str, str]:
    """Answer with what is known of this, then remember what was said."""
    store = runtime.store
    assert store is not None
    known = store.search(("memories", "alice"), query=state["said"], limit=1)
    answer = known[0].value["text"] if known else "I know nothing of that."
    store.put(("memories", "alice"), f"said-{state['said'][:20]}", {"text": state["said"]})
    return {"answer": answer}


def ask(folder: Path, said: str) -> None:
    with elytron.open(folder) as store:
        memory = ElytronStore(store.agent("langgraph"), ttl={"default_ttl": 60 * 24 * 30})
        graph = StateGraph(State)
        graph.add_node("respond", respond)
        graph.add_edge(START, "respond")
        graph.add_edge("respond", END)
        result = graph.compile(store=memory).invoke({"said": said, "answer": ""})
        print(f"{said} -> {result['answer']}")
        print(f"  {memory.list_namespaces()}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        ask(Path(folder), "My favourite food is pizza.")
        # As after a restart: the store was closed, and is opened anew.
        ask(Path(folder), "What is my favourite food?")
