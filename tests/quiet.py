"""Stores on which nobody works but the test: no background at its own time, and no janitor."""

from typing import TypeVar

import elytron

_WAIT_S = 60.0
Whose = TypeVar("Whose", elytron.Store, elytron.Agent)


def alone(whose: Whose) -> Whose:
    """
    A store, or the one of an agent, whom nobody links but the test, which counts on what there is
    to do.

    Where the test stands still for a second, the background has done it meanwhile. After the step
    in hand, if it has begun.
    """
    whose._agents.background.stop(_WAIT_S)
    return whose


def without_janitor(whose: Whose) -> Whose:
    """The same without the janitor, whom writes wake near a limit, and who makes room for them."""
    whose._agents.upkeep.janitor.stop(_WAIT_S)
    return whose


def at_rest(whose: Whose) -> Whose:
    """Without both: what is read from now on belongs together."""
    return without_janitor(alone(whose))
