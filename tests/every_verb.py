"""Each verb of a store and of an agent, called once, for tests of what is true of all of them."""

import io
from collections.abc import Callable

from elytron import Agent, Store

_MESSAGE = {"role": "user", "content": "x", "id": "child"}
STORE: dict[str, Callable[[Store], object]] = {
    "agent": lambda store: store.agent("eve"),
    "agents": lambda store: store.agents(),
    "usage": lambda store: store.usage(),
    "delete": lambda store: store.delete("bob"),
    "rename": lambda store: store.rename("bob", "rob"),
    "cleanup": lambda store: store.cleanup(),
    "on_alarm": lambda store: store.on_alarm(print),
    "backup": lambda store: store.backup("backup"),
}
AGENT: dict[str, Callable[[Agent], object]] = {
    "save": lambda bob: bob.save(**_MESSAGE),
    "save_many": lambda bob: bob.save_many([_MESSAGE]),
    "submit": lambda bob: bob.submit(**_MESSAGE),
    "flush": lambda bob: bob.flush(),
    "edit": lambda bob: bob.edit("before", "x"),
    "delete": lambda bob: bob.delete("before"),
    "delete_session": lambda bob: bob.delete_session("default"),
    "import_": lambda bob: bob.import_([_MESSAGE]),
    "reindex": lambda bob: bob.reindex(),
    "exists": lambda bob: bob.exists(),
    "history": lambda bob: bob.history(),
    "get": lambda bob: bob.get("before"),
    "sessions": lambda bob: bob.sessions(),
    "recall": lambda bob: bob.recall("fork"),
    "context": lambda bob: bob.context("fork"),
    "usage": lambda bob: bob.usage(),
    "remember": lambda bob: bob.remember("x", about=["y"]),
    "memories": lambda bob: bob.memories(),
    "get_memory": lambda bob: bob.get_memory("one"),
    "edit_memory": lambda bob: bob.edit_memory("one", "x"),
    "close_memory": lambda bob: bob.close_memory("one"),
    "delete_memory": lambda bob: bob.delete_memory("one"),
    "relate": lambda bob: bob.relate("x", "knows", "y"),
    "unrelate": lambda bob: bob.unrelate("x"),
    "relations": lambda bob: bob.relations(),
    "concepts": lambda bob: bob.concepts(),
    "concept": lambda bob: bob.concept("x"),
    "set_concept": lambda bob: bob.set_concept("x", type="y"),
    "delete_concept": lambda bob: bob.delete_concept("x"),
    "related": lambda bob: bob.related("x"),
    "path": lambda bob: bob.path("x", "y"),
    "cypher": lambda bob: bob.cypher("RETURN 1 AS one"),
    "rebuild_graph": lambda bob: bob.rebuild_graph(),
    "messages": lambda bob: list(bob.messages()),
    "export": lambda bob: bob.export(io.StringIO()),
    "pin": lambda bob: bob.pin("one"),
    "unpin": lambda bob: bob.unpin("one"),
    "set_importance": lambda bob: bob.set_importance("one", 1),
    "archive": lambda bob: bob.archive(),
    "restore": lambda bob: bob.restore("one"),
    "reclaim": lambda bob: bob.reclaim(),
    "enforce_limits": lambda bob: bob.enforce_limits(),
    "emergency_cleanup": lambda bob: bob.emergency_cleanup(),
    "check": lambda bob: bob.check(),
    "forget": lambda bob: bob.forget(user="alice"),
    "clear": lambda bob: bob.clear(),
    "embed": lambda bob: bob.embed(),
    "reembed": lambda bob: bob.reembed(),
}


def calls(store: Store, bob: Agent) -> dict[tuple[str, str], Callable[[], object]]:
    """By class and name, ready to be called; of every public verb, but for `close`."""
    found: dict[tuple[str, str], Callable[[], object]] = {}
    found |= {("Store", name): lambda call=call: call(store) for name, call in STORE.items()}
    found |= {("Agent", name): lambda call=call: call(bob) for name, call in AGENT.items()}
    public = {
        (kind.__name__, name) for kind in (Store, Agent) for name in dir(kind) if name[0] != "_"
    }
    assert found.keys() == public - {("Store", "close")}, found.keys() ^ public
    return found
