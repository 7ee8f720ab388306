"""The archive: messages that left an agent's ledger, in compressed segments that stay readable."""

from elytron.archive.archive import Archive, read_all
from elytron.archive.entries import Archived, Dropped, Entry, Manifest, Rewritten

__all__ = ["Archive", "Archived", "Dropped", "Entry", "Manifest", "Rewritten", "read_all"]
