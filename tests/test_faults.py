"""
Every receipt is true, whichever call to the disk fails.

Method: fail the 1st call of a kind, then the 2nd, and so on, until a run ends with no fault
fired. After each, the files are looked at twice: as they were the moment after the verb
returned, as if the process had been killed there, and once the store was closed.
"""

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from elytron import (
    Agent,
    Busy,
    Config,
    Conflict,
    Corrupt,
    DiskFull,
    ElytronError,
    OutcomeUnknown,
    Store,
    Unavailable,
)
from elytron.ledger import words
from elytron.ledger.room import Room
from faulty_disk import NAME, FaultyDisk
from ledgers import Copier, check_index, held, lock_held
from quiet import at_rest

# Only a write runs out of room: SQLite makes every other failure of the system an I/O error.
FAULTS = [
    ("xWrite", apsw.IOError),
    ("xWrite", apsw.FullError),
    ("xSync", apsw.IOError),
    ("xTruncate", apsw.IOError),
    ("xRead", apsw.IOError),
]
SETTINGS = Config()
# So many calls at least are failed, one a run, before one fails none.
REACHED_BY_VERBS = {"xWrite": 5, "xSync": 1, "xRead": 5}
REACHED_BY_OPENING = {"xWrite": 9, "xSync": 1, "xRead": 20}
REACHED_BY_BEGINNING = {"xWrite": 100, "xSync": 10, "xTruncate": 4, "xRead": 50}
REACHED_BY_A_CHECKPOINT = {"xWrite": 200, "xSync": 1, "xTruncate": 1, "xRead": 7}
OLD = {f"old-{n}": f"Number {n}" for n in range(5)}
GONE = {f"gone-{n}": f"Gone {n}" for n in range(70)}
LONG = "word " * 8000


@pytest.fixture(scope="module")
def disk() -> Iterator[FaultyDisk]:
    disk = FaultyDisk()
    yield disk
    disk.unregister()


@pytest.fixture(scope="module")
def copier() -> Iterator[Copier]:
    copier = Copier()
    yield copier
    copier.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store: five messages in a session, and a session of its own for deletion."""
    folder = tmp_path_factory.mktemp("template") / "store"
    with Store(folder, SETTINGS) as store:
        for session, contents in (("old", OLD), ("gone", GONE)):
            store.agent("bob").save_many(
                {"role": "user", "content": content, "id": key, "session": session}
                for key, content in contents.items()
            )
    return folder


class Expected:
    """What an agent may hold: for each id the contents that are true, None for not at all."""

    def __init__(self, contents: dict[str, str]) -> None:
        self.contents: dict[str, set[str | None]] = {k: {v} for k, v in contents.items()}
        self.drafts: list[dict[str, Any]] = []

    def attempt(self, work: Callable[[], object], changes: dict[str, str | None]) -> None:
        """Do *work*, which is to bring *changes*, and note what may have come of it."""
        try:
            work()
        except OutcomeUnknown:
            for key, content in changes.items():
                self.contents.setdefault(key, {None}).add(content)
        except ElytronError:
            for key in changes:
                self.contents.setdefault(key, {None})
        else:
            self.contents.update({key: {content} for key, content in changes.items()})

    def save(self, bob: Agent, drafts: list[dict[str, Any]]) -> None:
        self.drafts += drafts
        contents = {draft["id"]: draft["content"] for draft in drafts}
        if len(drafts) == 1:
            self.attempt(lambda: bob.save(**drafts[0]), contents)
        else:
            self.attempt(lambda: bob.save_many(drafts), contents)

    def check(self, folder: Path) -> None:
        """Reopen without faults: what is shown is true, and all or none of a batch is there."""
        with Store(folder, SETTINGS) as store:
            shown = held(store.agent("bob"))
            wrong = {k: v for k, v in self.contents.items() if shown.get(k) not in v}
            assert not wrong
            assert set(shown) <= set(self.contents)
            batch = [draft["id"] for draft in self.drafts if draft["id"].startswith("many-")]
            assert sum(key in shown for key in batch) in (0, len(batch))
            left = [key for key in GONE if key in shown]
            assert left == list(GONE)[len(GONE) - len(left) :] or not left, "the oldest go first"

    def go_on(self, folder: Path) -> None:
        """The parts agree with each other, and saving again with the same ids succeeds."""
        with Store(folder, SETTINGS) as store:
            bob = store.agent("bob")
            shown = held(bob)
            assert bob.usage().messages == len(shown)
            for word in ("number", "gone", "edited", "new"):
                found = {hit.message.id for hit in bob.recall(word, limit=1000)}
                wanted = {key for key, text in shown.items() if word in text.lower().split()}
                assert found >= wanted, word
            for draft in self.drafts[:3]:
                bob.save(**draft)
            for start in range(0, len(self.drafts), 20):
                bob.save_many(self.drafts[start : start + 20])
            assert set(held(bob)) >= {draft["id"] for draft in self.drafts}
        check_index(folder, behind_ok=True)


def draft(id: str, **members: Any) -> dict[str, Any]:
    return {"role": "user", "content": f"New {id}", "id": id, "user": "alice"} | members


def save_one(bob: Agent, expected: Expected) -> None:
    expected.save(bob, [draft("new-1")])


def save_three(bob: Agent, expected: Expected) -> None:
    for n in range(3):
        expected.save(bob, [draft(f"new-{n}", session=f"session {n % 2}")])


def save_many(bob: Agent, expected: Expected) -> None:
    expected.save(bob, [draft(f"many-{n}") for n in range(70)])


def edit_one(bob: Agent, expected: Expected) -> None:
    expected.attempt(lambda: bob.edit("old-1", "Edited"), {"old-1": "Edited"})


def delete_one(bob: Agent, expected: Expected) -> None:
    expected.attempt(lambda: bob.delete("old-1"), {"old-1": None})


def delete_a_session(bob: Agent, expected: Expected) -> None:
    """In steps, so after an error it is the oldest that may be gone."""
    expected.contents.update({key: {content, None} for key, content in GONE.items()})
    expected.attempt(lambda: bob.delete_session("gone"), dict.fromkeys(GONE))


def read_and_save(bob: Agent, expected: Expected) -> None:
    for read in (bob.history, lambda: bob.recall("number"), bob.usage, lambda: held(bob)):
        with contextlib.suppress(Unavailable, Corrupt, Busy):
            read()
    save_one(bob, expected)


VERBS = (save_one, save_three, save_many, edit_one, delete_one, delete_a_session, read_and_save)


def run(
    folder: Path,
    disk: FaultyDisk,
    copier: Copier,
    expected: Expected,
    work: Callable[[Agent], None],
) -> bool:
    """Do *work* on a disk that is armed, then check; whether a fault was met."""
    image = folder.with_name(f"{folder.name}-image")
    store = Store(folder, SETTINGS, vfs=NAME)
    bob = store.agent("bob")
    at_rest(bob)  # nobody else may meet the fault, or write while the image is taken
    work(bob)
    fired = disk.fired
    disk.disarm()
    if folder.exists():
        copier.copy(folder, image)
    store.close()
    for left in (image, folder):
        expected.check(left)
    expected.go_on(folder)
    shutil.rmtree(image)
    shutil.rmtree(folder)
    return fired


def shown(value: object) -> str:
    return getattr(value, "__name__", str(value))


# What a verb does with an error does not hang on which one it was: two of them see a full disk.
TRIED = [
    (verb, call, error)
    for verb in VERBS
    for call, error in FAULTS
    if error is not apsw.FullError or verb in (save_one, save_many)
]


@pytest.mark.parametrize(("verb", "call", "error"), TRIED, ids=shown)
def test_every_receipt_is_true_whichever_call_fails(
    tmp_path, disk, copier, template, verb, call, error
):
    for nth in itertools.count(1):
        folder, expected = tmp_path / str(nth), Expected(OLD | GONE)
        shutil.copytree(template, folder)

        def work(bob: Agent, *, nth: int = nth, expected: Expected = expected) -> None:
            bob.get("old-0")
            disk.arm(call, nth, error)
            verb(bob, expected)

        if not run(folder, disk, copier, expected, work):
            assert nth > REACHED_BY_VERBS.get(call, 0)
            return


@pytest.mark.parametrize(("call", "error"), FAULTS, ids=shown)
def test_every_receipt_is_true_whichever_call_of_a_checkpoint_fails(
    tmp_path, disk, copier, template, call, error
):
    """Only the ledger's own file fails. Its pages are all alike: one in so many is enough."""
    for nth in itertools.count(1, {"xWrite": 67, "xRead": 7}.get(call, 1)):
        folder, expected = tmp_path / str(nth), Expected(OLD | GONE)
        shutil.copytree(template, folder)

        def work(bob: Agent, *, nth: int = nth, expected: Expected = expected) -> None:
            bob.get("old-0")
            disk.arm(call, nth, error, ending="ledger.db")
            for n in range(40):
                expected.save(bob, [draft(f"new-{n}", content=f"New {n} {LONG}")])

        if not run(folder, disk, copier, expected, work):
            assert nth > REACHED_BY_A_CHECKPOINT.get(call, 0), "no checkpoint was made"
            return


@pytest.mark.parametrize(("call", "error"), FAULTS, ids=shown)
def test_every_receipt_is_true_whichever_call_of_opening_fails(
    tmp_path, disk, copier, template, call, error
):
    for nth in itertools.count(1):
        folder, expected = tmp_path / str(nth), Expected(OLD | GONE)
        shutil.copytree(template, folder)
        disk.arm(call, nth, error)
        if not run(folder, disk, copier, expected, lambda bob, e=expected: read_and_save(bob, e)):
            assert nth > REACHED_BY_OPENING.get(call, 0)
            return


@pytest.mark.parametrize(("call", "error"), FAULTS, ids=shown)
def test_an_agent_is_begun_whole_or_not_at_all_whichever_call_fails(
    tmp_path, disk, copier, call, error
):
    for nth in itertools.count(1, 3 if error is apsw.FullError else 1):
        expected = Expected({})
        disk.arm(call, nth, error)

        def work(bob: Agent, *, expected: Expected = expected) -> None:
            save_one(bob, expected)
            save_one(bob, expected)

        if not run(tmp_path / str(nth), disk, copier, expected, work):
            assert nth > REACHED_BY_BEGINNING.get(call, 0)
            return


SYSTEM_CALLS = (
    "os.fsync",
    "os.open",
    "pathlib.Path.open",
    "pathlib.Path.replace",
    "pathlib.Path.mkdir",
)


@pytest.mark.parametrize("call", SYSTEM_CALLS)
def test_an_agent_is_begun_whole_or_not_at_all_whichever_system_call_fails(
    tmp_path, monkeypatch, call
):
    """The folders, the markers and the lock file are made by Python, not by SQLite."""
    import importlib

    module, _, name = call.rpartition(".")
    owner = importlib.import_module("os") if module == "os" else Path
    real = getattr(owner, name)
    for nth in itertools.count(1):
        calls = itertools.count(1)
        met = []

        def fail(*args: Any, calls=calls, met=met, nth=nth, **kwargs: Any) -> Any:
            if next(calls) == nth:
                met.append(nth)
                raise OSError(5, "Input/output error")
            return real(*args, **kwargs)

        folder, expected = tmp_path / str(nth), Expected({})
        with Store(folder, SETTINGS) as store:
            with monkeypatch.context() as patched:
                patched.setattr(owner, name, fail)
                save_one(store.agent("bob"), expected)
            save_one(store.agent("bob"), expected)
        expected.check(folder)
        expected.go_on(folder)
        if not met:
            assert nth > 1, f"{call} was never called"
            return


# -- group commit


def gathered(folder: Path, bob: Agent, drafts: list[dict[str, Any]]) -> list[Any]:
    """Submit while the lock is held elsewhere, so that they wait together; their futures."""
    with lock_held(folder):
        return [bob.submit(**draft) for draft in drafts]


def test_one_bad_item_of_a_group_fails_alone(tmp_path):
    with Store(tmp_path / "store", SETTINGS) as store:
        bob = store.agent("bob")
        bob.save(**draft("taken"))
        drafts = [draft(f"new-{n}") for n in range(9)]
        drafts[4] = draft("taken", content="Something else")
        futures = gathered(tmp_path / "store", bob, drafts)
        for number, future in enumerate(futures):
            if number == 4:
                with pytest.raises(Conflict, match="'taken'"):
                    future.result(timeout=30)
            else:
                assert future.result(timeout=30).new
        assert held(bob) == {
            "taken": "New taken",
            **{f"new-{n}": f"New new-{n}" for n in range(9) if n != 4},
        }


@pytest.mark.parametrize(("call", "error"), FAULTS, ids=shown)
def test_every_receipt_of_a_group_is_true_whichever_call_fails(
    tmp_path, disk, copier, template, call, error
):
    for nth in itertools.count(1):
        folder, expected = tmp_path / str(nth), Expected(OLD | GONE)
        shutil.copytree(template, folder)

        def work(bob: Agent, *, nth: int = nth, expected: Expected = expected) -> None:
            bob.get("old-0")
            disk.arm(call, nth, error)
            drafts = [draft(f"new-{n}", session=f"session {n % 2}") for n in range(5)]
            expected.drafts += drafts
            futures = gathered(bob._agents.path, bob, drafts)
            for given, future in zip(drafts, futures, strict=True):
                expected.attempt(
                    lambda future=future: future.result(timeout=30),
                    {given["id"]: given["content"]},
                )

        if not run(folder, disk, copier, expected, work):
            assert nth > REACHED_BY_VERBS.get(call, 0)
            return


@pytest.mark.parametrize(("place", "read"), [(words, "segments"), (Room, "is_near")])
def test_a_save_that_is_durable_has_its_receipt_though_what_comes_after_it_fails(
    open_store, monkeypatch, place, read
):
    """The index is brought up to it, and it is looked whether a limit is near."""
    failed = []

    def fail(*_arguments: Any) -> None:
        failed.append(read)
        raise apsw.IOError("disk I/O error")

    bob = open_store().agent("bob")
    with monkeypatch.context() as patch:
        patch.setattr(place, read, fail)
        receipts = bob.save_many(draft(f"new-{n}") for n in range(200))
    assert failed
    assert all(receipt.new for receipt in receipts)
    assert len(held(bob)) == 200
    assert bob.save("user", "Afterwards").new


def test_a_deletion_that_stops_half_way_says_how_many_messages_are_gone(tmp_path, disk):
    """A session is deleted in several commits; here the second one finds no room."""
    with Store(tmp_path / "store", SETTINGS, vfs=NAME) as store:
        bob = store.agent("bob")
        at_rest(bob)  # nobody else may meet the fault
        bob.save_many(draft(f"new-{n}") for n in range(600))
        disk.arm("xWrite", 60, apsw.FullError, ending="-wal")
        with pytest.raises(DiskFull) as raised:
            bob.delete_session("default")
        disk.disarm()
        gone = 600 - bob.usage().messages
        assert 0 < gone < 600
        assert f"{gone} messages" in str(raised.value)
        assert bob.delete_session("default") == 600 - gone
