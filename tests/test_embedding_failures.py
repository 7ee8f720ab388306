"""An embedder that is down, slow, or wrong costs nobody a message, and no text its vector."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from elytron.embed import policy
from elytron.embed.embedder import TEXT_MAX_CHARS
from elytron.errors import Busy, Closed, EmbedderUnavailable
from elytron.upkeep import background
from elytron.upkeep.background import Background
from embedders import (
    DIM,
    Hashing,
    by_hand,
    check_vectors,
    covered,
    down,
    gate,
    step,
    steps,
    unit_row,
)

TEXTS = [f"This is a message number {number}." for number in range(9)]


def opened(open_store, embedder, **settings):
    """An agent whose steps are done by hand, and who leaves no embedder alone."""
    bob = by_hand(open_store(embedder=embedder, **settings).agent("bob"))
    calls = bob._agents.embeddings.calls
    calls._check_rested = lambda kind: None
    return bob


def save_all(bob, texts=TEXTS):
    for text in texts:
        assert bob.save("user", text).embedding == policy.QUEUED


def contents(bob):
    return set(covered(bob).values())


class Failing:
    """Fails the calls of these numbers, counted from 0."""

    def __init__(self, *numbers):
        self.numbers = numbers
        self.count = -1

    def __call__(self, _texts, _kind):
        self.count += 1
        if self.count in self.numbers:
            raise ConnectionError("not this time")


def test_while_it_is_down_messages_are_saved_and_found_by_words(open_store):
    embedder = Hashing(fail=down)
    bob = opened(open_store, embedder)
    save_all(bob)
    for _ in range(3):
        with pytest.raises(EmbedderUnavailable):
            step(bob)
    assert covered(bob) == {}
    assert bob.recall("message number 3")[0].message.content == TEXTS[3]
    usage = bob.usage().embeddings
    assert usage.reasons == {policy.QUEUED: 9}
    assert usage.failures >= 3
    assert "ConnectionError" in usage.last_error
    assert usage.resting_s > 0
    assert not any(text in usage.last_error for text in TEXTS)
    embedder.fail = None
    steps(bob)
    assert contents(bob) == set(TEXTS)
    assert bob.usage().embeddings.resting_s == 0
    check_vectors(bob, dim=DIM)


def test_what_is_left_alone_is_not_asked(open_store):
    embedder = Hashing(fail=down)
    bob = by_hand(open_store(embedder=embedder).agent("bob"))
    bob._agents.embeddings.calls._clock_s = lambda: 1000.0  # the rest is one of seconds
    save_all(bob)
    with pytest.raises(EmbedderUnavailable):
        step(bob)
    asked = len(embedder.asked)
    with pytest.raises(EmbedderUnavailable, match="left alone") as caught:
        step(bob)
    assert len(embedder.asked) == asked
    assert caught.value.wait_s > 0


def test_it_is_left_alone_longer_each_time_and_not_once_it_answered(open_store):
    embedder = Hashing(fail=down)
    bob = opened(open_store, embedder)
    calls = bob._agents.embeddings.calls
    calls._clock_s = lambda: 1000.0
    save_all(bob)
    rests = []
    for _ in range(9):
        with pytest.raises(EmbedderUnavailable):
            step(bob)
        rests.append(calls.counts.resting_s)
    assert rests == sorted(rests)
    assert rests[0] >= 1
    assert rests[-1] == 60
    embedder.fail = None
    steps(bob)
    assert calls.counts.resting_s == 0


def test_it_is_left_alone_for_as_long_as_it_asks(open_store):
    def asks_for_time(_texts, _kind):
        raise EmbedderUnavailable("too many requests", wait_s=500.0)

    embedder = Hashing(fail=asks_for_time)
    bob = opened(open_store, embedder)
    bob._agents.embeddings.calls._clock_s = lambda: 1000.0
    save_all(bob)
    with pytest.raises(EmbedderUnavailable, match="too many"):
        step(bob)
    assert len(embedder.asked) == 1, "it is not asked at once whether it is well"
    assert bob.usage().embeddings.resting_s == 500


def test_a_text_that_is_refused_is_passed_over_and_the_others_get_theirs(open_store):
    bob = opened(open_store, Hashing(refused="number 4"))
    save_all(bob)
    steps(bob)
    assert contents(bob) == set(TEXTS) - {TEXTS[4]}
    reasons = {policy.EMBEDDED: 8, policy.REFUSED: 1}
    assert bob.usage().embeddings.reasons == reasons
    check_vectors(bob, dim=DIM)
    bob.save("user", "And a later message of mine.")
    steps(bob)
    assert bob.usage().embeddings.reasons == reasons | {policy.EMBEDDED: 9}


def test_a_refused_text_gets_its_vector_by_embed_once_it_is_taken(open_store):
    embedder = Hashing(refused="number 4")
    bob = opened(open_store, embedder)
    save_all(bob)
    steps(bob)
    assert bob.embed().left_out == {policy.REFUSED: 1}
    embedder.refused = None
    made = bob.embed()
    assert (made.embedded, made.held, made.left_out) == (1, 8, {})
    assert contents(bob) == set(TEXTS)


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("nth", range(4))
def test_one_failure_refuses_no_text(open_store, count, nth):
    """A call may fail now and then, though the embedder is well when it is asked again."""
    bob = opened(open_store, Hashing(fail=Failing(nth)), embed_batch_max=4)
    save_all(bob, TEXTS[:count])
    steps(bob)
    assert contents(bob) == set(TEXTS[:count])


class Answering:
    """Answers what a function makes of the right rows."""

    name = "answering"

    def __init__(self, change):
        self.change = change

    def __call__(self, texts, _kind):
        return self.change(np.stack([unit_row(text) for text in texts]), texts)


def with_one_nan(rows, texts):
    for row, text in zip(rows, texts, strict=True):
        if "number 4" in text:
            row[3] = np.nan
    return rows


def of_own_error(rows, _texts):
    if len(rows) > 1:
        raise Closed("another store of the function's own")
    return rows


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda rows, _texts: rows[: (len(rows) + 1) // 2], set()),
        (with_one_nan, {TEXTS[4]}),
        (lambda rows, _texts: rows if len(rows) == 1 else rows.ravel(), set()),
        (lambda rows, _texts: rows if len(rows) == 1 else rows[:, :7], set()),
        (of_own_error, set()),
    ],
    ids=["half of them", "NaN for one", "flat", "another dimension", "an error of ours"],
)
def test_wrong_answers_are_not_stored_and_asked_for_in_smaller_parts(open_store, change, missing):
    bob = opened(open_store, Answering(change))
    bob.save("user", "This is the one before all others.")
    steps(bob)
    save_all(bob)
    steps(bob)
    assert set(TEXTS) - contents(bob) == missing
    check_vectors(bob, dim=DIM)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows, _texts: rows * np.nan,
        lambda rows, _texts: rows[:, :1],
        lambda rows, _texts: rows * 0,
        lambda rows, _texts: [],
        lambda _rows, _texts: None,
        lambda _rows, texts: texts,
    ],
    ids=["NaN", "one number", "zeros", "none", "nothing", "texts"],
)
def test_nothing_is_made_of_an_embedder_that_answers_nonsense(open_store, change):
    bob = opened(open_store, Answering(change))
    save_all(bob)
    with pytest.raises(EmbedderUnavailable):
        step(bob)
    assert bob.usage().embeddings.reasons == {policy.QUEUED: 9}
    assert bob.recall("message number 3")[0].message.content == TEXTS[3]
    with pytest.raises(EmbedderUnavailable):
        bob.flush()


def test_a_dimension_that_changes_later_is_not_mixed_in(open_store):
    answering = Answering(lambda rows, _texts: rows)
    bob = opened(open_store, answering)
    save_all(bob)
    steps(bob)
    answering.change = lambda rows, _texts: rows[:, :7]
    bob.save("user", "And a later message of mine.")
    with pytest.raises(EmbedderUnavailable, match="7 numbers"):
        step(bob)
    assert bob.recall("message number 3"), "by words"
    assert len(covered(bob)) == 9
    check_vectors(bob, dim=DIM)


def test_a_text_of_which_nothing_is_seen_holds_nobody_up(open_store):
    bob = opened(open_store, Hashing())
    bob.save("user", " " * TEXT_MAX_CHARS + "This is far behind.")
    save_all(bob)
    steps(bob)
    assert contents(bob) == set(TEXTS)
    assert bob.embed().left_out == {policy.TOO_SHORT: 1}


def test_all_threads_may_hang_and_nothing_is_lost(open_store):
    """Each call past its time keeps its thread; then nothing more is asked until one ends."""

    with gate() as stopped:
        embedder = Hashing(fail=stopped)
        bob = opened(open_store, embedder, embed_threads=2, embed_timeout_s=0.05)
        save_all(bob)
        calls = bob._agents.embeddings.calls
        for number in range(1000):
            with pytest.raises(EmbedderUnavailable):
                step(bob)
            if number >= 3 and stopped.reached.is_set() and calls._open:  # a thread may be late
                break
        assert 1 <= len(calls._open) <= 2
        assert bob.recall("message number 3")[0].message.content == TEXTS[3]
    for thread in calls._threads:
        assert thread.daemon
    for _ in range(6000):  # their ends are near
        if not calls._open:
            break
        calls._threads[0].join(0.01)
    embedder.fail = None
    with bob._agents.use("bob", create=False) as agent:  # who answers has time to
        agent.embedding._config = replace(agent.embedding._config, embed_timeout_s=60)
    steps(bob)
    assert contents(bob) == set(TEXTS)


def test_where_no_thread_can_be_begun_it_is_found_by_words(open_store, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    bob = opened(open_store, Hashing())
    save_all(bob)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert bob.recall("message number 3")[0].message.content == TEXTS[3]
        with pytest.raises(EmbedderUnavailable, match="start new thread"):
            step(bob)
    steps(bob)
    assert contents(bob) == set(TEXTS)


def test_the_callers_patience_is_no_failure_of_the_embedder(open_store):
    with gate() as stopped:
        bob = opened(open_store, Hashing(fail=stopped))
        save_all(bob)
        for _ in range(1000):  # on a busy machine its patience may end before anybody is asked
            with pytest.raises(Busy):
                bob.flush(timeout_s=0.05)
            if stopped.reached.is_set():
                break
        assert stopped.reached.is_set()
        assert bob.usage().embeddings.failures == 0
    bob.flush()
    assert contents(bob) == set(TEXTS)


def test_the_background_tries_again_later_each_time_and_at_the_time_it_was_told():
    now_s = [0.0]
    errors = [EmbedderUnavailable("down")] * 3 + [EmbedderUnavailable("asks", wait_s=1000.0)]
    done = []

    def work(name):
        if errors:
            raise errors.pop(0)
        done.append(now_s[0])
        return False

    behind = Background(work, clock_s=lambda: now_s[0])
    behind._start = lambda: None
    behind.note("bob")
    waits, tried = [], 0
    for _ in range(50):
        wait_s = behind.tick()
        if behind.failures > tried:
            tried = behind.failures
            waits.append(behind._waiting["bob"].not_before_s - now_s[0])
        now_s[0] += max(wait_s, 0.001)
        if done:
            break
    assert waits == [5, 10, 20, 1000]
    assert done
    assert behind.failures == 4
    assert background._BACK_OFF_MAX_S == 600
