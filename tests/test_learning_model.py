"""
A model: whatever is learned and unlearned in whatever order, the ledger says what plain dicts say.

A Hypothesis state machine on a real store, with few names, ids and days, so that they meet.
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
from elytron import Conflict, InvalidArgument, NotFound

IDS = some.sampled_from([f"id-{n}" for n in range(6)])
NAMES = some.sampled_from(["Alice", "ALICE", "Zoé", "zoe", "New York", "東京"])
RELATIONS = some.sampled_from(["knows", "lives in"])
SESSIONS = some.sampled_from([None, "one", "two"])
START = datetime(2024, 5, 8, tzinfo=UTC)
DAYS = some.none() | some.integers(0, 9)
SPANS = some.tuples(DAYS, DAYS).filter(lambda pair: None in pair or pair[0] < pair[1])
LATER = START + timedelta(days=20)  # of all that has an end it is past


def day(number: int | None) -> datetime | None:
    return None if number is None else START + timedelta(days=number)


def fold(name: str) -> str:
    return name.lower().replace("é", "e")


def holds(fact: dict[str, Any], at: datetime) -> bool:
    begin, end = fact["span"]
    return (begin is None or begin <= at) and (end is None or end > at)


class Learned(RuleBasedStateMachine):
    """One agent beside dicts of its memories and concepts, and a list of its facts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="elytron-model-"))
        self.store = self.open()
        self.memories: dict[str, dict[str, Any]] = {}
        self.concepts: dict[str, str] = {}
        self.facts: list[dict[str, Any]] = []
        self.count = 0

    def open(self) -> elytron.Store:
        return elytron.open(self.folder / "store", change_max=100, link_concepts=False)

    def teardown(self) -> None:
        report = self.bob.check()
        self.store.close()
        shutil.rmtree(self.folder)
        assert report.ok, report

    @property
    def bob(self) -> elytron.Agent:
        return self.store.agent("bob")

    def tell(self, *names: str) -> list[str]:
        for name in names:
            self.concepts.setdefault(fold(name), name)
        return [fold(name) for name in names]

    @rule(id=IDS, about=some.lists(NAMES, max_size=3), session=SESSIONS, span=SPANS)
    def remember(self, id: str, about: list[str], session: str | None, span: Any) -> None:
        self.count += 1
        content = f"shared unique{self.count}x"
        begin, end = day(span[0]), day(span[1])
        told = {"about": about, "session": session, "valid_from": begin, "valid_to": end, "id": id}
        if id in self.memories:
            with pytest.raises(Conflict):
                self.bob.remember(content, **told)
            return
        assert self.bob.remember(content, **told).new
        assert not self.bob.remember(content, **told).new
        self.memories[id] = {
            "content": content, "session": session, "span": (begin, end),
            "about": set(self.tell(*about)),
        }  # fmt: skip

    @precondition(lambda self: self.memories)
    @rule(id=IDS, number=some.integers(0, 9), data=some.data())
    def replace(self, id: str, number: int, data: Any) -> None:
        old = data.draw(some.sampled_from(sorted(self.memories)))
        begin, end = self.memories[old]["span"]
        at = day(number)
        self.count += 1
        told = {"id": id, "replaces": old, "valid_from": at}
        content = f"shared unique{self.count}x"
        if id == old:
            with pytest.raises(InvalidArgument):
                self.bob.remember(content, **told)
        elif id in self.memories:
            with pytest.raises(Conflict):
                self.bob.remember(content, **told)
        elif begin is not None and begin > at and not (end is not None and end <= at):
            with pytest.raises(InvalidArgument):
                self.bob.remember(content, **told)
        else:
            self.bob.remember(content, **told)
            if end is None or end > at:
                self.memories[old]["span"] = (begin, at)
            self.memories[id] = {
                "content": content, "session": None, "span": (at, None), "about": set(),
            }  # fmt: skip

    @rule(id=IDS, number=some.integers(0, 9))
    def close(self, id: str, number: int) -> None:
        at = day(number)
        held = self.memories.get(id)
        if held is None:
            with pytest.raises(NotFound):
                self.bob.close_memory(id, at=at)
        elif held["span"][0] is not None and held["span"][0] > at:
            with pytest.raises(InvalidArgument):
                self.bob.close_memory(id, at=at)
        else:
            self.bob.close_memory(id, at=at)
            held["span"] = (held["span"][0], at)

    @rule(id=IDS)
    def edit(self, id: str) -> None:
        self.count += 1
        content = f"shared unique{self.count}x"
        if id in self.memories:
            self.bob.edit_memory(id, content)
            self.memories[id]["content"] = content
        else:
            with pytest.raises(NotFound):
                self.bob.edit_memory(id, content)

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        assert self.bob.delete_memory(id) == (id in self.memories)
        self.memories.pop(id, None)

    @rule(source=NAMES, relation=RELATIONS, end=NAMES, number=some.integers(0, 9))
    def relate_from_a_day_on(self, source: str, relation: str, end: str, number: int) -> None:
        """What is told to begin on a day, replacing all else."""
        at = day(number)
        three = (fold(source), relation, fold(end))
        others = [
            fact for fact in self.facts
            if fact["three"][:2] == three[:2] and fact["three"] != three
            and (fact["span"][1] is None or fact["span"][1] > at)
        ]  # fmt: skip
        if any(fact["span"][0] is not None and fact["span"][0] > at for fact in others):
            with pytest.raises(InvalidArgument):
                self.bob.relate(source, relation, end, valid_from=at, replaces=True)
            return
        self.bob.relate(source, relation, end, valid_from=at, replaces=True)
        self.tell(source, end)
        for fact in others:
            fact["span"] = (fact["span"][0], at)
        self.note(three, at)

    @rule(source=NAMES, relation=RELATIONS, end=NAMES)
    def relate(self, source: str, relation: str, end: str) -> None:
        for _ in range(2):
            self.bob.relate(source, relation, end)
        self.tell(source, end)
        self.note((fold(source), relation, fold(end)), None)

    def note(self, three: tuple[str, str, str], begin: datetime | None) -> None:
        """A fact without an end is told."""
        same = [fact for fact in self.facts if fact["three"] == three]
        for fact in same:
            if fact["span"] == (begin, None):
                return
        for fact in same:
            if fact["span"][1] is None:
                fact["span"] = (fact["span"][0] if begin is None else begin, None)
                return
        self.facts.append({"three": three, "span": (begin, None)})

    @rule(source=NAMES, relation=some.none() | RELATIONS, end=some.none() | NAMES, number=DAYS)
    def unrelate(
        self, source: str, relation: str | None, end: str | None, number: int | None
    ) -> None:
        at = LATER if number is None else day(number)
        meant = [
            fact for fact in self.facts
            if fact["three"][0] == fold(source) and holds(fact, at)
            and relation in (None, fact["three"][1])
            and (end is None or fold(end) == fact["three"][2])
        ]  # fmt: skip
        assert self.bob.unrelate(source, relation, end, at=at) == len(meant)
        for fact in meant:
            fact["span"] = (fact["span"][0], at)

    @rule(name=NAMES)
    def delete_concept(self, name: str) -> None:
        gone = fold(name)
        assert self.bob.delete_concept(name) == (gone in self.concepts)
        self.concepts.pop(gone, None)
        self.facts = [fact for fact in self.facts if gone not in fact["three"][::2]]
        for memory in self.memories.values():
            memory["about"].discard(gone)

    @rule(name=NAMES, new=NAMES)
    def rename(self, name: str, new: str) -> None:
        old, other = fold(name), fold(new)
        if old not in self.concepts:
            with pytest.raises(NotFound):
                self.bob.set_concept(name, rename=new)
        elif old != other and other in self.concepts:
            with pytest.raises(Conflict):
                self.bob.set_concept(name, rename=new)
        else:
            assert self.bob.set_concept(name, rename=new).name == new
            del self.concepts[old]
            self.concepts[other] = new
            for fact in self.facts:
                source, relation, target = fact["three"]
                ends = [other if end == old else end for end in (source, target)]
                fact["three"] = (ends[0], relation, ends[1])
            for memory in self.memories.values():
                if old in memory["about"]:
                    memory["about"] = memory["about"] - {old} | {other}

    @rule(session=some.sampled_from(["one", "two"]))
    def forget(self, session: str) -> None:
        gone = {key for key, memory in self.memories.items() if memory["session"] == session}
        named = {name for key in gone for name in self.memories[key]["about"]}
        for key in gone:
            del self.memories[key]
        for memory in self.memories.values():
            named -= memory["about"]
        named -= {end for fact in self.facts for end in fact["three"][::2]}
        erased = self.bob.forget(session=session)
        assert (erased.memories, erased.concepts) == (len(gone), len(named))
        for name in named:
            del self.concepts[name]

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    @precondition(lambda self: self.memories)
    @rule(data=some.data())
    def ask_for_a_unique_word(self, data: Any) -> None:
        key = data.draw(some.sampled_from(sorted(self.memories)))
        held = self.memories[key]
        begin, end = held["span"]
        at = begin or (end - timedelta(days=1) if end else START)
        found = self.bob.memories(held["content"].split()[1], as_of=at)
        assert [memory.id for memory in found] == ([key] if holds(held, at) else [])

    @invariant()
    def everything_is_as_the_dicts_say(self) -> None:
        for number in (None, 0, 4, 9):
            at = LATER if number is None else day(number)
            found = {memory.id: memory for memory in self.bob.memories(as_of=at)}
            assert found.keys() == {key for key, one in self.memories.items() if holds(one, at)}
            for key, memory in found.items():
                wanted = self.memories[key]
                assert (memory.content, memory.session) == (wanted["content"], wanted["session"])
                assert (memory.valid_from, memory.valid_to) == wanted["span"]
                assert {fold(name) for name in memory.about} == wanted["about"]
            facts = sorted(
                (fold(one.source), one.relation, fold(one.target), str(one.valid_to))
                for one in self.bob.relations(as_of=at)
            )
            assert facts == sorted(
                (*fact["three"], str(fact["span"][1])) for fact in self.facts if holds(fact, at)
            )
        held = {fold(concept.name): concept.name for concept in self.bob.concepts()}
        assert held == self.concepts
        usage = self.bob.usage()
        assert (usage.memories, usage.concepts) == (len(self.memories), len(self.concepts))
        assert usage.edges == len(self.facts) + sum(len(m["about"]) for m in self.memories.values())


TestLearned = Learned.TestCase
TestLearned.settings = settings(max_examples=30, stateful_step_count=30)
