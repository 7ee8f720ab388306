"""Metrics: what Prometheus reads of a store is what the store says of itself."""

import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Metric
from prometheus_client.parser import text_string_to_metric_families

import elytron
from elytron.errors import Closed, InvalidArgument
from elytron.faces import metrics
from elytron.records import StoreUsage, Usage
from elytron.reports import ArchiveUsage, JanitorUsage
from ledgers import ledger_path, names
from quiet import at_rest
from test_cli import Outcome, run

MB = 1 << 20
NAMES = (
    "bob",
    'the "quoted" one',
    "back\\slash \\n \\",
    "a,b={c} # HELP",
    "🐞 東京 שלום",
    "👩‍👩‍👧‍👦 \u200c joined",
    "'single' \u00a0 ",
    "x" * 1000,
)


@pytest.fixture
def held(folder: Path) -> Iterator[elytron.Store]:
    """A store of agents with every kind of name; bob has archived and pinned some."""
    with elytron.open(folder) as store:
        for number, name in enumerate(NAMES, 1):
            store.agent(name).save_many([{"role": "user", "content": "zebra"}] * number)
        bob = store.agent("bob")
        bob.save_many({"role": "user", "content": "zebra", "id": f"m{n}"} for n in range(9))
        bob.pin("m1")
        bob.archive(older_than_days=0, keep=0)
        for name in NAMES:  # what is left to the background writes, and makes lock files
            store.agent(name).flush()
        at_rest(store)  # one has descriptors of its own for a moment, the other makes a file
        yield store


def families(text: bytes) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def by_agent(family: Metric) -> dict[str, float]:
    return {sample.labels["agent"]: sample.value for sample in family.samples}


def test_every_agent_is_there_under_its_exact_name(held):
    found = families(metrics.render(held))
    messages = by_agent(found["elytron_agent_messages"])
    assert messages == {name: held.agent(name).usage().messages for name in NAMES}
    assert set(by_agent(found["elytron_agent_readable"]).values()) == {1.0}


def test_the_values_are_those_of_usage(held):
    found = families(metrics.render(held))
    usage, of_store = held.agent("bob").usage(), held.usage()
    kinds = {
        sample.labels["kind"]: sample.value
        for sample in found["elytron_agent_bytes"].samples
        if sample.labels["agent"] == "bob"
    }
    assert kinds == {kind: getattr(usage.bytes, kind) for kind in kinds}
    assert set(kinds) == {"live", "dead", "wal", "words", "vectors", "graph", "archive", "aside"}
    expected = {
        "used_bytes": usage.bytes.total,
        "limit_bytes": usage.limit_bytes,
        "archive_limit_bytes": held.config.archive_full_bytes,
        "messages": 1,
        "messages_limit": 5000,
        "archived_messages": 9,
        "pinned_messages": 1,
        "queued_writes": 0,
    }
    for name, value in expected.items():
        assert by_agent(found[f"elytron_agent_{name}"])["bob"] == value, name
    forecasts = {
        sample.labels["limit"]: sample.value
        for sample in found["elytron_agent_forecast_seconds"].samples
        if sample.labels["agent"] == "bob"
    }
    until = {name: days for name, days in usage.forecast.until.items() if days is not None}
    assert forecasts.keys() == until.keys()
    for limit, days in until.items():
        assert forecasts[limit] == pytest.approx(days * 86_400, rel=0.01)
    for name, value in (
        ("store_agents", len(NAMES)),
        ("store_bytes", of_store.total_bytes),
        ("store_archive_bytes", of_store.archive_bytes),
        ("store_reserve_bytes", of_store.reserve_bytes),
        ("open_agents", of_store.open_agents),
        ("threads", of_store.threads),
        ("open_descriptors", of_store.descriptors),
        ("janitor_failures", 0),
    ):
        (sample,) = found[f"elytron_{name}"].samples
        assert sample.value == value, name
    assert found["elytron_resident_memory_bytes"].samples[0].value > MB


def test_what_an_archive_dropped_for_good_is_counted():
    usage = Usage("bob", 1, failed_writes=3, archive=ArchiveUsage(messages=5, dropped=17))
    found = {family.name: family for family in metrics._agent_counters([usage])}
    assert by_agent(found["elytron_archive_dropped_messages"]) == {"bob": 17}
    assert by_agent(found["elytron_agent_failed_writes"]) == {"bob": 3}


def _failing(_texts: object, _kind: str) -> list[list[float]]:
    raise OSError("no answer")


def _near(texts: list[str], _kind: str) -> list[list[float]]:
    return [[1.0, float(len(text))] for text in texts]


def by_reason(family: Metric, agent: str) -> dict[str, float]:
    return {
        sample.labels["reason"]: sample.value
        for sample in family.samples
        if sample.labels["agent"] == agent and sample.value
    }


def test_vectors_are_counted_by_reason_with_their_bytes(folder):
    with elytron.open(folder, embedder=_near) as store:
        bob = store.agent("bob")
        for text in ("zebras are striped animals", "ok", "zebras are striped animals"):
            bob.save("user", text)
        bob.save("user", "zebras graze in the evening", embed=False)
        bob.flush()
        store.agent("eve")
        found = families(metrics.render(store))
        held = bob.usage().embeddings
    reasons = by_reason(found["elytron_embeddings"], "bob")
    assert reasons == {"embedded": 1, "shared": 1, "short": 1, "declined": 1} == held.reasons
    labels = {sample.labels["reason"] for sample in found["elytron_embeddings"].samples}
    assert labels > {"queued", "disabled", "role", "max_vector_mb", "refused"}
    assert by_agent(found["elytron_vector_bytes"]) == {"bob": held.bytes}
    assert held.bytes > 0


def test_failures_of_the_embedder_are_counted_once_for_all_agents(folder):
    with elytron.open(folder, embedder=_failing) as store:
        for name in ("bob", "eve"):
            store.agent(name).save("user", "zebras are striped animals")
        with pytest.raises(elytron.ElytronError):
            store.agent("bob").flush()
        found = families(metrics.render(store))
        failures = store.agent("bob").usage().embeddings.failures
    (sample,) = found["elytron_embedder_failures"].samples
    assert sample.name == "elytron_embedder_failures_total"
    assert 1 <= sample.value <= failures
    assert by_reason(found["elytron_embeddings"], "eve") == {"queued": 1}


def test_the_clean_up_s_times_are_seconds_since_1970():
    at = datetime(2026, 3, 2, 18, 4, tzinfo=UTC)
    usage = StoreUsage("d", (), *[0] * 7, janitor=JanitorUsage(True, at, None, "x", 2))
    values = {
        family.name: [sample.value for sample in family.samples]
        for family in metrics._janitor_gauges(usage)
    }
    assert values == {
        "elytron_janitor_running": [1.0],
        "elytron_janitor_failures": [2],
        "elytron_janitor_last_run_timestamp_seconds": [at.timestamp()],
        "elytron_janitor_next_run_timestamp_seconds": [],
    }


def test_names_types_and_units_are_as_prometheus_wants_them(held):
    found = families(metrics.render(held))
    assert len(found) > 25
    for name, family in found.items():
        assert name.startswith("elytron_")
        assert family.documentation
        assert family.type in ("gauge", "counter")
        totals = {sample.name.endswith("_total") for sample in family.samples}
        assert totals <= {family.type == "counter"}, name
    counters = {name for name, family in found.items() if family.type == "counter"}
    assert counters == {
        "elytron_archive_dropped_messages",
        "elytron_agent_failed_writes",
        "elytron_embedder_failures",
        "elytron_graph_worker_starts",
    }


def test_a_limit_that_is_off_has_no_sample_and_one_that_is_set_has(held, folder):
    assert not families(metrics.render(held))["elytron_store_limit_bytes"].samples
    with elytron.open(folder, max_total_mb=1000) as limited:
        (sample,) = families(metrics.render(limited))["elytron_store_limit_bytes"].samples
    assert sample.value == 1000 * MB


def test_a_damaged_agent_hides_no_other(held, folder):
    held.close()
    ledger_path(folder).write_bytes(b"")
    with elytron.open(folder) as store:
        found = families(metrics.render(store))
    readable = by_agent(found["elytron_agent_readable"])
    assert readable == {name: float(name != "bob") for name in NAMES}
    assert by_agent(found["elytron_agent_messages"]).keys() == set(NAMES[1:])
    assert "elytron_store_bytes" not in found


def test_an_empty_store_is_no_error_and_stays_empty(tmp_path):
    with elytron.open(tmp_path / "none") as store:
        found = families(metrics.render(store))
    assert found["elytron_store_agents"].samples[0].value == 0
    assert not found["elytron_agent_messages"].samples
    assert not (tmp_path / "none").exists()


def test_reading_metrics_makes_nothing_on_disk(held, folder):
    before = names(folder)
    metrics.render(held)
    assert names(folder) == before


def test_agents_come_and_go_between_two_readings(held, folder):
    metrics.render(held)
    held.agent("new").save("user", "hello")
    assert "new" in by_agent(families(metrics.render(held))["elytron_agent_messages"])
    held.close()
    with elytron.open(folder) as store:
        shutil.rmtree(ledger_path(folder, "new").parent)
        assert "new" not in by_agent(families(metrics.render(store))["elytron_agent_messages"])


def test_a_closed_store_is_told(held):
    held.close()
    with pytest.raises(Closed):
        metrics.render(held)


def test_nothing_is_put_into_the_registry_of_the_process(held):
    metrics.render(held)
    assert not [family.name for family in REGISTRY.collect() if "elytron" in family.name]


def test_without_the_library_the_extra_is_named(held, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'elytron\[metrics\]'"):
        metrics.render(held)


# -- the command


@pytest.fixture
def command(held: elytron.Store, folder: Path) -> Callable[..., Outcome]:
    """`elytron` on that store, which nobody else has open."""
    held.close()
    return lambda *words, **more: run(*words, store=folder, **more)


def test_the_command_prints_what_the_function_renders(command):
    shown = command("usage", "--prometheus")
    assert (shown.code, shown.err) == (0, "")
    found = families(shown.out.encode())
    assert by_agent(found["elytron_agent_messages"]).keys() == set(NAMES)


def test_the_command_is_for_the_whole_store_in_its_own_form(command):
    for words in (("bob",), ("--json",)):
        refused = command("usage", "--prometheus", *words)
        assert (refused.code, refused.out) == (2, "")


def test_the_command_names_the_extra_in_one_line(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    refused = command("usage", "--prometheus")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        "elytron: metrics need prometheus_client; run: pip install 'elytron[metrics]'\n"
    )
