"""
A power cut takes what was not forced to the disk, in any order; so what relies on what counts.

Not tried with a plug: the calls are watched. A file that takes its name has to be on the disk
before, the name itself before anything is removed for it, and all names before the verb returns.
SQLite's own calls are not seen; of those, `test_faults.py` fails each.
"""

import builtins
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import elytron
from backups import fill, home, make
from elytron.ledger import frames, swapping
from ledgers import ledger_path
from test_lost_frames import ends, leave, spoil

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="folders are synced by other calls, or by none"
)
# What tells others who is alive and what was done when; nothing is lost with it.
PASSING = ("janitor.json", ".live", "wanted")


class Watched:
    """What is written and named under a folder, until it is forced to the disk."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._unsynced: set[tuple[int, int]] = set()  # files, by device and number
        self._names: dict[Path, list[Path]] = {}  # that are new, by their folder
        self.renamed: list[str] = []
        self.wrong: list[str] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("replace", "rename", "link"):
                patch.setattr(os, name, self._naming(getattr(os, name)))
            patch.setattr(os, "mkdir", self._making(os.mkdir))
            patch.setattr(os, "write", self._writing(os.write))
            opened = self._opening(io.open)
            patch.setattr(io, "open", opened)
            patch.setattr(builtins, "open", opened)
            patch.setattr(os, "unlink", self._removing(os.unlink))
            patch.setattr(os, "fsync", self._syncing(os.fsync))
            yield
        self._check("the verb returned")

    def _check(self, when: str) -> None:
        self.wrong += [
            f"{when}, and {name} may lose its name"
            for names in self._names.values()
            for name in names
            if name.exists()
        ]

    def _naming(self, plain: Callable[..., None]) -> Callable[..., None]:
        def named(source: Any, target: Any, **more: Any) -> None:
            path = Path(target)
            if self._counts(path):
                found = os.stat(source)
                if (found.st_dev, found.st_ino) in self._unsynced:
                    self.wrong.append(f"{path} took its name before it was on the disk")
                self._names.setdefault(path.parent, []).append(path)
                self.renamed.append(path.name)
            plain(source, target, **more)

        return named

    def _making(self, plain: Callable[..., None]) -> Callable[..., None]:
        def made(path: Any, *arguments: Any, **more: Any) -> None:
            plain(path, *arguments, **more)
            if self._counts(Path(path)):
                self._names.setdefault(Path(path).parent, []).append(Path(path))

        return made

    def _writing(self, plain: Callable[..., int]) -> Callable[..., int]:
        def written(descriptor: int, data: Any) -> int:
            found = os.fstat(descriptor)
            self._unsynced.add((found.st_dev, found.st_ino))
            return plain(descriptor, data)

        return written

    def _opening(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """What is opened for writing counts as written to: nobody sees its buffer emptied."""

        def opened(file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
            made = plain(file, mode, *arguments, **more)
            if set(mode) & set("wax+"):
                found = os.fstat(made.fileno())
                self._unsynced.add((found.st_dev, found.st_ino))
            return made

        return opened

    def _removing(self, plain: Callable[..., None]) -> Callable[..., None]:
        def removed(path: Any, **more: Any) -> None:
            if self._counts(Path(path)) and not str(path).endswith(".part"):
                self._check(f"{Path(path).name} was removed")
            with contextlib.suppress(FileNotFoundError):  # its number may be another's soon
                found = os.stat(path, follow_symlinks=False, **more)
                if found.st_nlink == 1:
                    self._unsynced.discard((found.st_dev, found.st_ino))
            plain(path, **more)

        return removed

    def _syncing(self, plain: Callable[..., None]) -> Callable[..., None]:
        def synced(descriptor: int) -> None:
            plain(descriptor)
            found = os.fstat(descriptor)
            self._unsynced.discard((found.st_dev, found.st_ino))
            self._names.pop(Path(os.readlink(f"/proc/self/fd/{descriptor}")), None)

        return synced

    def _counts(self, path: Path) -> bool:
        return self._place in path.parents and not path.name.endswith(PASSING)


def changed(place: Path) -> None:
    with elytron.open(place / "store") as store:
        for name in ("bob", "al"):
            store.agent(name).archive(older_than_days=0, keep=5)
            fill(store.agent(name), 30, 35)


def begin(place: Path) -> None:
    with elytron.open(place / "some" / "where") as store:
        store.agent("eve").save("user", "Hello")


def archive(place: Path) -> None:
    with elytron.open(place / "store") as store:
        assert store.agent("bob").archive(older_than_days=0, keep=5).archived


def restore(place: Path) -> None:
    with elytron.open(place / "store") as store:
        assert store.agent("bob").restore(session="s1").restored


def forget(place: Path) -> None:
    with elytron.open(place / "store") as store:
        assert store.agent("bob").forget(user="alice").archived


def back_up(place: Path) -> None:
    changed(place)
    with elytron.open(place / "store") as store:
        assert {one.copied for one in store.backup(place / "backup").agents} == {True}


def back_up_anew(place: Path) -> None:
    with elytron.open(place / "store") as store:
        assert store.backup(place / "else" / "where").ok


def bring_back(place: Path) -> None:
    assert elytron.restore_backup(place / "backup", place / "restored").ok


def replace(place: Path) -> None:
    changed(place)
    assert elytron.restore_backup(place / "backup", place / "store", replace=True).ok


def rename(place: Path) -> None:
    with elytron.open(place / "store") as store:
        store.rename("bob", "Robert")


def repair(place: Path) -> None:
    with ledger_path(place / "store").open("r+b") as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())  # so that it is the damage of a disk
    with elytron.open(place / "store") as store:
        assert store.agent("bob").check(repair=True).findings
    assert swapping.aside_folders(home(place / "store"))


DYING = """
import os, signal, sys, elytron
bob = elytron.open(sys.argv[1], reserve_mb=0, auto_cleanup=False).agent("bob")
for number in range(6):
    bob.save("user", f"Number {number}", id=f"new-{number}")
os.kill(os.getpid(), signal.SIGKILL)
"""


def put_log_aside(place: Path) -> None:
    """A process dies, and the log that it leaves is damaged before its end."""
    leave(place / "store", DYING)
    spoil(place / "store", ends(place / "store")[1] + 1)
    with elytron.open(place / "store") as store:
        assert store.agent("bob").history()
    assert frames.aside(ledger_path(place / "store"))


WORKS = (
    begin, archive, restore, forget, back_up, back_up_anew, bring_back, replace, rename, repair,
    put_log_aside,
)  # fmt: skip


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_every_name_is_durable_before_anything_relies_on_it(
    tmp_path: Path, work: Callable[[Path], None]
) -> None:
    make(tmp_path / "store")
    with elytron.open(tmp_path / "store") as store:
        assert store.backup(tmp_path / "backup").ok
    watched = Watched(tmp_path)
    with watched.watching():
        work(tmp_path)
    assert watched.renamed, "so that there was something to see"
    assert watched.wrong == []
