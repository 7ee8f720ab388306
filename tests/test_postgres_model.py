"""
A model of a store on a server: two stores on one schema, as two processes have it, and a book.

Either of them does a verb, so that what the other remembers of the agent is old time and again: a
save in one statement has to find that out by itself. A verb of the second store may have its way
to the server cut; then each thing is as before or as after it. The other store sees what the book
says, at once. Limits are small, so that messages leave for the archive while they are saved.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cutter import Cutter
from elytron import Agent, Config, ElytronError, Store
from elytron.ledger.postgres import ledger, saving
from elytron.ledger.postgres.link import Link
from ledgers import check_server_index
from postgres_server import Kept, Server
from second_process import INDEX_AFTER, PAST, AheadClock, Died
from whole_book import ANY, MAX, SETTINGS, Book, Wanted, of_message

HERE, THERE = "here", "there"
# A number says how far on in the verb the way of the second store is cut, in messages.
WHO = some.sampled_from([HERE] * 4 + [THERE] * 4 + [None]).flatmap(
    lambda who: some.integers(1, 12) if who is None else some.just(who)
)
ID = some.sampled_from([f"id-{n}" for n in range(14)])
SESSION = some.sampled_from(["one", "two"])
DRAFT = some.fixed_dictionaries(
    {
        "id": ID,
        "role": some.sampled_from(["user", "assistant"]),
        "session": SESSION,
        "user": some.sampled_from([None, "alice"]),
        "pinned": some.sampled_from([False] * 9 + [True]),
    }
)
MEANWHILE = ["save", "edit", "delete", "delete_session", "archive"]
PATIENT_S = 60
_number = itertools.count(1)


class Place:
    """Two stores on one schema of a server; the way of the second one may be cut."""

    def __init__(self, server: Server, schema: str, folder: Path, cutter: Cutter) -> None:
        self.dsn, self.schema, self.cutter, self.server = server.dsn(), schema, cutter, server
        self._dsns = {HERE: self.dsn, THERE: server.dsn(port=cutter.port)}
        self._settings = {
            **SETTINGS,
            "files_path": str(folder),
            "postgres_schema": schema,
            "link_concepts": False,
            "postgres_connections": 4,
        }
        self.stores: dict[str, Store] = {}
        for which in (HERE, THERE):
            self.open(which)

    def open(self, which: str) -> None:
        """Open one of them, or open it again."""
        if which in self.stores:
            self.stores[which].close()
        store = Store(self._dsns[which], Config(**self._settings), clock=AheadClock())
        store._upkeep.janitor.stop(PATIENT_S)  # it would clean up at times of its own
        self.stores[which] = store

    def close(self) -> None:
        for store in self.stores.values():
            store.close()


class Shared(RuleBasedStateMachine):
    """One agent, in two stores and in a book."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.name = f"bob {next(_number)}"
        self.book = Book()
        self.count = 0
        self.last = HERE  # who did the last verb

    def agent(self, which: str) -> Agent:
        return self.place.stores[which].agent(self.name)

    # -- doing

    def run(
        self, who: str | int, verb: str, change: Callable[[Book], Wanted], /, **of: Any
    ) -> None:
        """Have a verb done, the book changed, and what came of the one held against the other."""
        before = self.book
        before.step += 1
        after = before.copy()
        wanted = change(after)
        self.last = who if isinstance(who, str) else THERE
        try:
            answer = self.perform(who, verb, of)
        except Died:
            self.settle_cut(before, after, wanted)
            return
        except ElytronError as error:
            if wanted.error is None or not isinstance(error, wanted.error):
                raise
            if wanted.part:
                self.settle_cut(before, after, wanted)
            return
        assert wanted.error is None, f"{verb} has to raise {wanted.error}"
        held = {message.id for message in self.agent(HERE).messages()}
        gone = after.settle(held, wanted)
        self.book = after
        if verb in ("archive", "enforce_limits", "emergency_cleanup"):
            assert answer.archived == len(gone)
        if wanted.answer is not ANY:
            assert told(verb, answer) == wanted.answer

    def perform(self, who: str | int, verb: str, of: dict[str, Any]) -> Any:
        work = getattr(self.agent(self.last), verb)
        if isinstance(who, str):
            return work(**of)
        cutter = self.place.cutter
        cutter.arm(who)
        try:
            return work(**of)
        except ElytronError as error:
            if cutter.fired and error.retryable:
                raise Died from error
            raise
        finally:
            cutter.arm(0)
            cutter.settle(self.place.server)

    def settle_cut(self, before: Book, after: Book, wanted: Wanted) -> None:
        """After a verb that was cut short: each thing is as before or as after it."""
        self.agent(HERE).check(repair=True)  # what is half moved is moved, or is not
        agent = self.agent(HERE)
        found = {message.id: of_message(message) for message in agent.messages(archived=True)}
        for key in before.messages.keys() | after.messages.keys() | found.keys():
            assert found.get(key) in (before.messages.get(key), after.messages.get(key))
        assert wanted.part or found in (before.messages, after.messages)
        book = after.copy()
        order = {**before.messages, **after.messages}
        book.messages = {key: found[key] for key in order if key in found}
        book.held = {message.id for message in agent.messages()}
        for key in found:
            was = key in before.held, key in after.held
            assert (key in book.held) in was or key in wanted.may | wanted.must
            returned = key in book.held and key not in before.held
            first, second = (after, before) if returned else (before, after)
            book.arrived[key] = first.arrived.get(key) or second.arrived[key]
        book.arrived = {key: book.arrived[key] for key in found}
        book.used &= found.keys()
        self.book = book

    def complete(self, draft: dict[str, Any]) -> dict[str, Any]:
        """A draft with a word that no other has, and a time."""
        self.count += 1
        return draft | {
            "content": f"shared unique{self.count}x",
            "at": PAST.replace(microsecond=self.count),
            "metadata": {},
            "importance": 0.5,
        }

    def known(self, data: Any) -> str:
        key: str = data.draw(some.sampled_from([*self.book.messages, "id-nowhere"]))
        return key

    # -- messages

    @initialize(drafts=some.lists(DRAFT, min_size=4, max_size=8, unique_by=lambda one: one["id"]))
    def begin(self, drafts: list[dict[str, Any]]) -> None:
        for number, draft in enumerate(drafts):
            self.save((HERE, THERE)[number // 2 % 2], draft)

    @rule(who=WHO, draft=DRAFT)
    def save(self, who: str | int, draft: dict[str, Any]) -> None:
        message = self.complete(draft)
        self.run(who, "save", lambda book: book.save([message], answer=True), **sent(message))

    @rule(draft=DRAFT, count=some.integers(2, 4), who=WHO)
    def save_one_after_the_other(self, draft: dict[str, Any], count: int, who: str | int) -> None:
        """By the same store, so that it knows the session."""
        for _ in range(count):
            self.save(who, draft | {"id": f"more-{self.count}", "pinned": False})

    @rule(
        draft=DRAFT, who=some.sampled_from([HERE, THERE]), other=some.sampled_from([HERE, THERE]),
        what=some.sampled_from(MEANWHILE), data=some.data(),
    )  # fmt: skip
    def do_something_between_two_saves(
        self, draft: dict[str, Any], who: str, other: str, what: str, data: Any
    ) -> None:
        """By the other store, or by itself: what it knew is old."""
        self.save_one_after_the_other(draft, 2, who)
        match what:
            case "save":
                self.save(other, draft | {"id": f"more-{self.count}", "pinned": False})
            case "delete_session":
                self.delete_session(other, draft["session"])
            case "archive":
                self.archive(other, 0)
            case _:
                getattr(self, what)(other, data)
        self.save(who, draft | {"id": f"more-{self.count}", "pinned": False})

    @rule(who=WHO, data=some.data())
    def save_again(self, who: str | int, data: Any) -> None:
        message = self.book.messages.get(self.known(data))
        if message is not None:
            self.run(who, "save", lambda book: book.save([message], answer=False), **sent(message))

    @rule(who=WHO, drafts=some.lists(DRAFT, min_size=1, max_size=4), data=some.data())
    def save_many(self, who: str | int, drafts: list[dict[str, Any]], data: Any) -> None:
        """New ones and, after them, perhaps one that was saved before."""
        messages = [self.complete(draft) for draft in drafts]
        again = self.book.messages.get(self.known(data))
        answer = [True] * len(messages) + [False] * (again is not None)
        messages += [again] if again is not None else []
        self.run(
            who, "save_many", lambda book: book.save(messages, answer=answer),
            messages=[sent(message) for message in messages],
        )  # fmt: skip

    @rule(who=WHO, data=some.data())
    def edit(self, who: str | int, data: Any) -> None:
        key, content = self.known(data), self.complete({})["content"]
        self.run(
            who, "edit", lambda book: book.change(key, content=content), id=key, content=content
        )

    @rule(who=WHO, pinned=some.sampled_from([True, False, False]), data=some.data())
    def pin(self, who: str | int, pinned: bool, data: Any) -> None:
        key, verb = self.known(data), "pin" if pinned else "unpin"
        self.run(who, verb, lambda book: book.change(key, pinned=pinned), id=key)

    @rule(who=WHO, data=some.data())
    def delete(self, who: str | int, data: Any) -> None:
        key = self.known(data)
        gone = {key} & self.book.messages.keys()
        self.run(who, "delete", lambda book: book.delete(gone, answer=bool(gone)), id=key)

    @rule(who=WHO, session=SESSION)
    def delete_session(self, who: str | int, session: str) -> None:
        gone = self.book.of(session=session)
        self.run(
            who, "delete_session", lambda book: book.delete(gone, answer=len(gone)),
            session=session,
        )  # fmt: skip

    # -- moves

    @rule(who=WHO, keep=some.integers(0, 4))
    def archive(self, who: str | int, keep: int) -> None:
        self.run(
            who, "archive", lambda book: book.archive(keep=keep, days=0),
            keep=keep, older_than_days=0,
        )  # fmt: skip

    @rule(who=WHO)
    def hurry(self, who: str | int) -> None:
        self.run(who, "emergency_cleanup", Book.emergency)

    @precondition(lambda self: len(self.book.messages) > len(self.book.held))
    @rule(who=WHO, data=some.data())
    def restore(self, who: str | int, data: Any) -> None:
        ids = [self.known(data) for _ in range(data.draw(some.integers(1, 4)))]
        self.run(who, "restore", lambda book: book.restore(ids), ids=ids)

    @rule(which=some.sampled_from([HERE, THERE]))
    def reopen(self, which: str) -> None:
        self.place.open(which)

    # -- what is asked

    @rule(which=some.sampled_from([HERE, THERE]), back=some.integers(0, 5))
    def recall(self, which: str, back: int) -> None:
        """A word that only one message had, perhaps one that is gone."""
        word = f"unique{max(1, self.count - back)}x"
        keys = {k for k, one in self.book.messages.items() if word in one["content"].split()}
        hits = self.agent(which).recall(word, kinds=["message"])
        self.book.used |= {hit.message.id for hit in hits}
        assert {hit.message.id for hit in hits if hit.matched} == keys & self.book.held

    @rule(which=some.sampled_from([HERE, THERE]), session=SESSION)
    def history(self, which: str, session: str) -> None:
        wanted = [k for k in self.book.in_order if self.book.messages[k]["session"] == session]
        assert [message.id for message in self.agent(which).history(session)] == wanted

    @rule(which=some.sampled_from([HERE, THERE]))
    def usage(self, which: str) -> None:
        usage = self.agent(which).usage()
        gone = len(self.book.messages) - len(self.book.held)
        counted = (usage.messages, usage.archived, usage.pinned)
        assert counted == (len(self.book.held), gone, len(self.book.pinned))

    # -- what has to hold between any two

    @invariant()
    def the_other_store_sees_what_is_in_the_book(self) -> None:
        agent = self.agent(THERE if self.last == HERE else HERE)
        held = list(agent.messages())
        assert [message.id for message in held] == self.book.in_order
        assert [of_message(one) for one in held] == [
            self.book.messages[key] for key in self.book.in_order
        ]

    def teardown(self) -> None:
        for which in (HERE, THERE):
            report = self.agent(which).check()
            assert not report.findings, report.findings
        check_server_index(self.place.dsn, self.place.schema, self.name)
        positions = [(message.session, message.position) for message in self.agent(HERE).messages()]
        assert len(set(positions)) == len(positions)


def sent(message: dict[str, Any]) -> dict[str, Any]:
    """As a caller gives it who says nothing of what is so anyway."""
    usual = {"importance": 0.5, "pinned": False, "metadata": {}, "user": None}
    return {name: value for name, value in message.items() if usual.get(name, ANY) != value}


def told(verb: str, answer: Any) -> Any:
    """What of an answer is in a book."""
    match verb:
        case "save":
            return answer.new
        case "save_many":
            return [receipt.new for receipt in answer]
        case "restore":
            return answer.restored
    return answer


@pytest.fixture(scope="module")
def shared(
    own_postgres: Server, own_kept: Kept, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("model") / "store"
    with Cutter(own_postgres.port) as cutter, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "UNINDEXED_MAX", INDEX_AFTER)
        place = Place(own_postgres, own_kept.ready(), folder, cutter)
        yield place
        place.close()
    own_kept.empty()


@pytest.mark.timeout(600)
def test_two_stores_on_one_schema_hold_what_a_book_says(
    shared: Place, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Saves in one statement are met often, and so are those that find that they cannot be."""
    met = {"done": 0, "refused": 0}
    save = saving.save

    def counted(db: Link, claim: saving.Claim) -> bool:
        alone, done = db.get_autocommit(), save(db, claim)
        if alone:
            met["done" if done else "refused"] += 1
        return done

    monkeypatch.setattr(saving, "save", counted)
    rounds = 300 if request.config.getoption("--proof", default=False) else 8
    machine = type("Machine", (Shared,), {"place": shared})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=rounds, stateful_step_count=20)
    )
    assert met["done"] > 2 * rounds
    assert met["refused"] > rounds // 2


def test_at_the_limit_nothing_leaves_for_what_is_held_or_has_room(shared: Place) -> None:
    """By what the store remembers there is no room, and each time that is not how it is."""
    here, there = (shared.stores[which].agent("full") for which in (HERE, THERE))
    for number in range(MAX):
        here.save("user", f"Tea {number}", id=f"m{number}")
    assert not here.save("user", f"Tea {MAX - 1}", id=f"m{MAX - 1}").new
    assert there.usage().archived == 0
    assert there.delete("m0")
    assert here.save("user", "More tea", id="more").new
    assert [one.id for one in there.messages()] == [*(f"m{n}" for n in range(1, MAX)), "more"]
    assert there.usage().archived == 0
