"""
Forks: what a forked child must not touch.

A child inherits lock files and connections. It closes the lock files at once, or the parent's
death would not free a lock while the child lives. It never closes a connection, not even when
its interpreter ends: another thread of the parent may have held SQLite's mutex at the fork, and
waiting for that would hang the child. The store itself refuses every verb there (`Forked`).
"""

import os
import sys
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import apsw


class _Closable(Protocol):
    def close(self) -> None: ...


_connections: "weakref.WeakSet[apsw.Connection]" = weakref.WeakSet()
_locks: "weakref.WeakSet[_Closable]" = weakref.WeakSet()
_registered = False


def guard_connection(db: "apsw.Connection") -> None:
    """Keep *db* from being closed in a forked child."""
    _register()
    _connections.add(db)


def guard_lock(lock: _Closable) -> None:
    """Have *lock* closed in a forked child."""
    _register()
    _locks.add(lock)


def _register() -> None:
    global _registered
    import ctypes  # noqa: F401 - here, so that the child finds it loaded

    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_let_go)
    _registered = True


def _let_go() -> None:
    import ctypes

    for lock in list(_locks):
        lock.close()
    # Nor does its module ever go, which would close them all.
    if (apsw := sys.modules.get("apsw")) is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(apsw))
    for db in list(_connections):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))  # never freed, so never closed
