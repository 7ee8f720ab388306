"""
Agent: one agent's memory, with all its verbs.

Each verb checks its arguments, borrows the open ledger, and makes one call on a part below.
Nothing is made on disk before the first write.
"""

from elytron.verbs.asking import Asking
from elytron.verbs.embedding import Embeds
from elytron.verbs.keeping import Keeping
from elytron.verbs.writing import Writing


class Agent(Writing, Asking, Keeping, Embeds):
    """
    One agent's memory. Got from `Store.agent`; cheap; safe for many threads.

    Every verb raises `Closed` after the store was closed, `Forked` in a forked process, and
    `Corrupt` where stored data is not what was written.
    """
