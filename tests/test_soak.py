"""The soak, bounded: the same load for seconds, at the limits; what is sure is checked."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from quiet import at_rest

BENCH = Path(__file__).parent.parent / "bench"
SECONDS = 15


def soak_of_the_bench() -> ModuleType:
    """The script, which imports its neighbours by name."""
    sys.path.insert(0, str(BENCH))
    try:
        spec = importlib.util.spec_from_file_location("soak", BENCH / "soak.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["soak"] = module  # dataclasses look themselves up there
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCH))
    return module


bench = soak_of_the_bench()


@pytest.mark.disk
def test_a_store_at_its_limits_under_load_loses_nothing_and_holds_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages are large, so that archives are full, and lose their oldest, within seconds."""
    plan = bench.Plan(
        seconds=SECONDS, saves_per_s=200, recalls_per_s=20, agents=3, savers=3, readers=2,
        window_s=0.5, ask_every_s=1, messages_max=40, noise_bytes=8192,
    )  # fmt: skip
    settings, stop = bench.Plan.settings, bench.Load.stop
    # A worker that does not answer in time is killed, and this machine may stand still.
    patient = property(lambda plan: settings.fget(plan) | {"graph_timeout_s": 60})
    monkeypatch.setattr(bench.Plan, "settings", patient)

    def stop_all(load: Any) -> None:
        stop(load)
        at_rest(load._agents[0])  # or what is counted in the end would not belong together

    monkeypatch.setattr(bench.Load, "stop", stop_all)
    threads_before = psutil.Process().num_threads()  # of the tests before, and of their libraries
    outcome = bench.soak(folder, plan)
    assert outcome.wrong == []
    samples, load = outcome.samples, outcome.load
    assert min(load.saved) > plan.messages_max, "so few that no limit was met"
    assert samples.largest.archive > 0
    assert load.questions > 0
    assert samples.worker_starts == 1
    later = len(samples["threads"]) // 2
    assert max(samples["threads"]) - threads_before <= 40
    # The embedder is left alone for the first ten seconds; then two threads ask it.
    assert max(samples["threads"][later:]) <= max(samples["threads"][:later]) + 2
    assert max(samples["descriptors"][later:]) <= max(samples["descriptors"][:later]) + 16


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_slope_is_found_beneath_noise_and_its_interval_holds_it(noise: float) -> None:
    seconds = [5.0 * number for number in range(400)]
    values = [100 + 2.0 * at / 3600 + noise * (-1) ** number for number, at in enumerate(seconds)]
    found = bench.slope(seconds, values)
    assert found.low <= 2.0 <= found.high
    assert found.value == pytest.approx(2.0, abs=0.2)


def test_one_outlier_does_not_make_a_slope() -> None:
    values = [50.0] * 200
    values[120] = 5000.0
    assert bench.slope([float(number) for number in range(200)], values) == (0, 0, 0)


def test_a_message_that_is_missing_or_there_twice_would_be_told(folder: Path) -> None:
    """What the end of the soak looks at can fail: here one message fewer than were acknowledged."""
    plan = bench.Plan(seconds=1)
    with bench.elytron.open(folder, **plan.settings) as store:
        bob = store.agent("bob")
        for number in range(3):
            bob.save("user", "Hello", id=str(number))
        assert bench.missing(bob, 3, set(), plan) == []
        assert bench.missing(bob, 2, {2}, plan) == []
        assert bench.missing(bob, 2, {3}, plan) == []
        (told,) = bench.missing(bob, 4, set(), plan)
    assert told == "bob: 1 are gone, and 0 were told as dropped"
