"""
Exits: which exit code each kind of error gives, in one table, and how an error is told.

The core knows nothing of exit codes; an error's `code` is all that is read here.
"""

import contextlib
import errno
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import click

from elytron.errors import DiskFull, ElytronError, InvalidArgument, Unavailable
from elytron.faces.visible import json_safe, one_line, visible

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
CLOSED_PIPE = 141  # 128 + SIGPIPE
_SIGNALLED = 128


class Exit(NamedTuple):
    """One exit code: the errors' codes that lead to it, and what a person reads of it."""

    number: int
    codes: tuple[str, ...]
    meaning: str


EXITS = (
    Exit(0, (), "done"),
    Exit(1, ("error",), "an error of no other kind"),
    Exit(2, ("invalid-argument", "invalid-setting"), "bad usage, value, file or setting"),
    Exit(3, ("not-found",), "no such agent, message or session"),
    Exit(4, ("conflict",), "the id is held with other content"),
    Exit(5, ("busy",), "a queue or lock stayed taken; retry"),
    Exit(6, ("over-budget", "disk-full"), "no room: the agent's limit, or the disk"),
    Exit(7, ("unavailable",), "the store's place, or a file, cannot be used"),
    Exit(8, ("corrupt",), "stored data is damaged; it was left as it is"),
    Exit(9, ("outcome-unknown",), "the disk failed; save again with the same id"),
    Exit(10, ("closed", "forked"), "the store was closed, or the process forked"),
    Exit(11, ("graph-unavailable",), "the graph cannot answer; everything else works"),
    Exit(12, ("deadline-exceeded",), "a question took too long, or too much memory"),
    Exit(13, ("embedder-unavailable",), "the embedder does not answer; words do"),
    Exit(14, ("access-denied",), "the token is missing, or not for this"),
    Exit(129, (), "the terminal was closed (SIGHUP)"),
    Exit(INTERRUPTED, ("interrupted",), "stopped by Ctrl-C"),
    Exit(CLOSED_PIPE, (), "whoever read the output went away"),
    Exit(143, (), "ended by SIGTERM; a server ends with 0"),
)
# How a graph engine's complaint ends: the line of the query that is wrong, in quotes, and marks
# under the place.
_MARKED = re.compile(r'\n"[^\n]*\n *\^+ *$')
_NUMBERS = {code: row.number for row in EXITS for code in row.codes}


def number(code: str) -> int:
    """The exit code for an error's `code`; 1 for one that is not in the table."""
    return _NUMBERS.get(code, 1)


def run(program: Callable[[], Any], *, as_json: bool) -> int:
    """Run *program*; tell what went wrong on stderr; return the exit code."""
    try:
        program()
        sys.stdout.flush()  # a full disk or a closed pipe shows here at the latest
    except click.exceptions.Exit as error:  # --help and --version
        return error.exit_code
    except BrokenPipeError:
        return _end_quietly()
    except OSError as error:
        return _tell_os_error(error, as_json=as_json)
    except ElytronError as error:
        return _tell(error.code, str(error), as_json=as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return number(InvalidArgument.code)
    except click.ClickException as error:
        return _tell(InvalidArgument.code, _usage_message(error), as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        message = "interrupted; what was saved until then is kept"
        return _tell("interrupted", message, as_json=as_json)
    return 0


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """
    Let SIGTERM and SIGHUP end the block as Ctrl-C does, with all that it has open closed in order.

    By default the process dies at once, and copies of messages stay in temporary folders. What is
    ignored, as under `nohup`, or handled by the program around us, is left so; and what the
    block itself sets, as a server does, is not taken back. On other threads than the main one
    Python lets nobody do this, and nothing is done.
    """
    ending = False

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal ending
        if ending:  # a terminal says it twice, and systemd in two ways: the closing goes on
            return
        ending = True
        raise SystemExit(_SIGNALLED + number)

    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        wanted = []
    taken = [number for number in wanted if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, end)
        yield
    except SystemExit:
        if ending:
            _end_quietly()  # a terminal that is gone takes nothing any more
        raise
    finally:
        for number in taken:
            if signal.getsignal(number) is end:
                signal.signal(number, signal.SIG_DFL)


def _tell(code: str, message: str, *, as_json: bool) -> int:
    lines = [f"elytron: {_shown(message)}"]
    if as_json:
        lines.append(json_safe(json.dumps({"error": code, "message": message})))
    try:
        click.echo("\n".join(lines), err=True)
    except OSError:  # whoever read it went away, or it is a file on a full disk
        _end_quietly()
    return number(code)


def _shown(message: str) -> str:
    """A message on one line, unless it ends with marks under a place, as for a wrong query."""
    if not _MARKED.search(message):
        return one_line(message)
    return visible(message.replace("\t", " "))  # one column each, so that the marks stay in place


def _tell_os_error(error: OSError, *, as_json: bool) -> int:
    """What the operating system refused outside of the ledger: an argument, or the output."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    place = "the output" if error.filename is None else str(error.filename)
    message = f"{place} cannot be used: {error.strerror or error}"
    if error.filename is None:
        _discard(sys.stdout)  # else Python tries to write it once more on its way out
    return _tell(DiskFull.code if full else Unavailable.code, message, as_json=as_json)


def _usage_message(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return message
    if isinstance(error, click.NoSuchOption) and context.parent is None:
        message += "; options go after the command, as in `elytron agents --store DIR`"
    return f"{message} (see `{context.command_path} --help`)"


def _end_quietly() -> int:
    _discard(sys.stdout)
    _discard(sys.stderr)
    return CLOSED_PIPE


def _discard(stream: Any) -> None:
    """Let what is still buffered go nowhere, so that Python's own last flush cannot fail."""
    try:
        stream.flush()
    except OSError:
        try:
            descriptor = stream.fileno()
        except OSError:
            return
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, descriptor)
        os.close(devnull)
