"""The janitor, on a clock that the test moves on; and with other processes on the store."""

import json
import os
import signal
from datetime import UTC, datetime, timedelta

import pytest

from clocks import DAY_S, HOUR_S, FakeClock
from elytron.config_sources import load
from elytron.store import Store
from ledgers import ledger_path

INTERVAL_S = 24 * HOUR_S
AGED = {"keep_messages": 0, "archive_after_days": 1.5, "reserve_mb": 0}


class Watched:
    """A store on a fake clock, whose janitor only does what the test has it do."""

    def __init__(self, folder, monkeypatch, **settings):
        self.clock = FakeClock()
        self.store = Store(folder, load({**AGED, **settings}), clock=self.clock)
        self.janitor = self.store._upkeep.janitor
        monkeypatch.setattr(self.janitor, "start", lambda: None)
        self.bob = self.store.agent("bob")

    def tick(self, seconds: float = 0.0) -> float:
        self.clock.pass_s(seconds)
        return self.janitor.tick()

    @property
    def usage(self):
        return self.store.usage().janitor


@pytest.fixture
def make(folder, monkeypatch):
    made: list[Watched] = []

    def make_one(**settings) -> Watched:
        made.append(Watched(folder, monkeypatch, **settings))
        return made[-1]

    yield make_one
    for watched in made:
        watched.store.close()


def fill(bob, count: int = 20) -> None:
    bob.save_many([{"role": "user", "content": f"Message {n}"} for n in range(count)])


def test_nothing_is_done_before_the_interval_and_all_after_it(folder, make):
    store = make()
    fill(store.bob)
    assert store.tick() == 60, "it looks again each minute"
    for _ in range(23):
        store.tick(HOUR_S)
    assert store.bob.usage().archived == 0
    begun = store.usage
    assert begun.failures == 0
    assert begun.last_error is None
    store.tick(HOUR_S + 1)
    assert store.bob.usage().archived == 0, "not old enough yet"
    assert store.usage.last_run > begun.last_run
    assert store.usage.next_run - store.usage.last_run == timedelta(hours=24)
    store.tick(INTERVAL_S + 1)
    assert store.bob.usage().archived == 20


def test_the_last_run_is_written_down_for_all(folder, make):
    store = make()
    fill(store.bob)
    store.tick()
    store.tick(INTERVAL_S + 1)
    state = json.loads((folder / "janitor.json").read_text())
    assert state["last_run_us"] == store.clock.now_us()
    assert store.usage.last_run == datetime.fromtimestamp(store.clock.now_us() / 1e6, UTC)


def test_a_wait_ends_at_the_round_that_is_due(make):
    store = make(cleanup_interval_hours=0.01)
    fill(store.bob)
    assert store.tick() == pytest.approx(36)
    assert store.tick(30) == pytest.approx(6)


def test_a_run_by_another_process_counts(folder, make):
    store, other = make(), make()
    fill(store.bob)
    store.tick()
    other.tick()
    store.clock.pass_s(INTERVAL_S + 1)
    other.clock.pass_s(INTERVAL_S + 1)
    assert store.store.cleanup()
    before = (folder / "janitor.json").read_bytes()
    other.tick()
    assert (folder / "janitor.json").read_bytes() == before, "it was done"
    assert other.usage.next_run > other.usage.last_run
    other.tick(INTERVAL_S)
    assert (folder / "janitor.json").read_bytes() != before


def damage(folder, name: str) -> None:
    """Damage an agent's ledger while nobody has it open, so that its chores fail."""
    path = ledger_path(folder, name)
    path.write_bytes(b"no ledger" * 1000)


def test_one_agents_failure_keeps_nobody_else_from_being_looked_after(folder, make, caplog):
    first = make()
    for name in ("anna", "bob", "carl"):
        fill(first.store.agent(name))
    first.store.close()
    damage(folder, "bob")
    store = make()
    store.clock.pass_s(2 * DAY_S)
    assert store.store.cleanup()
    assert [store.store.agent(name).usage().archived for name in ("anna", "carl")] == [20, 20]
    janitor = store.janitor.usage()
    assert janitor.failures == 1
    assert janitor.last_error.startswith("bob: ")
    assert "bob" in caplog.text


def test_after_a_failure_it_is_tried_again_later_and_later(folder, make):
    first = make()
    fill(first.bob)
    first.store.close()
    good = ledger_path(folder).read_bytes()
    damage(folder, "bob")
    store = make(cleanup_interval_hours=0.1)  # 6 minutes
    store.tick()
    tries = []
    store.janitor._look_after = lambda name, ahead: (
        tries.append(store.clock.monotonic()), store.store._upkeep.look_after(name, ahead)
    )  # fmt: skip
    begun = store.clock.monotonic()
    for _ in range(30 * 60):
        store.tick(1)
    minutes = [round((at - begun) / 60) for at in tries]
    assert minutes == [6, 7, 9, 13, 19, 25], "after 1, 2, 4 minutes, then each interval"
    assert store.janitor.usage().failures == len(tries)
    ledger_path(folder).write_bytes(good)
    store.tick(6 * 60)
    janitor = store.janitor.usage()
    assert (janitor.failures, janitor.last_error) == (0, None)


LOCKED = """
import fcntl, sys
with open(sys.argv[1] + "/janitor.lock", "a") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("end", ["ends", "is killed"])
def test_a_janitor_at_work_elsewhere_keeps_ours_from_it_but_no_limit_waits(
    folder, make, start_script, end
):
    store = make(max_messages_per_agent=10)
    fill(store.bob, 10)
    holder = start_script(LOCKED, folder)
    assert holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGSTOP)
    store.clock.pass_s(2 * DAY_S)
    assert store.store.cleanup() is False
    assert store.bob.usage().archived == 0
    for n in range(30):
        assert store.bob.save("user", f"More {n}").new, "who writes keeps the limits"
    assert store.bob.usage().messages == 10
    assert store.bob.enforce_limits().held == 10, "and by hand it goes too"
    if end == "ends":
        os.kill(holder.pid, signal.SIGCONT)
        holder.communicate("go\n", timeout=60)
    else:
        holder.kill()
        holder.wait(timeout=60)
    assert store.store.cleanup() is True


HALF = """
import os, sys, elytron
from elytron.upkeep import chores
plain = chores.Chores.enforce
def enforce(self, **options):
    print("here", flush=True)
    sys.stdin.readline()
    return plain(self, **options)
chores.Chores.enforce = enforce
store = elytron.open(sys.argv[1], reserve_mb=0)
store.cleanup()
store.close()
print("done", flush=True)
"""


def test_a_process_stopped_within_a_round_stops_nobody(folder, make, start_script):
    store = make(max_messages_per_agent=10)
    fill(store.bob, 10)
    other = start_script(HALF, folder)
    assert other.stdout.readline() == "here\n"
    os.kill(other.pid, signal.SIGSTOP)
    assert store.store.cleanup() is False
    fill(store.bob, 10)
    assert store.bob.reclaim().agent == "bob"
    assert store.bob.check().ok
    os.kill(other.pid, signal.SIGCONT)
    assert other.communicate("go\n", timeout=60) == ("done\n", "")
    assert store.bob.check().ok
    assert store.bob.usage().archived + store.bob.usage().messages == 20


@pytest.mark.parametrize(
    "state",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"last_run_us": "yesterday"}',
        b'{"last_run_us": true}', b'{"last_run_us": -1}', b'{"last_run_us": 1e300}',
        b'{"last_run_us": 99999999999999999999999}', b"{}", b'{"last_run_us": 0}',
    ],
)  # fmt: skip
def test_a_damaged_state_is_made_anew_and_puts_nothing_off_for_ever(folder, make, state):
    first = make()
    fill(first.bob)
    first.store.close()
    (folder / "janitor.json").write_bytes(state)
    store = make()
    store.janitor.usage()
    store.tick()
    store.tick(INTERVAL_S + 1)
    store.tick(INTERVAL_S + 1)
    assert store.bob.usage().archived == 20
    assert json.loads((folder / "janitor.json").read_text())["last_run_us"] > 1e15
    assert store.usage.next_run > store.usage.last_run


def test_a_state_from_the_future_puts_the_round_off_by_an_interval_at_most(folder, make):
    store = make()
    fill(store.bob)
    later_us = store.clock.now_us() + 365 * 86_400_000_000
    (folder / "janitor.json").write_text(json.dumps({"last_run_us": later_us}))
    store.tick()
    store.tick(INTERVAL_S + 1)
    assert json.loads((folder / "janitor.json").read_text())["last_run_us"] < later_us


def test_a_state_that_is_deleted_meanwhile_is_no_error(folder, make):
    store = make()
    fill(store.bob)
    store.tick()
    (folder / "janitor.json").unlink()
    store.tick(INTERVAL_S + 1)
    store.tick(INTERVAL_S + 1)
    assert store.bob.usage().archived == 20


def test_a_clock_that_is_set_back_does_not_stop_it(make):
    store = make()
    fill(store.bob)
    store.tick()
    store.clock.leap_s(-400 * DAY_S)
    before = store.usage.last_run
    store.tick(INTERVAL_S + 1)
    store.tick(INTERVAL_S + 1)
    assert store.usage.last_run < before, "it ran, by a clock that says less"


def test_without_auto_cleanup_it_never_archives(folder, make):
    store = make(auto_cleanup=False)
    fill(store.bob)
    for _ in range(5):
        store.tick(INTERVAL_S)
    assert store.usage.next_run is None
    store.janitor.near("bob")
    store.tick()
    assert store.bob.usage().archived == 0
    assert not (folder / "janitor.json").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_an_error_of_the_system_neither_ends_it_nor_is_lost(make, monkeypatch, error):
    """Whatever fails, the next agent and the next round come."""
    store = make()
    for name in ("anna", "bob"):
        fill(store.store.agent(name))
    plain = store.store._upkeep.look_after
    failing = {"anna"}

    def look_after(name: str, ahead: bool) -> None:
        if name in failing:
            raise error
        plain(name, ahead)

    store.janitor._look_after = look_after
    store.tick()
    store.clock.pass_s(2 * DAY_S)
    store.tick()
    assert store.store.agent("bob").usage().archived == 20
    assert store.janitor.usage().last_error.startswith("anna: ")
    failing.clear()
    store.tick(60)
    assert store.store.agent("anna").usage().archived == 20


def test_a_state_that_cannot_be_written_neither_ends_it_nor_is_lost(make, monkeypatch):
    from elytron.upkeep import janitor

    store = make()
    fill(store.bob)
    store.tick()

    def full(_path, _value) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(janitor, "write_json", full)
    store.tick(INTERVAL_S + 1)
    assert "no room left" in store.janitor.usage().last_error
    assert store.janitor.usage().failures == 1
    monkeypatch.undo()
    store.tick(INTERVAL_S)
    assert store.bob.usage().archived == 20
    assert store.janitor.usage().failures == 0


# -- near a limit


def test_a_write_that_comes_near_the_size_limit_wakes_it(folder, make):
    """Of a file that is 95 % full a tenth leaves, before any write has to wait for that."""
    store = make(max_db_size_mb=1.5, wal_limit_mb=0.25, archive_after_days=30)
    waiting = store.janitor._near
    for n in range(2000):
        store.bob.save("user", f"Message {n} " + " ".join(str(n * k) for k in range(100)))
        if waiting:
            break
    assert list(waiting) == ["bob"]
    before = store.bob.usage()
    assert before.archived == 0, "and no limit is reached yet"
    store.tick()
    assert not waiting
    assert store.bob.usage().archived > 0
    assert store.bob.usage().bytes.live < before.bytes.live


def test_it_is_told_of_an_agent_once_in_a_while_only(make):
    store = make()
    fill(store.bob)
    for _ in range(100):
        store.store._upkeep.near("bob")
        store.store._upkeep.near("eve")
    assert list(store.janitor._near) == ["bob", "eve"]
    store.tick()
    store.store._upkeep.near("bob")
    assert not store.janitor._near, "a second has not passed"
    store.clock.pass_s(1)
    store.store._upkeep.near("bob")
    assert list(store.janitor._near) == ["bob"]


def test_messages_near_their_number_leave_before_a_save_has_to_wait(make, monkeypatch):
    """A tenth leaves while saves go on: none of them meets the limit and waits for all of it."""
    store = make(max_messages_per_agent=1000, keep_messages=100, archive_after_days=30)

    def never(*_):
        raise AssertionError("a save met the limit")

    monkeypatch.setattr(store.store._upkeep, "make_room", never)
    bob = store.store.agent("one whose writer begins after that")
    fill(bob, 800)
    for n in range(1000):
        bob.save("user", f"Message {800 + n}")
        if store.janitor._near:
            store.tick(1)
    assert bob.usage().archived >= 800
    assert len(list(bob.messages(archived=True))) == 1800


def test_a_round_takes_nothing_from_who_is_below_the_limit(make):
    store = make(max_messages_per_agent=1000, keep_messages=100, archive_after_days=30)
    fill(store.bob, 1000)
    store.janitor._near.clear()
    assert store.janitor.run()
    assert store.bob.usage().archived == 0, "nothing more is being saved"


def test_room_for_the_next_saves_does_not_outrank_what_is_to_be_kept(make):
    store = make(max_messages_per_agent=1000, keep_messages=980, archive_after_days=30)
    fill(store.bob, 1000)
    store.janitor.near("bob")
    store.tick()
    assert store.bob.usage().messages == 980
