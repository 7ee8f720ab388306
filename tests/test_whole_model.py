"""
A model of the whole store: whatever is done in whatever order, by this process or by another,
whoever dies in the middle of what, two agents hold what two books of plain dicts say.

Each step is a verb that one of two processes does; the other process may be killed right after
the answer, or kill itself at its nth call of the disk. After a verb that was cut short each thing
has to be as before or as after it (and a save all of the one or all of the other); after any other
verb, as after it. Both processes are asked what they see, at once.
"""

import json
import shutil
import tempfile
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

from elytron import ElytronError, Store
from elytron.ledger import files, writes
from ledgers import check_index, ledger_path
from moved import archived_ids, held_ids
from second_process import INDEX_AFTER, PAST, Died, Second, open_store, perform
from whole_book import ANY, COMMIT, MAX, SETTINGS, Book, Wanted, check_seen, half_done

HERE, THERE, KILLED = "here", "there", "there, and killed once it has answered"
NAMES = ("bob", "eve")
NAME = some.sampled_from(NAMES)
READER = some.sampled_from([HERE, THERE])
# A number says how far on in the verb the other process dies, in percent.
WHO = some.sampled_from([HERE] * 4 + [THERE] * 4 + [KILLED] + [None] * 5).flatmap(
    lambda who: some.integers(1, 105) if who is None else some.just(who)
)
# About how often a verb calls the disk.
CALLS = {
    "archive": 80, "clear": 250, "delete": 30, "delete_session": 40, "emergency_cleanup": 80,
    "forget": 220, "import_file": 80, "reclaim": 160, "restore": 40, "save_many": 80,
}  # fmt: skip
CALLS_OF_OTHERS = 14
ID = some.sampled_from([f"id-{n}" for n in range(30)])
MEMORY_ID = some.sampled_from([f"memory-{n}" for n in range(4)])
SESSION = some.sampled_from(["one", "two", "three"])
USER = some.sampled_from(["alice", "carol"])
CONCEPT = some.sampled_from(["Alice", "Lyon", "Zoe"])
RELATION = some.sampled_from(["knows", "likes"])
TAIL = some.sampled_from(["", "", " Alice", " Lyon and Zoe"])
WEIGHT = some.sampled_from([0.5, 0.5, 0.5, 0.1, 0.9])
DRAFT = some.fixed_dictionaries(
    {
        "id": ID,
        "role": some.sampled_from(["user", "assistant"]),
        "session": SESSION,
        "user": some.none() | USER,
        "importance": WEIGHT,
        "pinned": some.sampled_from([False] * 7 + [True]),
        "tail": TAIL,
    }
)
SELDOM = some.sampled_from([False, False, True])
DAYS = 20  # that pass at once: messages are old after 30


class Whole(RuleBasedStateMachine):
    """Two agents in two processes, beside two books."""

    second: Second

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="elytron-whole-"))
        self.store = self.open()
        self.books = {name: Book() for name in NAMES}
        self.words: dict[str, set[str]] = {name: set() for name in NAMES}  # that it ever had
        self.touched: set[str] = set()
        self.count = self.days = self.step = 0

    def open(self) -> Store:
        return open_store(self.folder / "store", SETTINGS)

    # -- doing

    def run(
        self, name: str, who: str | int, verb: str, change: Callable[[Book], Wanted], /, **of: Any
    ) -> None:
        """Have a verb done, the book changed, and what came of the one held against the other."""
        before = self.books[name]
        before.days, before.step = self.days, self.step
        self.step += 1
        after = before.copy()
        wanted = change(after)
        self.touched.add(name)
        try:
            answer = self.perform(who, name, verb, of)
        except Died:
            self.books[name] = half_done(before, after, wanted, self.look(HERE, name))
            self.run(name, HERE, "enforce_limits", Book.enforce)  # what is in both places is not
            return
        except ElytronError as error:
            if wanted.error is None or not isinstance(error, wanted.error):
                raise
            if wanted.part:
                self.books[name] = half_done(before, after, wanted, self.look(HERE, name))
            return
        assert wanted.error is None, f"{verb} has to raise {wanted.error}"
        gone = after.settle(set(held_ids(self.store.agent(name))), wanted)
        self.books[name] = after
        if verb in ("archive", "enforce_limits", "emergency_cleanup"):
            assert answer.archived == len(gone)
        if wanted.answer is not ANY:
            assert self.told(verb, answer) == wanted.answer

    def told(self, verb: str, answer: Any) -> Any:
        """What of an answer is in a book."""
        match verb:
            case "save" | "submit":
                return answer.new
            case "save_many":
                return [receipt.new for receipt in answer]
            case "restore":
                return answer.restored
            case "forget" | "clear":
                return answer.messages, answer.archived, answer.memories, answer.concepts
            case "check":
                return answer.findings
        return answer

    def perform(self, who: str | int, name: str, verb: str, of: dict[str, Any]) -> Any:
        if who == HERE:
            return perform(self.store, name, verb, of, self.days)
        self.second.open(self.folder / "store", SETTINGS)
        die_at, alone = None, False
        if isinstance(who, int):
            die_at = 1 + who * CALLS.get(verb, CALLS_OF_OTHERS) // 100
            # Then nobody has the ledger open, and whoever opens it next has to recover it.
            alone = who % 2 == 1
        if alone:
            self.store.close()
        try:
            return self.second.ask(name, verb, of, days=self.days, die_at=die_at)
        finally:
            if who == KILLED:
                self.second.kill()
            if alone:
                self.store = self.open()

    def look(self, who: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.perform(who, name, "look", {})
        return found

    def word(self, name: str) -> str:
        """One that was never used."""
        self.count += 1
        self.words[name].add(f"{name}word{self.count}x")
        return f"{name}word{self.count}x"

    def complete(self, name: str, draft: dict[str, Any]) -> dict[str, Any]:
        """A draft with a word that no other has, a time, and sometimes more."""
        message = {key: value for key, value in draft.items() if key != "tail"}
        return message | {
            "content": f"shared {self.word(name)}{draft['tail']}",
            "at": PAST.replace(microsecond=self.count),
            "metadata": {"n": self.count} if self.count % 3 == 0 else {},
        }

    def known(self, name: str, data: Any) -> str:
        """The id of a message, or of none."""
        key: str = data.draw(some.sampled_from([*self.books[name].messages, "id-nowhere"]))
        return key

    # -- messages

    @initialize(drafts=some.lists(DRAFT, min_size=9, max_size=15, unique_by=lambda one: one["id"]))
    def begin(self, drafts: list[dict[str, Any]]) -> None:
        for number, draft in enumerate(drafts):
            self.save(NAMES[number % 3 // 2], (HERE, THERE)[number % 2], draft, "save")

    @rule(name=NAME, who=WHO, draft=DRAFT, verb=some.sampled_from(["save", "save", "submit"]))
    def save(self, name: str, who: str | int, draft: dict[str, Any], verb: str) -> None:
        message = self.complete(name, draft)
        self.run(name, who, verb, lambda book: book.save([message], answer=True), **message)

    @rule(name=NAME, who=WHO, data=some.data())
    def save_again(self, name: str, who: str | int, data: Any) -> None:
        message = self.books[name].messages.get(self.known(name, data))
        if message is not None:
            self.run(name, who, "save", lambda book: book.save([message], answer=False), **message)

    @rule(name=NAME, who=WHO, drafts=some.lists(DRAFT, min_size=1, max_size=5), data=some.data())
    def save_many(self, name: str, who: str | int, drafts: list[dict[str, Any]], data: Any) -> None:
        """New ones and, after them, perhaps one that was saved before."""
        messages = [self.complete(name, draft) for draft in drafts]
        again = self.books[name].messages.get(self.known(name, data))
        answer = [True] * len(messages) + [False] * (again is not None)
        messages += [again] if again is not None else []
        self.run(
            name, who, "save_many", lambda book: book.save(messages, answer=answer),
            messages=messages,
        )  # fmt: skip

    @rule(name=NAME, who=WHO, draft=DRAFT, over=some.integers(1, 3))
    def fill(self, name: str, who: str | int, draft: dict[str, Any], over: int) -> None:
        """As many at once as are missing up to the limit, and more."""
        count = MAX - len(self.books[name].held) + over
        drafts = [draft | {"id": f"more-{self.count}-{n}", "pinned": False} for n in range(count)]
        messages = [self.complete(name, one) for one in drafts]
        self.run(name, who, "save_many", lambda book: book.save(messages), messages=messages)

    @rule(name=NAME, who=WHO, tail=TAIL, data=some.data())
    def edit(self, name: str, who: str | int, tail: str, data: Any) -> None:
        key, content = self.known(name, data), f"shared {self.word(name)}{tail}"
        self.run(
            name, who, "edit", lambda book: book.change(key, content=content),
            id=key, content=content,
        )  # fmt: skip

    @rule(name=NAME, who=WHO, pinned=some.sampled_from([True, False, False]), data=some.data())
    def pin(self, name: str, who: str | int, pinned: bool, data: Any) -> None:
        key, verb = self.known(name, data), "pin" if pinned else "unpin"
        self.run(name, who, verb, lambda book: book.change(key, pinned=pinned), id=key)

    @rule(name=NAME, who=WHO, importance=WEIGHT, data=some.data())
    def weigh(self, name: str, who: str | int, importance: float, data: Any) -> None:
        key, of = self.known(name, data), {"importance": importance}
        self.run(name, who, "set_importance", lambda book: book.change(key, **of), id=key, **of)

    @rule(name=NAME, who=WHO, data=some.data())
    def delete(self, name: str, who: str | int, data: Any) -> None:
        key = self.known(name, data)
        gone = {key} & self.books[name].messages.keys()
        self.run(name, who, "delete", lambda book: book.delete(gone, answer=bool(gone)), id=key)

    def is_full(self) -> bool:
        """Whether something may go for good, and much is left."""
        return sum([len(book.messages) for book in self.books.values()]) > MAX

    @precondition(is_full)
    @rule(name=NAME, who=WHO, session=SESSION)
    def delete_session(self, name: str, who: str | int, session: str) -> None:
        gone = self.books[name].of(session=session)
        self.run(
            name, who, "delete_session", lambda book: book.delete(gone, answer=len(gone)),
            session=session,
        )  # fmt: skip

    @rule(name=NAME, who=WHO, archived=some.booleans())
    def carry_over(self, name: str, who: str | int, archived: bool) -> None:
        """Export one agent, and import that into the other."""
        other = NAMES[1 - NAMES.index(name)]
        source, target = self.books[name], self.books[other]
        path = self.folder / "carried.jsonl"
        number = self.perform(who if who in (HERE, THERE) else HERE, name, "export", {
            "target": path, "archived": archived,
        })  # fmt: skip
        messages = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        keys = [message["id"] for message in messages]
        assert number == len(keys)
        assert sorted(keys) == sorted(source.messages if archived else source.held)
        if keys and len(source.pinned) + len(target.pinned) + COMMIT <= MAX:
            self.words[other] |= self.words[name]
            carried = [source.messages[key] for key in keys]
            self.run(other, who, "import_file", lambda book: book.carry(carried), path=path)

    # -- moves

    @rule(name=NAME, who=WHO, keep=some.integers(0, 4), aged=SELDOM, dry=SELDOM)
    def archive(self, name: str, who: str | int, keep: int, aged: bool, dry: bool) -> None:
        of = {} if aged else {"older_than_days": 0}
        days = 30 if aged else 0
        if dry:
            wanted = self.books[name].copy()
            wanted.days = self.days
            moved = wanted.archive(keep=keep, days=days)
            plan = self.perform(HERE, name, "archive", {"keep": keep, "dry_run": True, **of})
            assert moved.must <= {one.id for one in plan.leaving} <= moved.must | moved.may
        else:
            self.run(
                name, who, "archive", lambda book: book.archive(keep=keep, days=days),
                keep=keep, **of,
            )  # fmt: skip

    @rule(name=NAME, who=WHO, hurry=SELDOM)
    def clean_up(self, name: str, who: str | int, hurry: bool) -> None:
        if hurry:
            self.run(name, who, "emergency_cleanup", Book.emergency)
        else:
            self.run(name, who, "enforce_limits", Book.enforce)

    @rule(name=NAME, who=WHO, data=some.data())
    def restore(self, name: str, who: str | int, data: Any) -> None:
        ids = [self.known(name, data) for _ in range(data.draw(some.integers(1, 4)))]
        self.run(name, who, "restore", lambda book: book.restore(ids), ids=ids)

    @rule(name=NAME, who=WHO, session=SESSION)
    def restore_session(self, name: str, who: str | int, session: str) -> None:
        wanted = self.books[name].of(session=session)
        self.run(name, who, "restore", lambda book: book.restore(wanted), session=session)

    # -- what was learned

    @rule(name=NAME, who=WHO, id=MEMORY_ID, about=some.sets(CONCEPT), tail=TAIL, data=some.data())
    def remember(
        self, name: str, who: str | int, id: str, about: set[str], tail: str, data: Any
    ) -> None:
        session = data.draw(some.none() | SESSION)
        content = f"noted {self.word(name)}{tail}"
        held = self.books[name].memories.get(id)
        if held is not None and held["holds"] and data.draw(some.booleans()):
            content, session, about = held["content"], held["session"], held["about"]
        self.run(
            name, who, "remember", lambda book: book.remember(id, content, about, session),
            content=content, about=about, session=session, id=id,
        )  # fmt: skip

    @rule(name=NAME, who=WHO, id=MEMORY_ID, verb=some.sampled_from(["edit", "close", "delete"]))
    def change_memory(self, name: str, who: str | int, id: str, verb: str) -> None:
        if verb == "edit":
            of = {"content": f"noted {self.word(name)}"}
            self.run(name, who, "edit_memory", lambda b: b.change_memory(id, **of), id=id, **of)
        elif verb == "close":
            self.run(
                name, who, "close_memory", lambda b: b.change_memory(id, holds=False),
                id=id, at=PAST,
            )  # fmt: skip
        else:
            self.run(name, who, "delete_memory", lambda b: b.delete_memory(id), id=id)

    @rule(name=NAME, who=WHO, source=CONCEPT, relation=RELATION, end=CONCEPT)
    def relate(self, name: str, who: str | int, source: str, relation: str, end: str) -> None:
        self.run(
            name, who, "relate", lambda book: book.relate(source, relation, end),
            source=source, relation=relation, target=end,
        )  # fmt: skip

    @rule(name=NAME, who=WHO, source=CONCEPT, gone=some.booleans())
    def unrelate(self, name: str, who: str | int, source: str, gone: bool) -> None:
        if gone:
            self.run(name, who, "delete_concept", lambda b: b.delete_concept(source), name=source)
        else:
            self.run(name, who, "unrelate", lambda b: b.unrelate(source), source=source, at=PAST)

    # -- for good

    @precondition(is_full)
    @rule(name=NAME, who=WHO, user=some.none() | USER, session=SESSION)
    def forget(self, name: str, who: str | int, user: str | None, session: str) -> None:
        book = self.books[name]
        of: dict[str, Any] = {"session": session} if user is None else {"user": user}
        gone = book.of(**of)
        left = {one["session"] for key, one in book.messages.items() if key not in gone}
        emptied = {book.messages[key]["session"] for key in gone} - left
        sessions = {session} if user is None else emptied
        # A concept goes if no text names it: so all texts have to be linked first.
        self.perform(HERE, name, "flush", {})
        self.run(name, who, "forget", lambda b: b.forget(gone, sessions), replies=False, **of)

    @precondition(lambda self: any(len(b.messages) > 2 * MAX for b in self.books.values()))
    @rule(name=NAME, who=WHO)
    def clear(self, name: str, who: str | int) -> None:
        self.run(name, who, "clear", Book.clear)

    # -- what changes nothing that is seen

    @rule(name=NAME, who=WHO, verb=some.sampled_from(["reclaim", "full", "reindex", "flush"]))
    def keep_in_shape(self, name: str, who: str | int, verb: str) -> None:
        of = {"full": True} if verb == "full" else {}
        self.run(name, who, "reclaim" if verb == "full" else verb, lambda _: Wanted(), **of)

    @rule(name=NAME, who=WHO)
    def check(self, name: str, who: str | int) -> None:
        self.run(name, who, "check", lambda _: Wanted(answer=()))

    @rule()
    def let_time_pass(self) -> None:
        self.days += DAYS

    @rule(killed=some.booleans())
    def reopen(self, killed: bool) -> None:
        """Or start again, with nobody there before."""
        self.store.close()
        if killed:
            self.second.kill()
        self.store = self.open()

    # -- what is asked

    @rule(name=NAME, who=READER, back=some.integers(0, 9))
    def recall(self, name: str, who: str, back: int) -> None:
        """A word that only one message had, perhaps one that is gone, in both agents."""
        number = max(1, self.count - back)
        for agent in NAMES:
            book, word = self.books[agent], f"{name}word{number}x"
            keys = {k for k, one in book.messages.items() if word in one["content"].split()}
            noted = {k for k, one in book.memories.items() if word in one["content"].split()}
            hits = self.perform(who, agent, "recall", {"question": word, "kinds": ["message"]})
            book.used |= {hit.message.id for hit in hits}
            assert {hit.message.id for hit in hits if hit.matched} == keys & book.held
            hits = self.perform(who, agent, "recall", {"question": word, "archived": True})
            book.used |= {hit.message.id for hit in hits}
            found = {(hit.message.id, hit.archived) for hit in hits if hit.matched}
            holding = {key for key in noted if book.memories[key]["holds"]}
            assert found == {(k, k not in book.held) for k in keys} | {(k, False) for k in holding}
            memories = self.perform(who, agent, "memories", {"question": word})
            assert {memory.id for memory in memories} == holding

    @rule(name=NAME, who=some.sampled_from([HERE, HERE, HERE, THERE]))
    def ask_the_graph(self, name: str, who: str) -> None:
        book = self.books[name]
        asked = {
            "MATCH (m:Message) RETURN count(m) AS n": len(book.held),
            "MATCH (m:Memory) RETURN count(m) AS n": len(book.memories),
            "MATCH ()-[r:RELATES_TO]->() RETURN count(r) AS n": book.facts.total(),
            "MATCH ()-[r:MENTIONS]->() RETURN count(r) AS n": sum(book.mentions().values()),
        }
        for query, number in asked.items():
            rows = self.perform(who, name, "cypher", {"query": query})
            assert [row["n"] for row in rows] == ([number] if rows else [])
            assert rows or not number

    # -- what has to hold between any two

    @invariant()
    def both_processes_see_what_is_in_the_books(self) -> None:
        for name in sorted(self.touched):
            check_seen(self.books[name], self.look(HERE, name))
            if self.second.is_open:
                check_seen(self.books[name], self.look(THERE, name))
            agent, book = self.store.agent(name), self.books[name]
            assert sorted(archived_ids(agent)) == sorted(book.messages.keys() - book.held)
        self.touched.clear()

    def teardown(self) -> None:
        try:
            for name in NAMES:
                assert self.perform(HERE, name, "check", {}).findings == ()
            self.second.close_store()
        finally:
            self.store.close()
            self.second.kill()
        for name, other in zip(NAMES, NAMES[::-1], strict=True):
            self.check_files(name, self.words[other] - self.words[name])
        shutil.rmtree(self.folder)

    def check_files(self, name: str, words: set[str]) -> None:
        """That an agent's closed files are whole, and hold none of these words."""
        if not ledger_path(self.folder / "store", name).exists():
            return
        check_index(self.folder / "store", name)
        for path in files.agent_folder(self.folder / "store", name).rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            assert not [word for word in words if word.encode() in data], path


@pytest.fixture(scope="module")
def second() -> Iterator[Second]:
    with Second() as process, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writes, "UNINDEXED_MAX", INDEX_AFTER)
        yield process


@pytest.mark.timeout(900)  # some 40 s where nothing else runs
def test_two_agents_in_two_processes_hold_what_two_books_say(second: Second) -> None:
    machine = type("Machine", (Whole,), {"second": second})
    run_state_machine_as_test(machine, settings=settings(max_examples=8, stateful_step_count=40))
