"""Deleting an agent while the process is killed, or a call fails: it is whole or gone, always."""

import contextlib
import gc
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

import elytron
from backups import fill, make
from elytron import ElytronError, NotFound
from elytron.ledger import deleted, files
from every_call import SMALL, Resources, check_error, spread
from faulty_calls import MODES, FaultyCalls, Mode
from quiet import alone
from second_process import Died, Second

QUIET = {"reserve_mb": 0, "auto_cleanup": False}
TRIES = 12


def left(folder: Path) -> list[str]:
    """Folders that are still to be removed."""
    home = folder / deleted.FOLDER
    return [path.name for path in home.iterdir() if path.is_dir()] if home.is_dir() else []


def whole_or_gone(folder: Path) -> bool:
    """Whether bob is there; then he is whole. After a clean-up nothing of a deletion is left."""
    with elytron.open(folder, **QUIET) as store:
        is_there = store.agents() == ["bob"]
        if is_there:
            report = store.agent("bob").check()
            assert report.ok, report.findings
            assert (report.messages, report.archived) == (20, 10)
        else:
            assert store.agents() == []
            assert not files.agent_folder(folder, "bob").exists()
        store.cleanup()
        assert left(folder) == []
        assert (deleted.Fates(folder).of(deleted.key_of("bob")) is None) == is_there
    return is_there


def test_killed_at_any_call_it_leaves_the_agent_whole_or_gone(tmp_path, monkeypatch):
    template, folder = tmp_path / "template", tmp_path / "store"
    make(template, names=["bob"])
    outcomes = []
    with Second() as second:
        for nth in range(1, 200):
            shutil.copytree(template, folder)
            second.open(folder, QUIET)
            try:
                second.ask("bob", "delete_agent", {}, die_at=nth)
            except Died:
                outcomes.append(whole_or_gone(folder))
                shutil.rmtree(folder)
                continue
            second.close_store()
            assert not whole_or_gone(folder)
            break
    assert outcomes == sorted(outcomes, reverse=True), "once it is gone it stays so"
    assert set(outcomes) == {True, False}


@pytest.mark.parametrize("mode", [name for name in MODES if name != "cut short"])
def test_whichever_call_fails_the_agent_is_whole_or_gone(tmp_path, mode):
    template, folder = tmp_path / "template", tmp_path / "store"
    make(template, names=["bob"])
    calls = FaultyCalls(tmp_path)
    logging.disable()
    try:
        shutil.copytree(template, folder)
        attempt(folder, calls, 0, MODES[mode])
        shutil.rmtree(folder)
        tries, met = spread(calls.count, at_most=TRIES), 0
        for nth in tries:
            shutil.copytree(template, folder)
            resources = Resources.now()
            error = attempt(folder, calls, nth, MODES[mode])
            met += calls.fired
            gc.collect()
            assert Resources.now().descriptors <= resources.descriptors
            there = whole_or_gone(folder)
            assert there if error and "nothing was" in error else error or not there
            with elytron.open(folder, **QUIET) as store, contextlib.suppress(NotFound):
                store.delete("bob")
            assert not whole_or_gone(folder)
            shutil.rmtree(folder)
        assert met > len(tries) // 2
    finally:
        logging.disable(logging.NOTSET)
        calls.close()


def attempt(folder: Path, calls: FaultyCalls, nth: int, mode: Mode) -> str:
    """Delete bob while the nth call fails; what error that met, if one."""
    said = ""
    store = elytron.open(folder, SMALL)
    try:
        store.agent("bob").history()
        with calls.armed(nth, mode):
            try:
                store.delete("bob")
            except ElytronError as error:
                check_error(error)
                said = str(error)
                error.__traceback__ = error.__cause__ = error.__context__ = None
    finally:
        with contextlib.suppress(ElytronError):
            store.close()
    return said


def test_on_a_server_who_comes_next_ends_what_was_cut_short(
    postgres: Any, schema: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent counts as gone from the mark on; nobody writes to it, and its name is free."""
    place = {"files_path": str(folder), "postgres_schema": schema, **QUIET}
    with (
        elytron.open(postgres.dsn(), **place) as store,
        elytron.open(postgres.dsn(), **place) as other,
    ):
        for one in (store, other):
            alone(one)  # what it has open is what is deleted
            fill(one.agent("bob"), 0, 9)
        store.agent("al").save("user", "hello")
        store.agent("bob").archive(older_than_days=0, keep=5)
        assert store.agent("bob").usage().archived == 4
        with monkeypatch.context() as patch:
            patch.setattr(deleted, "take_away", unplugged)
            with pytest.raises(elytron.Unavailable, match="not all of it is gone"):
                store.delete("bob")
        with pytest.raises(elytron.Busy, match="was deleted just now"):
            other.agent("bob").save("user", "lost?", session="s0", id="lost")
        assert not store.agent("bob").exists()
        assert store.agents() == ["al"]
        assert store.cleanup()
        assert left(folder) == []
        fill(store.agent("bob"), 0, 2)
        assert [one.id for one in store.agent("bob").messages(archived=True)] == ["m0", "m1"]
        other.agent("bob").save("user", "kept", id="kept")
        assert store.agent("bob").get("kept") is not None
        assert store.agent("al").history()


def unplugged(_store: Path, _name: str) -> bool:
    raise elytron.Unavailable("the disk was unplugged; nothing was written: plug it in")
