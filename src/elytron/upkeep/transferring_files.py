"""
Transferring files: an agent's archive, from one store's folder into another's.

Segments never change, so they are copied as they are, and compared with their checksums; the
manifest comes last. What it does not list in the end is removed.
"""

import contextlib
import logging
from dataclasses import replace
from pathlib import Path

from elytron.archive import Archive, Manifest, manifest
from elytron.archive.durable import PART
from elytron.archive.segments import SEGMENT_NAME
from elytron.errors import Corrupt
from elytron.ledger import files
from elytron.upkeep.backup_files import checksum_of, copy_file, write_file

_log = logging.getLogger("elytron.migration")


def listed(archive: Archive) -> Manifest:
    """What an archive holds, without the names of files that do not count any more."""
    return replace(archive.manifest(), removed=())


def copy(source: Archive, home: Path, held: Manifest) -> bool:
    """
    Copy the segments that an agent's folder lacks, durably; they do not count yet.

    Returns False if one has been replaced meanwhile.

    Raises:
        Corrupt: one is missing, or not what was written.
    """
    if not held.entries:
        return True
    folder = home / files.ARCHIVE
    with files.translate_os_errors(folder):
        files.make_folders(folder)
        for entry in held.entries:
            if files.file_size(folder / entry.name) == entry.bytes:
                continue
            try:
                copy_file(source.folder / entry.name, folder / entry.name, entry.checksum)
            except FileNotFoundError as error:
                if entry.name not in source.manifest().names:
                    return False
                raise Corrupt(
                    f"archive segment {source.folder / entry.name} is listed, and missing: run"
                    " `elytron check`"
                ) from error
        files.sync_folder(folder)
    return True


def publish(home: Path, held: Manifest, verified: set[str]) -> None:
    """
    Have those segments count that the manifest lists, once each was read back, and no others.

    Args:
        verified: names of those that were read back before; added to.

    Raises:
        Corrupt: one is not what was written.
    """
    folder = home / files.ARCHIVE
    if not held.entries and not folder.exists():
        return
    with files.translate_os_errors(folder):
        files.make_folders(folder)
        for entry in held.entries:
            if entry.name in verified:
                continue
            if checksum_of(folder / entry.name) != entry.checksum:
                (folder / entry.name).unlink()
                raise Corrupt(
                    f"{folder / entry.name} was not what had been written, and was removed: look"
                    " at the disk, and carry it again"
                )
            verified.add(entry.name)
        write_file(folder / manifest.FILE, manifest.serialised(held))
        files.sync_folder(folder)
        for path in folder.iterdir():
            spare = SEGMENT_NAME.fullmatch(path.name) and path.name not in held.names
            if spare or path.name.endswith(PART):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
        files.sync_folder(folder)
