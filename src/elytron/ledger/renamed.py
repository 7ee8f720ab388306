"""
Renamed: an agent's folder gets the name of another, and what is within says so too.

The rename of the folder is what counts: before it the agent has its old name, after it the new one,
whatever process or version looks. A note that goes with it says what it was called and is called;
of a process that died in between the next one that comes by changes what the ledger and its marker
say, and removes the note. Where the folder never got its new name, the note alone is removed.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import apsw

from elytron.errors import Conflict, Corrupt, ElytronError, NotFound, OutcomeUnknown
from elytron.ledger import deleted, files
from elytron.ledger.beginning import identity
from elytron.ledger.connection import STORAGE_ERRORS, translate

_log = logging.getLogger("elytron.ledger")
# What the system says of a place where something is; Windows of any place at all.
TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)


def pending(folder: Path) -> bool:
    """Whether an agent was about to get another name and that was not ended. One look."""
    with files.translate_os_errors(folder):
        return (folder / files.RENAMING).exists()


def is_under_way(store: Path, name: str) -> bool:
    """Whether what was called *name* has its new place, and does not say so yet. Looks at all."""
    with files.translate_os_errors(store):
        notes = list((store / "agents").glob(f"*/{files.RENAMING}"))
    said = [
        files.read_json(path) or {} for path in notes if path.parent.name != files.folder_name(name)
    ]
    return any([note.get("from") == name for note in said])


def taken(store: object, name: str) -> Conflict:
    return Conflict(
        f"{store} has an agent called {name!r}, or what is left of one; nothing was changed:"
        " choose another name, or delete that one"
    )


def refused(name: str) -> NotFound:
    """What is said to whoever has the agent open under the name that it had."""
    return NotFound(
        f"{name!r} was renamed while it was open; nothing was written: use its new name,"
        " or open the store anew to begin another memory under this one"
    )


def move(store: Path, old: str, new: str) -> None:
    """
    Let the agent be called *new*, durably. To be called with the lock of its writers in hand, with
    no swap pending; `finish` must follow.

    Raises:
        Conflict: something has that name. Unavailable, DiskFull: nothing was changed.
        OutcomeUnknown: it may have either name after a power loss.
    """
    folder, place = files.agent_folder(store, old), files.agent_folder(store, new)
    with files.translate_os_errors(folder):
        if os.path.lexists(place):
            raise taken(store, new)
        if _marked(folder) is None:  # which the rest goes by
            files.write_marker(folder, old)
        try:
            note = {"from": old, "to": new, "at_us": deleted.next_us(store, old)}
            files.write_json(folder / files.RENAMING, note)
            folder.replace(place)
        except BaseException as error:
            with contextlib.suppress(OSError):  # who opens the agent next does it
                (folder / files.RENAMING).unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in TAKEN and os.path.lexists(place):
                raise taken(store, new) from error
            raise
    try:
        files.sync_folder(place.parent)
    except OSError as error:
        raise OutcomeUnknown(
            f"the disk failed when {old!r} had just been renamed to {new!r} ({error.strerror}), so"
            " after a power loss it may have either name: look at the disk, and which of both it"
            " has"
        ) from error


def finish(
    folder: Path, connect: Callable[[], apsw.Connection], *, just_moved: bool = False
) -> None:
    """
    Have what is in *folder* say what it is called by its place; harmless if nothing is pending.
    To be called with the lock of the agent's writers in hand.

    Args:
        connect: opens the ledger, to write to it.
        just_moved: by who calls, so that it was still opened under its old name until now. Of
            another's renaming the note has the time: its old name may be in use again since.

    Raises:
        Corrupt: the note, or the ledger, cannot be understood.
        Unavailable, DiskFull, OutcomeUnknown: finish it later.
    """
    note = files.read_json(folder / files.RENAMING)
    if note is None:
        return
    old, new, at_us = note.get("from"), note.get("to"), note.get("at_us")
    if not (isinstance(old, str) and isinstance(new, str) and isinstance(at_us, int)):
        raise Corrupt(f"{folder / files.RENAMING} is damaged; nothing was changed")
    came = files.folder_name(new) == folder.name
    name, other = (new, old) if came else (old, new)
    with files.translate_os_errors(folder):
        if _marked(folder) != name or not came:
            files.sync_folder(folder.parent)
            _call(folder / files.LEDGER, name, other, connect)
            if came:  # first, since the marker says that all of this is done
                store = folder.parent.parent
                if just_moved:
                    at_us = deleted.next_us(store, old)
                deleted.note_renamed(store, old, new, at_us)
            if _marked(folder) != name:
                files.write_marker(folder, name)
        (folder / files.RENAMING).unlink(missing_ok=True)
        files.sync_folder(folder)


def _marked(folder: Path) -> str | None:
    """What the marker itself says, if it can be read."""
    try:
        return files.marked(folder)
    except Corrupt as error:
        _log.warning("%s; it is written anew", error)
        return None


def _call(path: Path, name: str, other: str, connect: Callable[[], apsw.Connection]) -> None:
    """Have a ledger say that its agent is *name*, if it says *other*."""
    committing = False
    try:
        db = connect()
        try:
            said = identity(db, path)[0]
            if said == name:
                return
            if said != other:
                raise Corrupt(
                    f"{path} is the memory of {said!r}, not of {name!r}; it was left as it is"
                )
            db.execute("BEGIN IMMEDIATE")
            db.execute("UPDATE meta SET value = ? WHERE name = 'agent'", (name,))
            committing = True
            db.execute("COMMIT")
        finally:
            db.close()
    except STORAGE_ERRORS as error:
        raise translate(error, path, committing=committing) from error


def is_done(error: ElytronError, old: str, new: str) -> ElytronError:
    """What is said of an error that came after the name had changed."""
    return error.saying(
        f"{old!r} is called {new!r} now, but not all within says so, since that met"
        f" {error.code!r}: look at the disk; whoever opens {new!r} next ends it"
    )
