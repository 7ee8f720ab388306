"""
Verbs that save, change and delete, while one call to the file system fails.

Method: see `every_call.py`. Each call that there is would take an hour, so a few are tried, evenly
spread; all of them with `--proof`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from elytron import Agent
from every_call import Bench, Verb
from faulty_calls import MODES
from moved import talk

TRIES = 2  # of each verb in each mode


def draft(name: str) -> dict[str, Any]:
    return {"role": "user", "content": f"New tea {name}", "id": name, "user": "alice"}


def submit(bob: Agent) -> None:
    future = bob.submit(**draft("new"))
    bob.flush()
    future.result(timeout=30)


def export(bob: Agent) -> None:
    assert bob.export(bob._agents.path.with_name("exported.jsonl"), archived=True)


VERBS: dict[str, Callable[[Agent], object]] = {
    "save": lambda bob: bob.save(**draft("new")),
    "save_many": lambda bob: bob.save_many([draft(f"new-{number}") for number in range(40)]),
    "save_archived": lambda bob: bob.save(**next(talk(1, start=3))),
    "submit": submit,
    "import": lambda bob: bob.import_([draft(f"new-{number}") for number in range(9)]),
    "export": export,
    "edit": lambda bob: bob.edit("m21", "Edited"),
    "delete": lambda bob: bob.delete("m21"),
    "delete_archived": lambda bob: bob.delete("m3"),
    "delete_session": lambda bob: bob.delete_session("s1"),
    "pin": lambda bob: bob.pin("m22"),
    "unpin": lambda bob: bob.unpin("m20"),
    "set_importance": lambda bob: bob.set_importance("m22", 0.9),
    "reindex": lambda bob: bob.reindex(),
}  # fmt: skip
STEPWISE = ("submit", "import", "delete_session", "reindex")
# Where the archive cannot be read, it is saved anew, and the copy in the archive goes.
ANYWHERE = {"save_archived": "m3"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VERBS)
def test_whatever_was_reported_is_so_whichever_call_fails(
    bench: Bench, request: pytest.FixtureRequest, name: str, mode: str
) -> None:
    verb = Verb(VERBS[name], stepwise=name in STEPWISE, anywhere=ANYWHERE.get(name))
    proof = request.config.getoption("--proof", default=False)
    assert bench.try_all(verb, MODES[mode], at_most=None if proof else TRIES)
