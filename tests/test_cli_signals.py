"""SIGTERM and SIGHUP, as `timeout`, systemd or a terminal sends them: no message is left behind."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import elytron
from foreign_databases import ITEMS, openai_database
from test_migrate_kuzu import cut_short

Start = Callable[..., "subprocess.Popen[str]"]
WAIT_MAX_S = 60
NUMBERS = [signal.SIGTERM, signal.SIGHUP]
# What a program is from here on: one whose function *name* of *module*, once called, stands still.
STANDING = """
    import importlib, signal, sys
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it is ignored where the tests run under nohup
    module, name, when = importlib.import_module(sys.argv[1]), sys.argv[2], sys.argv[3]
    owner = module
    for part in name.split(".")[:-1]:
        owner = getattr(owner, part)
    name = name.split(".")[-1]
    really = getattr(owner, name)
    def stand_still(*arguments, **more):
        done = really(*arguments, **more) if when == "after" else None
        print("standing", flush=True)
        sys.stdin.read()
        return really(*arguments, **more) if when == "before" else done
    setattr(owner, name, stand_still)
    from elytron.faces.cli import main
    main(sys.argv[4:])
"""


def stopped(process: "subprocess.Popen[str]", number: signal.Signals, temporary: Path) -> None:
    """Send a signal to a program that stands still, and see it end in order."""
    assert process.stdout is not None
    assert process.stdout.readline() == "standing\n"
    assert list(temporary.iterdir()), "there is something to be left"
    process.send_signal(number)
    _, complaints = process.communicate(timeout=WAIT_MAX_S)
    assert (process.returncode, complaints) == (128 + number, "")
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("number", NUMBERS)
def test_an_import_ends_in_order_and_its_copy_goes(
    folder: Path, tmp_path: Path, temporary: Path, start_script: Start, number: signal.Signals
) -> None:
    with elytron.open(folder) as store:
        store.agent("chat").save("user", "Hello", id="m1")
    db = openai_database(tmp_path / "chat.db", [("web-1", ITEMS[0])])  # with its WAL: it is open
    try:
        words = ("import", tmp_path / "chat.db", "--store", folder)
        process = start_script(STANDING, "elytron.importers.tables", "_copied", "after", *words)
        stopped(process, number, temporary)
    finally:
        db.close()
    with elytron.open(folder) as store:
        assert [one.id for one in store.agent("chat").history()] == ["m1"]
        store.agent("chat").save("user", "Hello again")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_demo_ends_in_order_and_its_store_goes(
    temporary: Path, start_script: Start, number: signal.Signals
) -> None:
    process = start_script(STANDING, "elytron.faces.demo", "ask", "before", "demo", "--json")
    stopped(process, number, temporary)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_migration_ends_in_order_and_the_copy_of_its_reader_goes(
    folder: Path, tmp_path: Path, temporary: Path, start_script: Start, number: signal.Signals
) -> None:
    path = cut_short(tmp_path / "eve" / "kuzu.db")
    words = ("migrate", "kuzu", path, "--store", folder)
    line = "ForeignDatabase._line"
    process = start_script(STANDING, "elytron.importers.kuzu_source", line, "after", *words)
    stopped(process, number, temporary)


def test_a_second_signal_does_not_disturb_the_closing(run_script: Callable[..., str]) -> None:
    printed = run_script(
        """
        import signal
        from elytron.faces import exits
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            with exits.ended_by_signals():
                try:
                    signal.raise_signal(signal.SIGHUP)
                finally:
                    signal.raise_signal(signal.SIGHUP)
                    signal.raise_signal(signal.SIGTERM)
                    print("closed")
        except SystemExit as ended:
            print(ended.code)
        print(signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)
        """
    )
    assert printed.split() == ["closed", "129", "True"]


def test_what_others_do_with_signals_is_theirs(run_script: Callable[..., str]) -> None:
    """
    Under `nohup` SIGHUP stays ignored; a program around us has its own handler; a server's or the
    MCP's, set within the block, is not taken back; on another thread nothing is done.
    """
    run_script(
        """
        import signal, threading
        from elytron.faces import exits
        own = lambda *_: None
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, own)
        with exits.ended_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGTERM) is own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with exits.ended_by_signals():
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with exits.ended_by_signals():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        done = []
        def elsewhere():
            with exits.ended_by_signals():
                done.append(True)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert done
        """
    )


def test_the_program_gives_the_signals_back_at_its_end(run_script: Callable[..., str]) -> None:
    printed = run_script(
        """
        import signal
        from elytron.faces import cli
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        seen = []
        really = cli.exits.run
        def run(*arguments, **more):
            seen.append(signal.getsignal(signal.SIGTERM))
            return really(*arguments, **more)
        cli.exits.run = run
        try:
            cli.main(["--version"])
        except SystemExit as ended:
            assert ended.code == 0
        assert seen != [signal.SIG_DFL]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        """
    )
    assert printed == f"elytron {elytron.__version__}\n"


def test_a_bar_that_is_interrupted_as_it_begins_does_not_hold_up_the_end(
    run_script: Callable[..., str],
) -> None:
    """Method: its thread has begun, and will wait for an hour; Ctrl-C comes within `start`."""
    printed = run_script(
        """
        import threading
        from elytron.faces import progress
        progress._PATIENCE_S = 3600.0
        really, begun = threading.Thread.start, []
        def start(thread):
            really(thread)
            begun.append(thread)
            raise KeyboardInterrupt
        threading.Thread.start = start
        try:
            with progress.waiting(None, "asking", silent=False):
                raise AssertionError
        except KeyboardInterrupt:
            print("interrupted")
        (bar,) = begun
        bar.join(20)
        print(bar.is_alive(), bar.daemon)
        """
    )
    assert printed.split() == ["interrupted", "False", "True"]
