"""The store's total: fair shares among agents, over processes, at every moment."""

import contextlib
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import elytron
from elytron.ledger import files, ops, surveys
from elytron.ledger.connection import PAGE_BYTES
from elytron.ledger.room import NoRoom
from elytron.open_agent import OpenAgent
from elytron.upkeep import reclaiming
from elytron.upkeep.chores import Chores
from elytron.upkeep.shares import fair_level
from ledgers import held, ledger_path
from patience import in_the_end
from quiet import alone, without_janitor

MB = 1 << 20
TEXT = "a sentence that takes some room, number {} of {}: " + "lorem ipsum dolor " * 8
SMALL = {
    "max_total_mb": 8,
    "max_open_agents": 4,
    "keep_messages": 0,
    "max_messages_per_agent": 100_000,
}


def on_disk(store: Path) -> int:
    """All that counts, by the files' names: ledgers, WALs and archives."""
    total = 0
    for folder, _, names in os.walk(store / "agents"):
        for name in names:
            if not name.endswith("-shm"):
                with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                    total += os.stat(os.path.join(folder, name)).st_size
    return total


def fill(agent: elytron.Agent, count: int, *, first: int = 0) -> list[str]:
    receipts = agent.save_many(
        {"role": "user", "content": TEXT.format(n, agent.name), "id": f"{agent.name}-{n}"}
        for n in range(first, first + count)
    )
    return [receipt.id for receipt in receipts]


def everywhere(agent: elytron.Agent) -> set[str]:
    return {message.id for message in agent.messages(archived=True)}


def test_a_chatty_agent_cannot_push_out_another_s_memory(open_store, folder):
    store = open_store(**SMALL)
    quiet = [store.agent(f"quiet {n}") for n in range(5)]
    chatty = store.agent("chatty")
    saved = {agent.name: fill(agent, 100) for agent in quiet}
    said = []
    for step in range(140):
        said += fill(chatty, 100, first=step * 100)
        assert on_disk(folder) <= 8 * MB
    for agent in quiet:
        assert list(held(agent)) == saved[agent.name]
    usage = chatty.usage()
    assert usage.archived > 0
    assert usage.messages + usage.archived + usage.archive.dropped == len(said)


def test_nobody_below_the_fair_share_loses_while_another_is_above(open_store, folder):
    """Agents of all sizes, in turns; after each step the losers are compared with the level."""
    store = open_store(**SMALL)
    written: dict[str, int] = {}
    before: dict[str, int] = {}
    for step in range(25):
        for place in range(6):
            agent = store.agent(f"agent {place}")
            count = (1, 4, 15, 30, 60, 90)[place]
            uses = {a.agent: a.bytes.file + a.bytes.archive for a in store.usage().agents}
            level = fair_level(uses, 8 * MB - 4 * store.config.wal_limit_bytes)
            fill(agent, count, first=written.get(agent.name, 0))
            written[agent.name] = written.get(agent.name, 0) + count
            now = {a.agent: a.messages for a in store.usage().agents}
            for name, had in before.items():
                gained = count if name == agent.name else 0
                if now[name] < had + gained:
                    # Grants are given in steps, so a use may be a step below its grant.
                    assert uses[name] + 128 * 1024 >= level // 2, (step, name)
            before = now
        assert on_disk(folder) <= 8 * MB
    assert before["agent 0"] == written["agent 0"]


def test_the_total_holds_with_two_processes_writing(folder, start_script):
    script = """
    import sys, elytron
    store = elytron.open(sys.argv[1], max_total_mb=8, max_open_agents=2, keep_messages=0)
    agents = [store.agent(f"{sys.argv[2]} {n}") for n in range(3)]
    print("ready", flush=True)
    sys.stdin.readline()
    count = 0
    for step in range(20):
        for agent in agents:
            count += len(agent.save_many(
                {"role": "user", "content": f"{step} {n} " + "lorem ipsum dolor " * 10}
                for n in range(40)))
    store.close()
    print(count, flush=True)
    """
    processes = [start_script(script, folder, name) for name in ("one", "two")]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    done = threading.Event()
    sizes = []

    def watch() -> None:
        while not done.is_set():
            sizes.append(on_disk(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    counts = []
    for process in processes:
        printed, complaints = process.communicate(timeout=100)
        assert process.returncode == 0, complaints
        counts.append(int(printed))
    done.set()
    watcher.join()
    assert max(sizes) <= 8 * MB
    with elytron.open(folder) as store:
        usages = store.usage().agents
    found = sum(u.messages + u.archived + u.archive.dropped for u in usages)
    assert found == sum(counts) == 2 * 3 * 20 * 40


def test_agents_from_before_the_limit_are_counted(open_store, folder):
    store = open_store()
    for n in range(4):
        fill(store.agent(f"old {n}"), 500)
    before = {name: everywhere(store.agent(name)) for name in store.agents()}
    store.close()
    store = open_store(max_total_mb=3, max_open_agents=2, keep_messages=0)
    fill(store.agent("new"), 50)
    assert sum(len(everywhere(store.agent(name))) for name in before) + sum(
        store.agent(name).usage().archive.dropped for name in before
    ) == sum(map(len, before.values()))
    assert on_disk(folder) <= 3 * MB


def test_a_store_without_room_for_another_agent_refuses_and_makes_nothing(open_store):
    store = open_store(max_total_mb=2, max_open_agents=8)
    names: list[str] = []

    def begin_many() -> None:
        for n in range(300):
            store.agent(f"agent {n}").save("user", "Hello")
            names.append(f"agent {n}")

    with pytest.raises(elytron.OverBudget, match="max_total_mb"):
        begin_many()
    assert names
    assert sorted(names) == store.agents()
    assert all(len(everywhere(store.agent(name))) == 1 for name in names)


def test_an_agent_that_has_more_than_it_was_granted_is_granted_it_while_there_is_some_free(
    open_store, folder
):
    """As after a kill between archiving and its end: the next note of a clean-up was refused."""
    store = open_store(max_total_mb=64, auto_cleanup=False)
    bob = store.agent("bob")
    fill(bob, 100)
    budget = store._agents.upkeep.sharing._budget
    assert budget.settle(*budget.uses(), 100_000) == 100_000
    assert bob.archive(older_than_days=0, keep=50).archived == 50
    (granted,) = budget.uses().values()
    (agent,) = (folder / "agents").iterdir()
    assert (agent / "ledger.db").stat().st_size + bob.usage().archive.bytes <= granted


def test_a_clean_up_that_meets_its_share_of_the_total_asks_for_more(open_store, monkeypatch):
    """As after a kill, which one in a thousand rounds of them has shown."""
    store = open_store(max_total_mb=64)
    without_janitor(store)  # all is at our call
    fill(store.agent("bob"), 100)
    budget = store._agents.upkeep.sharing._budget
    (before,) = budget.uses().values()
    enforce, calls = Chores.enforce, []

    def refused_once(chores: Chores, *, ahead: bool) -> object:
        calls.append(ahead)
        if len(calls) == 1:
            raise NoRoom("its share is used up", bytes=before, limit="max_total_mb")
        return enforce(chores, ahead=ahead)

    monkeypatch.setattr(Chores, "enforce", refused_once)
    store._upkeep.look_after("bob", ahead=False)
    assert calls == [False, False]
    assert budget.uses().popitem()[1] > before
    monkeypatch.setattr(Chores, "enforce", enforce)
    assert store.agent("bob").check().ok


def test_what_saves_at_the_limit_of_messages_archive_is_counted_in_the_total(open_store, folder):
    """Room is made by the saves themselves: the janitor finds nothing left to do."""
    limits = {"max_messages_per_agent": 20, "keep_messages": 20}
    store = open_store(max_total_mb=2.5, max_db_size_mb=2, wal_limit_mb=0.5, **limits)
    bob = store.agent("bob")
    for n in range(100):
        bob.save("user", random.Random(n).randbytes(22_500).hex())
        assert on_disk(folder) <= 2.5 * MB
    usage = bob.usage()
    assert usage.messages + usage.archived + usage.archive.dropped == 100
    assert usage.archive.dropped


def test_what_a_chore_that_failed_has_made_of_the_files_is_counted(open_store):
    store = open_store(max_total_mb=64, keep_messages=0)
    bob = store.agent("bob")
    fill(bob, 100)

    def fail() -> None:
        with store._upkeep.chores("bob") as chores:
            chores.archive(older_than_days=0, keep=50, dry_run=False, on_progress=None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (granted,) = store._agents.upkeep.sharing._budget.uses().values()
    with store._upkeep.chores("bob", lent=True) as chores:
        in_ledger = chores.desk.read(surveys.granted_bytes)
        assert chores.archive_bytes
        assert in_ledger + chores.beside_bytes <= granted


def test_without_cleanup_the_total_refuses_instead_of_archiving(open_store):
    store = open_store(**SMALL, auto_cleanup=False)
    bob = store.agent("bob")
    saved: list[str] = []

    def fill_up() -> None:
        for step in range(200):
            saved.extend(fill(bob, 100, first=step * 100))

    with pytest.raises(elytron.OverBudget, match=r"max_total_mb|auto_cleanup"):
        fill_up()
    assert list(held(bob)) == saved
    assert bob.usage().archived == 0


def test_a_lost_budget_is_counted_again(open_store, folder):
    store = open_store(**SMALL)
    saved = fill(store.agent("bob"), 150)
    store.close()
    for path in folder.glob("budget.db*"):
        path.unlink()
    store = open_store(**SMALL)
    saved += fill(store.agent("bob"), 150, first=150)
    assert everywhere(store.agent("bob")) == set(saved)
    assert on_disk(folder) <= 8 * MB


# -- what a chore writes where the agent's share is used up, and most of the total is free


@contextlib.contextmanager
def used_up(store: elytron.Store, name: str) -> Iterator[Chores]:
    """An agent's chores, while it has been granted just what it uses."""
    with store._upkeep.chores(name) as chores:
        reclaiming.vacuum(chores.desk)
        reclaiming.empty_wal(chores.desk)
        used = chores.used_bytes
        chores.desk.commit(ops.Grant(used - chores.beside_bytes))
        store._upkeep.sharing._budget.settle(files.folder_name(name), used)
        yield chores


def test_what_a_chore_notes_takes_what_it_needs_of_the_total(open_store):
    store = open_store(max_total_mb=64)
    fill(store.agent("bob"), 100)
    names = tuple([f"{n:04}".ljust(200, "x") for n in range(500)])
    with used_up(store, "bob") as chores:
        run = chores.desk.run.begin()
        chores.desk.commit(ops.Move(names, run))
        assert chores.desk.read(surveys.moving)
        chores.desk.commit(ops.Moved(names, run))
    assert store.agent("bob").check().ok


def test_what_a_chore_notes_is_refused_where_nothing_of_the_total_is_free(open_store):
    store = open_store(max_total_mb=64)
    fill(store.agent("bob"), 100)
    budget = store._upkeep.sharing._budget
    names = tuple([f"{n:04}".ljust(200, "x") for n in range(500)])
    with used_up(store, "bob") as chores:
        budget.take("others", need_bytes=budget.free_bytes(), step_bytes=0)
        with pytest.raises(NoRoom, match="max_total_mb"):
            chores.desk.commit(ops.Move(names, chores.desk.run.begin()))
        budget.forget("others")


def test_a_restore_takes_what_it_needs_of_the_total(open_store):
    store = open_store(max_total_mb=64, keep_messages=0)
    bob = store.agent("bob")
    for n in range(300):
        bob.save("user", random.Random(n).randbytes(8_000).hex(), id=f"m{n}")
    assert bob.archive(older_than_days=0, keep=0).archived == 300
    assert bob.restore(session="default").restored == 300
    assert len(held(bob)) == 300


def test_who_gave_to_others_keeps_some_pages_for_what_it_removes_next(open_store):
    store = open_store(**SMALL)
    for step in range(10):
        fill(store.agent("chatty"), 200, first=200 * step)
    sharing, folder = store._upkeep.sharing, files.folder_name("chatty")
    with store._upkeep.chores("chatty", lent=True) as chores:
        assert sharing._give(folder, chores.used_bytes // 2, chores)
        granted = chores.desk.read(surveys.granted_bytes)
        assert granted - chores.desk.ledger.file_sizes()[0] >= 8 * PAGE_BYTES
        assert granted + chores.beside_bytes <= sharing._budget.grant(folder)


def test_after_a_chore_some_pages_are_left_for_what_is_removed_next(open_store):
    store = open_store(max_total_mb=64)
    fill(store.agent("bob"), 100)
    with used_up(store, "bob") as chores:
        store._upkeep.sharing.settle(chores)
        granted = chores.desk.read(surveys.granted_bytes)
        assert granted - chores.desk.ledger.file_sizes()[0] >= 8 * PAGE_BYTES


def test_an_archiving_is_done_though_there_is_no_room_to_merge_its_words(open_store, monkeypatch):
    def full(_desk: object) -> None:
        raise NoRoom("its share is used up", limit="max_total_mb")

    bob = open_store(keep_messages=0).agent("bob")
    fill(bob, 20)
    monkeypatch.setattr(reclaiming, "merge_due", full)
    assert bob.archive(older_than_days=0, keep=5).archived == 15
    assert bob.usage().messages == 5


# -- reserves, and who is busy


def all_to(store: elytron.Store, name: str) -> None:
    """Grant one agent all that is free."""
    budget = store._upkeep.sharing._budget
    budget.take(files.folder_name(name), need_bytes=budget.free_bytes(), step_bytes=0)


def test_where_who_has_to_give_is_busy_one_is_told_so_and_may_retry(open_store):
    store = open_store(**SMALL, save_timeout_s=0.5)
    without_janitor(store)  # it would be busy with her
    fill(store.agent("chatty"), 10)
    all_to(store, "chatty")
    with (
        store._upkeep.alone("chatty"),
        pytest.raises(elytron.Busy, match=r"has to give for 'eve'.*was busy.*nothing was written"),
    ):
        store.agent("eve").save("user", "Hello")
    assert store.agents() == ["chatty"]
    assert in_the_end(lambda: store.agent("eve").save("user", "Hello")).new


def test_an_agent_that_cannot_be_opened_holds_no_reserve(open_store, folder):
    store = open_store()
    store.agent("bob").save("user", "Hello")
    store.close()
    ledger_path(folder).write_bytes(b"no ledger")
    store = open_store(max_total_mb=64)
    with pytest.raises(elytron.Corrupt):
        store.agent("bob").save("user", "Hello")
    assert store._upkeep.sharing._budget.reserved_bytes() == 0
    store.agent("eve").save("user", "Hello")
    assert store._upkeep.sharing._budget.reserved_bytes() == store.config.wal_limit_bytes


def test_an_agent_that_is_opened_anew_while_it_is_put_to_rest_has_its_reserve(
    open_store, monkeypatch
):
    """Method: it is saved to just before what is put to rest is closed."""
    store = open_store(max_total_mb=64, max_open_agents=2)
    bob, agents = store.agent("bob"), store._agents
    alone(store)  # it would use them, and who was used last stays
    bob.save("user", "Hello")
    store.agent("eve").save("user", "Hello")
    rest, anew = agents._rest, []

    def rest_late(entry: OpenAgent) -> None:
        if entry.ledger.name == "bob" and not anew:
            anew.append(bob.save("user", "Anew"))
        rest(entry)

    monkeypatch.setattr(agents, "_rest", rest_late)
    store.agent("ann").save("user", "Hello")
    assert anew
    monkeypatch.undo()
    reserves = store._upkeep.sharing._budget._reserves
    assert set(reserves) == {files.folder_name(name) for name in ("ann", "bob")}


def test_what_was_refused_to_be_submitted_keeps_no_store_from_being_closed(open_store):
    """Method: the error is kept, and with it the frames that it came through."""
    store = open_store()
    for n in range(60):
        store.agent("bob").save("user", random.Random(n).randbytes(22_500).hex())
    store.close()
    store = open_store(max_total_mb=2, max_open_agents=2, auto_cleanup=False, save_timeout_s=1)
    bob = store.agent("bob")
    assert bob.history()
    with pytest.raises(elytron.OverBudget, match="max_total_mb") as refused:
        bob.submit("user", "Hello")
    store.close()
    assert refused.value.args
