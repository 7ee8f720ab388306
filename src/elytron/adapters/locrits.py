"""
Locrits: the memory classes of the Locrits programs, on Elytron. One import is changed:

    from elytron.adapters.locrits import KuzuMemoryService, MemoryManagerService

The names, arguments and shapes are the origin's; each method does what its name promises. Errors
are raised, not swallowed: each is an `elytron.ElytronError`, and its `retryable` says whether to
try again. docs/locrits.md says how to change over.
"""

from elytron.adapters.locrits_many import MemoryManagerService
from elytron.adapters.locrits_memory import KuzuMemoryService

__all__ = ["KuzuMemoryService", "MemoryManagerService"]
