"""Measures that need more than one process: by strace, two at once, kill -9."""

import json
import os
import random
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from environments import HERE, Entry

CHILD_MAX_S = 240
OPEN_MAX_S = 60
ROUNDS = 10
TOGETHER_S = 4.0
FAR = 10**7  # between the numbers of two writers
_SYNCS = re.compile(r"\b(fsync|fdatasync|sync_file_range|msync)\(.*= 0")
_CALLS = "fsync,fdatasync,sync_file_range,msync,?access,faccessat,?faccessat2"


def command(entry: Entry, measure: str, folder: Path, small: bool, *more: str) -> list[str]:
    return [
        str(entry.python), "-u", str(HERE / "measures.py"), entry.module, str(int(entry.vectors)),
        measure, str(folder), str(int(small)), *more,
    ]  # fmt: skip


def last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "no word"


def child(line: Sequence[str]) -> dict[str, Any]:
    """What a measure finds, or why there is nothing."""
    try:
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=CHILD_MAX_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer in {CHILD_MAX_S} s"}
    if done.returncode:
        return {"failed": f"exit {done.returncode}: {last_words(done.stderr)}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def inside(entry: Entry, measure: str, small: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return child(command(entry, measure, Path(folder), small))


def syncs(trace: str) -> list[int]:
    """How many calls that force bytes to the disk there were between begin and end of each save."""
    counts: list[int] = []
    within = False
    for line in trace.splitlines():
        if '"/mark/begin"' in line:
            counts.append(0)
            within = True
        elif '"/mark/end"' in line:
            within = False
        elif within and (_SYNCS.search(line) or "sync resumed>" in line):
            counts[-1] += 1
    return counts


def traced(entry: Entry, small: bool) -> dict[str, Any]:
    """Whether a save that returned had been forced to the disk, as strace sees it."""
    if shutil.which("strace") is None:
        return {"failed": "no strace here"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        trace = folder / "trace"
        line = command(entry, "traced", folder / "data", small)
        found = child(["strace", "-f", "-qq", "-e", f"trace={_CALLS}", "-o", str(trace), *line])
        if "failed" in found:
            return found
        counts = syncs(trace.read_text(encoding="utf-8", errors="replace"))
    return {
        "saves": len(counts),
        "synced_before_return": sum(count > 0 for count in counts),
        "a_save": sum(counts) / max(1, len(counts)),
    }


class Writer:
    """A process that saves, and says after each what it has saved."""

    def __init__(self, entry: Entry, folder: Path, small: bool, *, first: int, seconds: float):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed by `close`
        self._process = subprocess.Popen(
            command(entry, "writer", folder, small, str(first), str(seconds)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._text = b""
        self._ended = False

    def held(self) -> list[int] | None:
        """What it finds when it opens; None if it cannot."""
        end = time.monotonic() + OPEN_MAX_S
        while b"\n" not in self._text and time.monotonic() < end:
            if not self._read(end - time.monotonic()):
                break
        if b"\n" not in self._text:
            return None
        line, self._text = self._text.split(b"\n", 1)
        found: list[int] = json.loads(line)["held"]
        return found

    def _read(self, wait_s: float) -> bool:
        """Take what it said; False at its end or after *wait_s*."""
        out = self._process.stdout
        assert out is not None
        if not select.select([out], [], [], max(0.0, wait_s))[0]:
            return False
        got = os.read(out.fileno(), 1 << 16)
        self._text += got
        self._ended = not got
        return bool(got)

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.close()

    def watch(self, seconds: float) -> None:
        """Read along for so long, so that its pipe never fills up."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self._read(left):
            continue

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> tuple[set[int], dict[str, Any]]:
        """(what it said it had saved, its last word), after its end."""
        self.watch(OPEN_MAX_S)
        self._process.kill()  # harmless where it has ended
        self._process.wait(timeout=OPEN_MAX_S)
        *lines, _ = self._text.split(b"\n")
        last = json.loads(lines.pop()) if lines and lines[-1].startswith(b"{") else {}
        return {int(line) for line in lines}, last

    def failed(self) -> str:
        """Why it did not open."""
        if self._process.poll() is None and not self._ended:
            self.kill()
            return f"no answer in {OPEN_MAX_S} s"
        self._process.wait(timeout=OPEN_MAX_S)
        self._errors.seek(0)
        return last_words(self._errors.read())

    def close(self) -> None:
        for end in (self._process.stdin, self._process.stdout, self._errors):
            if end is not None:
                end.close()


def look(entry: Entry, folder: Path, small: bool) -> list[int] | str:
    """What is held, or why it does not open."""
    reader = Writer(entry, folder, small, first=0, seconds=0)
    try:
        held = reader.held()
        return reader.failed() if held is None else held
    finally:
        reader.kill()
        reader.end()
        reader.close()


def kills(entry: Entry, small: bool) -> dict[str, Any]:
    """Killed ten times while it saves, opened again each time: is all there that was said?"""
    dice, rounds = random.Random(5), 2 if small else ROUNDS
    said: set[int] = set()
    lost: set[int] = set()
    doubled = done = 0
    failure = ""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        for at in range(rounds + 1):
            writer = Writer(entry, Path(name), small, first=at * FAR, seconds=OPEN_MAX_S)
            held = writer.held()
            if held is None:
                failure = f"does not open after kill {at}: {writer.failed()}"
                writer.close()
                break
            lost |= said - set(held)
            doubled = max(doubled, len(held) - len(set(held)))
            if at < rounds:
                writer.begin()
                writer.watch(dice.uniform(0.2, 0.8))
                done += 1
            writer.kill()
            said |= writer.end()[0]
            writer.close()
    return {
        "kills": done,
        "acknowledged": len(said),
        "lost": len(lost),
        "doubled": doubled,
        "failure": failure,
    }


def together(entry: Entry, small: bool) -> dict[str, Any]:
    """Two processes that save to one agent for some seconds; then what is held is compared."""
    seconds = 0.5 if small else TOGETHER_S
    said: set[int] = set()
    errors: dict[str, int] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        look(entry, folder, small)  # so that both find it made
        crew = [
            Writer(entry, folder, small, first=(at + 1) * FAR, seconds=seconds) for at in range(2)
        ]
        ready = [(writer, writer.held()) for writer in crew]
        refused = [writer.failed() for writer, held in ready if held is None]
        able = [writer for writer, held in ready if held is not None]
        for writer in able:
            writer.begin()
        for writer in able:
            saved, last = writer.end()
            said |= saved
            for words, count in last.get("errors", {"ended without a word": 1}).items():
                errors[words] = errors.get(words, 0) + count
        for writer in crew:
            writer.close()
        held = look(entry, folder, small)
    if isinstance(held, str):
        return {"failed": f"does not open afterwards: {held}", "acknowledged": len(said)}
    return {
        "refused_to_open": refused,
        "acknowledged": len(said),
        "a_second": len(said) / seconds,
        "errors": sum(errors.values()),
        "words": max(errors, key=lambda words: errors[words], default=""),
        "lost": len(said - set(held)),
        "doubled": len(held) - len(set(held)),
    }
