"""
Linking: what it costs to look for known names, to propose new ones, and to do it while saving.

Ratios at the end are of saves with linking to saves without, alternating in one run. The background
links once nobody has saved for a second, or after ten seconds, and half of the time at most.
"""

import contextlib
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator

import elytron
from elytron.concepts.names import Names
from elytron.concepts.proposals import candidates
from elytron.text import folded_words
from messages import material, messages

NAMES = 20_000
TEXTS = 5_000
SAVERS = 8
ROUNDS = 3
LONG_S, SHORT_S = 15, 5  # the background's turn comes after ten seconds
FLUSH_EVERY_S = 0.25
ROOMY = {"max_db_size_mb": 1000, "max_messages_per_agent": 10**6}
TARGET_RATIO = 0.9


def made_up_names(dice: random.Random, words: list[str]) -> list[str]:
    """Names of one to three words, most of them words of the messages too."""
    names = set()
    while len(names) < NAMES:
        names.add(" ".join(dice.choices(words, k=dice.choice((1, 2, 2, 3)))).title())
    return sorted(names)


def microseconds(call, texts: list[str]) -> float:
    times = []
    for text in texts:
        start = time.perf_counter()
        call(text)
        times.append(time.perf_counter() - start)
    return statistics.mean(times) * 1e6


def saves_per_second(agent: elytron.Agent, texts: list[str], *, seconds: float) -> float:
    end = time.perf_counter() + seconds
    counts = [0] * SAVERS

    def work(number: int) -> None:
        while time.perf_counter() < end:
            text = texts[(number + counts[number] * SAVERS) % len(texts)]
            agent.save("user", text, session=f"s{number}", user="alice")
            counts[number] += 1

    crew = [threading.Thread(target=work, args=(number,)) for number in range(SAVERS)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return sum(counts) / seconds


def of_the_matcher(texts: list[str], names: list[str]) -> None:
    start = time.perf_counter()
    known = Names((key, name, 1.0) for key, name in enumerate(names))
    took_s = time.perf_counter() - start
    hits = sum(len(known.find(text)) for text in texts)
    words = microseconds(folded_words, texts)
    print(
        f"{len(known)} names learned in {took_s * 1000:.0f} ms; a message of"
        f" {statistics.mean(len(text) for text in texts):.0f} characters:"
        f" {microseconds(known.find, texts):.1f} µs ({words:.1f} of them to split it into words),"
        f" {hits / len(texts):.2f} names found"
    )
    print(f"proposing from a message: {microseconds(candidates, texts):.1f} µs")


def of_the_chore(texts: list[str], names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, elytron.open(folder, **ROOMY) as store:
        agent = store.agent("Bob")
        agent.save_many([{"role": "user", "content": text} for text in texts])
        start = time.perf_counter()
        agent.flush()
        took_s = time.perf_counter() - start
        print(f"linking {len(texts)} messages, few names: {len(texts) / took_s:.0f} messages/s")
        for name in names[:1000]:
            agent.remember(f"about {name}", about=[name])
        start = time.perf_counter()
        agent.flush()
        took_s = time.perf_counter() - start
        print(
            f"1000 concepts made later, looked for in {len(texts)} messages: {took_s:.2f} s,"
            f" {agent.usage().edges} links"
        )


def of_saving(texts: list[str]) -> None:
    rates: dict[str, list[float]] = {}
    ways = {
        "without linking": (False, False, LONG_S),
        "with it in the background": (True, False, LONG_S),
        "while another thread links all the time": (True, True, SHORT_S),
    }
    for _ in range(ROUNDS):
        for way, (linked, always, seconds) in ways.items():
            with (
                tempfile.TemporaryDirectory() as folder,
                elytron.open(folder, link_concepts=linked, **ROOMY) as store,
            ):
                agent = store.agent("Bob")
                for person in ("Alice", "Marc", "Lyon"):
                    agent.remember(f"{person} is known", about=[person])
                with flushing(agent) if always else contextlib.nullcontext():
                    rate = saves_per_second(agent, texts, seconds=seconds)
                rates.setdefault(way, []).append(rate)
    without = rates["without linking"]
    for way, found in rates.items():
        ratio = statistics.median([one / other for one, other in zip(found, without, strict=True)])
        print(
            f"saves of {SAVERS} threads {way}: {statistics.median(found):.0f}/s, ratio {ratio:.2f}"
        )
    print(f"(target in the background: at least {TARGET_RATIO:g})")


@contextlib.contextmanager
def flushing(agent: elytron.Agent) -> Iterator[None]:
    """Have what is saved linked a moment later, as who asks the graph all the time would."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(FLUSH_EVERY_S):
            agent.flush()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def main() -> None:
    dice = random.Random(11)
    words = material()
    texts = [message["content"] for message in messages(TEXTS, words, dice)]
    vocabulary = sorted({word for some in words for word in folded_words(" ".join(some))})
    # Some of the words, so that most messages name a few concepts and not a dozen.
    names = made_up_names(dice, vocabulary + [f"{word}ix" for word in vocabulary])
    of_the_matcher(texts, names)
    of_the_chore(texts, [name for name in names if " " not in name or name[0] == "A"])
    of_saving(texts)


if __name__ == "__main__":
    main()
