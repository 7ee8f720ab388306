"""
How small archived messages become, and how long that takes: the LoCoMo conversations.

    python bench/archive_ratio.py [path of a LoCoMo file]

Files are compared with the UTF-8 bytes of content and metadata alone, so what the archive adds
(ids, times, keys, trailer) counts against it; and with all bytes of the lines. Ids are those of
the file (`D1:1`) and, as where nobody gives any, made by the store (UUIDv7, 8 bytes of chance
each). The turns are fewer than 5000, so that many begin again: the compressor then finds whole
repeats, and only the row with each turn once says what long segments of new text come to.
"""

import argparse
import contextlib
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from elytron.archive import Archive, Archived, segments
from elytron.config import Config
from elytron.importers.locomo import reading
from elytron.importers.pieces import AgentBegins, Found
from elytron.importers.source import open_source
from elytron.records import Message
from elytron.write.admission import IdClock

DEFAULT = Path(__file__).parents[2] / "shared" / "data" / "locomo-dev.json"
TARGET = 0.45
TARGET_S = 0.4  # for 5000 messages
MANY = 5000
ROUNDS = 5
LEVELS = (3, 9, 15, 19)
_FIRST_US = 1_760_000_000_000_000


def turns(path: Path) -> list[dict]:
    """The messages of an import, each session named for its conversation."""
    found, agent = [], ""
    with open_source(path) as source:
        for piece in reading(source, Config()).pieces():
            if isinstance(piece, AgentBegins):
                agent = piece.name
            elif isinstance(piece, Found):
                found.append(piece.message | {"agent": agent})
    return found


def archived(messages: list[dict], count: int, *, made_ids: bool) -> list[Archived]:
    """*count* messages as a ledger would hold them after an import."""
    ids, chance = IdClock(), random.Random(1)
    keys: dict[tuple, int] = {}
    latest: dict[int, Archived] = {}
    arrived_us = _FIRST_US
    out = []
    for number in range(count):
        turn = messages[number % len(messages)]
        arrived_us += chance.randint(20, 200)
        round_number = number // len(messages)
        session = keys.setdefault((round_number, turn["agent"], turn["session"]), len(keys) + 1)
        before = latest.get(session)
        message = Message(
            ids.next(arrived_us) if made_ids else turn["id"],
            turn["role"],
            turn["content"],
            turn["at"],
            turn["session"],
            turn["user"],
            turn.get("metadata", {}),
            0 if before is None else before.message.position + 1,
        )
        key = number + 1
        answers = None if before is None else before.key
        latest[session] = Archived(key, message, session, answers, arrived_us, "disabled")
        out.append(latest[session])
    return out


def text_bytes(message: Message) -> int:
    metadata = dict(message.metadata)
    stored = json.dumps(metadata, ensure_ascii=False, separators=(",", ":")) if metadata else ""
    return len(message.content.encode()) + len(stored.encode())


@contextlib.contextmanager
def compression(level: int | None) -> Iterator[str]:
    """Write at a level of zstd, or as the archive does; a name for it."""
    if level is None:
        yield "chosen"
        return
    chosen = dict(segments.COMPRESSION)
    segments.COMPRESSION.clear()
    segments.COMPRESSION.update(compression_level=level, write_checksum=True)
    try:
        yield f"level {level}"
    finally:
        segments.COMPRESSION.clear()
        segments.COMPRESSION.update(chosen)


def measure(messages: list[Archived]) -> tuple[int, int, float]:
    """File bytes, bytes of lines, and the best time of a few rounds."""
    best_s = float("inf")
    with tempfile.TemporaryDirectory() as temporary:
        archive = Archive(Path(temporary) / "archive", timeout_s=5)
        for _ in range(ROUNDS):
            start = time.perf_counter()
            entries = archive.write(messages)
            archive.publish(add=entries)
            best_s = min(best_s, time.perf_counter() - start)
        if list(archive.read(entries[0])) != messages[: entries[0].messages]:
            raise SystemExit("what was read back differs")
    return sum(e.bytes for e in entries), sum(e.text_bytes for e in entries), best_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=DEFAULT)
    path = parser.parse_args().path
    if not path.exists():
        print(f"{path} is not there: give the path of a LoCoMo file; nothing was measured")
        return
    messages = turns(path)
    print(f"{len(messages)} turns; target {TARGET} of the text, {MANY} messages under {TARGET_S} s")
    print("ids       messages  compression  of the text  of the lines  seconds")
    for made_ids in (True, False):
        for count in (1000, len(messages), MANY):
            sample = archived(messages, count, made_ids=made_ids)
            whole = sum(text_bytes(one.message) for one in sample)
            for level in (None, *LEVELS):
                with compression(level) as name:
                    file, lines, seconds = measure(sample)
                print(
                    f"{'made' if made_ids else 'own':8}  {count:8}  {name:11}"
                    f"  {file / whole:11.3f}  {file / lines:12.3f}  {seconds:7.3f}"
                )


if __name__ == "__main__":
    main()
