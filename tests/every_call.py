"""
A verb on a small store, of which one call to the file system fails; and what has to be true then.

After each fault the error is ours and its way out is named; what was reported is so, in the store
that met the fault and in its files as they were that moment; the same verb then works without a
restart; and once the store is closed nothing is left open.
"""

import contextlib
import gc
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from elytron import Agent, Config, Conflict, ElytronError, NotFound, OutcomeUnknown, Store
from elytron.ledger import files
from elytron.ledger.opening import name_within
from embedders import covered
from faulty_calls import FaultyCalls, Mode
from graphs import eventually
from ledgers import Copier
from moved import ALL, age, archived, talk

COUNT = 30
SMALL: dict[str, Any] = {
    "reserve_mb": 0.1,
    "auto_cleanup": False,
    "link_concepts": False,
    "wal_limit_mb": 1,
    "max_total_mb": 300,
    "archive_after_days": 36_500,
    "save_timeout_s": 20,
    "max_query_rows": 1000,
}
PLENTY = Config(**SMALL)
_WAY_OUT = re.compile(
    r"retry|try again|free some|choose|raise `|save again|open it again|close the store|restore"
    r"|repair|elytron \w+|repeat|use a new id|delete|shorten|upgrade|ask for less|look at"
    r"|name the primary|let (its owner|the owner|one that may)|grant the role"
)
NOTHING = re.compile(r"nothing was (written|changed|done|removed)|nothing left|nothing came")
State = dict[tuple[str, ...], Any]


class Verb(NamedTuple):
    """
    What is done, and in how many steps.

    Args:
        stepwise: an error may leave it half done.
        tells: its caller is told of errors; else it may be half done whatever it returns.
        repeats: done again it does nothing more.
        anywhere: a message that may be held or archived afterwards.
        config: of the store that does it.
    """

    work: Callable[[Agent], object]
    stepwise: bool = False
    tells: bool = True
    repeats: bool = True
    anywhere: str | None = None
    config: Config = PLENTY
    open_store: Callable[[Path, Config], Store] = Store


def make_template(folder: Path) -> Path:
    """A closed store: ten messages in two segments of an archive, twenty held, and knowledge."""
    with Store(folder, PLENTY) as store:
        bob = store.agent("bob")
        for start in (0, 5):
            bob.save_many(talk(5, start=start))
            bob.archive(**ALL)
        bob.save_many(talk(COUNT - 10, start=10))
        bob.pin("m20")
        bob.remember("Alice lives in Lyon", id="old", about=["Alice", "Lyon"])
        bob.remember("Bruno knows tea", id="other", about=["Bruno"])
        bob.relate("Alice", "lives in", "Lyon")
        bob.relate("Alice", "knows", "Bruno")
    return folder


def state(bob: Agent, verb: "Verb") -> State:
    """All that an agent holds, but for the times that the clock gave."""
    found: State = {}
    for name in files.agent_names(bob._agents.path, name_within):
        other = Agent(name, bob._agents, bob._analyzer, bob._ids)
        if other.name != bob.name and (ids := sorted(m.id for m in other.messages())):
            found["agent", name] = ids
    for message in bob.messages():
        found["message", message.id] = _of(message)
        found["place", message.id] = "held"
    for one in archived(bob):
        message = one.message
        held = found.setdefault(("message", message.id), _of(message))
        assert held[0] == message.content
        before = found.get(("place", message.id))
        assert before != "archived", "it is in two segments"
        found["place", message.id] = "both" if before else "archived"
    if found.get(place := ("place", str(verb.anywhere))) in ("held", "archived"):
        found[place] = "somewhere"
    for memory in bob.memories(limit=100):
        found["memory", memory.id] = (memory.content, tuple(memory.about), bool(memory.valid_to))
    for relation in bob.relations(limit=100):
        names = (relation.source, relation.relation, relation.target)
        found[("relation", *names)] = bool(relation.valid_to)
    for concept in bob.concepts(limit=100):
        found["concept", concept.name] = concept.description
    found |= {("vector", key): True for key in covered(bob)}
    return found


def _of(message: Any) -> tuple[Any, ...]:
    return (
        message.content, message.session, message.user, message.importance, message.pinned,
    )  # fmt: skip


def check_between(now: State, before: State, after: State) -> None:
    """Each thing is as it was or as it was to be; a message on its way may be in both places."""
    for key in now.keys() | before.keys() | after.keys():
        may = [before.get(key), after.get(key)]
        if key[0] == "place" and may[0] != may[1] and None not in may:
            may.append("both")
        assert now.get(key) in may, (key, now.get(key), may)


def check_places(now: State, before: State) -> None:
    """All is as it was, but for where messages are; each is in one place."""
    assert {k: v for k, v in now.items() if k[0] != "place"} == {
        k: v for k, v in before.items() if k[0] != "place"
    }
    assert "both" not in [place for key, place in now.items() if key[0] == "place"]


def check_error(error: ElytronError) -> None:
    """It is a leaf of ours, and says what to do."""
    assert type(error) is not ElytronError
    assert _WAY_OUT.search(str(error)), f"no way out is named: {error!r}"


class Resources(NamedTuple):
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> "Resources":
        return cls(len(os.listdir("/proc/self/fd")), threading.active_count())


class Bench:
    """Where verbs are tried, with a fault at one call after the other."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.template = make_template(place / "template")
        self.calls = FaultyCalls(place)
        self._copier = Copier()
        self._known: dict[Verb, tuple[State, State]] = {}
        # pytest keeps what is logged, with errors, whose frames hold what they had open.
        logging.disable()

    def close(self) -> None:
        logging.disable(logging.NOTSET)
        self.calls.close()
        self._copier.close()

    def try_all(self, verb: Verb, mode: Mode, *, at_most: int | None) -> int:
        """
        Fail one call of *verb* after the other, or *at_most* so many of them.

        Returns:
            How many tries met their fault.
        """
        if verb not in self._known:
            self._known[verb] = self._outcomes(verb)
        with self._opened(verb, "counted") as bob, self.calls.armed(0, mode):
            verb.work(bob)
        met = 0
        for nth in spread(self.calls.count, at_most=at_most):
            Try(verb, nth, mode, *self._known[verb], self.calls).run(
                self.template, self.place, self._copier
            )
            met += self.calls.fired
        return met

    def _outcomes(self, verb: Verb) -> tuple[State, State]:
        """What the store holds before the verb, and after it."""
        with self._opened(verb, "whole") as bob:
            before = state(bob, verb)
            verb.work(bob)
            return before, state(bob, verb)

    @contextlib.contextmanager
    def _opened(self, verb: Verb, name: str) -> Iterator[Agent]:
        folder = self.place / name
        shutil.copytree(self.template, folder)
        with verb.open_store(folder, verb.config) as store:
            bob = store.agent("bob")
            bob.get("m12")
            yield bob
        shutil.rmtree(folder)


class Try(NamedTuple):
    """One verb, the nth call of which fails."""

    verb: Verb
    nth: int
    mode: Mode
    before: State
    after: State
    calls: FaultyCalls

    def run(self, template: Path, place: Path, copier: Copier) -> None:
        """Do it, and look at everything."""
        folder, image = place / f"{self.nth}", place / f"{self.nth}-image"
        for left in (folder, image):  # of a try that failed
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(template, folder)
        resources = Resources.now()
        store = self.verb.open_store(folder, self.verb.config)
        try:
            bob = store.agent("bob")
            bob.get("m12")
            with self.calls.armed(self.nth, self.mode):
                error = self._attempt(bob)
                if self.mode.for_good:
                    self._close(store)
            copier.copy(folder, image)
            if not self.mode.for_good:
                self._check(bob, error)
                self._go_on(bob)
        finally:
            self._close(store)
        gc.collect()  # frames of an error that is forgotten may still hold what they had open
        eventually(lambda: threading.active_count() <= resources.threads, "its threads have ended")
        now = Resources.now()
        assert now.descriptors <= resources.descriptors, "descriptors are left open"
        assert now.threads <= resources.threads, threading.enumerate()
        for left in (image, folder) if self.mode.for_good else (image,):
            with self._reopened(left, error) as bob:
                if self.mode.for_good:
                    self._go_on(bob)
        shutil.rmtree(folder)
        shutil.rmtree(image)

    def _attempt(self, bob: Agent) -> ElytronError | None:
        try:
            self.verb.work(bob)
        except ElytronError as error:
            check_error(error)
            # Its frames may hold what they had open.
            error.__traceback__ = error.__cause__ = error.__context__ = None
            return error
        return None

    def _close(self, store: Store) -> None:
        try:
            store.close()
        except ElytronError as error:
            check_error(error)

    def _check(self, bob: Agent, error: ElytronError | None) -> None:
        """That what was reported is so."""
        now, before, after = state(bob, self.verb), self.before, self.after
        if error is None and self.verb.tells:
            assert now == after, "reported done"
        elif error is None:
            check_between(now, before, after)
        elif isinstance(error, OutcomeUnknown) and not self.verb.stepwise:
            assert now in (before, after)
        elif self.verb.stepwise:
            check_between(now, before, after)
            if NOTHING.search(str(error)):
                assert now == before, f"it says that nothing was done: {error}"
        else:
            assert now == before, f"reported failed: {error!r}"

    def _go_on(self, bob: Agent) -> None:
        """The same verb works now, where it has not yet."""
        after = self.after
        try:
            self.verb.work(bob)
        except (NotFound, Conflict):
            assert state(bob, self.verb) == after, "there was nothing left to do"
        bob.enforce_limits()
        if self.verb.repeats:
            assert state(bob, self.verb) == after
        else:
            check_places(state(bob, self.verb), after)
        report = bob.check()
        assert report.ok, report.findings

    @contextlib.contextmanager
    def _reopened(self, folder: Path, error: ElytronError | None) -> Iterator[Agent]:
        """What a process that died there, or closed the store, has left."""
        age(folder)
        with self.verb.open_store(folder, self.verb.config) as store:
            bob = store.agent("bob")
            check_between(state(bob, self.verb), self.before, self.after)
            bob.check(repair=True)
            report = bob.check()
            assert report.ok, report.findings
            self._check(bob, error)
            yield bob


def spread(count: int, *, at_most: int | None) -> list[int]:
    """The first of *count* calls and others, evenly; all if they are few."""
    if at_most is None or count <= at_most:
        return list(range(1, count + 1))
    return sorted({1 + n * (count - 1) // (at_most - 1) for n in range(at_most)})
