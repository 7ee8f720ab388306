"""Settings: where they come from, who wins, and what a bad one is told."""

import dataclasses
from pathlib import Path

import pytest

import elytron
from elytron import Config, InvalidSetting, OverBudget
from elytron.config import FIELDS, load
from ledgers import names

# Sizes that have to fit into each other.
CONTRADICTING = ("max_db_size_mb", "wal_limit_mb", "max_message_kb", "queue_max_mb")
BOUNDED = {name: field for name, field in FIELDS.items() if "range" in field.metadata}


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


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "memory:\n  queue_max: 10000\nother: 1\n", "--- {}"]
)
def test_a_file_may_be_empty_or_hold_a_memory_block(tmp_path, text):
    assert load(written(tmp_path, text)) == Config()


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("queue_maxx", "queue_max"), ("max_db_size", "max_db_size_mb"), ("QUEUE_MAX", None)],
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


def test_an_unknown_setting_in_the_environment_is_told_too():
    with pytest.raises(
        InvalidSetting,
        match=r"unknown setting `queue_maxx` .*ELYTRON_QUEUE_MAXX.*did you mean `queue_m",
    ):
        load(environ={"ELYTRON_QUEUE_MAXX": "1"})


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
    with pytest.raises(InvalidSetting, match=rf"`{name}` must be a (whole )?number from"):
        load({name: value})


def test_a_number_without_end_is_told_the_range():
    with pytest.raises(InvalidSetting, match="`queue_max` must be a whole number from 1 to"):
        load({"queue_max": 10**400})


def test_a_whole_number_cannot_be_broken():
    with pytest.raises(InvalidSetting, match=r"`queue_max` must be a whole number.*2\.5"):
        load({"queue_max": 2.5})
    assert load({"queue_max": 2.0}).queue_max == 2
    assert isinstance(load({"queue_max": "2"}).queue_max, int)


@pytest.mark.parametrize("value", ["maybe", 2, None, "", [True]])
def test_a_switch_must_be_true_or_false(value):
    with pytest.raises(InvalidSetting, match="`allow_network_path` must be true or false"):
        load({"allow_network_path": value})


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


def fill_up(agent):
    count = 0
    while True:
        try:
            agent.save("user", f"Number {count} " + "word " * 4000, id=f"id-{count}")
        except OverBudget as error:
            return count, str(error)
        count += 1


def test_a_full_memory_refuses_loudly_with_its_numbers_and_keeps_what_it_has(open_store):
    bob = open_store(max_db_size_mb=6).agent("bob")
    count, complaint = fill_up(bob)
    assert count > 50
    for part in ("6291456 bytes", "nothing was written", "`max_db_size_mb`", "'bob'"):
        assert part in complaint
    assert [message.id for message in bob.messages()] == [f"id-{n}" for n in range(count)]
    assert bob.usage().bytes.total <= 6 * (1 << 20)


def test_a_full_memory_can_be_made_room_in_by_deleting(open_store):
    """The way out that the error names has to be open."""
    bob = open_store(max_db_size_mb=6).agent("bob")
    count, _ = fill_up(bob)
    for n in range(20):
        assert bob.delete(f"id-{n}")
    bob.save("user", "There is room again", id="new")
    assert bob.get("new").content == "There is room again"
    assert bob.delete_session("default") == count - 19
    assert fill_up(bob)[0] > 50


def test_a_full_memory_still_answers(open_store):
    bob = open_store(max_db_size_mb=6).agent("bob")
    count, _ = fill_up(bob)
    assert bob.recall("number")
    assert len(bob.history()) == min(50, count)


def test_one_full_memory_does_not_stop_another(open_store):
    store = open_store(max_db_size_mb=6)
    fill_up(store.agent("bob"))
    store.agent("eve").save("user", "I have room", id="one")
    assert store.agent("eve").get("one").content == "I have room"


def test_each_limit_with_a_unit_has_it_in_bytes_too():
    config = Config(wal_limit_mb=1.5, max_message_kb=1.5, queue_max_mb=2, max_db_size_mb=3)
    assert (config.wal_limit_bytes, config.max_message_bytes) == (1_572_864, 1536)
    assert (config.queue_max_bytes, config.max_db_size_bytes) == (2 << 20, 3 << 20)
