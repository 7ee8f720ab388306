"""
A model of limits: whatever is done in whatever order, each message is in just one place.

A Hypothesis state machine on a real store that holds eight messages, so that almost each save
archives some. A plain dict has all messages, and a set those that are pinned; which of them are
held is the store's own choice, within what the dict, the set and the limit allow.
"""

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
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
)

import elytron
from elytron import Agent, Conflict, NotFound, OverBudget, Store
from elytron.archive import merging
from ledgers import check_index, ledger_path
from moved import archived, archived_ids, held_ids, segments

MAX = 8
NOWHERE = "nowhere"
SESSIONS = some.sampled_from(["one", "two", "three"])
USERS = some.sampled_from([None, "alice", "carol"])
ROLES = some.sampled_from(["user", "assistant"])
START = datetime(2024, 5, 8, tzinfo=UTC)
DRAFTS = some.fixed_dictionaries({"role": ROLES, "session": SESSIONS, "user": USERS})
LIMITS: dict[str, Any] = {
    "max_messages_per_agent": MAX,
    "keep_messages": 0,
    "emergency_messages": 4,
    "change_max": 100,
    "reserve_mb": 0,
}


class Limits(RuleBasedStateMachine):
    """One agent beside a dict of all its messages, in the order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="elytron-limits-"))
        self.store = self.opened()
        self.all: dict[str, dict[str, Any]] = {}
        self.pinned: set[str] = set()
        self.count = 0

    def opened(self) -> Store:
        store = elytron.open(self.folder / "store", **LIMITS)
        # It would clean up beside us, and then which message is where is anybody's guess.
        store._upkeep.janitor.stop(60)
        return store

    def teardown(self) -> None:
        self.store.close()
        if ledger_path(self.folder / "store").exists():
            check_index(self.folder / "store")
        shutil.rmtree(self.folder)

    @property
    def bob(self) -> Agent:
        return self.store.agent("bob")

    def held(self) -> list[str]:
        return held_ids(self.bob)

    def complete(self, draft: dict[str, Any]) -> dict[str, Any]:
        """Give a draft an id, a word that no other has, and a time."""
        self.count += 1
        at = START + timedelta(minutes=self.count)
        made = {"id": f"id-{self.count}", "content": f"shared unique{self.count}x", "at": at}
        return made | {"pinned": False} | draft

    def any_id(self, data: Any) -> str:
        """Of a message that is held or archived, or of none."""
        found: str = data.draw(some.sampled_from([*self.all, NOWHERE]))
        return found

    def drop(self, gone: set[str]) -> None:
        for key in gone:
            del self.all[key]
        self.pinned -= gone

    def of(self, **members: str) -> set[str]:
        return {
            key
            for key, message in self.all.items()
            if all(message[name] == value for name, value in members.items())
        }

    # -- writes

    @initialize(drafts=some.lists(DRAFTS, min_size=10, max_size=20))
    def save_one_by_one(self, drafts: list[dict[str, Any]]) -> None:
        for draft in drafts:
            self.save(draft)

    @rule(draft=DRAFTS, pinned=some.sampled_from([False, False, False, True]))
    def save(self, draft: dict[str, Any], pinned: bool = False) -> None:
        message = self.complete(draft) | {"pinned": pinned}
        if len(self.pinned) == MAX:
            with pytest.raises(OverBudget):
                self.bob.save(**message)
            return
        assert self.bob.save(**message).new
        self.all[message["id"]] = message
        self.pinned |= {message["id"]} if pinned else set()
        assert message["id"] in self.held(), "what was just said is held"

    @precondition(lambda self: self.all)
    @rule(draft=DRAFTS, data=some.data())
    def save_under_an_id_that_is_taken(self, draft: dict[str, Any], data: Any) -> None:
        taken = data.draw(some.sampled_from(list(self.all)))
        with pytest.raises(Conflict):
            self.bob.save(**self.complete(draft | {"id": taken}))
        with pytest.raises(Conflict):
            self.bob.save_many([self.complete(draft | {"id": taken})])

    @precondition(lambda self: self.all)
    @rule(data=some.data())
    def retry(self, data: Any) -> None:
        """Held or archived: it is not saved a second time."""
        message = self.all[data.draw(some.sampled_from(list(self.all)))]
        assert not self.bob.save(**message).new
        assert [receipt.new for receipt in self.bob.save_many([message])] == [False]

    @rule(drafts=some.lists(DRAFTS, min_size=1, max_size=6))
    def save_many(self, drafts: list[dict[str, Any]]) -> None:
        messages = [self.complete(draft) for draft in drafts]
        if len(self.pinned) + len(messages) > MAX:
            with pytest.raises(OverBudget):
                self.bob.save_many(messages)
        else:
            assert all(receipt.new for receipt in self.bob.save_many(messages))
            self.all.update({message["id"]: message for message in messages})

    @rule(data=some.data())
    def edit(self, data: Any) -> None:
        key, content = self.any_id(data), self.complete({})["content"]
        if key in self.held():
            self.bob.edit(key, content)
            self.all[key] = self.all[key] | {"content": content}
        else:
            with pytest.raises(NotFound):
                self.bob.edit(key, content)

    @rule(data=some.data())
    def delete(self, data: Any) -> None:
        key = self.any_id(data)
        assert self.bob.delete(key) == (key in self.all)
        self.drop({key} & self.all.keys())

    @precondition(lambda self: len(self.all) > MAX)
    @rule(name=SESSIONS)
    def delete_session(self, name: str) -> None:
        gone = self.of(session=name)
        assert self.bob.delete_session(name) == len(gone)
        self.drop(gone)

    @rule(data=some.data(), pinned=some.booleans())
    def pin(self, data: Any, pinned: bool) -> None:
        key = self.any_id(data)
        verb = self.bob.pin if pinned else self.bob.unpin
        if key in self.held():
            verb(key)
            self.pinned = self.pinned | {key} if pinned else self.pinned - {key}
            self.all[key] = self.all[key] | {"pinned": pinned}
        else:
            with pytest.raises(NotFound):
                verb(key)

    @rule(data=some.data(), importance=some.sampled_from([0.0, 0.5, 1.0]))
    def set_importance(self, data: Any, importance: float) -> None:
        key = self.any_id(data)
        if key in self.held():
            self.bob.set_importance(key, importance)
            self.all[key] = self.all[key] | {"importance": importance}

    # -- moves

    @rule(keep=some.integers(0, MAX))
    def archive(self, keep: int) -> None:
        held = self.held()
        planned = self.bob.archive(older_than_days=0, keep=keep, dry_run=True)
        done = self.bob.archive(older_than_days=0, keep=keep)
        assert [one.id for one in done.leaving] == [one.id for one in planned.leaving]
        assert (done.held, done.archived) == (len(held), len(done.leaving))
        free = [key for key in held if key not in self.pinned]
        assert done.archived <= max(0, min(len(free), len(held) - keep))
        gone = {one.id for one in done.leaving}
        assert self.held() == [key for key in held if key not in gone]

    @rule(data=some.data())
    def restore(self, data: Any) -> None:
        known = some.sampled_from([*self.all, NOWHERE])
        ids = data.draw(some.lists(known, min_size=1, max_size=4, unique=True))
        held = self.held()
        there = [key for key in ids if key in self.all and key not in held]
        if len(held) + len(there) > MAX:
            with pytest.raises(OverBudget):
                self.bob.restore(ids)
            return
        found = self.bob.restore(ids)
        assert found.restored == len(there)
        assert found.already_held == len([key for key in ids if key in held])
        assert list(found.missing) == [key for key in ids if key not in self.all]
        assert set(self.held()) == {*held, *there}

    @rule(name=SESSIONS)
    def restore_session(self, name: str) -> None:
        there = self.of(session=name) - set(self.held())
        if len(self.held()) + len(there) > MAX:
            with pytest.raises(OverBudget):
                self.bob.restore(session=name)
        else:
            assert self.bob.restore(session=name).restored == len(there)
            assert there <= set(self.held())

    @rule()
    def enforce_limits(self) -> None:
        held = self.held()
        assert self.bob.enforce_limits().archived == 0, "each write has seen to it"
        assert self.held() == held

    @rule()
    def emergency_cleanup(self) -> None:
        held = self.held()
        done = self.bob.emergency_cleanup()
        free = len(held) - len(self.pinned)
        assert done.archived == (min(free, len(held) // 2) if len(held) >= 4 else 0)

    @rule()
    def reclaim(self) -> None:
        self.bob.reclaim(full=True)

    # -- for good

    @precondition(lambda self: len(self.all) > MAX)
    @rule(user=some.sampled_from(["alice", "carol"]))
    def forget_user(self, user: str) -> None:
        gone = self.of(user=user)
        held = len(gone & set(self.held()))
        erased = self.bob.forget(user=user, replies=False)
        assert (erased.messages, erased.archived) == (held, len(gone) - held)
        self.drop(gone)

    @precondition(lambda self: len(self.all) > MAX)
    @rule(name=SESSIONS)
    def forget_session(self, name: str) -> None:
        gone = self.of(session=name)
        erased = self.bob.forget(session=name)
        assert erased.messages + erased.archived == len(gone)
        self.drop(gone)

    @precondition(lambda self: len(self.all) > 3 * MAX)
    @rule()
    def clear(self) -> None:
        erased = self.bob.clear()
        assert erased.messages + erased.archived == len(self.all)
        self.drop(set(self.all))

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.opened()

    # -- what has to hold between any two

    @precondition(lambda self: self.all)
    @rule(data=some.data())
    def recall_a_unique_word(self, data: Any) -> None:
        key = data.draw(some.sampled_from(list(self.all)))
        word = self.all[key]["content"].split()[1]
        assert bool(self.bob.recall(word)) == (key in self.held())
        (hit,) = [hit for hit in self.bob.recall(word, archived=True) if hit.message.id == key]
        assert hit.archived == (key not in self.held())

    @rule()
    def check(self) -> None:
        assert self.bob.check().findings == ()

    @invariant()
    def each_message_is_in_just_one_place(self) -> None:
        held, there = list(self.bob.messages()), archived(self.bob)
        ids = [message.id for message in held] + [one.message.id for one in there]
        assert sorted(ids) == sorted(self.all)
        for message in (*held, *[one.message for one in there]):
            wanted = self.all[message.id]
            shown = {name: getattr(message, name) for name in wanted}
            assert shown == wanted
        assert len(held) <= MAX
        assert self.pinned <= {message.id for message in held}

    @invariant()
    def what_is_held_stands_in_the_order_of_arrival(self) -> None:
        held = self.held()
        assert held == [key for key in self.all if key in set(held)]
        for name in ("one", "two", "three"):
            wanted = [key for key in held if self.all[key]["session"] == name]
            assert [message.id for message in self.bob.history(name)] == wanted

    @invariant()
    def usage_tells_the_truth(self) -> None:
        usage = self.bob.usage()
        assert usage.messages == len(self.held())
        assert usage.archived == len(archived_ids(self.bob)) == len(self.all) - usage.messages
        assert usage.pinned == len(self.pinned)
        assert usage.archive.dropped == 0
        assert len(segments(self.bob)) < 3 * merging.AT_ONCE
        assert usage.changes <= 100


TestLimits = Limits.TestCase
TestLimits.settings = settings(max_examples=30, stateful_step_count=30)
