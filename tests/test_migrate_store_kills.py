"""`elytron migrate store`, killed at any moment, and beside a program that goes on saving."""

import subprocess
import sys
from pathlib import Path

import pytest

import elytron
from migrating import Place, archive, make, moved, rows, same

_SCRIPT = Path(__file__).with_name("migrating.py")
_WAIT_MAX_S = 120


def die_at(source: Place, target: str, *numbers: int) -> list[bool]:
    """Carry in processes that die, each at its nth call of the disk; whether each did."""
    done = subprocess.run(
        [sys.executable, "-W", "error", _SCRIPT, source.address, target, *map(str, numbers)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=_WAIT_MAX_S,
        check=True,
    )
    return [line == "died" for line in done.stdout.split()]


@pytest.fixture
def source(tmp_path: Path) -> Place:
    found = Place(tmp_path / "from")
    with found.open() as store:
        make(store)
    return found


def test_a_migration_that_is_killed_again_and_again_comes_to_its_end(
    source: Place, tmp_path: Path
) -> None:
    """Method: the first run makes the target; each further one dies later, until one ends well."""
    died = die_at(source, str(tmp_path / "to"), 300, *range(20, 200, 20))
    assert died[0]
    assert not died[-1]
    assert sum(died) >= 4
    same(source, Place(tmp_path / "to"))


def test_wherever_a_migration_is_killed_the_target_is_whole_or_cannot_be_used(
    source: Place, tmp_path: Path
) -> None:
    """
    Method: a fresh target for each of some calls of the disk. What is there then is looked at, and
    carried to the end. In the first 270 the target's ledger is made.
    """
    numbers = [150, *range(264, 420, 13)]
    died = die_at(source, str(tmp_path / "to-{}"), *numbers)
    assert sum(died) > 9
    expected, unusable = rows(source), 0
    for nth in numbers:
        target = Place(tmp_path / f"to-{nth}")
        with target.open() as store:
            try:
                held = store.agent("bob").history(limit=1000)
            except elytron.Unavailable:
                unusable += 1
            else:  # nothing has come, or all
                assert len(held) in (0, len(expected["messages"]))
        moved(source, target)
        assert rows(target) == expected
        assert archive(target) == archive(source)
    assert unusable > 5


def test_another_process_goes_on_saving(source: Place, tmp_path: Path) -> None:
    target = Place(tmp_path / "to")
    saving = subprocess.Popen(
        [sys.executable, "-W", "error", _SCRIPT, source.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert saving.stdout is not None
        assert saving.stdout.read(1) == b"!"
        moved(source, target)
        before = len(rows(target)["messages"])
        assert saving.poll() is None
    finally:
        out, _ = saving.communicate(timeout=_WAIT_MAX_S)
    assert saving.returncode == 0
    assert 90 < before <= 90 + int(out)
    done = moved(source, target)
    assert done.again
    assert not done.behind
    same(source, target)
