"""
Kept: copies of agents that may have what is nowhere else any more, beside those that count.

A repair may take out what cannot be read, or not find it again, and so may the making again of an
archive's listing; and the copy of an agent that was renamed may have what that of its new name
lacks. Then the last backup is all that has it. So that copy is not removed when the next one takes
its place: it becomes a backup of its own, `kept/FOLDER.TIME` in the backup's folder, of the same
files by second names. `restore --from` it brings back the messages that are missing; all else of it
can be seen where it is restored to another place. Nobody removes it but who asks for it, or deletes
the agent.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from elytron.errors import OverBudget
from elytron.ledger import files
from elytron.ledger.deleted import Fates, key_in
from elytron.ledger.files import sync_folder
from elytron.upkeep.backup_files import (
    AGENT,
    SEGMENTS,
    BackupFiles,
    Copy,
    copy_file,
    remove_folder,
    write_file,
)

FOLDER = "kept"
KEPT_MAX = 3  # copies of one agent; each may be as large as the agent


def keep(backup: BackupFiles, copy: Copy) -> Path | None:
    """
    Have the copy that counts stay, whatever takes its place; where, or None if it was kept already.

    Raises:
        OverBudget: there are as many of this agent as may be.
    """
    home = backup.folder(copy.agent)
    path = backup.path / FOLDER / f"{home.name}.{copy.at_us}"
    own = BackupFiles(path)
    if own.exists():  # kept by a backup that was stopped just after
        return None
    there = [one for one in _of(backup, copy.agent) if one != path]
    if len(there) >= KEPT_MAX:
        raise OverBudget(
            f"{len(there)} copies of {copy.agent!r} are in {path.parent}, kept since something in"
            " them may be nowhere else any more (after a repair, a listing made again, a renaming),"
            f" and no more than {KEPT_MAX} may be; its last backup stays: `elytron restore --from`"
            " them brings back the messages that the memory lacks, then remove them; what they have"
            " of memories and facts is seen where they are restored to another place"
        )
    target = own.folder(copy.agent)
    (target / SEGMENTS).mkdir(parents=True, exist_ok=True)
    for part in (copy.ledger, copy.archive):
        _link(home / part.name, target / part.name, part.checksum)
    for entry in backup.entries(copy).entries:
        source = backup.segment(copy.agent, entry)
        _link(source, own.segment(copy.agent, entry), entry.checksum)
    write_file(target / AGENT, (home / AGENT).read_bytes())
    for folder in (target / SEGMENTS, target, target.parent, path, path.parent, backup.path):
        sync_folder(folder)
    # Last, since by this it counts.
    own.finish(datetime.fromtimestamp(copy.at_us / 1e6, UTC).isoformat(), failed=())
    return path


def _link(source: Path, target: Path, checksum: str) -> None:
    """Give a file that never changes a second name, or make a second file."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # a file system without second names
        copy_file(source, target, checksum)


def paths(backup: BackupFiles) -> list[Path]:
    """All that are kept, by agent and time."""
    with files.translate_os_errors(backup.path):
        return [path for path in _all(backup) if (path / files.BACKUP).exists()]


def remove(path: Path) -> None:
    """Let a kept copy count no more, then remove it."""
    (path / files.BACKUP).unlink(missing_ok=True)
    sync_folder(path)
    remove_folder(path)


def remove_deleted(backup: BackupFiles, fates: Fates) -> None:
    """Remove those of agents that were deleted since, whatever these were called then."""
    with files.translate_os_errors(backup.path):
        for path in _all(backup):
            name, _, at_us = path.name.rpartition(".")
            found = fates.of(key_in(name), int(at_us)) if at_us.isdecimal() else None
            if found is not None and found.heir is None:
                remove(path)
                sync_folder(path.parent)


def _of(backup: BackupFiles, name: str) -> list[Path]:
    """Those of an agent, also half made ones."""
    home = f"{files.folder_name(name)}."
    return [path for path in _all(backup) if path.name.startswith(home)]


def _all(backup: BackupFiles) -> list[Path]:
    return [path for path in files.folders_in(backup.path / FOLDER) if "." in path.name]
