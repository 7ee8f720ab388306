"""A program that forks while its threads save: neither side may suffer."""

from collections.abc import Callable
from pathlib import Path

import pytest

import elytron


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
                signal.alarm(20)
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
