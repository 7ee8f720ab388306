"""Interrupts: Ctrl-C in one caller of the writer is nobody else's business."""

import dis
import itertools
import sys
from typing import Any

import pytest

from elytron import Busy, OutcomeUnknown
from elytron.write.writer import Writer
from writing import Bench, Item, spawn

# After these Python looks for signals.
LOOKING = ("CALL", "JUMP_BACKWARD", "RESUME")
PATIENT_S = 30  # so that five that are stuck end within the time of a test


def interrupted_call(writer: Writer, item: Item, nth: int) -> bool:
    """Call, and be interrupted at the *nth* place where a signal may come; whether one did."""
    places = itertools.count(1)
    fired = False
    done: dict[Any, str] = {}  # the step that each frame did last

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal fired
        if not frame.f_code.co_filename.endswith(("write/writer.py", "write/queue.py")):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last = done.get(frame, "")
            done[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if last.startswith(LOOKING) and next(places) == nth:
                fired = True
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        writer.call(item)
    except KeyboardInterrupt:
        assert fired
    finally:
        sys.settrace(None)
    return fired


@pytest.mark.parametrize("leads", [True, False], ids=["leading", "waiting"])
def test_a_caller_who_is_interrupted_anywhere_does_not_block_the_others(leads):
    """
    Afterwards the next caller is served, those who waited are too, and no place is lost.

    Method: raise KeyboardInterrupt where Python first looks for signals in the writer, then
    where it does so next, and so on, until a run ends without it.
    """
    stuck: list[str] = []
    for nth in itertools.count(1):
        b = Bench(timeout_s=PATIENT_S)
        others = [] if leads else [b.lead()]
        if leads:
            b.disk.gate.set()
        victim = spawn(interrupted_call, b.writer, Item("victim"), nth)
        if not leads:
            b.until(lambda b=b, victim=victim: victim.done() or b.writer.queued > 0)
            others.append(b.call("other"))
            b.until(lambda b=b, others=others: others[1].done() or b.writer.queued > 0)
            b.disk.gate.set()
        try:
            fired = victim.result(PATIENT_S)
            for other in others:
                assert isinstance(other.exception(PATIENT_S), OutcomeUnknown | None)
            assert b.call("next").result(PATIENT_S) == "next"
            assert b.writer.submit(Item("submitted")).result(PATIENT_S) == "submitted"
            b.until(lambda b=b: b.quota.items == 0)
        except (Busy, AssertionError, TimeoutError) as error:
            stuck.append(f"interrupted at {nth}: {type(error).__name__} {error}"[:90])
        if not fired or len(stuck) == 5:
            break
    assert not stuck
    assert nth > 10, "there are many such places"
