"""
Upkeep, while one call to the file system fails: nothing is lost or doubled, and it goes on.

Method: see `every_call.py`, and `test_every_call_writing.py` for which calls are tried.
"""

from collections.abc import Iterator

import pytest

from elytron import Agent, Config, Corrupt
from every_call import SMALL, Bench, Verb
from faulty_calls import MODES
from moved import ALL

TRIES = 2
TIGHT = Config(**SMALL, max_messages_per_agent=14, keep_messages=0, emergency_messages=10)
CLEANING = Config(
    **SMALL | {"auto_cleanup": True}, max_messages_per_agent=14, keep_messages=0
)  # fmt: skip


def restore(bob: Agent) -> None:
    """A segment that cannot be read is named in the answer, and what is in it stays there."""
    for why in bob.restore(session="s0").damaged.values():
        raise Corrupt(f"{why}; restore it again")


VERBS = {
    "archive": Verb(lambda bob: bob.archive(**ALL)),
    "restore": Verb(restore),
    "enforce_limits": Verb(lambda bob: bob.enforce_limits(), config=TIGHT),
    # Done again, it archives half of what is left.
    "emergency_cleanup": Verb(lambda bob: bob.emergency_cleanup(), repeats=False, config=TIGHT),
    "reclaim": Verb(lambda bob: bob.reclaim(full=True)),
    "forget": Verb(lambda bob: bob.forget(user="alice", replies=False)),
    "clear": Verb(lambda bob: bob.clear()),
    "check": Verb(lambda bob: bob.check(repair=True)),
    # What it meets is told in `usage()`: one agent's trouble keeps nobody else from it.
    "cleanup": Verb(
        lambda bob: bob._agents.upkeep.janitor.run(), tells=False, config=CLEANING
    ),
}  # fmt: skip

# What writes nothing, as all is whole, meets no full disk.
NEVER_FAIL = {("check", "full once"), ("check", "full for good")}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VERBS)
def test_each_message_is_in_one_place_whichever_call_fails(
    bench: Bench, request: pytest.FixtureRequest, name: str, mode: str
) -> None:
    proof = request.config.getoption("--proof", default=False)
    verb = VERBS[name]._replace(stepwise=True)
    met = bench.try_all(verb, MODES[mode], at_most=None if proof else TRIES)
    assert met or (name, mode) in NEVER_FAIL
