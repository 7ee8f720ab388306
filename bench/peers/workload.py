"""
What every peer is given: the same messages, the same questions, the same vectors.

Needs nothing but the standard library, since each peer runs it in an environment of its own.
Messages are halves of the demonstration's, joined at random (seeded), a hundred to a session, each
with a word that no other has, so that each can be found again. The vectors are hashed words: cheap,
alike for all, and no measure of what a real embedder would find.
"""

import json
import math
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[2]
DIMS = 256
SESSION_LENGTH = 100
_MARK = re.compile(r"\bref(\d{9})\b")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the workload."""

    number: int
    session: str
    role: str
    text: str


class Peer(Protocol):
    """What a peer must be able to do. A key is the peer's own name for a message."""

    def save(self, agent: str, message: Message) -> str:
        """Keep one message as the peer's pages advise; its key."""

    def fill(self, agent: str, messages: Sequence[Message]) -> list[str]:
        """Keep many, by the fastest means that the peer has; their keys."""

    def recall(self, agent: str, question: str, limit: int) -> list[str]:
        """The texts that the peer finds, best first."""

    def history(self, agent: str, session: str, limit: int) -> list[str]:
        """The newest texts of a session, oldest first."""

    def drop(self, agent: str, keys: Sequence[str]) -> None:
        """Let these, the oldest, go by the peer's own means."""

    def compact(self, agent: str) -> bool | None:
        """Give space back; True where the peer has a means for it."""

    def settle(self, agent: str) -> None:
        """Wait until what was saved can be found; nothing to do where it can at once."""

    def texts(self, agent: str) -> list[str]:
        """All that is held."""

    def close(self) -> None:
        """Give everything back."""


@lru_cache(maxsize=1)
def _material() -> list[list[str]]:
    # A peer's environment is without Elytron, and the tree of a wheel's tests without src/.
    found = find_spec("elytron")
    package = Path(found.origin).parent if found and found.origin else ROOT / "src" / "elytron"
    path = package / "demo" / "conversation.jsonl"
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["content"].split() for line in lines]


def messages(count: int, *, first: int = 0) -> Iterator[Message]:
    """*count* messages, numbered from *first*; the same number is the same message each time."""
    texts = _material()
    for number in range(first, first + count):
        dice = random.Random(number)
        one, other = dice.choice(texts), dice.choice(texts)
        words = [*one[: (len(one) + 1) // 2], *other[len(other) // 2 :], f"ref{number:09}"]
        role = "user" if number % 2 == 0 else "assistant"
        yield Message(number, f"s{number // SESSION_LENGTH}", role, " ".join(words))


def numbers(texts: Sequence[str]) -> list[int]:
    """Which messages these are."""
    return [int(found[1]) for text in texts if (found := _MARK.search(text))]


def questions(count: int, held: int) -> list[tuple[int, str]]:
    """
    Four to six words each of one message among the first *held*, and which one that is: words of
    five letters and more, as a question is not made of "and" and "the" alone.
    """
    dice = random.Random(11)
    asked = []
    for number in dice.sample(range(held), count):
        words = next(messages(1, first=number)).text.split()[:-1]
        long = [word for word in words if len(word) >= 5] or words
        asked.append((number, " ".join(dice.sample(long, min(len(long), dice.randint(4, 6))))))
    return asked


@lru_cache(maxsize=20_000)
def _place(word: str) -> tuple[int, float]:
    code = zlib.crc32(word.encode())
    return code % DIMS, 1.0 if code & 0x8000_0000 else -1.0


def embed(text: str) -> list[float]:
    """A vector of unit length: each word adds or takes one at a place of its own."""
    vector = [0.0] * DIMS
    for word in _WORD.findall(text.lower()):
        place, sign = _place(word)
        vector[place] += sign
    length = math.sqrt(sum(value * value for value in vector))
    if not length:  # words that cancel each other out
        vector[0] = length = 1.0
    return [value / length for value in vector]
