"""
A book of what one agent holds: plain dicts that do as each verb says, and what may be seen then.

Each verb changes the book and returns what is to come of it (`Wanted`). Where the store itself
decides which messages leave, the book says how many, which may, and which come before others.
"""

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from elytron import Conflict, NotFound, OverBudget

MAX, KEEP, EMERGENCY = 8, 3, 5
COMMIT = MAX // 4  # messages that an import saves at once
SETTINGS: dict[str, Any] = {
    "max_messages_per_agent": MAX,
    "keep_messages": KEEP,
    "emergency_messages": EMERGENCY,
    "archive_after_days": 30,
    "wal_limit_mb": 1,
    "change_max": 100,
    "reserve_mb": 0,
    "propose_concepts": False,
}
ANY = object()  # an answer that is not looked at
MEMBERS = (
    "id", "role", "content", "session", "user", "at", "metadata", "importance", "pinned",
)  # fmt: skip
_MARKS = {"importance", "pinned"}  # which a message may have changed and is yet the same

Message = dict[str, Any]
Rank = tuple[Any, ...]


@dataclass
class Wanted:
    """
    What is to come of a verb.

    Attributes:
        answer: what it returns; `ANY` for whatever.
        error: what it raises instead.
        part: after the error, or in more than one commit, it may be done in part.
        must, may: messages that leave for the archive, and those of which some may.
        count: how many of those leave; None for no matter.
        by_value: the least important leave first; else the oldest.
        rivals: whoever leaves comes before these, if they may leave; None for all.
    """

    answer: Any = ANY
    error: type[Exception] | None = None
    part: bool = False
    must: set[str] = field(default_factory=set)
    may: set[str] = field(default_factory=set)
    count: int | None = None
    by_value: bool = False
    rivals: set[str] | None = None


def is_same(draft: Message, message: Message | None) -> bool:
    """Whether saving the one again is harmless where the other is held."""
    return message is not None and all(
        draft[name] == message[name] for name in MEMBERS if name not in _MARKS
    )


@dataclass
class Book:
    """One agent. `messages` are all, held or not, in the order of arrival."""

    days: int = 0
    step: int = 0
    messages: dict[str, Message] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    arrived: dict[str, Rank] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)  # found by a question, at any time
    memories: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: Counter[tuple[str, str, str, bool]] = field(default_factory=Counter)  # whether it holds
    concepts: set[str] = field(default_factory=set)

    def copy(self) -> "Book":
        return copy.deepcopy(self)

    # -- what can be read off it

    @property
    def pinned(self) -> set[str]:
        return {key for key in self.held if self.messages[key]["pinned"]}

    @property
    def in_order(self) -> list[str]:
        """Ids of what is held, in the order of arrival."""
        return [key for key in self.messages if key in self.held]

    def of(self, **members: str) -> set[str]:
        return {
            key
            for key, message in self.messages.items()
            if all(message[name] == value for name, value in members.items())
        }

    def mentions(self) -> dict[str, int]:
        """How many messages held and memories name each concept."""
        texts = [self.messages[key]["content"].split() for key in self.held]
        named = [set(words) for words in texts] + [
            {*memory["content"].split(), *memory["about"]} for memory in self.memories.values()
        ]
        return {name: sum([name in some for some in named]) for name in self.concepts}

    # -- messages

    def save(self, drafts: Iterable[Message], *, answer: Any = ANY) -> Wanted:
        """All of these or none; room is made for those that are new."""
        drafts = list(drafts)
        new = [draft for draft in drafts if not is_same(draft, self.messages.get(draft["id"]))]
        ids = [draft["id"] for draft in new]
        if len(set(ids)) < len(ids) or self.messages.keys() & set(ids):
            return Wanted(error=Conflict)
        over = max(0, len(self.held) + len(new) - MAX)
        may = self.held - self.pinned - {draft["id"] for draft in drafts}
        if over > len(may):
            return Wanted(error=OverBudget)
        self._add(new)
        return Wanted(answer=answer, may=may, count=over, by_value=True)

    def carry(self, messages: Iterable[Message]) -> Wanted:
        """Import, leaving out what has the id of another; a few in each commit."""
        messages = list(messages)
        new = [message for message in messages if message["id"] not in self.messages]
        known = sum([is_same(one, self.messages.get(one["id"])) for one in messages])
        before = set(self.held)
        over = max(0, len(self.held) + len(new) - MAX)
        self._add(new)
        return Wanted(
            answer=(len(new), known, len(messages) - len(new) - known),
            part=True,
            may=self.held - self.pinned,
            count=over,
            by_value=True,
            rivals=before,
        )

    def _add(self, drafts: Iterable[Message]) -> None:
        for place, draft in enumerate(drafts):
            self.messages[draft["id"]] = draft
            self.held.add(draft["id"])
            self.arrived[draft["id"]] = (0, self.step, place)

    def change(self, key: str, **members: Any) -> Wanted:
        """Edit, pin or weigh a message that is held."""
        if key not in self.held:
            return Wanted(error=NotFound)
        self.messages[key] = self.messages[key] | members
        return Wanted()

    def delete(self, gone: Collection[str], *, answer: Any) -> Wanted:
        for key in gone:
            del self.messages[key]
            del self.arrived[key]
        self.held -= set(gone)
        self.used -= set(gone)
        return Wanted(answer=answer, part=True)

    # -- moves

    def archive(self, *, keep: int, days: int) -> Wanted:
        """Those that are older than *days* leave, but for the newest *keep*."""
        newest = sorted([self.arrived[key] for key in self.held], reverse=True)[:keep]
        old = {
            key
            for key in self.held - self.pinned
            if self.days - self.arrived[key][0] >= days  # it is a moment older than that
        }
        if len(newest) < keep:
            old = set()
        edge = newest[-1] if newest else (float("inf"),)
        must = {key for key in old if self.arrived[key] < edge}
        # What came back together has one rank here.
        may = {key for key in old if self.arrived[key] <= edge} if keep else must
        return Wanted(part=True, must=must, may=may)

    def enforce(self) -> Wanted:
        return self.archive(keep=KEEP, days=30)

    def emergency(self) -> Wanted:
        free = self.held - self.pinned
        count = min(len(free), len(self.held) // 2) if len(self.held) >= EMERGENCY else 0
        return Wanted(part=True, may=free, count=count)

    def restore(self, wanted: Collection[str]) -> Wanted:
        back = {key for key in wanted if key in self.messages} - self.held
        self.held |= back
        for key in back:
            self.arrived[key] = (self.days, self.step, 0)
        if len(self.held) > MAX:
            return Wanted(error=OverBudget, part=True)
        return Wanted(answer=len(back), part=True)

    # -- what was learned

    def tell(self, *names: str) -> None:
        self.concepts |= set(names)

    def remember(self, key: str, content: str, about: set[str], session: str | None) -> Wanted:
        told = {"content": content, "about": about, "session": session, "holds": True}
        held = self.memories.get(key)
        if held is not None:
            same = (held["content"], held["session"]) == (content, session)
            return Wanted() if same else Wanted(error=Conflict)
        self.memories[key] = told
        self.tell(*about)
        return Wanted()

    def change_memory(self, key: str, **members: Any) -> Wanted:
        if key not in self.memories:
            return Wanted(error=NotFound)
        self.memories[key] = self.memories[key] | members
        return Wanted()

    def delete_memory(self, key: str) -> Wanted:
        return Wanted(answer=self.memories.pop(key, None) is not None)

    def relate(self, source: str, relation: str, target: str) -> Wanted:
        self.tell(source, target)
        self.facts[source, relation, target, True] = 1
        return Wanted()

    def unrelate(self, source: str) -> Wanted:
        open_ = [fact for fact in self.facts if fact[0] == source and fact[3]]
        for fact in open_:
            del self.facts[fact]
            self.facts[(*fact[:3], False)] += 1
        return Wanted(answer=len(open_), part=True)

    def delete_concept(self, name: str) -> Wanted:
        answer = name in self.concepts
        self.concepts.discard(name)
        self.facts = Counter(
            {fact: count for fact, count in self.facts.items() if name not in fact[:3:2]}
        )
        for memory in self.memories.values():
            memory["about"] = memory["about"] - {name}
        return Wanted(answer=answer, part=True)

    # -- for good

    def forget(self, gone: Collection[str], sessions: Collection[str]) -> Wanted:
        """These messages, the memories of these sessions, and concepts that nothing else names."""
        held = len(self.held & set(gone))
        lost = [key for key, memory in self.memories.items() if memory["session"] in sessions]
        named = {name for key in lost for name in self.memories[key]["about"]}
        self.delete(gone, answer=ANY)
        for key in lost:
            del self.memories[key]
        ends = {end for fact in self.facts for end in fact[:3:2]}
        mentions = self.mentions()
        nameless = {name for name in named - ends if not mentions[name]}
        self.concepts -= nameless
        answer = held, len(gone) - held, len(lost), len(nameless)
        return Wanted(answer=answer, part=True)

    def clear(self) -> Wanted:
        archived = len(self.messages) - len(self.held)
        answer = len(self.held), archived, len(self.memories), len(self.concepts)
        self.messages, self.held, self.arrived, self.used = {}, set(), {}, set()
        self.memories, self.facts, self.concepts = {}, Counter(), set()
        return Wanted(answer=answer, part=True)

    # -- what is seen

    def settle(self, held: set[str], wanted: Wanted) -> set[str]:
        """Take it that these are held now, if the store was free to choose so; which left."""
        gone = self.held - held
        assert held <= self.held, f"back without being asked: {held - self.held}"
        assert wanted.must <= gone <= wanted.may | wanted.must
        if wanted.count is not None:
            assert len(gone) == wanted.count
        stayed = wanted.may & held
        if wanted.rivals is not None:
            stayed &= wanted.rivals
        for left in gone - wanted.must:
            for other in stayed:
                self._check_order(left, other, by_value=wanted.by_value)
        self.held = held
        return gone

    def _check_order(self, left: str, stayed: str, *, by_value: bool) -> None:
        """That the one had to leave before the other."""
        ranks = [self.arrived[left], self.arrived[stayed]]
        if by_value:
            worth = [self.messages[key]["importance"] for key in (left, stayed)]
            assert worth[0] <= worth[1], f"{left} is worth more than {stayed}"
            # When something was last of use is known in one process alone, until it is written.
            if worth[0] < worth[1] or {left, stayed} & self.used:
                return
        assert ranks[0] <= ranks[1], f"{left} is younger than {stayed}"


def of_message(message: Any) -> Message:
    """A message as it stands in a book."""
    return {name: getattr(message, name) for name in MEMBERS}


def of_memory(memory: Any) -> dict[str, Any]:
    """A memory as it stands in a book."""
    return {
        "content": memory.content,
        "about": set(memory.about),
        "session": memory.session,
        "holds": memory.valid_to is None,
    }


def of_fact(fact: Any) -> tuple[str, str, str, bool]:
    """A fact as it stands in a book."""
    return fact.source, fact.relation, fact.target, fact.valid_to is None


def check_seen(book: Book, seen: Mapping[str, Any]) -> None:
    """That what an agent shows of itself (`second_process.look`) is what is in the book."""
    order = book.in_order
    assert [message.id for message in seen["held"]] == order
    assert seen["got"] == seen["history"] == seen["held"]
    assert sorted(message.id for message in seen["everything"]) == sorted(book.messages)
    for message in seen["held"] + seen["everything"]:
        assert of_message(message) == book.messages[message.id]
    sessions: dict[str, list[str]] = {}
    for key in order:
        sessions.setdefault(book.messages[key]["session"], []).append(key)
    assert seen["histories"] == sessions
    assert seen["sessions"] == {name: len(keys) for name, keys in sessions.items()}
    assert {memory.id: of_memory(memory) for memory in seen["memories"]} == book.memories
    assert seen["holding"] == sorted(key for key, one in book.memories.items() if one["holds"])
    assert Counter(map(of_fact, seen["facts"])) == book.facts
    mentions = book.mentions()
    assert seen["concepts"] == mentions
    assert seen["counts"] == {
        "messages": len(book.held),
        "archived": len(book.messages) - len(book.held),
        "pinned": len(book.pinned),
        "memories": len(book.memories),
        "concepts": len(book.concepts),
        "edges": book.facts.total() + sum(mentions.values()),
    }


def half_done(before: Book, after: Book, wanted: Wanted, seen: Mapping[str, Any]) -> Book:
    """The book of what is seen after a verb was cut short: of each thing, as before or as after."""
    found = {message.id: of_message(message) for message in seen["everything"]}
    assert len(found) == len(seen["everything"]), "something is shown twice"
    memories = {memory.id: of_memory(memory) for memory in seen["memories"]}
    facts = Counter(map(of_fact, seen["facts"]))
    _check_between(before.messages, after.messages, found)
    _check_between(before.memories, after.memories, memories)
    _check_between(before.facts, after.facts, facts)
    concepts = set(seen["concepts"])
    assert before.concepts & after.concepts <= concepts <= before.concepts | after.concepts
    if not wanted.part:
        now = found, memories, facts, concepts
        assert now in [
            (book.messages, book.memories, book.facts, book.concepts) for book in (before, after)
        ]
    book = after.copy()
    order = {**before.messages, **after.messages}
    book.messages = {key: found[key] for key in order if key in found}
    book.held = {message.id for message in seen["held"]}
    assert book.pinned == {key for key, message in found.items() if message["pinned"]}
    may = wanted.may | wanted.must
    for key in found:
        places = {key in after.held} | ({key in before.held} if key in before.messages else set())
        assert (key in book.held) in places or (key in may and key not in book.held)
        is_back = key in book.held and key not in before.held
        first, other = (after, before) if is_back else (before, after)
        book.arrived[key] = first.arrived.get(key) or other.arrived[key]
    if wanted.count is not None:
        assert len((before.held | after.held) & found.keys() - book.held) <= wanted.count
    book.arrived = {key: book.arrived[key] for key in found}
    book.used &= found.keys()
    book.memories, book.facts, book.concepts = memories, facts, concepts
    return book


def _check_between(
    before: Mapping[Any, Any], after: Mapping[Any, Any], now: Mapping[Any, Any]
) -> None:
    for key in before.keys() | after.keys() | now.keys():
        assert now.get(key) in (before.get(key), after.get(key))
