"""
A second process on a store, which does what it is asked, and dies where it is told to.

    with Second() as second:
        second.open(folder, settings)
        second.ask("bob", "save", {"role": "user", "content": "x"})
        second.ask("bob", "archive", {"keep": 0}, die_at=7)  # raises `Died`

`perform` does the same in this process. The other kills itself with SIGKILL at its nth call that
changes a file, be it of SQLite or of `os`; a write that it dies in is half done.
"""

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

import apsw

from elytron import Agent, Config, ElytronError, Store
from elytron.importers import import_file
from elytron.ledger import writes
from elytron.upkeep.clock import Clock

PAST = datetime(2024, 5, 8, tzinfo=UTC)  # when what is closed ended
_BEFORE = datetime(2024, 5, 7, tzinfo=UTC)
INDEX_AFTER = 6  # messages, or else so small a memory would never get words in its index
_WAIT_MAX_S = 120
_DISK = "dying"
RETURNED, RAISED, ENDED = "returned", "raised", "ended"
_CALLS = ("open", "write", "fsync", "replace", "mkdir", "unlink")  # of `os`
_DAY_US = 86_400_000_000


class Died(Exception):
    """The second process died while it did what it was asked."""


class AheadClock(Clock):
    """The true time and some days, so that messages grow old."""

    days = 0

    def now_us(self) -> int:
        return super().now_us() + self.days * _DAY_US


def open_store(folder: Path, settings: Mapping[str, Any], *, vfs: str | None = None) -> Store:
    """A store without its janitor, which would clean up at times of its own."""
    store = Store(folder, Config(**settings), clock=AheadClock(), vfs=vfs)
    store._upkeep.janitor.stop(_WAIT_MAX_S)
    return store


def perform(store: Store, name: str, verb: str, arguments: Mapping[str, Any], days: int) -> Any:
    """Do what a verb says, so many days ahead; what it returns, in a form that can be sent."""
    clock = store._upkeep.clock
    assert isinstance(clock, AheadClock)
    clock.days = days
    agent = store.agent(name)
    match verb:
        case "look":
            return look(agent)
        case "delete_agent":
            return store.delete(name)
        case "rename_agent":
            return store.rename(name, **arguments)
        case "submit":
            return agent.submit(**arguments).result(_WAIT_MAX_S)
        case "import_file":
            (report,) = import_file(store, arguments["path"], agent=name, skip_bad=True)
            return report.imported, report.already_held, len(report.bad)
    return getattr(agent, verb)(**arguments)


def look(agent: Agent) -> dict[str, Any]:
    """All that an agent shows of itself."""
    held, sessions = list(agent.messages()), agent.sessions()
    concepts = {concept.name: concept.mentions for concept in agent.concepts()}
    usage = agent.usage()
    return {
        "held": held,
        "everything": list(agent.messages(archived=True)),
        "got": [agent.get(message.id) for message in held],
        "history": agent.history(limit=1000),
        "sessions": {one.id: one.messages for one in sessions},
        "histories": {one.id: [m.id for m in agent.history(one.id)] for one in sessions},
        "memories": agent.memories(as_of=_BEFORE),
        "holding": sorted(memory.id for memory in agent.memories()),
        "facts": agent.relations(as_of=_BEFORE),
        "concepts": concepts,
        "counts": {
            kind: getattr(usage, kind)
            for kind in ("messages", "archived", "pinned", "memories", "concepts", "edges")
        },
    }


class Second:
    """The other process, which is there anew once it has died. Use it in a `with` block."""

    def __init__(self) -> None:
        self.deaths = 0
        self._pid: int | None = None  # of the one that has the store open
        # Started once: what it forks has all modules, and begins to work in a moment.
        self._origin = subprocess.Popen(
            [sys.executable, "-W", "error", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._origin.communicate(timeout=_WAIT_MAX_S)
        assert self._origin.returncode == 0

    @property
    def is_open(self) -> bool:
        """Whether it has the store open."""
        return self._pid is not None

    def open(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Have it open this store, unless it has."""
        if self._pid is None:
            self._pid = self._call(("open", folder, settings))

    def ask(
        self,
        name: str,
        verb: str,
        arguments: Mapping[str, Any],
        *,
        days: int = 0,
        die_at: int | None = None,
    ) -> Any:
        """
        Have it do something; what came of it.

        Args:
            die_at: at which call of the disk it dies; if it comes to its end before that, it lives.

        Raises:
            Died: at that call.
            ElytronError: what the verb raised there.
        """
        return self._call(("do", name, verb, arguments, days, die_at))

    def close_store(self) -> None:
        """Have it close the store."""
        if self._pid is not None:
            self._pid = None
            self._call(("close",))

    def kill(self) -> None:
        """End it at once, if it has the store open."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self._pid = None
            assert self._answer() == (ENDED, -signal.SIGKILL)

    def _call(self, request: tuple[Any, ...]) -> Any:
        assert self._origin.stdin is not None
        pickle.dump(request, self._origin.stdin)
        self._origin.stdin.flush()
        what, answer = self._answer()
        if what == ENDED:
            self._pid = None
            assert answer == -signal.SIGKILL, f"the second process ended with {answer}"
            self.deaths += 1
            raise Died
        if what == RAISED:
            raise answer
        return answer

    def _answer(self) -> tuple[str, Any]:
        assert self._origin.stdout is not None
        readable, _, _ = select.select([self._origin.stdout], [], [], _WAIT_MAX_S)
        assert readable, f"the second process gave no answer in {_WAIT_MAX_S} s"
        answer: tuple[str, Any] = pickle.load(self._origin.stdout)
        return answer


class _Fate:
    """Counts the calls of this process that change a file, and ends it at the nth."""

    def __init__(self) -> None:
        self.arm(None)

    def arm(self, nth: int | None) -> None:
        self._nth, self._count = nth, 0

    def is_now(self) -> bool:
        self._count += 1
        return self._count == self._nth

    def meet(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def watch_os(self) -> None:
        for name in _CALLS:
            setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            if self.is_now():
                if name == "write":
                    call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                self.meet()
            return call(*arguments, **named)

        return watched


class _Disk(apsw.VFS):
    def __init__(self, fate: _Fate) -> None:
        self._fate = fate
        super().__init__(_DISK, "")

    def xOpen(self, name: Any, flags: list[int]) -> "_File":  # noqa: N802
        return _File(self._fate, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, fate: _Fate, name: Any, flags: list[int]) -> None:
        self._fate = fate
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        if self._fate.is_now():
            super().xWrite(bytes(data)[: len(data) // 2], offset)
            self._fate.meet()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._fate.is_now():
            self._fate.meet()
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        if self._fate.is_now():
            self._fate.meet()
        super().xTruncate(newsize)


def _serve(answers: IO[bytes]) -> None:
    """Do what comes in until nothing comes any more."""
    fate = _Fate()
    fate.watch_os()
    disk = _Disk(fate)
    setattr(writes, "UNINDEXED_MAX", INDEX_AFTER)  # noqa: B010 - it is imported by that name there
    store: Store | None = None
    for request in _requests():
        what = RETURNED
        answer: Any = None
        match request:
            case "open", folder, settings:
                store = open_store(folder, settings, vfs=_DISK)
                answer = os.getpid()
            case ("close",):
                assert store is not None
                store.close()
            case "do", name, verb, arguments, days, nth:
                assert store is not None
                fate.arm(nth)
                try:
                    answer = perform(store, name, verb, arguments, days)
                except ElytronError as error:
                    what, answer = RAISED, error
                fate.arm(None)
        _send(answers, what, answer)
    disk.unregister()


def _requests() -> Iterator[tuple[Any, ...]]:
    with contextlib.suppress(EOFError):
        while True:
            yield pickle.load(sys.stdin.buffer)


def _send(answers: IO[bytes], what: str, answer: Any) -> None:
    pickle.dump((what, answer), answers)
    answers.flush()


def _fork_until_one_ends_well() -> None:
    """One process that serves after the other, each as bare as the first."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # whatever else is printed is no answer
        while pid := os.fork():
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code == 0:
                return
            _send(answers, ENDED, code)
        _serve(answers)


if __name__ == "__main__":
    _fork_until_one_ends_well()
