"""Reclaiming: the file gets smaller while saves go on, and nothing is lost for it."""

import random
import shutil
import threading
from collections import namedtuple

import pytest

import elytron
from elytron import DiskFull
from ledgers import check_index, contents, held
from limits import check_order, sampled, sizes, watched
from quiet import at_rest

SETTINGS = {"reserve_mb": 0, "wal_limit_mb": 1, "keep_messages": 0}


def prose(number: int) -> str:
    return f"Message {number} says word{number} " + " ".join(str(number * k) for k in range(80))


def fill(bob: elytron.Agent, count: int = 1200, *, sessions_of: int | None = None) -> None:
    """
    Five sessions, in turns; or one after the other, of so many messages. From then on nobody but
    the test works on the store, whose files are compared to the byte.
    """
    at_rest(bob)
    for start in range(0, count, 200):
        bob.save_many(
            {"role": "user", "content": prose(n), "id": f"m{n}",
             "session": f"s{n // sessions_of if sessions_of else n % 5}"}
            for n in range(start, start + 200)
        )  # fmt: skip


@pytest.mark.disk
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("verb", ["delete_session", "archive", "delete"])
def test_the_file_gets_smaller_and_the_report_says_by_how_much(folder, open_store, verb, full):
    bob = open_store(**SETTINGS).agent("bob")
    fill(bob)
    if verb == "delete_session":
        for number in range(1, 5):
            bob.delete_session(f"s{number}")
    elif verb == "archive":
        bob.archive(older_than_days=0, keep=240)
    else:
        for n in range(240, 1200):
            bob.delete(f"m{n}")
    before, messages = sum(sizes(folder)), held(bob)
    done = bob.reclaim(full=full)
    after = sum(sizes(folder))
    assert (done.before_bytes, done.after_bytes) == (before, after)
    assert done.given_back_bytes == before - after
    assert done.put_off is None
    assert done.rebuilt or not full
    assert sizes(folder)[1] == 0
    assert after < 0.45 * before or verb == "archive", "archiving gives back by itself"
    assert after < 1 << 20
    assert held(bob) == messages
    assert len(messages) == 240
    assert bob.check().ok
    again = bob.reclaim()
    assert again.given_back_bytes < 1 << 16


def test_reclaiming_what_is_not_there_makes_nothing(folder, bob):
    done = bob.reclaim(full=True)
    assert (done.before_bytes, done.after_bytes, done.rebuilt) == (0, 0, False)
    assert not folder.exists()


def test_the_log_stays_within_its_limit_and_the_file_never_grows(folder, open_store):
    bob = open_store(**{**SETTINGS, "wal_limit_mb": 0.5}).agent("bob")
    fill(bob, 2000, sessions_of=400)  # else it would pay to rebuild, which needs more for a while
    bob.delete_session("s1")
    bob.delete_session("s3")
    before = sizes(folder)[0]
    with watched(folder) as samples, sampled(folder) as seen:
        done = bob.reclaim()
    assert done.given_back_bytes
    assert not done.rebuilt
    assert len(samples.sizes) > 5, "in steps"
    assert max(wal for _, wal in [*samples.sizes, *seen]) <= 1 << 19
    assert max(file for file, _ in [*samples.sizes, *seen]) <= before


@pytest.mark.parametrize("full", [False, True])
def test_saves_go_on_meanwhile(folder, open_store, monkeypatch, full):
    """Each commit of the reclaiming lets one save pass: so they overlap, whatever the timing."""
    from elytron.upkeep.desk import Desk

    bob = open_store(**SETTINGS).agent("bob")
    fill(bob)
    for number in range(1, 5):
        bob.delete_session(f"s{number}")
    steps, saved = threading.Semaphore(0), threading.Semaphore(0)
    ended = threading.Event()
    ids: list[str] = []

    def save() -> None:
        while True:
            assert steps.acquire(timeout=60)
            if ended.is_set():
                return
            ids.append(bob.save("user", prose(len(ids)), session="meanwhile").id)
            saved.release()

    plain = Desk.commit

    def commit(self, op):
        outcome = plain(self, op)
        steps.release()
        assert saved.acquire(timeout=60), "a save waits for one step at most"
        return outcome

    thread = threading.Thread(target=save)
    thread.start()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Desk, "commit", commit)
            before = sizes(folder)[0]
            done = bob.reclaim(full=full)
    finally:
        ended.set()
        steps.release()
        thread.join()
    assert len(ids) > 3
    assert sizes(folder)[0] < before
    assert done.rebuilt or not full
    assert [message.id for message in bob.history("meanwhile", limit=10_000)] == ids
    assert len(held(bob)) == 240 + len(ids)
    assert bob.check().ok


def test_a_rebuild_leaves_every_message_as_it_was(folder, open_store):
    store = open_store(**SETTINGS)
    bob = store.agent("bob")
    fill(bob, 600)
    bob.pin("m3")
    bob.set_importance("m5", 0.9)
    bob.recall("word7")
    before, usage = list(bob.messages()), bob.usage()
    assert bob.reclaim(full=True).rebuilt
    assert list(bob.messages()) == before
    after = bob.usage()
    assert (after.messages, after.changes, after.pinned) == (600, usage.changes, 1)
    assert bob.recall("word7")[0].message.id == "m7"
    assert bob.check().ok
    store.close()
    check_index(folder)
    with elytron.open(folder) as again:
        assert list(again.agent("bob").messages()) == before


def test_a_rebuild_that_has_no_room_changes_nothing(folder, open_store, monkeypatch):
    store = open_store(**SETTINGS)
    bob = store.agent("bob")
    fill(bob, 400)
    bob.delete_session("s1")
    usage = namedtuple("usage", "total used free")  # as `shutil` has it
    plain = shutil.disk_usage
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(*plain(path)[:2], 100_000))
        with pytest.raises(DiskFull, match="100000 are free"):
            bob.reclaim(full=True)
        for n in range(500):
            bob.delete(f"m{n}")
        done = bob.reclaim()
        assert not done.rebuilt
    assert bob.check().ok
    assert bob.reclaim(full=True).rebuilt
    assert bob.check().ok


WRITER = """
import sys, elytron
with elytron.open(sys.argv[1], reserve_mb=0, wal_limit_mb=1) as store:
    bob = store.agent("bob")
    number = 0
    print("ready", flush=True)
    while True:
        id = bob.save("user", f"From elsewhere {number} " + "x" * 500, id=f"else-{number}",
                      session="elsewhere").id
        assert bob.get(id) is not None
        number += 1
        if number % 20 == 0:
            print(number, flush=True)
            if sys.stdin.readline() == "end\\n":
                break
print("done")
"""


def test_another_process_writes_while_the_file_is_rebuilt(folder, open_store, start_script):
    bob = open_store(**SETTINGS).agent("bob")
    fill(bob, 1000)
    bob.delete_session("s1")
    other = start_script(WRITER, folder)
    assert other.stdout.readline() == "ready\n"
    rounds = 0
    for _ in range(6):
        rounds = int(other.stdout.readline())
        other.stdin.write("go\n")
        other.stdin.flush()
        assert bob.reclaim(full=True).rebuilt  # while it writes the next twenty
    rounds = int(other.stdout.readline())
    printed, complaints = other.communicate("end\n", timeout=60)
    assert (printed, complaints) == ("done\n", "")
    theirs = [message.id for message in bob.history("elsewhere", limit=10_000)]
    assert theirs == [f"else-{n}" for n in range(rounds)]
    assert len(held(bob)) == 800 + rounds
    assert bob.check().ok


def test_what_is_unused_within_pages_asks_for_a_rebuild_by_itself(folder, open_store):
    """Two thirds deleted at random: hardly a page gets free, and each is hardly used."""
    bob = open_store(**{**SETTINGS, "wal_limit_mb": 4}).agent("bob")
    dice = random.Random(1)
    ids = [f"{dice.randrange(16**12):012x}" for _ in range(2500)]
    for start in range(0, 2500, 500):
        bob.save_many(
            {"role": "user", "content": prose(n)[:700], "id": ids[n]}
            for n in range(start, start + 500)
        )
    assert not bob.reclaim().rebuilt, "nothing to gain yet"
    for key in dice.sample(ids, 1700):
        bob.delete(key)
    before = sizes(folder)[0]
    done = bob.reclaim()
    assert done.rebuilt
    assert sizes(folder)[0] < 0.5 * before
    assert len(held(bob)) == 800
    assert bob.check().ok


@pytest.mark.parametrize("call", ["xWrite", "xSync", "xTruncate"])
def test_whichever_call_fails_while_reclaiming_nothing_is_lost(folder, call):
    """Fail the 1st, 2nd, 3rd ... call of a kind until a run ends without a fault."""
    import apsw

    from elytron.config_sources import load
    from elytron.store import Store
    from faulty_disk import NAME, FaultyDisk

    disk = FaultyDisk()
    with elytron.open(folder, **SETTINGS) as store:
        fill(store.agent("bob"), 400)
        store.agent("bob").delete_session("s1")
        expected = held(store.agent("bob"))
    data = contents(folder)
    nth = 1
    while True:
        for name, content in data.items():
            (folder / name).write_bytes(content)
        for name in contents(folder).keys() - data.keys():
            (folder / name).unlink()
        with Store(folder, load({**SETTINGS, "auto_cleanup": False}), vfs=NAME) as store:
            disk.arm(call, nth, apsw.IOError if nth % 2 else apsw.FullError)
            try:
                store.agent("bob").reclaim(full=nth % 3 == 0)
            except elytron.ElytronError:
                assert disk.fired
            fired = disk.fired
            disk.disarm()
        with elytron.open(folder, **SETTINGS) as store:
            assert held(store.agent("bob")) == expected
            assert store.agent("bob").check().ok
        if not fired:
            break
        nth += 1 + nth // 6
    assert nth > 1


def test_order_is_kept_through_archiving_and_reclaiming(open_store):
    bob = open_store(**SETTINGS).agent("bob")
    saved: dict[str, list[str]] = {}
    for n in range(600):
        session = f"s{n % 3}"
        saved.setdefault(session, []).append(bob.save("user", prose(n), session=session).id)
        if n % 100 == 99:
            bob.archive(older_than_days=0, keep=50)
            bob.reclaim(full=n % 200 == 99)
    check_order(bob, saved)
