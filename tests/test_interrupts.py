"""Ctrl-C in the middle of a verb: the next one works, and no lock is left behind."""

import dis
import fcntl
import gc
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron import Agent, Busy, ElytronError
from elytron.ledger import files
from ledgers import held
from quiet import alone

# After these Python looks for signals.
LOOKING = ("CALL", "JUMP_BACKWARD", "RESUME")


def interrupted(work: Callable[[], object], nth: int) -> str:
    """
    Work, and be interrupted at the *nth* place in Elytron where a signal may come.

    Returns where that was; empty if the work ended before.
    """
    places = itertools.count(1)
    done: dict[Any, str] = {}  # the step that each frame did last
    where = ""

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal where
        code = frame.f_code
        if "elytron" not in Path(code.co_filename).parent.parts[-2:]:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last = done.get(frame, "")
            done[frame] = dis.opname[code.co_code[frame.f_lasti]]
            if last.startswith(LOOKING) and next(places) == nth:
                where = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}"
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        assert where
    finally:
        sys.settrace(None)
    # Our own book keeps the frames alive, which otherwise go with the exception.
    done.clear()
    gc.collect()
    return where


def lock_is_free(store: Path) -> bool:
    with (files.agent_folder(store, "bob") / files.LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


VERBS: dict[str, Callable[[Agent], object]] = {
    "save": lambda bob: bob.save("user", "New", id="new"),
    "delete": lambda bob: bob.delete("one"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_write_interrupted_anywhere_leaves_the_agent_usable_and_the_lock_free(tmp_path, verb):
    """
    Method: interrupt where Python first looks for signals, then where it does so next, and so
    on, until a run ends without it. Afterwards another program can take the lock, we can save,
    and the store can be closed.
    """
    wrong = []
    for nth in itertools.count(1):
        folder = tmp_path / str(nth)
        # Nobody else may have the lock: on a busy machine the background's time comes in between.
        store = elytron.open(folder, save_timeout_s=0.05, link_concepts=False, auto_cleanup=False)
        alone(store)  # nor use the agent as long as `close` waits
        bob = store.agent("bob")
        bob.save("user", "Hello", id="one")
        where = interrupted(lambda bob=bob: VERBS[verb](bob), nth)
        if not lock_is_free(folder):
            wrong.append(f"{where}: the lock is still held")
        try:
            bob.save("user", "After", id="after")
            assert set(held(bob)) - {"new"} in ({"one", "after"}, {"after"})
        except ElytronError as error:
            wrong.append(f"{where}: {type(error).__name__} {error}"[:150])
        try:
            store.close()
        except Busy:
            wrong.append(f"{where}: the agent still counts as in use")
            store._agents._entries["bob"].uses.clear()
            store.close()
        if not where:
            break
    assert not wrong
    assert nth > 20, "there are many such places"
