"""What a caller leans on: the public names, the errors' codes, and a light import."""

import inspect
import pickle
from pathlib import Path

import pytest

import elytron
from elytron import errors

LEAVES = [
    error
    for error in vars(errors).values()
    if inspect.isclass(error) and issubclass(error, errors.ElytronError)
]


def test_every_public_name_is_there_and_documented():
    for name in elytron.__all__:
        assert inspect.getdoc(getattr(elytron, name)), name
    assert set(elytron.__all__) <= set(dir(elytron))
    assert {error.__name__ for error in LEAVES} <= set(elytron.__all__)


def test_a_name_that_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="no_such_name"):
        elytron.no_such_name  # noqa: B018


@pytest.mark.parametrize("kind", [elytron.Agent, elytron.Store])
def test_every_verb_says_what_it_does(kind):
    verbs = [verb for name, verb in inspect.getmembers(kind) if not name.startswith("_")]
    assert len(verbs) >= 4
    for verb in verbs:
        assert inspect.getdoc(verb), verb


def test_each_error_has_a_code_of_its_own_and_says_what_state_the_data_is_in():
    codes = [error.code for error in LEAVES]
    assert len(set(codes)) == len(codes) > 10
    for error in LEAVES:
        assert error.code == error.code.lower()
        assert len(error.__doc__) > 40
        assert isinstance(error.retryable, bool)


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_an_error_survives_the_way_to_another_process(error):
    copied = pickle.loads(pickle.dumps(error("number 7 of 8")))
    assert type(copied) is error
    assert str(copied) == "number 7 of 8"


def test_what_is_returned_cannot_be_changed(bob):
    receipt = bob.save("user", "Hello", user="alice")
    (hit,) = bob.recall("hello")
    for record in (receipt, hit, hit.message, bob.sessions()[0], bob.usage(), bob.context("hello")):
        for name in type(record).__dataclass_fields__:
            with pytest.raises(AttributeError):
                setattr(record, name, None)


def test_importing_is_quiet_and_starts_nothing(run_script):
    """No thread, no file, no environment, no module that a saver does not need."""
    printed = run_script(
        """
        import os, sys, threading
        before = set(sys.modules)
        opened = set(os.listdir("/dev/fd"))
        import elytron
        assert threading.active_count() == 1
        assert set(os.listdir("/dev/fd")) == opened
        elytron.open
        heavy = {"asyncio", "socket", "ssl", "yaml", "click", "rich", "psutil", "ijson", "sqlite3"}
        print(sorted(heavy & (set(sys.modules) - before)))
        """
    )
    assert printed == "[]\n"


def test_a_store_is_used_without_the_network(run_script, folder):
    """Method: all that Python tells of sockets is watched while each verb is called."""
    printed = run_script(
        """
        import contextlib, os, socket, sys
        asked = []
        def watch(event, arguments):
            own = event == "socket.__new__" and arguments[1] == socket.AF_UNIX
            if event.startswith("socket.") and not own:
                asked.append(event)
                raise AssertionError(event)
        sys.addaudithook(watch)
        import elytron
        sys.path.insert(0, sys.argv[2])
        from every_verb import calls
        os.chdir(os.path.dirname(sys.argv[1]))  # where the backup is made
        with elytron.open(sys.argv[1]) as store:
            bob = store.agent("bob")
            done = []
            for name, call in calls(store, bob).items():
                with contextlib.suppress(elytron.Conflict):  # it was edited
                    bob.save("user", "Hello", id="before", user="alice")
                    bob.remember("Hello too", id="one", about=["x", "y"])
                with contextlib.suppress(elytron.ElytronError):
                    call()
                    done.append(name)
            print(len(bob.recall("hello")) > 0, len(done) > 50, asked)
        """,
        folder,
        Path(__file__).parent,
    )
    assert printed == "True True []\n"
