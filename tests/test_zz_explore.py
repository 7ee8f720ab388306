"""
A model: whatever is done in whatever order, a memory holds what plain dicts say it holds.

A Hypothesis state machine on a real store, with small numbers of ids, sessions and words so
that they meet. Each content has a word of its own, so recall can be asked for exactly one.
"""

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import elytron
from elytron import Conflict, NotFound
from ledgers import check_index, ledger_path

IDS = some.sampled_from([f"id-{n}" for n in range(12)])
SESSIONS = some.sampled_from(["one", "two", "three"])
USERS = some.sampled_from([None, "alice", "carol"])
ROLES = some.sampled_from(["user", "assistant"])
START = datetime(2024, 5, 8, tzinfo=UTC)
DRAFTS = some.fixed_dictionaries({"id": IDS, "role": ROLES, "session": SESSIONS, "user": USERS})


class Memory(RuleBasedStateMachine):
    """One agent beside a dict of its messages, in the order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="elytron-model-"))
        self.store = elytron.open(self.folder / "store", change_max=100)
        self.held: dict[str, dict[str, Any]] = {}
        self.count = 0

    def teardown(self) -> None:
        self.store.close()
        if ledger_path(self.folder / "store").exists():
            check_index(self.folder / "store")
        shutil.rmtree(self.folder)

    @property
    def bob(self) -> elytron.Agent:
        return self.store.agent("bob")

    def complete(self, draft: dict[str, Any]) -> dict[str, Any]:
        """Give a draft a word that no other has, and a time."""
        self.count += 1
        at = START + timedelta(minutes=self.count)
        return draft | {"content": f"shared unique{self.count}x", "at": at}

    def session(self, name: str) -> list[str]:
        return [key for key, message in self.held.items() if message["session"] == name]

    @rule(draft=DRAFTS)
    def save(self, draft: dict[str, Any]) -> None:
        message = self.complete(draft)
        if draft["id"] in self.held:
            with pytest.raises(Conflict):
                self.bob.save(**message)
        else:
            assert self.bob.save(**message).new
            self.held[draft["id"]] = message

    @precondition(lambda self: self.held)
    @rule(data=some.data())
    def retry(self, data: Any) -> None:
        message = self.held[data.draw(some.sampled_from(list(self.held)))]
        assert not self.bob.save(**message).new

    @rule(drafts=some.lists(DRAFTS, max_size=6))
    def save_many(self, drafts: list[dict[str, Any]]) -> None:
        messages = [self.complete(draft) for draft in drafts]
        keys = [message["id"] for message in messages]
        if len(set(keys)) < len(keys) or set(keys) & set(self.held):
            with pytest.raises(Conflict):
                self.bob.save_many(messages)
        else:
            assert all(receipt.new for receipt in self.bob.save_many(messages))
            self.held.update(zip(keys, messages, strict=True))

    @rule(draft=DRAFTS)
    def submit(self, draft: dict[str, Any]) -> None:
        message = self.complete(draft)
        future = self.bob.submit(**message)
        self.bob.flush()
        if draft["id"] in self.held:
            assert isinstance(future.exception(), Conflict)
        else:
            assert future.result().new
            self.held[draft["id"]] = message

    @rule(count=some.integers(60, 70), session=SESSIONS)
    def save_enough_to_be_indexed(self, count: int, session: str) -> None:
        drafts = [
            self.complete({"id": f"many-{self.count}-{n}", "role": "user", "session": session})
            for n in range(count)
        ]
        self.bob.save_many(drafts)
        self.held.update({draft["id"]: draft for draft in drafts})

    @rule(key=IDS)
    def edit(self, key: str) -> None:
        content = self.complete({})["content"]
        if key in self.held:
            self.bob.edit(key, content)
            self.held[key] = self.held[key] | {"content": content}
        else:
            with pytest.raises(NotFound):
                self.bob.edit(key, content)

    @rule(key=IDS)
    def delete(self, key: str) -> None:
        assert self.bob.delete(key) == (key in self.held)
        self.held.pop(key, None)

    @rule(name=SESSIONS)
    def delete_session(self, name: str) -> None:
        gone = self.session(name)
        assert self.bob.delete_session(name) == len(gone)
        for key in gone:
            del self.held[key]

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = elytron.open(self.folder / "store", change_max=100)

    @rule(name=SESSIONS, limit=some.integers(1, 9), data=some.data())
    def read_history(self, name: str, limit: int, data: Any) -> None:
        keys = self.session(name)
        before = data.draw(some.none() | some.sampled_from(keys)) if keys else None
        wanted = keys[: keys.index(before)] if before is not None else keys
        page = self.bob.history(name, limit=limit, before=before)
        assert [message.id for message in page] == wanted[-limit:]

    @precondition(lambda self: self.held)
    @rule(data=some.data())
    def recall_a_unique_word(self, data: Any) -> None:
        key = data.draw(some.sampled_from(list(self.held)))
        word = self.held[key]["content"].split()[1]
        best = self.bob.recall(word)[0]
        assert best.message.id == key
        assert len(best.matched) == 1

    @rule()
    def recall_words_that_are_gone(self) -> None:
        held = {message["content"].split()[1] for message in self.held.values()}
        for number in range(max(1, self.count - 5), self.count + 1):
            word = f"unique{number}x"
            assert bool(self.bob.recall(word)) == (word in held)

    @rule(name=SESSIONS, user=USERS)
    def recall_with_a_filter(self, name: str, user: str | None) -> None:
        hits = self.bob.recall("shared", session=name, user=user, limit=10_000)
        assert {hit.message.id for hit in hits} == {
            key for key in self.session(name) if user in (None, self.held[key].get("user"))
        }

    @invariant()
    def everything_is_as_the_dict_says(self) -> None:
        assert [message.id for message in self.bob.messages()] == list(self.held)
        for message in self.bob.messages():
            wanted = self.held[message.id]
            shown = {name: getattr(message, name) for name in wanted}
            assert shown == wanted
        sizes = {name: len(self.session(name)) for name in ("one", "two", "three")}
        listed = {session.id: session.messages for session in self.bob.sessions()}
        assert listed == {name: size for name, size in sizes.items() if size}
        assert self.bob.usage().messages == len(self.held)
        assert self.bob.usage().changes <= 100


TestMemory = Memory.TestCase
TestMemory.settings = settings(max_examples=150, stateful_step_count=60, derandomize=False)
