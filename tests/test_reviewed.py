"""What reviews of the core found, each with what would have shown it."""

from collections.abc import Callable
from pathlib import Path

import pytest

import elytron


def test_a_filter_does_not_hide_what_only_common_words_find(store: elytron.Store) -> None:
    """A rare word that only another session has must not be the only one that is sought."""
    bob = store.agent("bob")
    bob.save_many(
        {"role": "user", "content": f"project note {n}", "session": "many"} for n in range(1500)
    )
    bob.save("user", "zanzibar", session="other")
    bob.save("user", "the project deadline is friday", session="mine", id="mine")
    hits = bob.recall("project zanzibar", session="mine")
    assert [hit.message.id for hit in hits] == ["mine"]


def test_a_full_ledger_can_be_deleted_from_oldest_first(folder: Path) -> None:
    with elytron.open(folder, max_db_size_mb=1, auto_cleanup=False) as store:
        bob = store.agent("bob")
        saved: list[str] = []

        def fill() -> None:
            for n in range(2000):
                saved.append(bob.save("user", f"word{n} " * 400, id=str(n)).id)

        with pytest.raises(elytron.OverBudget):
            fill()
        assert saved
        assert all(bob.delete(name) for name in saved)
        assert bob.save("user", "room again").new


def test_many_single_saves_of_large_messages_keep_the_log_within_its_limit(folder: Path) -> None:
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        largest = 0
        for n in range(70):
            bob.save("user", " ".join(f"w{n}x{k}" for k in range(8000)))
            largest = max(largest, bob.usage().bytes.wal)
        assert largest <= store.config.wal_limit_bytes


def test_what_was_submitted_is_kept_when_the_store_is_closed_at_exit(
    folder: Path, run_script: Callable[..., str]
) -> None:
    run_script(
        """
        import atexit, sys, elytron
        store = elytron.open(sys.argv[1])
        atexit.register(store.close)
        bob = store.agent("bob")
        for number in range(500):
            bob.submit("user", f"message {number}")
        """,
        folder,
    )
    with elytron.open(folder) as store:
        assert store.agent("bob").usage().messages == 500
