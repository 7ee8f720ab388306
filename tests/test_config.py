"""Settings: where they come from, who wins, and what a bad one is told."""

import dataclasses
import itertools
import re
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

import elytron
from elytron import Config, InvalidSetting, OverBudget
from elytron.config import FIELDS
from elytron.config_sources import ALIASES, load
from ledgers import names

# Sizes that have to fit into each other.
CONTRADICTING = ("max_db_size_mb", "wal_limit_mb", "max_message_kb", "queue_max_mb")
BOUNDED = {name: field for name, field in FIELDS.items() if "range" in field.metadata}
FEW = {"max_readers": 1, "max_open_agents": 1, "writer_threads": 1}
ORIGIN = """\
memory:
  max_db_size_mb: 100
  max_messages_per_locrit: 5000
  archive_after_days: 30
  enable_embeddings: false
  auto_cleanup: true
  cleanup_interval_hours: 24
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "settings.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_without_settings_every_default_holds():
    assert load() == Config()


def test_every_setting_says_what_it_is_for():
    for name, field in FIELDS.items():
        assert len(field.metadata["doc"]) > 10, name


def test_keywords_win_over_the_environment_and_that_over_the_file(tmp_path):
    path = written(tmp_path, "queue_max: 1\nbatch_max: 1\nmax_readers: 1\n")
    environ = {"ELYTRON_QUEUE_MAX": "2", "ELYTRON_BATCH_MAX": "2", "PATH": "x"}
    config = load(path, {"queue_max": 3}, environ)
    assert (config.queue_max, config.batch_max, config.max_readers) == (3, 2, 1)


def test_the_environment_is_read_when_a_store_is_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("ELYTRON_QUEUE_MAX", "7")
    monkeypatch.setenv("ELYTRON_ALLOW_NETWORK_PATH", "yes")
    monkeypatch.setenv("ELYTRON_LANGUAGES", "German, none")
    monkeypatch.setenv("ELYTRON_STORE", "elsewhere")
    monkeypatch.setenv("ELYTRON_CONFIG", "elsewhere")
    with elytron.open(tmp_path / "store") as store:
        assert store.config.queue_max == 7
        assert store.config.allow_network_path is True
        assert store.config.languages == ("german", "none")


def test_settings_may_be_a_file_a_mapping_or_a_config(tmp_path):
    expected = Config(queue_max=5)
    path = written(tmp_path, "queue_max: 5")
    for given in (path, str(path), {"queue_max": 5}, expected):
        assert load(given) == expected
        with elytron.open(tmp_path / "store", given) as store:
            assert store.config == expected
    assert load(expected, {"queue_max": 6}).queue_max == 6
    assert load(Config(max_messages_per_agent=1000)).emergency_messages == 500


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "memory:\n  queue_max: 10000\nother: 1\n", "--- {}"]
)
def test_a_file_may_be_empty_or_hold_a_memory_block(tmp_path, text):
    assert load(written(tmp_path, text)) == Config()


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("queue_maxx", "queue_max"),
        ("max_db_size", "max_db_size_mb"),
        ("QUEUE_MAX", None),
        ("max_messages_per_agents", "max_messages_per_agent"),
        ("max_messages_per_locrits", "max_messages_per_locrit"),
        ("archive_after", "archive_after_days"),
        ("keep_mesages", "keep_messages"),
        ("max_archive_size_mb", "max_archive_mb"),
        ("max_totl_mb", "max_total_mb"),
        ("max_ram", "max_ram_mb"),
        ("reserve", "reserve_mb"),
        ("auto_clean_up", "auto_cleanup"),
        ("cleanup_interval", "cleanup_interval_hours"),
        ("emergency_message", "emergency_messages"),
        ("soft_limit", "soft_limit_ratio"),
        ("enable_embedding", "enable_embeddings"),
        ("retention_rule", "retention_rules"),
    ],
)
def test_an_unknown_setting_is_told_the_nearest_known_one(tmp_path, wrong, near):
    hint = f"unknown setting `{wrong}`" + (f"; did you mean `{near}`" if near else "")
    for ask in (
        lambda: load({wrong: 1}),
        lambda: load(written(tmp_path, f"{wrong}: 1")),
        lambda: load(None, {wrong: 1}),
        lambda: elytron.open(tmp_path / "store", **{wrong: 1}),
    ):
        with pytest.raises(InvalidSetting, match=hint):
            ask()


@pytest.mark.parametrize("name", BOUNDED)
def test_a_number_out_of_its_range_is_told_the_range(name):
    low, high = BOUNDED[name].metadata["range"]
    for value in (low - 1, high + 1, -(10**12), float("inf"), float("nan"), "nan", "1e999"):
        with pytest.raises(InvalidSetting, match=rf"`{name}` must be .* from {low:g} to ") as told:
            load({name: value})
        assert len(str(told.value)) < 300
    if name not in CONTRADICTING:
        for value in (low, high, str(low)):
            assert getattr(load({name: value}), name) == float(value)


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("value", ["many", "", None, True, [1], {"a": 1}, object], ids=repr)
def test_a_number_of_a_wrong_type_is_told_what_it_must_be(name, value):
    if value is None and FIELDS[name].default is None:
        pytest.skip("None means that there is no such limit")
    with pytest.raises(InvalidSetting, match=rf"`{name}` must be a (whole )?number from"):
        load({name: value})


def test_a_number_without_end_is_told_the_range():
    for huge in (10**400, 10**5000, -(10**5000), [10**5000], "9" * 5000):
        with pytest.raises(InvalidSetting, match="`queue_max` must be a whole number from 1 to"):
            load({"queue_max": huge})


def test_a_whole_number_cannot_be_broken():
    with pytest.raises(InvalidSetting, match=r"`queue_max` must be a whole number.*2\.5"):
        load({"queue_max": 2.5})
    assert load({"queue_max": 2.0}).queue_max == 2
    assert isinstance(load({"queue_max": "2"}).queue_max, int)


@pytest.mark.parametrize("value", [7, None, [1], {"english"}, {"english": 1}, [["english"]]])
def test_languages_must_be_names(value):
    with pytest.raises(InvalidSetting, match="`languages` must be names"):
        load({"languages": value})


@pytest.mark.parametrize("value", ["klingon", "english,klingon", "", [], " , "])
def test_languages_must_be_known_when_a_store_is_opened(tmp_path, value):
    with pytest.raises(InvalidSetting, match=r"`languages`.*(choose from|name one)"):
        elytron.open(tmp_path / "store", languages=value)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("queue_max: [1", "is not YAML"),
        ("\t- x", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"queue_max: \x00", "is not YAML"),
        ("!!python/object:os.system x", "is not YAML"),
        ("queue_max: 2001-99-99", "is not YAML"),
        ("queue_max: !!int many", "is not YAML"),
        ("queue_max: !!timestamp never", "is not YAML"),
        ("queue_max: !!int ''", "is not YAML"),
        ("auto_cleanup: !!bool x", "is not YAML"),
        ("? [a]\n: b", "YAML|unknown setting"),
        ("{" * 2000, "is not YAML"),
        ("- queue_max", "must hold names and values"),
        ("just words", "must hold names and values"),
        ("7", "must hold names and values"),
        ("memory: 7", "`memory:` must hold settings"),
        ("memory:", "`memory:` must hold settings"),
        ("7: 7", "unknown setting `7`"),
        ("#" * (1 << 20) + "\n", "is over 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_settings_is_refused(tmp_path, text, complaint):
    with pytest.raises(InvalidSetting, match=complaint):
        elytron.open(tmp_path / "store", written(tmp_path, text))
    assert names(tmp_path) == {"settings.yaml"}


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(InvalidSetting, match=f"{path.name} cannot be read: "):
            load(path)


@pytest.mark.parametrize("name", ["queue_max", "languages", "allow_network_path"])
def test_the_value_in_a_message_is_cut(tmp_path, name):
    """A value of 200 bytes in YAML can be a list of millions: it must not be written out."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 6)]
    lines += ["memory:", f"  {name}: [*a5]"]
    with pytest.raises(InvalidSetting, match=f"`{name}`") as told:
        load(written(tmp_path, "\n".join(lines)))
    assert len(str(told.value)) < 1000


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().queue_max = 5


# -- the origin's names


def test_the_origins_settings_load_as_they_are(tmp_path):
    config = load(written(tmp_path, ORIGIN))
    assert config == Config()
    changed = ORIGIN.replace("5000", "300").replace("30\n", "7\n").replace("true", "no")
    config = load(written(tmp_path, changed))
    assert (config.max_messages_per_agent, config.archive_after_days) == (300, 7)
    assert config.auto_cleanup is False
    with elytron.open(tmp_path / "store", tmp_path / "settings.yaml") as store:
        assert store.config == config


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_taken_wherever_the_setting_is(tmp_path, alias):
    name = ALIASES[alias]
    expected = load({name: 7})
    variable = f"ELYTRON_{alias}".upper()
    assert load({alias: 7}) == load(None, {alias: 7}) == load(environ={variable: "7"}) == expected
    assert load(written(tmp_path, f"{alias}: 7")) == expected
    with elytron.open(tmp_path / "store", **{alias: 7}) as store:
        assert store.config == expected


def test_an_alias_is_checked_as_the_setting_is():
    with pytest.raises(
        InvalidSetting, match=r"`max_messages_per_locrit` must be a whole number from 1 to 100,"
    ):
        load({"max_messages_per_locrit": 0})


def test_an_alias_and_its_setting_may_only_say_the_same():
    both = {"max_messages_per_locrit": "7", "max_messages_per_agent": 7.0}
    assert load(both).max_messages_per_agent == 7
    both["max_messages_per_agent"] = 8
    complaint = "`max_messages_per_locrit` is 7 and `max_messages_per_agent` is 8.*leave one"
    for ask in (
        lambda: load(both),
        lambda: load(None, both),
        lambda: load(environ={f"ELYTRON_{name}".upper(): str(n) for name, n in both.items()}),
    ):
        with pytest.raises(InvalidSetting, match=complaint):
            ask()


@pytest.mark.parametrize("low", ["max_messages_per_locrit", "max_messages_per_agent"])
@pytest.mark.parametrize("high", ["max_messages_per_locrit", "max_messages_per_agent"])
def test_between_two_sources_the_stronger_wins_by_whichever_name(low, high):
    assert load({low: 7}, {high: 8}).max_messages_per_agent == 8
    assert load({low: 7}, None, {f"ELYTRON_{high}".upper(): "8"}).max_messages_per_agent == 8


# -- limits that contradict each other


@pytest.mark.parametrize("size_mb", [1, 2, 4, 5])
def test_the_smallest_memory_still_takes_messages(tmp_path, size_mb):
    """Only the size was set; the log's limit is a default, and a default yields."""
    with elytron.open(tmp_path / "store", max_db_size_mb=size_mb) as store:
        bob = store.agent("bob")
        for n in range(20):
            bob.save("user", f"Number {n}")
        assert bob.usage().bytes.total <= size_mb * (1 << 20)


def test_two_limits_that_contradict_each_other_are_both_named(tmp_path):
    with pytest.raises(InvalidSetting, match=r"max_db_size_mb.*wal_limit_mb|wal.*max_db"):
        elytron.open(tmp_path / "store", max_db_size_mb=2, wal_limit_mb=8)


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ({"keep_messages": 1_000_001}, {"max_messages_per_agent": 1_000_000}),
        ({"max_db_size_mb": 50.5}, {"max_total_mb": 50}),
        ({"page_cache_mb": 100}, {"max_ram_mb": 599}),
        ({"wal_limit_mb": 8}, {"max_db_size_mb": 15}),
        ({"max_message_kb": 4096}, {"wal_limit_mb": 7}),
        ({"max_message_kb": 513}, {"max_archive_mb": 1}),
    ],
)
def test_two_set_values_that_contradict_each_other_are_told_with_both_numbers(lower, higher):
    ((low, less),) = lower.items()
    ((high, more),) = higher.items()
    complaint = rf"`{low}` is {less:,}.*`{high}`, which is {more:,}; lower the one or raise"
    for ask in (
        lambda: load({**lower, **higher}),
        lambda: load(lower, higher),
        lambda: load(higher, lower),
        lambda: load(Config(), {**lower, **higher}),
        lambda: Config(**lower, **higher),
    ):
        with pytest.raises(InvalidSetting, match=complaint):
            ask()


def test_what_just_fits_is_no_contradiction():
    exact = {
        "keep_messages": 7,
        "max_messages_per_agent": 7,
        "max_db_size_mb": 60,
        "max_total_mb": 60,
        "page_cache_mb": 4,
        "max_connections": 5,
        "max_ram_mb": 24,
        "wal_limit_mb": 30,
        "max_message_kb": 15 * 1024,
        "max_archive_mb": 30,
        "reserve_mb": 3,
    }
    assert load(exact) == Config(**exact, emergency_messages=3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_messages_per_agent": 100}, {"keep_messages": 100, "emergency_messages": 50}),
        ({"max_messages_per_agent": 1}, {"keep_messages": 1, "emergency_messages": 2}),
        ({"max_messages_per_agent": 9000}, {"keep_messages": 1000, "emergency_messages": 4500}),
        ({"max_messages_per_agent": 90_000}, {"emergency_messages": 5000}),
        ({"keep_messages": 9000}, {"max_messages_per_agent": 9000, "emergency_messages": 4500}),
        ({"keep_messages": 0}, {"max_messages_per_agent": 5000}),
        ({"max_total_mb": 200}, {"max_db_size_mb": 100, "wal_limit_mb": 0.625}),
        ({"max_total_mb": 50}, {"max_db_size_mb": 50, "wal_limit_mb": 0.25}),
        ({"max_total_mb": 2}, {"max_db_size_mb": 2, "wal_limit_mb": 0.25, "max_message_kb": 64}),
        ({"max_total_mb": 200, "max_open_agents": 1}, {"wal_limit_mb": 4}),
        ({"max_total_mb": 2000, "max_open_agents": 500}, {"wal_limit_mb": 0.5}),
        ({"max_total_mb": 50, "max_db_size_mb": 10}, {"wal_limit_mb": 0.25}),
        ({"max_total_mb": 50, "wal_limit_mb": 9}, {"max_db_size_mb": 50, "max_message_kb": 256}),
        ({"max_total_mb": 50, "max_message_kb": 512}, {"wal_limit_mb": 1}),
        ({"max_db_size_mb": 8, "max_message_kb": 2048}, {"wal_limit_mb": 4}),
        ({"max_message_kb": 8192}, {"wal_limit_mb": 16}),
        ({"max_db_size_mb": 8}, {"wal_limit_mb": 2, "max_message_kb": 256}),
        ({"page_cache_mb": 1024}, {"max_ram_mb": 6144}),
        ({"page_cache_mb": 2}, {"max_ram_mb": 512}),
        ({"max_ram_mb": 57}, {"page_cache_mb": 0.25}),
        ({"max_ram_mb": 16}, {"page_cache_mb": 0.1}),
        ({"max_ram_mb": 1024}, {"page_cache_mb": 2}),
        ({"max_readers": 174}, {"page_cache_mb": 1}),
        ({"max_open_agents": 111}, {"page_cache_mb": 1}),
        ({"max_readers": 110, "writer_threads": 64, "max_open_agents": 41}, {"page_cache_mb": 1}),
        ({"max_ram_mb": 101, "max_connections": 100} | FEW, {"page_cache_mb": 0.5}),
        ({"emergency_messages": 9}, {"max_messages_per_agent": 5000, "keep_messages": 1000}),
    ],
    ids=str,
)
def test_a_default_gives_way_to_what_is_set(given, expected):
    config = load(given)
    assert {name: getattr(config, name) for name in expected} == expected
    assert {name: getattr(config, name) for name in given} == given


def test_a_config_made_directly_gives_way_to_nothing():
    with pytest.raises(InvalidSetting, match=r"`keep_messages` is 1,000.*agent`, which is 100;"):
        Config(max_messages_per_agent=100)
    with pytest.raises(InvalidSetting, match=r"`max_db_size_mb` is 100.*`max_total_mb`"):
        Config(max_total_mb=50)


def test_a_message_larger_than_half_the_agent_is_told_where_it_would_have_to_fit():
    with pytest.raises(
        InvalidSetting, match=r"`max_message_kb` is 65,536, more.*`wal_limit_mb`, which is 50;"
    ):
        load({"max_message_kb": 65_536})


TIED = {
    "max_db_size_mb": st.sampled_from([1, 2, 3, 8, 100, 1_000_000]),
    "max_total_mb": st.sampled_from([None, 2, 3, 100, 100_000_000]),
    "max_open_agents": st.sampled_from([1, 3, 40, 10_000]),
    "max_messages_per_agent": st.sampled_from([1, 2, 9, 5000, 100_000_000]),
    "keep_messages": st.sampled_from([0, 1, 9, 5000, 100_000_000]),
    "max_ram_mb": st.sampled_from([16, 16.1, 150, 512, 10_000_000]),
    "max_connections": st.sampled_from([1, 5, 7, 100]),
    "max_readers": st.sampled_from([1, 7, 32, 10_000]),
    "writer_threads": st.sampled_from([1, 64]),
}


@hypothesis.given(st.fixed_dictionaries({}, optional=TIED))
def test_whatever_is_set_the_defaults_fit_in_or_two_set_values_are_told(given):
    """Only a pair that a person set, one against the other, may be refused."""
    clash = given.get("keep_messages", 0) > given.get("max_messages_per_agent", 10**9) or given.get(
        "max_db_size_mb", 0
    ) > (given.get("max_total_mb") or 10**9)
    if clash:
        with pytest.raises(InvalidSetting, match="lower the one or raise the other"):
            load(given)
        return
    config = load(given)
    assert load(config) == config
    assert {name: getattr(config, name) for name in given} == given
    connections = config.max_readers + 2 * config.max_open_agents + config.writer_threads
    assert config.page_cache_mb in (0.1, 2) or (
        config.page_cache_mb * connections <= config.max_ram_mb / 2 * (1 + 1e-9)
    )
    if config.max_total_mb is not None and config.wal_limit_mb > 0.25:
        assert config.wal_limit_mb * 4 * config.max_open_agents <= config.max_total_mb * (1 + 1e-9)


@pytest.mark.parametrize("first", BOUNDED)
def test_any_two_settings_may_stand_at_the_ends_of_their_ranges(first):
    """Either that is a store's settings, or both names are told."""
    for second in BOUNDED.keys() - {first}:
        ends = (BOUNDED[name].metadata["range"] for name in (first, second))
        for one, two in itertools.product(*ends):
            try:
                config = load({first: one, second: two})
            except InvalidSetting as error:
                told = set(re.findall(r"`(\w+)`", str(error)))
                assert {first, second} & told <= set(CONTRADICTING) or told == {first, second}
            else:
                assert load(config) == config


def fill_up(agent):
    count = 0
    while True:
        try:
            agent.save("user", f"Number {count} " + "word " * 4000, id=f"id-{count}")
        except OverBudget as error:
            return count, str(error)
        count += 1


def test_a_full_memory_refuses_loudly_with_its_numbers_and_keeps_what_it_has(open_store):
    bob = open_store(max_db_size_mb=6, auto_cleanup=False).agent("bob")
    count, complaint = fill_up(bob)
    assert count > 50
    for part in ("6291456 bytes", "nothing was written", "`max_db_size_mb`", "'bob'"):
        assert part in complaint
    assert [message.id for message in bob.messages()] == [f"id-{n}" for n in range(count)]
    assert bob.usage().bytes.total <= 6 * (1 << 20)


def test_a_full_memory_can_be_made_room_in_by_deleting(open_store):
    """The way out that the error names has to be open."""
    bob = open_store(max_db_size_mb=6, auto_cleanup=False).agent("bob")
    count, _ = fill_up(bob)
    for n in range(20):
        assert bob.delete(f"id-{n}")
    bob.save("user", "There is room again", id="new")
    assert bob.get("new").content == "There is room again"
    assert bob.delete_session("default") == count - 19
    assert fill_up(bob)[0] > 50


def test_a_full_memory_still_answers(open_store):
    bob = open_store(max_db_size_mb=6, auto_cleanup=False).agent("bob")
    count, _ = fill_up(bob)
    assert bob.recall("number")
    assert len(bob.history()) == min(50, count)


def test_one_full_memory_does_not_stop_another(open_store):
    store = open_store(max_db_size_mb=6, auto_cleanup=False)
    fill_up(store.agent("bob"))
    store.agent("eve").save("user", "I have room", id="one")
    assert store.agent("eve").get("one").content == "I have room"


def test_each_limit_with_a_unit_has_it_in_bytes_too():
    config = Config(wal_limit_mb=1.5, max_message_kb=1.5, queue_max_mb=2, max_db_size_mb=3)
    assert (config.wal_limit_bytes, config.max_message_bytes) == (1_572_864, 1536)
    assert (config.queue_max_bytes, config.max_db_size_bytes) == (2 << 20, 3 << 20)
    config = Config(max_archive_mb=1.5, max_total_mb=100.5, max_ram_mb=16.5, reserve_mb=0.5)
    assert (config.max_archive_bytes, config.max_total_bytes) == (1_572_864, 105_381_888)
    assert (config.max_ram_bytes, config.reserve_bytes) == (17_301_504, 524_288)
    assert (Config(reserve_mb=0).reserve_bytes, Config().max_total_bytes) == (0, None)
