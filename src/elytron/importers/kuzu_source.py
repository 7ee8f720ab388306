"""
Kuzu source: a database of the project's origin, read by a process that has Kuzu.

Nothing here opens the database: a second descriptor in a program that has it open too would drop
that program's lock when it is closed. Finding it looks at names only; `graph/foreign.py` reads it.
What its reader could not do becomes the error whose way out a person can take.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from elytron import graph
from elytron.errors import (
    Busy,
    Corrupt,
    DeadlineExceeded,
    DiskFull,
    ElytronError,
    GraphUnavailable,
    InvalidArgument,
    NotFound,
    Unavailable,
)

FILE = "kuzu.db"
CATALOG = "catalog.kz"
_FOLDERS_MAX = 10_000  # looked through for databases
_LINE_MAX_BYTES = 256 << 20  # of a page, with every character escaped
_SILENCE_MAX_S = 300.0  # between two pages
_END_MAX_S = 10.0
_TOLD_MAX = 300  # characters of what the reader said on stderr


class Found(NamedTuple):
    """A database, and the name of the agent that it is the memory of."""

    path: Path
    agent: str


def find(path: str | Path) -> list[Found]:
    """
    The databases at *path*: itself, the one of an agent's folder, or those of a folder of agents.

    Raises:
        NotFound: there is nothing at that path.
        InvalidArgument: there is, but no database of Kuzu.
        Unavailable: the folder cannot be read.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise NotFound(f"there is nothing at {path}; nothing was migrated")
        if path.is_file() or (path / CATALOG).exists():
            # `bob/kuzu.db` is Bob's; any other file is called as its agent.
            return [Found(path, _named(path.parent if path.name == FILE else path.with_suffix("")))]
        if (path / FILE).exists():
            return [Found(path / FILE, _named(path))]
        return _within(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # Python's word for a NUL in a path
        raise InvalidArgument("a path cannot hold a NUL character; nothing was migrated") from error


def _within(path: Path) -> list[Found]:
    found = []
    for number, folder in enumerate(sorted(path.iterdir())):
        if number == _FOLDERS_MAX:
            raise InvalidArgument(
                f"{path} holds more than {_FOLDERS_MAX} files; name the folder of one agent"
            )
        if (folder / FILE).exists():
            found.append(Found(folder / FILE, folder.name))
    if not found:
        raise InvalidArgument(
            f"{path} holds no {FILE}, and no folder in it does; give a database, the folder of an"
            " agent, or the folder of all of them, as data/memory"
        )
    return found


def _named(path: Path) -> str:
    return path.name or path.resolve().name


class ForeignDatabase:
    """A database while it is read, from start to end, once. Use it in a `with` block."""

    def __init__(self, path: Path, *, python: str | None = None) -> None:
        """
        Args:
            python: an interpreter that has `kuzu`; this one if None.

        Raises:
            InvalidArgument: that is no program.
        """
        self.path = path
        self._python = python or sys.executable
        script = Path(graph.__file__).with_name("foreign.py")
        self._copies = tempfile.TemporaryDirectory(prefix="elytron-migrate-")
        # A file, not a pipe: nobody reads it unless something goes wrong.
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with us
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the person named the program
                [self._python, "-B", str(script), str(path), self._copies.name],
                stdin=subprocess.PIPE,  # held open: the reader ends with us
                stdout=subprocess.PIPE,
                stderr=self._complaints,
            )
        except OSError as error:
            self._complaints.close()
            self._copies.cleanup()
            raise InvalidArgument(
                f"{self._python} cannot be run: {error.strerror}; name a Python that has kuzu"
            ) from error

    def lines(self) -> Iterator[dict[str, Any]]:
        """
        What the reader says, without its `end`.

        Raises:
            Busy: another process has it open. InvalidArgument: it is none that can be read.
            Corrupt: it is damaged. Unavailable: no permission. DiskFull: no room for a copy.
            GraphUnavailable: kuzu is not installed. DeadlineExceeded: the reader hangs.
        """
        while True:
            line = self._line()
            if line.get("kind") == "end":
                if line.get("too_long"):
                    yield {"kind": "left_out", "too_long": line["too_long"]}
                return
            if line.get("kind") == "error":
                raise refusal(self.path, line)
            yield line

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "it was asked for"
        hung = threading.Event()

        def kill() -> None:
            hung.set()
            self._process.kill()

        timer = threading.Timer(_SILENCE_MAX_S, kill)
        timer.daemon = True
        timer.start()
        try:
            data = self._process.stdout.readline(_LINE_MAX_BYTES)
        finally:
            timer.cancel()
        try:
            line = json.loads(data)
        except ValueError as error:
            raise self._died(hung=hung.is_set()) from error
        assert isinstance(line, dict), "the reader writes objects"
        return line

    def _died(self, *, hung: bool) -> ElytronError:
        """Why the reader ended without a word."""
        if hung:
            return DeadlineExceeded(
                f"reading {self.path} stood still for {_SILENCE_MAX_S:g} s; what was migrated"
                " until then is kept: migrate again, nothing is doubled"
            )
        self._process.kill()
        code = self._process.wait(_END_MAX_S)
        if code < 0:
            return Corrupt(
                f"reading {self.path} killed its reader (signal {-code}): it is damaged, or memory"
                " ran out; it was left as it is, and what was migrated until then is kept"
            )
        self._complaints.seek(0)
        told = self._complaints.read(1 << 16).decode(errors="replace").strip()
        last = told.splitlines()[-1][:_TOLD_MAX] if told else "without a word"
        return Unavailable(
            f"{self._python} could not read {self.path}: it ended with {code}: {last}"
        )

    def close(self) -> None:
        """End the reader, wherever it is."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(_END_MAX_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._complaints.close()
        self._copies.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()


_OLD = (
    "which Kuzu 0.11 cannot read: with the version that wrote it, `EXPORT DATABASE 'folder'`, then"
    " with 0.11 `IMPORT DATABASE 'folder'` into a new file, and migrate that"
)


def refusal(path: Path, line: dict[str, Any]) -> ElytronError:
    """The error for a reader's `error` line. Pure."""
    code, said = line["code"], line["message"]
    match code:
        case "locked":
            pid = line.get("pid")
            holder = f"process {pid}" if pid else "another process"
            return Busy(
                f"{path} is open in {holder}, so it may change while it is read; nothing was"
                " migrated: end that program, then migrate again"
            )
        case "folder-format":
            return InvalidArgument(
                f"{path} is a database of Kuzu 0.10 or older (a folder with {CATALOG}), {_OLD}"
            )
        case "version":
            return InvalidArgument(f"{path} is a database of another Kuzu ({said}), {_OLD}")
        case "ladybug":
            return InvalidArgument(
                f"{path} is a database of LadybugDB (storage version {line.get('version')}), not of"
                " Kuzu, so no Locrits program wrote it; nothing was migrated"
            )
        case "no-kuzu":
            return GraphUnavailable(
                f'to read {path}, kuzu is needed: `pip install "elytron[kuzu]"`, or let another'
                " Python that has kuzu 0.11 do it: `elytron migrate kuzu PATH --python FILE`;"
                " nothing was migrated"
            )
        case "unreadable":
            return Unavailable(f"{path} cannot be read: {said}")
        case "disk-full":
            return DiskFull(
                f"{path} was left in the middle of a checkpoint, so it is read from a copy; {said}"
            )
        case "memory":
            return Unavailable(f"there was not enough memory to read {path}: {said}")
        case "corrupt":
            return Corrupt(f"{path} is damaged and was left as it is: {said}")
        case "not-origin":
            return InvalidArgument(f"{path} is not a memory of a Locrits program: {said}")
        case _:
            return InvalidArgument(f"{path} is no database of Kuzu: {said}; nothing was migrated")
