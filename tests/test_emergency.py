"""Emergencies: a full disk, little memory, and the bytes that are kept for them."""

import contextlib
import errno
import logging
import os
import subprocess
from pathlib import Path

import pytest

import elytron
from elytron import DiskFull
from ledgers import held, names
from limits import everything

# In a file and on a server.
pytestmark = pytest.mark.ledgers

MB = 1 << 20


def prose(number: int, words: int = 150) -> str:
    return f"Message {number} says word{number} " + " ".join(str(number * k) for k in range(words))


def fill(bob: elytron.Agent, count: int, **more) -> None:
    for start in range(0, count, 100):
        bob.save_many(
            {"role": "user", "content": prose(n), "id": f"m{n}", **more}
            for n in range(start, min(count, start + 100))
        )


def test_the_oldest_half_leaves_but_for_what_is_pinned(open_store):
    bob = open_store(emergency_messages=100, reserve_mb=0).agent("bob")
    fill(bob, 100)
    for n in (3, 7, 80):
        bob.pin(f"m{n}")
    dry = bob.emergency_cleanup(dry_run=True)
    assert (dry.archived, dry.held, dry.reasons) == (0, 100, {"emergency": 50})
    assert bob.usage().messages == 100
    done = bob.emergency_cleanup()
    assert (done.archived, done.leaving) == (50, dry.leaving)
    assert {f"m{n}" for n in range(100)} - held(bob).keys() == {
        f"m{n}" for n in range(52) if n not in (3, 7)
    }
    assert len(everything(bob)) == 100
    assert done.given_back_bytes > 0
    assert bob.check().ok


def test_below_the_setting_nothing_leaves(open_store):
    bob = open_store(emergency_messages=100, reserve_mb=0).agent("bob")
    fill(bob, 99)
    done = bob.emergency_cleanup()
    assert (done.archived, done.leaving, done.held) == (0, (), 99)
    assert bob.usage().archived == 0


def test_an_agent_that_is_being_saved_to_has_enough_for_an_emergency_of_the_defaults(open_store):
    """Room is made ahead, so that the limit itself is never held."""
    bob = open_store(max_messages_per_agent=100, keep_messages=0, reserve_mb=0).agent("bob")
    fill(bob, 90)
    assert bob.emergency_cleanup().archived == 45


def test_importance_does_not_count_in_an_emergency(open_store):
    bob = open_store(emergency_messages=100, reserve_mb=0).agent("bob")
    fill(bob, 100)
    bob.set_importance("m0", 1.0)
    bob.emergency_cleanup()
    assert "m0" not in held(bob)


def test_an_emergency_of_nobody_makes_nothing(folder, bob):
    assert bob.emergency_cleanup().held == 0
    assert not folder.exists()


# -- the reserve


@pytest.mark.disk
def test_the_reserve_is_there_after_the_first_write_with_real_blocks(folder, open_store):
    store = open_store(reserve_mb=2)
    bob = store.agent("bob")
    bob.history()
    store.usage()
    assert not folder.exists()
    bob.save("user", "Hello")
    status = (folder / "reserve").stat()
    assert status.st_size == 2 * MB
    assert status.st_blocks * 512 >= 2 * MB, "not a hole"
    assert store.usage().reserve_bytes == 2 * MB


def test_without_a_reserve_there_is_none(folder, open_store):
    store = open_store(reserve_mb=0)
    bob = store.agent("bob")
    fill(bob, 10)
    bob.emergency_cleanup()
    store.cleanup()
    assert not (folder / "reserve").exists()


def test_reading_does_not_make_a_reserve(folder, open_store):
    with elytron.open(folder, reserve_mb=0) as store:
        store.agent("bob").save("user", "Hello")
    before = names(folder)
    store = open_store(reserve_mb=1)
    bob = store.agent("bob")
    bob.history()
    bob.recall("hello")
    bob.usage()
    list(bob.messages())
    store.usage()
    assert names(folder) == before


def test_a_reserve_cut_short_is_made_whole(folder, open_store):
    with elytron.open(folder, reserve_mb=1) as store:
        store.agent("bob").save("user", "Hello")
    with (folder / "reserve").open("r+b") as file:
        file.truncate(1000)
    store = open_store(reserve_mb=1)
    store.agent("bob").save("user", "Hello")
    assert (folder / "reserve").stat().st_size == MB


def test_a_reserve_is_as_large_as_the_setting_says_now(folder, open_store):
    with elytron.open(folder, reserve_mb=2) as store:
        store.agent("bob").save("user", "Hello")
    store = open_store(reserve_mb=1)
    store.agent("bob").save("user", "Hello")
    assert (folder / "reserve").stat().st_size == MB


def test_a_disk_without_room_for_a_reserve_is_no_error(folder, open_store, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "elytron.upkeep")

    def full(*_args) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        store = open_store(reserve_mb=1)
        assert store.agent("bob").save("user", "Hello").new
        assert not (folder / "reserve").exists(), "a part would pass for the whole"
    assert "reserve" in caplog.text
    store.cleanup()
    assert (folder / "reserve").stat().st_size == MB, "it is taken as soon as that goes"


def test_a_file_system_that_cannot_allocate_is_written_to(folder, open_store, monkeypatch):
    def not_there(*_args) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", not_there)
    open_store(reserve_mb=1).agent("bob").save("user", "Hello")
    status = (folder / "reserve").stat()
    assert (status.st_size, status.st_blocks * 512 >= MB) == (MB, True)


def test_a_full_disk_has_the_reserve_given_up_and_taken_again(folder, open_store, monkeypatch):
    """Every file of the archive fails as on a full disk while the reserve is there."""
    from elytron.archive import durable

    store = open_store(reserve_mb=1, keep_messages=0)
    bob = store.agent("bob")
    fill(bob, 50)
    plain, refused = durable.PartFile.write, []

    def write(self, data: bytes) -> None:
        if (folder / "reserve").exists():
            refused.append(self.path.name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(durable.PartFile, "write", write)
        assert bob.archive(older_than_days=0, keep=10).archived == 40
    assert refused
    assert (folder / "reserve").stat().st_size == MB
    assert len(everything(bob)) == 50
    assert bob.check().ok


def test_a_disk_that_stays_full_loses_nothing(folder, open_store, monkeypatch):
    from elytron.archive import durable

    store = open_store(reserve_mb=1, keep_messages=0, emergency_messages=100)
    bob = store.agent("bob")
    fill(bob, 120)
    before = held(bob)

    def write(self, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(durable.PartFile, "write", write)
        for verb in (
            lambda: bob.archive(older_than_days=0, keep=10),
            bob.emergency_cleanup,
        ):
            with pytest.raises(DiskFull):
                verb()
    assert (held(bob), bob.usage().archived) == (before, 0)
    assert (folder / "reserve").stat().st_size == MB
    assert bob.check().ok
    assert bob.emergency_cleanup().archived == 60


# -- a disk that is really full


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "elytron-test", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def free_bytes(disk: Path) -> int:
    status = os.statvfs(disk)
    return status.f_bavail * status.f_frsize


def stuff(disk: Path) -> None:
    """Fill the disk to its last byte."""
    with (disk / "stuff").open("ab", buffering=0) as file:
        while free := free_bytes(disk):
            with contextlib.suppress(OSError):  # what is linked in the background takes some, too
                file.write(bytes(min(free, MB)))


@pytest.mark.parametrize("verb", ["emergency_cleanup", "archive", "enforce_limits"])
@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_full_disk_is_cleaned_up_with_the_reserve(small_disk, verb, opened):
    settings = {"reserve_mb": 4, "emergency_messages": 500, "keep_messages": 0}
    folder = small_disk / "store"
    store = elytron.open(folder, **settings)
    bob = store.agent("bob")
    fill(bob, 1000)
    if opened == "after":
        store.close()
    stuff(small_disk)
    if opened == "after":
        store = elytron.open(folder, **settings, max_messages_per_agent=500)
        bob = store.agent("bob")
    with store:
        if verb == "emergency_cleanup":
            assert bob.emergency_cleanup().archived == 500
        elif verb == "archive":
            assert bob.archive(older_than_days=0, keep=500).archived == 500
        elif opened == "after":
            assert bob.enforce_limits().archived == 500
        else:
            bob.enforce_limits()
        assert len(everything(bob)) == 1000
        assert bob.check().ok
        (small_disk / "stuff").unlink()
        store.cleanup()
        assert (folder / "reserve").stat().st_size == 4 * MB
        assert bob.save("user", "It goes on").new


def test_saving_on_a_full_disk_is_refused_and_every_receipt_is_true(small_disk):
    with elytron.open(small_disk / "store", reserve_mb=2) as store:
        bob = store.agent("bob")
        fill(bob, 100)
        stuff(small_disk)
        saved = dict(held(bob))
        try:
            for n in range(2000):
                saved[bob.save("user", prose(n), id=f"n{n}").id] = prose(n)
        except DiskFull as error:
            refused = error
        assert "free" in str(refused)
        assert held(bob) == saved
        assert [hit.message.id for hit in bob.recall("word42")][:1] in (["m42"], ["n42"])
        (small_disk / "stuff").unlink()
        assert bob.save("user", "It goes on", id="more").new
        assert bob.check().ok


def test_a_disk_too_full_for_the_reserve_takes_saves_all_the_same(small_disk, caplog):
    caplog.set_level(logging.INFO, "elytron.upkeep")
    with (small_disk / "stuff").open("wb") as file:
        file.write(bytes(free_bytes(small_disk) - 2 * MB))
    with elytron.open(small_disk / "store", reserve_mb=8) as store:
        assert store.agent("bob").save("user", "Hello").new
        assert not (small_disk / "store" / "reserve").exists()
        assert "reserve" in caplog.text
        (small_disk / "stuff").unlink()
        store.cleanup()
        assert (small_disk / "store" / "reserve").stat().st_size == 8 * MB


# -- little memory


SHORT_OF_RAM = """
import resource, sys, elytron
with elytron.open(sys.argv[1], reserve_mb=0, emergency_messages=1000) as store:
    bob = store.agent("bob")
    bob.get("m0")
    bob.emergency_cleanup(dry_run=True) if sys.argv[2] == "warm" else None
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 24 * 2**20, resource.RLIM_INFINITY))
    print(bob.emergency_cleanup().archived)
"""


def test_an_emergency_works_in_little_memory(folder, run_script):
    """Some 20 MB of text in a process that may grow by 24 MB, threads and buffers and all."""
    # Far from its limit, or the janitor makes room ahead: then half of what is left leaves.
    with elytron.open(folder, reserve_mb=0, max_messages_per_agent=10_000) as store:
        bob = store.agent("bob")
        for start in range(0, 5000, 100):
            bob.save_many(
                {
                    "role": "user",
                    "content": f"Message {n} " + "some more words " * 250,
                    "id": f"m{n}",
                }
                for n in range(start, start + 100)
            )
    assert run_script(SHORT_OF_RAM, folder, "cold") == "2500\n"
    with elytron.open(folder, reserve_mb=0) as store:
        bob = store.agent("bob")
        assert len(everything(bob)) == 5000
        assert bob.check().ok
