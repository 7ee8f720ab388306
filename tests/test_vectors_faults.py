"""Whichever call to the disk fails, no vector is lost, doubled, or of what is not there."""

import contextlib
import itertools
import shutil

import apsw
import pytest

from elytron import Config, ElytronError, Store
from elytron.upkeep import embedding
from embedders import Hashing, by_hand, check_vectors, covered, steps
from faulty_disk import NAME, FaultyDisk
from ledgers import held

FAULTS = [
    ("xWrite", apsw.IOError),
    ("xWrite", apsw.FullError),
    ("xSync", apsw.IOError),
    ("xTruncate", apsw.IOError),
    ("xRead", apsw.IOError),
]
# So many calls at least are failed, one a run, before one fails none.
REACHED = {"xWrite": 10, "xSync": 2, "xRead": 10}
CONFIG = Config(
    enable_embeddings=True,
    embedder="function",
    vector_dims=4,
    embed_batch_max=8,
    reserve_mb=0,
    link_concepts=False,
)


@pytest.fixture(scope="module")
def disk():
    disk = FaultyDisk()
    yield disk
    disk.unregister()


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch):
    monkeypatch.setattr(embedding, "FIT_MIN", 16)


def opened(folder, vfs=None):
    store = Store(folder, CONFIG, embedder=Hashing(), vfs=vfs)
    by_hand(store.agent("bob"))
    store._agents.embeddings.calls._check_rested = lambda kind: None
    return store


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A closed store: sixteen messages with vectors, some of them shared, and eight without."""
    folder = tmp_path_factory.mktemp("template") / "store"
    with opened(folder) as store:
        bob = store.agent("bob")
        for number in range(24):
            if number == 16:
                while store._agents.embed_behind("bob") and len(covered(bob)) < 16:
                    pass
            bob.save("user", f"This is a message number {number % 18}.", id=str(number))
    return folder


def embed(bob):
    steps(bob)


def change(bob):
    bob.edit("3", "An edited message, as it is now.")
    bob.delete("0")
    bob.delete("5")
    steps(bob)


def reembed(bob):
    bob.reembed()


@pytest.mark.parametrize("work", [embed, change, reembed])
@pytest.mark.parametrize(
    ("call", "error"), FAULTS, ids=lambda value: getattr(value, "__name__", value)
)
def test_after_any_fault_all_can_be_embedded(tmp_path, template, disk, work, call, error):
    """
    Method: fail the 1st call of a kind, then the 2nd, and so on, until a run ends with no fault
    fired. After each the store is opened anew, looked at, and brought to the end.
    """
    for nth in itertools.count(1):
        folder = tmp_path / str(nth)
        shutil.copytree(template, folder)
        store = opened(folder, NAME)
        bob = store.agent("bob")
        bob.usage()  # opening has its own tests
        disk.arm(call, nth, error)
        with contextlib.suppress(ElytronError):
            work(bob)
        fired = disk.fired
        disk.disarm()
        check_vectors(bob)
        store.close()
        with opened(folder) as store:
            bob = store.agent("bob")
            check_vectors(bob)
            assert bob.check().findings == ()
            steps(bob)
            bob.embed()
            assert set(covered(bob)) == set(held(bob))
            check_vectors(bob)
            assert bob.check().findings == ()
        shutil.rmtree(folder)
        if not fired:
            assert nth > REACHED.get(call, 0)
            return
