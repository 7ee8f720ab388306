"""
Renaming: one agent with all that it has.

What the step is that counts, its ledgers know: the rename of its folder, or a transaction. The
graph is made anew when it is asked.
"""

import contextlib
import os
import time

from elytron.errors import Busy, ElytronError, NotFound
from elytron.ledger import files, renamed
from elytron.ledger.ledgers import Ledger, Ledgers
from elytron.ledger.ops import NoteUses
from elytron.upkeep import replacing
from elytron.upkeep.housekeeping import Housekeeping
from elytron.upkeep.runs import Run


def none_called(name: str, ledgers: Ledgers) -> NotFound:
    return NotFound(f"{ledgers.shown} holds no agent called {name!r}; nothing was renamed")


def rename(old: str, new: str, ledgers: Ledgers, upkeep: Housekeeping, *, timeout_s: float) -> None:
    """
    See `Store.rename`. Nobody else in this process may use either agent, or do its chores.

    Args:
        timeout_s: how long other processes are waited for.
    """
    deadline = time.monotonic() + timeout_s
    folder = files.agent_folder(ledgers.folder, old)
    ledger = ledgers.new(old, uses=upkeep.uses_of(old), upkeep=True)
    with contextlib.closing(ledger):
        if not ledger.open(create=False):
            raise none_called(old, ledgers)
        if os.path.lexists(files.agent_folder(ledgers.folder, new)):
            raise renamed.taken(ledgers.shown, new)
        _save_uses(ledger, deadline)
    upkeep.graphs.drop(old, deadline=deadline)

    def alone() -> None:
        if Run(folder).others():
            raise Busy(
                f"another process moves messages of {old!r} between ledger and archive; nothing"
                " was renamed: retry later"
            )

    with replacing.only(folder) if folder.is_dir() else contextlib.nullcontext():
        if not ledgers.rename(old, new, alone=alone, deadline=deadline):
            raise none_called(old, ledgers)
    for name in (old, new):
        upkeep.forget(name)
    try:
        upkeep.sweep()
    except ElytronError as error:
        raise error.saying(
            f"{old!r} is called {new!r} now; what is left to do after that met {error.code!r}, and"
            " the next clean-up does it: look at the disk"
        ) from error


def _save_uses(ledger: Ledger, deadline: float) -> None:
    """Write what is counted of uses, which goes by the old name. They are no promise."""
    while ledger.uses.any:
        (outcome,) = ledger.commit([NoteUses(ledger.uses.take())], deadline)
        if isinstance(outcome, ElytronError):
            raise outcome
