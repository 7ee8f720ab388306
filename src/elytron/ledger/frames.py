"""
Frames: what stands in a ledger's log behind the frames that SQLite takes for valid.

SQLite stops at the first frame whose checksum is wrong and says nothing: commits behind it, which
were acknowledged, are gone, and `integrity_check` is satisfied. Here they are counted, and the log
is copied aside before anything is written over it. Nothing but SQLite opens the ledger or its
`-shm`; the `-wal` file has no locks of its own, so another descriptor on it does no harm.

What is sure and what is not. Each frame's checksum goes on from that of the one before. A commit
that another frame goes on from was made: SQLite begins nothing behind one that failed. So of the
commits in an unbroken run all but the last were made. The last may be of a commit that a power cut
tore, or that failed and was undone; and where a later commit that is shorter was written over the
first of such frames, the others stand behind it as if they were lost. That is no matter where the
run goes on from what SQLite reads, which is known if a single word of the bad frame, or of the
log's header, is not what its checksum says. A bad frame that is itself the last, and has more than
one such word, is what a killed process leaves, and is not told.
"""

import contextlib
import logging
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from elytron.ledger import files
from elytron.ledger.connection import FRAME_BYTES, PAGE_BYTES

_log = logging.getLogger("elytron.ledger")
HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_SALTS_AT = 16  # in the log's header
ASIDE = ".damaged-"  # behind the log's name: what was set aside
PART = f"{files.LEDGER}-wal.part"  # what is being set aside
ASIDE_MAX = 3  # logs set aside that are kept for one ledger
_MAGIC = 0x377F0682  # its lowest bit says that the checksums are big-endian
_WORDS = {"<": struct.Struct(f"<{PAGE_BYTES // 4}I"), ">": struct.Struct(f">{PAGE_BYTES // 4}I")}
_NOTHING_S = (0, 0)
Sum = tuple[int, int]


class Run(NamedTuple):
    """
    Frames behind a bad one that go on from each other.

    Attributes:
        frames: from the first to the last one that ends a commit.
        made: the last frame of the last commit that was surely made; 0 if none surely was.
        goes_on: whether they go on from what SQLite reads, but for single words.
    """

    frames: range
    made: int
    goes_on: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """
    Commits behind a bad frame of a log.

    Attributes:
        frame: the first bad one, from 1; 0 if the log's own header is damaged.
        commits: that stand at or behind it.
        acknowledged: how many of these surely were, or told that their outcome was not known.
        salt: of the log's present contents, in hexadecimal.
    """

    frame: int
    commits: int
    acknowledged: int
    salt: str

    def __str__(self) -> str:
        where = f"frame {self.frame}" if self.frame else "the header"
        sure = (
            f"at least {self.acknowledged} of them were acknowledged"
            if self.acknowledged
            else "it may never have been acknowledged, if the power was cut then"
        )
        commits = "1 commit is" if self.commits == 1 else f"{self.commits} commits are"
        return f"{where} of the log is damaged, and {commits} not read any more: {sure}"


class Log:
    """A log's bytes, read as they are now. Its frames are counted from 1."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.count = max(0, len(data) - HEADER_BYTES) // FRAME_BYTES
        magic = int.from_bytes(data[:4], "big")
        self._words = _WORDS[">" if magic & 1 else "<"]
        head = data[:HEADER_BYTES]
        self.whole_header = (
            len(head) == HEADER_BYTES
            and magic & ~1 == _MAGIC
            and _summed(_NOTHING_S, self._numbers(head[:24])) == _pair(head[24:])
        )
        # Where the header is damaged, all frames are of one run, or the first says nothing.
        self.salts = head[16:24] if self.whole_header else self._head(1)[8:16]

    def _head(self, number: int) -> bytes:
        at = HEADER_BYTES + (number - 1) * FRAME_BYTES
        return self._data[at : at + _FRAME_HEADER_BYTES]

    def page(self, number: int) -> bytes:
        """The page that a frame holds."""
        at = HEADER_BYTES + (number - 1) * FRAME_BYTES + _FRAME_HEADER_BYTES
        return self._data[at : at + PAGE_BYTES]

    def place(self, number: int) -> int:
        """The number of that page."""
        return int.from_bytes(self._head(number)[:4], "big")

    def commits(self, number: int) -> int:
        """The pages that the file has after this frame, if it ends a commit; else 0."""
        return int.from_bytes(self._head(number)[4:8], "big")

    def is_ours(self, number: int) -> bool:
        """Whether a frame is of the present contents; one of its two salts may be damaged."""
        salts = self._head(number)[8:16]
        return len(salts) == 8 and (salts[:4] == self.salts[:4] or salts[4:] == self.salts[4:])

    def follows(self, number: int) -> bool:
        """Whether a frame's checksum goes on from that of the frame before it."""
        if number == 1 and not self.whole_header:
            return False
        return self._goes_on(number, self._seed(number))

    def _seed(self, number: int) -> Sum:
        """The checksum that stands before a frame."""
        before = self._data[24:HEADER_BYTES] if number == 1 else self._head(number - 1)[16:24]
        return _pair(before)

    def _goes_on(self, number: int, seed: Sum) -> bool:
        head = self._head(number)
        if head[8:16] != self.salts or not head[:4].strip(b"\0"):
            return False
        return self._sum_of(number, seed) == _pair(head[16:24])

    def _sum_of(self, number: int, seed: Sum) -> Sum:
        summed = _summed(seed, self._numbers(self._head(number)[:8]))
        return _summed(summed, self._words.unpack(self.page(number)))

    def _behind(self, number: int, seed: Sum) -> Sum | None:
        """
        The checksum that a frame leads to, though one word may be damaged, of its page or its
        header. None if more is.
        """
        if not self.is_ours(number):
            return None
        told, summed = _pair(self._head(number)[16:24]), self._sum_of(number, seed)
        if told == summed:
            return told
        is_last = number == self.count or not self.is_ours(number + 1)
        in_checksum = told[0] == summed[0] or told[1] == summed[1]  # where that word may be
        if in_checksum and not is_last and self._goes_on(number + 1, summed):
            return summed
        if _is_of_one_word(told, summed) and (is_last or self._goes_on(number + 1, told)):
            return told
        return None

    def _numbers(self, data: bytes) -> tuple[int, ...]:
        return struct.unpack(f"{self._words.format[0]}{len(data) // 4}I", data)

    def _begins_with(self) -> Sum | None:
        """The checksum of the log's header, though one word of it may be damaged."""
        told = _pair(self._data[24:HEADER_BYTES])
        if self.whole_header:
            return told
        head = self._numbers(self._data[:24]) if len(self._data) >= HEADER_BYTES else ()
        sums = (told, _summed(_NOTHING_S, head))
        return next((seed for seed in sums if self.count and self._goes_on(1, seed)), None)

    def valid(self) -> int:
        """How many frames SQLite takes: up to the last commit before the first bad one."""
        taken = 0
        for number in self.unbroken(1):
            if self.commits(number):
                taken = number
        return taken

    def unbroken(self, first: int) -> Iterator[int]:
        """The frames from one on, as long as each follows the one before it."""
        for number in range(first, self.count + 1):
            if not self.follows(number):
                return
            yield number

    def pages(self, frames: Iterable[int]) -> dict[int, bytes]:
        """The newest page of each number in some frames."""
        return {self.place(number): self.page(number) for number in frames}

    def damaged(self, frames: Iterable[int]) -> Iterator[int]:
        """Those of some frames whose page, or header, is not what was written."""
        return (number for number in frames if not self.follows(number))

    def runs(self, taken: int) -> list[Run]:
        """What stands in commits behind the *taken* frames that SQLite reads."""
        found = list[Run]()
        seed = self._begins_with() if taken == 0 else self._seed(taken + 1)
        last = taken
        while seed is not None and last < self.count:
            seed = self._behind(last + 1, seed)
            last += seed is not None
        found += _runs_in(self, range(taken + 1, last + 1), goes_on=True)
        bad = last + 1
        while last < self.count:
            first = last + 1
            last = max([first, *self.unbroken(first + 1)])
            # Of one that is bad nothing is known, if not even the next one goes on from it.
            if self.is_ours(first) and (first, last) != (bad, bad):
                found += _runs_in(self, range(first, last + 1), goes_on=False)
        return found

    def lost(self, taken: int) -> Lost | None:
        """What stands behind the *taken* frames that SQLite reads and should be read too."""
        runs = self.runs(taken)
        if not runs:
            return None
        bad = taken + 1
        for number in self.unbroken(bad):
            bad = number + 1
        commits = [n for run in runs for n in run.frames if n >= bad and self.commits(n)]
        if not commits:
            return None
        unsure = [run for run in runs if run.made != run.frames[-1]]
        frame = bad if self.whole_header else 0
        return Lost(frame, len(commits), len(commits) - len(unsure), self.salts.hex())


def _runs_in(log: Log, frames: range, *, goes_on: bool) -> Iterator[Run]:
    """Some frames that go on from each other, if they end a commit."""
    ends = [number for number in frames if log.commits(number)]
    if ends:
        made = [number for number in ends if number != frames[-1]]
        yield Run(range(frames[0], ends[-1] + 1), max(made, default=0), goes_on)


def _pair(data: bytes) -> Sum:
    return int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")


def _summed(seed: Sum, numbers: tuple[int, ...]) -> Sum:
    """SQLite's running checksum, over pairs of 32-bit numbers."""
    first, second = seed
    for even, odd in zip(numbers[::2], numbers[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _is_of_one_word(told: Sum, summed: Sum) -> bool:
    """
    Whether one checksum becomes the other when one word that is summed is another.

    By chance that is so once in four million times.
    """
    first, second = told[0] - summed[0], told[1] - summed[1]
    even, odd = (1, 1), (0, 1)  # what 1 more in a word adds to the sums, as more words follow
    for _ in range(PAGE_BYTES // 8 + 1):
        for one, other in (even, odd):
            if (first * other - second * one) & 0xFFFFFFFF == 0:
                return True
        even, odd = _one_pair_on(*even), _one_pair_on(*odd)
    return False


def _one_pair_on(first: int, second: int) -> Sum:
    return (first + second) & 0xFFFFFFFF, (first + 2 * second) & 0xFFFFFFFF


def read(path: Path) -> Log:
    """A log as it is now; one that is not there has no frames."""
    with files.translate_os_errors(path):
        try:
            return Log(path.read_bytes())
        except FileNotFoundError:
            return Log(b"")


def is_suspicious(path: str, *, taken: int, size_bytes: int) -> bool:
    """
    Whether a commit of the log's present contents stands behind the *taken* frames.

    Reads 24 bytes a frame, and nothing where there are no more frames than taken: this is asked
    on every opening, and what a checkpointed log still holds has other salts.
    """
    count = (size_bytes - HEADER_BYTES) // FRAME_BYTES
    if count <= taken:
        return False
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
        first = _at(file.fileno(), 1)
        salts = head[16:24], first[8:16]
        for number in range(taken + 1, count + 1):
            frame = _at(file.fileno(), number)
            of_ours = any(frame[8:12] == salt[:4] or frame[12:16] == salt[4:] for salt in salts)
            if of_ours and frame[4:8].strip(b"\0"):
                return True
    return False


def stands_behind(path: Path, taken: int) -> bool:
    """
    Whether a frame of the log's present contents stands behind the *taken* ones.

    To be asked under the lock of those who write. Reads 32 bytes: it is asked before each commit.
    """
    with files.translate_os_errors(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            return False
        try:
            salts = _read(descriptor, _SALTS_AT, 8)
            return len(salts) == 8 and _at(descriptor, taken + 1)[8:16] == salts
        finally:
            os.close(descriptor)


def _at(descriptor: int, number: int) -> bytes:
    return _read(descriptor, HEADER_BYTES + (number - 1) * FRAME_BYTES, _FRAME_HEADER_BYTES)


def _read(descriptor: int, at: int, size_bytes: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size_bytes, at)
    os.lseek(descriptor, at, os.SEEK_SET)
    return os.read(descriptor, size_bytes)


def aside(ledger: Path) -> list[Path]:
    """The logs of a ledger that were set aside, the oldest first."""
    begin = f"{ledger.name}-wal{ASIDE}"
    with files.translate_os_errors(ledger):
        names = files.names_in(ledger.parent)
        found = [ledger.with_name(name) for name in names if name.startswith(begin)]
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def set_aside(ledger: Path, log: Path, lost: Lost) -> Path | None:
    """
    Copy a log beside itself, durably; None if so many are kept that this one is not.

    The copy has the log's own time: what arrived in the ledger later is not from it. The first are
    the ones that tell most. One that was copied before is not copied again.
    """
    target = ledger.with_name(f"{ledger.name}-wal{ASIDE}{lost.salt}-{lost.frame}")
    if target.exists():
        return target
    if len(aside(ledger)) >= ASIDE_MAX:
        return None
    part = ledger.with_name(PART)
    with files.translate_os_errors(target):
        try:
            with log.open("rb") as source, part.open("wb") as copy:
                while piece := source.read(1 << 20):
                    copy.write(piece)
                copy.flush()
                written = os.fstat(source.fileno())
                os.utime(copy.fileno(), ns=(written.st_atime_ns, written.st_mtime_ns))
                files.sync_file(copy.fileno())
            part.replace(target)
        except BaseException:  # on a full disk it would take room from what has to be saved
            part.unlink(missing_ok=True)
            raise
        files.sync_folder(target.parent)
    return target
