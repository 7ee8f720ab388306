"""Renaming an agent while the process is killed, or a call fails: it is whole, under one name."""

import contextlib
import gc
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import elytron
from backups import fill, look, looks, make
from elytron import ElytronError, NotFound
from elytron.ledger import deleted, files
from elytron.ledger.postgres import renaming
from every_call import SMALL, Resources, check_error, spread
from faulty_calls import MODES, FaultyCalls, Mode
from postgres_roles import layout
from second_process import Died, Second

QUIET: dict[str, Any] = {"reserve_mb": 0, "auto_cleanup": False}
TRIES = 10
OLD, NEW = "bob", "Robert"


def called(folder: Path, whole: object, *, first: str) -> str:
    """
    What the agent is called; it is whole, and there is no other. Whoever looks *first* ends what
    was cut short: by opening either name, by the list, or by a clean-up.
    """
    with elytron.open(folder, **QUIET) as store:
        match first:
            case "old" | "new":
                store.agent(OLD if first == "old" else NEW).history()
            case "clean-up":
                store.cleanup()
        (name,) = store.agents()
        other = NEW if name == OLD else OLD
        agent = store.agent(name)
        report = agent.check()
        assert report.ok, report.findings
        assert (report.messages, report.archived) == (20, 10)
        assert look(agent) == whole
        assert not store.agent(other).exists()
        with pytest.raises(NotFound):
            store.delete(other)
        assert not files.agent_folder(folder, other).exists()
        home = files.agent_folder(folder, name)
        assert not (home / files.RENAMING).exists()
        assert files.marked(home) == name
        assert (deleted.Fates(folder).of(deleted.key_of(OLD)) is not None) == (name == NEW)
    return name


def test_killed_at_any_call_it_leaves_the_agent_whole_under_one_name(tmp_path):
    template, folder = tmp_path / "template", tmp_path / "store"
    make(template, names=[OLD])
    whole = looks(template)[OLD]
    names = []
    looking = ("old", "new", "list", "clean-up")
    with Second() as second:
        for nth in range(1, 200):
            shutil.copytree(template, folder)
            second.open(folder, QUIET)
            try:
                second.ask(OLD, "rename_agent", {"new": NEW}, die_at=nth)
            except Died:
                names.append(called(folder, whole, first=looking[nth % len(looking)]))
                shutil.rmtree(folder)
                continue
            second.close_store()
            assert called(folder, whole, first="list") == NEW
            break
    assert names == sorted(names, reverse=True), "once it has the new name it keeps it"
    assert set(names) == {OLD, NEW}


def test_half_renamed_it_is_saved_to_and_deleted_under_the_new_name_alone(tmp_path):
    """The old name is free: a save to it begins another memory, and takes nothing from this one."""
    template, folder = tmp_path / "template", tmp_path / "store"
    make(template, names=[OLD])
    for verb in ("save to the new", "save to the old", "delete", "rename again", "back up"):
        shutil.copytree(template, folder)
        rename_halfway(folder)
        with elytron.open(folder, **QUIET) as store:
            match verb:
                case "save to the new":
                    assert store.agent(NEW).save("user", "more", id="more").new
                    assert store.agent(NEW).usage().messages == 21
                case "save to the old":
                    assert store.agent(OLD).save("user", "fresh", id="fresh").new
                    assert store.agent(OLD).usage().messages == 1
                    assert store.agent(NEW).usage().messages == 20
                case "delete":
                    assert store.delete(NEW).messages == 20
                    assert store.agents() == []
                case "rename again":
                    with pytest.raises(NotFound):
                        store.rename(OLD, NEW)
                    store.rename(NEW, OLD)
                    assert store.agents() == [OLD]
                    assert store.agent(OLD).usage().messages == 20
                case "back up":
                    report = store.backup(tmp_path / "backup")
                    assert [one.agent for one in report.agents] == [NEW]
            for name in store.agents():
                assert store.agent(name).check().ok
        shutil.rmtree(folder)


def test_who_has_it_open_hears_of_a_renaming_that_was_cut_short(tmp_path):
    folder = tmp_path / "store"
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent(OLD)
        bob.save("user", "hello")
        rename_halfway(folder)
        for _ in range(2):
            for use in (bob.history, lambda: bob.save("user", "lost?")):
                with pytest.raises(NotFound, match="renamed"):
                    use()
            assert store.agents() == [NEW]
            assert store.agent(NEW).usage().messages == 1


def rename_halfway(folder: Path) -> None:
    """The folder has its new name, and nothing in it does."""
    home = files.agent_folder(folder, OLD)
    note = {"from": OLD, "to": NEW, "at_us": deleted.next_us(folder, OLD)}
    files.write_json(home / files.RENAMING, note)
    home.replace(files.agent_folder(folder, NEW))


@pytest.mark.parametrize("mode", [name for name in MODES if name != "cut short"])
def test_whichever_call_fails_the_agent_is_whole_under_one_name(tmp_path, mode):
    template, folder = tmp_path / "template", tmp_path / "store"
    make(template, names=[OLD])
    whole = looks(template)[OLD]
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
            name = called(folder, whole, first="list")
            assert name == NEW if not error or "is called" in error else True
            assert name == OLD if "nothing was" in error else True
            shutil.rmtree(folder)
        assert met > len(tries) // 2
    finally:
        logging.disable(logging.NOTSET)
        calls.close()


def attempt(folder: Path, calls: FaultyCalls, nth: int, mode: Mode) -> str:
    """Rename bob while the nth call fails; what error that met, if one."""
    said = ""
    store = elytron.open(folder, SMALL)
    try:
        store.agent(OLD).history()
        with calls.armed(nth, mode):
            try:
                store.rename(OLD, NEW)
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
    """
    From the mark on nobody writes under either name, not who has the old one open either; whoever
    opens one ends the renaming.
    """
    place = {"files_path": str(folder), "postgres_schema": schema, **QUIET}
    with (
        layout(postgres, schema) as roles,  # whose user row-level security is for
        elytron.open(
            postgres.dsn(user=roles.user), embedder=embed, enable_embeddings=True, **place
        ) as store,
        elytron.open(postgres.dsn(user=roles.user), **place) as other,
    ):
        roles.bring_up()
        for number, before_move in enumerate((True, False) * 2):
            bob = store.agent(OLD)
            fill(bob, 0, 9)
            bob.flush()
            bob.archive(older_than_days=0, keep=5)
            whole = look(bob)
            other.agent(OLD).save("user", "kept", session="s0", id="kept")
            whole = look(bob)
            with monkeypatch.context() as patch:
                if before_move:
                    patch.setattr(renaming, "_move_files", unplugged)
                else:
                    patch.setattr(renaming, "_CALL", ("SELECT 1 / 0",))
                with pytest.raises(ElytronError, match="that is not done"):
                    store.rename(OLD, NEW)
                assert store.agents() == [OLD]
                with pytest.raises(NotFound, match="renamed while it was open"):
                    other.agent(OLD).save("user", "lost?", session="s0", id="lost")
            match number:
                case 0:
                    assert other.agent(NEW).exists()
                case 1:
                    assert not store.agent(OLD).exists()
                case 2:
                    with pytest.raises(NotFound):
                        store.rename(OLD, NEW)
                case 3:
                    assert store.delete(NEW).messages == 6
                    assert store.agents() == []
                    continue
            assert store.agents() == [NEW]
            robert = store.agent(NEW)
            assert look(robert) == whole
            assert robert.check().ok
            assert robert.usage().embeddings.reasons["embedded"] >= 5
            assert robert.recall("zebra 9")
            assert other.agent(NEW).save("user", "more", id="more").new
            assert not files.agent_folder(folder, OLD).exists()
            store.delete(NEW)


def embed(texts: Sequence[str], _kind: str) -> list[list[float]]:
    return [[float(len(text)), 1.0, 0.1] for text in texts]


def unplugged(_store: Path, _names: object) -> None:
    raise elytron.Unavailable("the disk was unplugged; nothing was written: plug it in")
