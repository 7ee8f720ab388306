"""
Messages for the measurements: halves of the demonstration's, joined at random (seeded), in
sessions of 20, a minute apart.
"""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import elytron


def material() -> list[list[str]]:
    """The words of each message of the demonstration."""
    path = Path(elytron.__file__).parent / "demo" / "conversation.jsonl"
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["content"].split() for line in lines]


def messages(
    count: int, texts: list[list[str]], dice: random.Random, *, first: int = 0
) -> Iterator[dict[str, Any]]:
    """*count* messages, numbered from *first*, the last of them said now."""
    start = datetime.now(UTC) - timedelta(minutes=count + 1)
    for number in range(first, first + count):
        one, other = dice.choice(texts), dice.choice(texts)
        words = one[: (len(one) + 1) // 2] + other[len(other) // 2 :]
        yield {
            "role": "user" if number % 2 == 0 else "assistant",
            "content": " ".join(words),
            "session": f"s{number // 20}",
            "user": "alice" if number % 2 == 0 else "bot",
            "at": start + timedelta(minutes=number - first),
        }


def varied(count: int) -> list[dict[str, Any]]:
    """The same messages each time."""
    return list(messages(count, material(), random.Random(7)))
