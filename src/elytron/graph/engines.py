"""
Engines: how LadybugDB and Kuzu differ, and what their errors mean. Imports neither.

Every default is overridden: by itself a database reserves 8 TB of addresses and 80 % of the
memory, so that the sixteenth of a process fails. The bounds here let 3,000 be open at once.
"""

import re
from enum import Enum
from typing import Any, NamedTuple

_THREADS = 2  # Kuzu's import hangs with one
_ADDRESSES_MIN_BYTES = {"ladybug": 4 << 30, "kuzu": 64 << 30}
_HOW_TO_INSTALL = {
    "ladybug": "pip install ladybug==0.22.0",
    "kuzu": 'pip install "elytron[kuzu]"',
}
_SAID_MAX_CHARS = 1000
_VALUE = re.compile(r'("[^"]*"|\'[^\']*\'|primary key value .*?(?=, which|$))', re.DOTALL)
# In front of what an engine says when a query is at fault; also with "exception".
_OF_QUERY = (
    "Binder", "Catalog", "Connection", "Conversion", "Function", "Interrupted", "Not implemented",
    "NotImplemented", "Overflow", "Parser", "Property", "Runtime", "Test", "Transaction",
)  # fmt: skip
# The same, where what follows may quote a row or the query, and so may hold any words.
_QUOTING = (
    "Binder", "Catalog", "Conversion", "Function", "Overflow", "Parser", "Property",
    "Runtime exception: Found duplicated primary key value",
)  # fmt: skip


class Fault(Enum):
    """What a caller can do about an engine's error."""

    QUERY = "the query is wrong"
    WRITES = "the query writes"
    SLOW = "it was interrupted"
    MEMORY = "the buffer pool is too small"
    DISK = "the disk could not be written or read"
    LOCKED = "another process has the file open"
    DAMAGED = "the file is damaged"
    OTHER = "the engine failed"


class Limits(NamedTuple):
    """Of one open graph."""

    buffer_bytes: int
    db_size_bytes: int  # of the agent, all in all
    connections: int


def how_to_install(engine: str) -> str:
    return f"the graph's engine `{engine}` is not installed: {_HOW_TO_INSTALL[engine]}"


def database_settings(engine: str, limits: Limits) -> dict[str, Any]:
    """Keywords for the engine's `Database`; see the facts that were measured, in the docs."""
    settings: dict[str, Any] = {
        "buffer_pool_size": limits.buffer_bytes,
        "max_num_threads": _THREADS,
        "max_db_size": _addresses_bytes(engine, limits.db_size_bytes),
        "auto_checkpoint": False,
    }
    if engine == "ladybug":
        settings |= {
            "throw_on_wal_replay_failure": True,
            "enable_checksums": True,
            "enable_multi_writes": False,
        }
    return settings


def _addresses_bytes(engine: str, db_size_bytes: int) -> int:
    """A power of two with ample room: at its bound Kuzu destroys the file."""
    return max(_ADDRESSES_MIN_BYTES[engine], 1 << (4 * db_size_bytes).bit_length())


def fault_of(said: str) -> Fault:
    """What an engine's error means, by its text, as both engines word it."""
    if said.startswith(_QUOTING):
        return Fault.QUERY
    if "Could not set lock on file" in said:
        return Fault.LOCKED
    if "read-only transaction" in said:
        return Fault.WRITES
    if said.startswith("Interrupted"):
        return Fault.SLOW
    if "buffer pool is full" in said or "Buffer manager exception" in said:
        return Fault.MEMORY
    if (
        said.startswith("IO exception")
        or "No space left" in said
        or "panic state" in said
        or "Checkpoint failed" in said
    ):
        return Fault.DISK
    if "Checksum verification failed" in said or said.startswith("Storage exception"):
        return Fault.DAMAGED
    if said.startswith(_OF_QUERY) or said.startswith("Parameter "):
        return Fault.QUERY
    return Fault.OTHER


def opening_fault_of(said: str, *, has_room: bool) -> Fault:
    """
    The same of an error on opening, where whatever is not a lock's or a full disk's is damage: a
    file that may not be opened or read is set aside and built anew like one that is wrong.
    """
    fault = fault_of(said)
    if fault is Fault.DISK and not (has_room and "No space left" not in said):
        return fault
    return fault if fault in (Fault.LOCKED, Fault.MEMORY) else Fault.DAMAGED


def shown(said: str) -> str:
    """An engine's words about a query, for the one who asked it."""
    return said[:_SAID_MAX_CHARS].strip()


def without_values(said: str) -> str:
    """An engine's words about our own statements, for anybody: no value of a row."""
    return _VALUE.sub("...", said.partition("\n")[0])[:200].strip()
