"""
Elytron: bounded, crash-proof graph memory for AI agents.

    with elytron.open("data/memory") as store:
        bob = store.agent("Bob Technique")
        bob.save("user", "My name is Alice and I live in Lyon.", session="web-42", user="alice")
        bob.recall("where does Alice live?")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from elytron.agent import Agent
    from elytron.config import Config
    from elytron.errors import (
        AccessDenied,
        Busy,
        Closed,
        Conflict,
        Corrupt,
        DeadlineExceeded,
        DiskFull,
        ElytronError,
        EmbedderUnavailable,
        Forked,
        GraphUnavailable,
        InvalidArgument,
        InvalidSetting,
        NotFound,
        OutcomeUnknown,
        OverBudget,
        Unavailable,
    )
    from elytron.migration import migrate_store
    from elytron.records import (
        BadLine,
        Concept,
        ConceptDetails,
        Context,
        ExtractionUsage,
        GraphUsage,
        Hit,
        ImportReport,
        LedgerBytes,
        Memory,
        Message,
        Receipt,
        Related,
        Relation,
        Session,
        StoreUsage,
        Usage,
    )
    from elytron.remote import connect
    from elytron.reports import (
        AgentBackup,
        AgentMigrated,
        AgentRestored,
        Alarm,
        ArchiveUsage,
        BackedUp,
        BackupRestored,
        Checked,
        Cleanup,
        Deleted,
        Embedded,
        EmbeddingUsage,
        Erased,
        Finding,
        Forecast,
        JanitorUsage,
        Leaving,
        NotBackedUp,
        NotMigrated,
        NotRestored,
        Reclaimed,
        Restored,
        Salvaged,
        StoreMigrated,
        WorkerUsage,
    )
    from elytron.store import Store, open, restore_backup

__all__ = [
    "AccessDenied",
    "Agent",
    "AgentBackup",
    "AgentMigrated",
    "AgentRestored",
    "Alarm",
    "ArchiveUsage",
    "BackedUp",
    "BackupRestored",
    "BadLine",
    "Busy",
    "Checked",
    "Cleanup",
    "Closed",
    "Concept",
    "ConceptDetails",
    "Config",
    "Conflict",
    "Context",
    "Corrupt",
    "DeadlineExceeded",
    "Deleted",
    "DiskFull",
    "ElytronError",
    "Embedded",
    "EmbedderUnavailable",
    "EmbeddingUsage",
    "Erased",
    "ExtractionUsage",
    "Finding",
    "Forecast",
    "Forked",
    "GraphUnavailable",
    "GraphUsage",
    "Hit",
    "ImportReport",
    "InvalidArgument",
    "InvalidSetting",
    "JanitorUsage",
    "Leaving",
    "LedgerBytes",
    "Memory",
    "Message",
    "NotBackedUp",
    "NotFound",
    "NotMigrated",
    "NotRestored",
    "OutcomeUnknown",
    "OverBudget",
    "Receipt",
    "Reclaimed",
    "Related",
    "Relation",
    "Restored",
    "Salvaged",
    "Session",
    "Store",
    "StoreMigrated",
    "StoreUsage",
    "Unavailable",
    "Usage",
    "WorkerUsage",
    "connect",
    "migrate_store",
    "open",
    "restore_backup",
]

_HOMES = ("errors", "records", "reports", "config", "agent", "store", "remote", "migration")


def __getattr__(name: str) -> Any:
    """A public name, from its module, on first use: importing the package loads nothing heavy."""
    if name in __all__:
        for home in _HOMES:
            value = getattr(import_module(f"elytron.{home}"), name, None)
            if value is not None:
                globals()[name] = value
                return value
    raise AttributeError(f"module 'elytron' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
