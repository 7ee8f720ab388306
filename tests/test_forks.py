"""A program that forks while its threads save: neither side may suffer."""

from collections.abc import Callable
from pathlib import Path

import pytest

import elytron


@pytest.mark.parametrize(
    "write", ['bob._agent.remember("Hello")', 'asyncio.run(bob.submit("user", "Hello"))']
)
def test_a_write_in_a_child_is_refused_before_it_waits_for_anything(
    folder: Path, run_script: Callable[..., str], write: str
) -> None:
    """Method: the lock of the ids is held when the child is forked, as by another thread."""
    script = f"""
        import asyncio, os, signal, sys, warnings
        import elytron, elytron.aio

        warnings.simplefilter("ignore", DeprecationWarning)
        store = elytron.aio.open(sys.argv[1])
        bob = store.agent("bob")
        with bob._agent._ids._mutex:
            child = os.fork()
            if child == 0:
                signal.alarm(40)
                try:
                    {write}
                except elytron.Forked:
                    os._exit(0)
                os._exit(3)
        print(os.waitpid(child, 0)[1])
        asyncio.run(store.close())
    """
    assert run_script(script, folder) == "0\n"


@pytest.mark.disk  # they fork while some wait for it
def test_children_forked_in_the_midst_of_saving_end_and_leave_the_parent_whole(
    folder: Path, run_script: Callable[..., str]
) -> None:
    """
    Method: four threads save without pause while the main thread forks twenty times, each time
    a few commits further on. A child that hangs is ended by its alarm, and counts as failed.
    """
    printed = run_script(
        """
        import gc, os, signal, sys, threading, warnings
        import elytron

        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        store = elytron.open(sys.argv[1])
        bob = store.agent("bob")
        ended, saved = threading.Event(), [threading.Semaphore(0)]

        def work():
            while not ended.is_set():
                bob.save("user", "hello")
                saved[0].release()

        crew = [threading.Thread(target=work) for _ in range(4)]
        for thread in crew:
            thread.start()
        failed = 0
        for _ in range(20):
            for _ in range(10):
                saved[0].acquire()
            child = os.fork()
            if child == 0:
                signal.alarm(40)
                try:
                    bob.save("user", "from the child")
                    os._exit(3)
                except elytron.Forked:
                    store.close()
                    del bob, store
                    gc.collect()
                    sys.exit(0)
            failed += os.waitpid(child, 0)[1] != 0
        ended.set()
        for thread in crew:
            thread.join()
        held = bob.usage().messages
        store.close()
        print(failed, held)
        """,
        folder,
    )
    failed, held = map(int, printed.split())
    assert failed == 0
    with elytron.open(folder) as store:
        messages = list(store.agent("bob").messages())
    assert len(messages) == held
    assert {message.content for message in messages} == {"hello"}
