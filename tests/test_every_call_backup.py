"""
Backups, made and brought back, while one call to the file system fails.

Method: see `faulty_calls.py`. After each fault the backup brings back the state before or the new
one, the store is as it was or as the backup has it, or is known to be damaged; what was reported
done is done; and the same works once the disk does.
"""

import contextlib
import gc
import logging
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import elytron
from backups import fill, home, ledger_gone, look
from elytron.ledger import swapping
from every_call import NOTHING, SMALL, Resources, check_error, spread
from faulty_calls import MODES, FaultyCalls, Mode

TRIES = 2
Looks = dict[str, Any]


def made(folder: Path, *, count: int) -> None:
    with elytron.open(folder, SMALL) as store:
        bob = store.agent("bob")
        fill(bob, 0, count)
        bob.archive(older_than_days=0, keep=20)
        bob.remember("Alice prefers Python", about=["Alice"])


class Outcome(NamedTuple):
    """What a caller was told: the first error, None if all was reported done."""

    error: elytron.ElytronError | None

    @classmethod
    def of(cls, work: Callable[[], elytron.BackedUp | elytron.BackupRestored]) -> "Outcome":
        try:
            report = work()
        except elytron.ElytronError as error:
            return cls._bare(error)
        return cls._bare(report.failed[0].cause) if report.failed else cls(None)

    @classmethod
    def _bare(cls, error: elytron.ElytronError) -> "Outcome":
        check_error(error)
        # Its frames may hold what they had open.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return cls(error)


class Bench:
    """A store of thirty-three messages, and a backup of it when it had thirty."""

    def __init__(self, place: Path) -> None:
        self.template = place / "template"
        self.one = place / "one"
        self.calls = FaultyCalls(place)
        logging.disable()  # pytest keeps what is logged, with errors, whose frames hold files
        store = self.template / "store"
        made(store, count=30)
        self.old = look_at(store)
        with elytron.open(store, SMALL) as opened:
            assert opened.backup(self.template / "backup").ok
            fill(opened.agent("bob"), 30, 33)
            opened.agent("bob").archive(older_than_days=0, keep=12)
        self.new = look_at(store)

    def close(self) -> None:
        logging.disable(logging.NOTSET)
        self.calls.close()

    def each_call(self, mode: Mode, attempt: "Attempt", *, at_most: int | None) -> int:
        """Fail one call after the other, or *at_most* so many of them; how many tries met it."""
        with self._copied(attempt.prepare):
            assert attempt.run(self, 0, mode).error is None
            after = look_at(self.one / "store")
        count, met = self.calls.count, 0
        for nth in spread(count, at_most=at_most):
            with self._copied(attempt.prepare):
                resources = Resources.now()
                outcome = attempt.run(self, nth, mode)
                met += self.calls.fired
                gc.collect()  # frames of an error that is forgotten may hold what they had open
                now = Resources.now()
                assert now.descriptors <= resources.descriptors, "descriptors are left open"
                assert now.threads <= resources.threads
                attempt.check(self, outcome, after)
        return met

    @contextlib.contextmanager
    def _copied(self, prepare: Callable[[Path], object]) -> Iterator[None]:
        shutil.rmtree(self.one, ignore_errors=True)
        shutil.copytree(self.template, self.one)
        prepare(self.one)
        yield
        shutil.rmtree(self.one)


def look_at(store: Path) -> Looks:
    """What is in a closed store, which is whole."""
    with elytron.open(store, SMALL) as opened:
        bob = opened.agent("bob")
        report = bob.check()
        assert report.ok, report.findings
        return look(bob)


class Attempt(NamedTuple):
    """What is done to a copy of the bench's folders, and what has to be true then."""

    prepare: Callable[[Path], object]
    run: Callable[[Bench, int, Mode], Outcome]
    check: Callable[[Bench, Outcome, Looks], None]


def back_up(bench: Bench, nth: int, mode: Mode) -> Outcome:
    store = elytron.open(bench.one / "store", SMALL)
    try:
        store.agent("bob").history()
        with bench.calls.armed(nth, mode):
            outcome = Outcome.of(lambda: store.backup(bench.one / "backup"))
            if mode.for_good:
                store.close()
        if not mode.for_good:
            assert look(store.agent("bob")) == bench.new
        return outcome
    finally:
        store.close()


def backup_is_one_or_the_other(bench: Bench, outcome: Outcome, _after: Looks) -> None:
    backup, store = bench.one / "backup", bench.one / "store"
    assert look_at(store) == bench.new
    for number, expected in enumerate(((bench.old, bench.new), (bench.new,))):
        to = bench.one / f"restored {number}"
        try:
            report = elytron.restore_backup(backup, to, SMALL)
        except elytron.NotFound:  # a first one that came to nothing
            assert outcome.error is not None
            assert not number
        else:
            assert report.ok, report.failed
            if report.agents:
                assert look_at(to) in (expected if outcome.error else (bench.new,))
            else:
                assert outcome.error is not None
        with elytron.open(store, SMALL) as opened:
            assert opened.backup(backup).ok


def bring_back(bench: Bench, nth: int, mode: Mode, *, replace: bool = False) -> Outcome:
    with bench.calls.armed(nth, mode):
        return Outcome.of(
            lambda: elytron.restore_backup(
                bench.one / "backup", bench.one / "store", SMALL, replace=replace
            )
        )


def is_it(found: Looks, expected: Looks) -> bool:
    """
    Whether a memory is the expected one. Messages of which the archive could not be read for a
    moment are brought back into the ledger, too: these are there, and not lost.
    """
    places = ("held", "sessions")
    more = {one.id for one in found["held"]} - {one.id for one in expected["held"]}
    return (
        all(found[what] == expected[what] for what in expected if what not in places)
        and [one for one in found["held"] if one.id not in more] == expected["held"]
    )


def store_is_one_or_the_other(
    bench: Bench, outcome: Outcome, after: Looks, *, replace: bool = False
) -> None:
    store = bench.one / "store"
    before = [bench.new] if replace else []
    found = []
    with elytron.open(store, SMALL) as opened:
        for name in opened.agents():
            bob = opened.agent(name)
            # Else it is damaged and says so, as between the first move of a restore and the last.
            if bob.check().ok:
                found.append(look(bob))
    if outcome.error is None:
        assert len(found) == 1
        assert is_it(found[0], after)
    else:
        assert all(one in before or is_it(one, after) for one in found)
        assert not NOTHING.search(str(outcome.error)) or found == before, outcome.error
    again = elytron.restore_backup(bench.one / "backup", store, SMALL, replace=replace)
    for failed in again.failed:  # it is whole by now, but for what a check mends
        assert isinstance(failed.cause, elytron.Conflict)
        assert not replace
        with elytron.open(store, SMALL) as opened:
            opened.agent(failed.agent).check(repair=True)
    assert is_it(look_at(store), after)
    assert not swapping.unfinished(home(store))


def be_refused(bench: Bench, nth: int, mode: Mode) -> Outcome:
    outcome = bring_back(bench, nth, mode)
    return Outcome(None) if isinstance(outcome.error, elytron.Conflict) else outcome


def store_is_as_it_was(bench: Bench, _outcome: Outcome, _after: Looks) -> None:
    assert look_at(bench.one / "store") == bench.new
    assert not swapping.aside_folders(home(bench.one / "store")), "it was taken for a damaged one"


def nothing(_place: Path) -> None:
    """As it is."""


ATTEMPTS = {
    "backup": Attempt(nothing, back_up, backup_is_one_or_the_other),
    "first backup": Attempt(
        lambda place: shutil.rmtree(place / "backup"), back_up, backup_is_one_or_the_other
    ),
    "restore to a new place": Attempt(
        lambda place: shutil.rmtree(place / "store"), bring_back, store_is_one_or_the_other
    ),
    "restore what is gone": Attempt(
        lambda place: ledger_gone(place / "store"), bring_back, store_is_one_or_the_other
    ),
    "restore what is whole": Attempt(nothing, be_refused, store_is_as_it_was),
    "replace": Attempt(
        nothing,
        partial(bring_back, replace=True),
        partial(store_is_one_or_the_other, replace=True),
    ),
}

# Of a ledger that was just written SQLite reads nothing there.
NEVER_FAIL = {("restore to a new place", "cut short")}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.close()


@pytest.mark.timeout(3600)  # with --proof each call of each is tried
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_backup_and_a_store_are_whole_whichever_call_fails(
    bench: Bench, request: pytest.FixtureRequest, name: str, mode: str
) -> None:
    proof = request.config.getoption("--proof", default=False)
    met = bench.each_call(MODES[mode], ATTEMPTS[name], at_most=None if proof else TRIES)
    assert met or (name, mode) in NEVER_FAIL
