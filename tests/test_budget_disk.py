"""
The budget's file: damaged, lost, or on a disk that fails, it keeps nobody from saving for long.

A number may come out too high, or the file is begun anew; none is ever below what was told.
"""

import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from elytron import DiskFull, Unavailable
from elytron.ledger.budget import Budget
from elytron.ledger.rows import checksum
from faulty_disk import NAME, FaultyDisk
from ledgers import Copier
from test_budget import TIMEOUT_S, die


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "budget.db"


@pytest.fixture(scope="module")
def disk() -> Iterator[FaultyDisk]:
    disk = FaultyDisk()
    yield disk
    disk.unregister()


@pytest.fixture
def copier() -> Iterator[Copier]:
    copier = Copier()
    yield copier
    copier.close()


# -- damage


def fill(path: Path) -> dict[str, int]:
    """A closed budget with something in each table; what was granted."""
    dead = Budget(path, total_bytes=100, timeout_s=TIMEOUT_S)
    grants = {f"agent-{number}": number for number in range(9)}
    dead.recount(grants)
    assert dead.reserve("agent-1", 10)
    assert dead.reserve("agent-2", 10)
    die(dead)
    return grants


def use_damaged(path: Path, grants: dict[str, int]) -> bool:
    """Use a budget on a damaged file: it is as it was, or begun anew, which is returned."""
    budget = Budget(path, total_bytes=100, timeout_s=TIMEOUT_S)
    anew = budget.needs_recount
    assert budget.uses() == ({} if anew else grants)
    assert budget.reserved_bytes() == (0 if anew else 20)
    budget.recount(grants)
    assert budget.uses() == grants
    assert budget.take("agent-0", need_bytes=64, step_bytes=99) == 64, "36 are granted already"
    budget.close()
    return anew


def test_one_bit_flipped_anywhere_is_no_failure_and_no_wrong_number(path, tmp_path, caplog):
    """Method: flip a bit in each byte that is not empty, and in some that are."""
    caplog.set_level(logging.ERROR)
    grants = fill(path)
    whole = path.read_bytes()
    lives = {live: live.read_bytes() for live in tmp_path.glob("*.live")}
    anew = 0
    places = [at for at in range(len(whole)) if whole[at] or at % 97 == 0]
    for at in places:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        for live, data in lives.items():
            live.write_bytes(data)
        anew += use_damaged(path, grants)
    assert len(places) // 2 < anew < len(places)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def write_garbage(path: Path) -> None:
    path.write_bytes(b"What is this?" * 1000)


def blank_a_page(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:8192] + bytes(4096) + data[12288:])


def put_another(path: Path) -> None:
    path.unlink()
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE grants(agent, bytes)")
    db.close()


DAMAGES = (Path.unlink, cut, empty, write_garbage, blank_a_page, put_another)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_budget_that_is_lost_damaged_or_foreign_is_begun_anew(path, caplog, damage):
    grants = fill(path)
    damage(path)
    left = path.read_bytes() if path.exists() else b""
    assert use_damaged(path, grants)
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    if left:
        assert path.with_name("budget.db.damaged").read_bytes() == left, "it might be somebody's"
        assert [record.name for record in warned] == ["elytron.store"]
        assert "budget.db" in warned[0].getMessage()
    else:
        assert not warned, "as in a store that never had a total"


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_budget_lost_while_it_is_open_gets_the_reserves_of_the_living_back(path, damage):
    """The damage is done by another process: closing the file here would drop SQLite's locks."""
    first, second, third = (Budget(path, total_bytes=100, timeout_s=TIMEOUT_S) for _ in range(3))
    first.recount({})
    assert first.reserve("bob", 10)
    assert second.reserve("bob", 20)
    assert first.take("bob", need_bytes=30, step_bytes=0) == 30
    assert first.reserve("eve", 1)
    first.release("eve")
    assert not first.reserve("amy", 99)
    child = os.fork()
    if child == 0:
        damage(path)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    third.recount({"bob": 25})
    for budget in (first, second):
        assert budget.take("eve", need_bytes=90, step_bytes=0) == 0
    assert second.reserved_bytes() == 30
    assert second.grant("bob") in (25, 30)
    for budget in (first, second, third):
        budget.close()


def test_a_holder_that_would_be_a_path_to_elsewhere_is_damage(path, tmp_path):
    grants = fill(path)
    db = apsw.Connection(str(path))
    row = ("agent-1", "x/../../elsewhere", 10)
    db.execute("INSERT INTO reserves VALUES(?, ?, ?, ?)", (*row, checksum(row)))
    db.close()
    assert use_damaged(path, grants)


def test_a_folder_in_the_way_is_called_unusable(path):
    path.mkdir()
    budget = Budget(path, total_bytes=100, timeout_s=TIMEOUT_S)
    with pytest.raises(Unavailable, match=r"budget\.db"):
        budget.grant("bob")
    budget.close()
    with pytest.raises(Unavailable, match="nowhere"):
        Budget(path / "nowhere" / "x", total_bytes=100, timeout_s=TIMEOUT_S).grant("bob")


# -- faults

FAULTS = [
    ("xWrite", apsw.IOError),
    ("xWrite", apsw.FullError),
    ("xSync", apsw.IOError),
    ("xTruncate", apsw.IOError),
    ("xRead", apsw.IOError),
]


def work_and_believe(budget: Budget, met: list[Exception]) -> tuple[dict[str, int], int]:
    """Use every verb that writes; the grants and the reserve that its callers may count on."""
    believed, reserved = {"agent-8": 8}, 0

    def attempt(verb: Callable[[], object]) -> object:
        try:
            return verb()
        except (DiskFull, Unavailable) as error:
            met.append(error)
            return None

    if attempt(lambda: budget.reserve("agent-8", 5)):
        reserved = 5
    for number in range(3):
        granted = attempt(lambda: budget.take("agent-8", need_bytes=5, step_bytes=9))
        believed["agent-8"] = granted or believed["agent-8"]
        if number == 1:
            believed["agent-8"] = 4
            attempt(lambda: budget.settle("agent-8", 4))
    attempt(lambda: budget.reserve("agent-7", 5))
    attempt(lambda: budget.release("agent-7"))
    attempt(lambda: budget.forget("agent-6"))
    attempt(lambda: budget.recount({"agent-8": 6}))
    return believed, reserved


@pytest.mark.parametrize(("call", "error"), FAULTS)
def test_whichever_call_to_the_disk_fails_no_number_is_below_what_was_told(
    tmp_path, disk, copier, call, error
):
    """
    Method: fail the 1st call of a kind, then the 2nd, and so on. The file is looked at as it was
    the moment after, as if the process had been killed there, and once it was closed.
    """
    template = tmp_path / "template"
    template.mkdir()
    fill(template / "budget.db")
    for nth in itertools.count(1):
        place, image = tmp_path / f"{nth}", tmp_path / f"{nth}-image"
        shutil.copytree(template, place)
        budget = Budget(place / "budget.db", total_bytes=100, timeout_s=TIMEOUT_S, vfs=NAME)
        met: list[Exception] = []
        disk.arm(call, nth, error)
        believed, reserved = work_and_believe(budget, met)
        fired = disk.fired
        disk.disarm()
        assert len(met) <= 1, "one fault costs one verb"
        assert budget.reserve("agent-1", 1), "and the next goes on"
        copier.copy(place, image)
        budget.close()
        for left in (image, place):
            budget = Budget(left / "budget.db", total_bytes=100, timeout_s=TIMEOUT_S)
            assert not budget.needs_recount
            assert budget.grant("agent-8") >= believed["agent-8"]
            assert budget.reserved_bytes() >= (reserved if left is image else 0)
            free = budget.free_bytes()
            assert free >= 0
            assert budget.take("agent-8", need_bytes=free + 1, step_bytes=0) > free
            assert budget.reserved_bytes() == 0
            budget.close()
            assert not list(left.glob("*.damaged"))
            shutil.rmtree(left)
        if not fired:
            assert nth > 3
            return


def test_a_raised_grant_is_on_the_disk_before_anybody_uses_it_and_only_that_waits(path, disk):
    """Method: make bringing to the disk impossible, and see which verbs do without."""
    fill(path)
    budget = Budget(path, total_bytes=100, timeout_s=TIMEOUT_S, vfs=NAME)
    assert budget.reserve("bob", 1)
    disk.arm("xSync", 1, apsw.IOError)
    assert budget.reserve("bob", 2)
    assert budget.settle("agent-8", 7) == 7
    budget.release("bob")
    assert not disk.fired
    for nth in range(1, 4):  # the journal, the file, and that the journal is empty
        disk.arm("xSync", nth, apsw.IOError)
        with pytest.raises(Unavailable):
            budget.take("agent-8", need_bytes=1, step_bytes=0)
        assert disk.fired
        disk.disarm()
    budget.close()
