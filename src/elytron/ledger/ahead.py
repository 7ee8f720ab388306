"""
Ahead: questions that do not wait for each other's answers, asked together where each costs a round
trip.
"""

import functools
from collections.abc import Callable

from elytron.ledger.database import Database

Reading = Callable[[Database], object]


@functools.singledispatch
def ask(db: Database, *readings: Reading) -> None:
    """
    Have the first statement of each of these answered when it is asked, in this snapshot.

    Args:
        readings: functions that will be called, with the same values, in any order. They are
            called here too, up to their first statement.
    """
