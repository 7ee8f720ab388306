"""
SIGKILL at any moment, of processes that do everything at once on one store.

Fifty rounds, or with `--proof` a thousand; the seed of what failed is in the error.
"""

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import elytron
from proof_kills import Crew
from proof_load import AGENTS, SETTINGS, embed
from proof_model import seed_of
from proof_nursery import Child, Nursery, nursery

pytestmark = pytest.mark.disk  # some are killed while they wait for it
ROUNDS = 50  # on one store
STORES_PROVED = 20
ROUNDS_BETWEEN = 10  # two comparisons


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Nursery]:
    with nursery("proof_load", tmp_path / "complaints") as one:
        yield one


def rounds_on_one_store(load: Nursery, folder: Path, seed: int) -> tuple[Crew, list[str]]:
    crew = Crew(load, folder, seed)
    wrong: list[str] = []
    try:
        for number in range(1, ROUNDS + 1):
            crew.kill_some()
            if number % ROUNDS_BETWEEN == 0:
                with crew.standing_still():
                    wrong += crew.compare()
                    wrong += crew.compare_backup() if number == ROUNDS else []
                if wrong:
                    break
    finally:
        crew.end()
    return crew, wrong


@pytest.mark.timeout(3600)
def test_whatever_process_is_killed_whenever_no_acknowledged_write_is_lost(
    load: Nursery, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """
    Four processes save, edit, delete, archive, restore, forget, learn and ask on two agents.

    Nothing that was acknowledged is lost or there twice, what was deleted stays deleted, no file
    holds what was forgotten, the order is that of saving, and `check` finds nothing.
    """
    stores = STORES_PROVED if pytestconfig.getoption("--proof") else 1
    begun = time.monotonic()
    killed: Counter[str] = Counter()
    acknowledged = rounds = compared = 0
    for number in range(stores):
        seed = seed_of("kills", number)
        folder = tmp_path / f"store-{number}"
        try:
            crew, wrong = rounds_on_one_store(load, folder, seed)
        except BaseException as error:
            error.add_note(f"store {number}, seed {seed}: {load.complaints.read_text()[-3000:]}")
            raise
        assert not wrong, f"store {number}, seed {seed}: {wrong[:10]}"
        shutil.rmtree(folder)
        killed += crew.killed
        acknowledged += crew.model.acknowledged
        compared += crew.compared
        rounds += ROUNDS
    print(
        f"\n{rounds} rounds, {killed.total()} processes killed, {acknowledged} acknowledged writes,"
        f" 0 lost or doubled, in {time.monotonic() - begun:.0f} s; {compared} comparisons"
        f"\nkilled during: {dict(killed.most_common())}"
    )
    assert load.complaints.read_text().splitlines() == []
    assert min(acknowledged, killed.total()) >= rounds  # else nothing was shown
    assert compared >= rounds // ROUNDS_BETWEEN


BEGUN = {"a new store": 0, "a store of the schema before": 3}


@pytest.mark.parametrize("what", BEGUN)
@pytest.mark.timeout(3600)
def test_a_process_killed_while_it_begins_migrates_or_closes_a_store_loses_nothing(
    load: Nursery, tmp_path: Path, pytestconfig: pytest.Config, what: str
) -> None:
    """
    Each is killed somewhere in its short life, on what the one before has left.

    Whoever comes to its end is followed by one on a store that is as it was at first.
    """
    rounds = 200 if pytestconfig.getoption("--proof") else 8
    dice = random.Random(seed_of(what, 0))
    first = tmp_path / "first"
    expected: set[str] = set()
    if BEGUN[what]:
        expected = set(saved_by(load.start("make_older", folder=str(first), version=BEGUN[what])))
    begun, life_s = time.monotonic(), 0.0
    killed = 0
    folder, saved = again(tmp_path, first, 0), set(expected)
    for number in range(rounds + 1):
        child = load.start("open_and_close", folder=str(folder), name=f"life{number}")
        started_s = time.monotonic()
        if number:  # the first says how long a life is
            child.hear_for(dice.uniform(0, life_s))
            child.kill()
        saved |= set(saved_by(child))
        if not number:
            life_s = time.monotonic() - started_s
        killed += bool(number)
        with elytron.open(folder, embedder=embed, **SETTINGS) as store:
            agent = store.agent(AGENTS[0])
            lost = saved - {message.id for message in agent.messages()}
            assert not lost, f"round {number}: {sorted(lost)}"
            assert agent.check().findings == ()
        if dice.random() < 0.5:
            folder, saved = again(tmp_path, first, number + 1), set(expected)
    print(f"\n{killed} kills of {what}, 0 lost, in {time.monotonic() - begun:.0f} s")


def saved_by(child: Child) -> list[str]:
    """What a process said that it had saved, until its end."""
    saved = [ident for line in child.to_end() for ident in line.get("saved", ())]
    assert child.ended() in (0, -signal.SIGKILL)
    return saved


def again(tmp_path: Path, first: Path, number: int) -> Path:
    """A copy of what was there at first, if anything was."""
    folder = tmp_path / f"copy-{number}"
    if first.exists():
        shutil.copytree(first, folder)
    return folder
