"""
Output: text on its way to stdout and stderr, whole or with an error.
"""

import errno
import os
import sys

import click

from elytron.faces.visible import one_line, visible


def emit(text: str, *, encoding: str | None = None) -> None:
    """Write a text to stdout, in that stream's own encoding unless one is named."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:  # whoever called put a text stream of their own there
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    data = memoryview(text.encode(encoding or sys.stdout.encoding, "backslashreplace"))
    while data:
        # Python's unbuffered streams may take a part, and then do not try the rest again.
        taken = buffer.write(data)
        if taken is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        data = data[taken:]
    buffer.flush()


def say(text: str) -> None:
    """Print a text as it is, but for what must not reach a terminal; no line is cut or wrapped."""
    emit(visible(text) + "\n")


def note(text: str) -> None:
    """A word to a person on stderr, where it does not disturb what is piped."""
    click.echo(one_line(text), err=True)
