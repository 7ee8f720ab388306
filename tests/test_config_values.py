"""Kinds of setting: switches, a limit that may be absent, and the rules of retention."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from elytron import Config, InvalidSetting
from elytron.config import RetentionRule
from elytron.config_sources import load

SWITCHES = ("allow_network_path", "auto_cleanup", "enable_embeddings")
DOCS = Path(__file__).parents[1] / "docs"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "settings.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def repr_of(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize(
    "value", ["maybe", 2, -1, 10**5000, 1.5, None, "", [True], {}], ids=repr_of
)
def test_a_switch_must_be_true_or_false(name, value):
    with pytest.raises(InvalidSetting, match=f"`{name}` must be true or false"):
        load({name: value})


@pytest.mark.parametrize("value", [False, "false", "False", "0", 0, "no", "off", " OFF "])
def test_a_switch_is_turned_off_in_many_words(value):
    for name in SWITCHES:
        assert getattr(load({name: value}), name) is False


@pytest.mark.parametrize("value", [True, "true", "TRUE", "1", 1, "yes", "on"])
def test_a_switch_is_turned_on_in_many_words(value):
    for name in SWITCHES:
        assert getattr(load({name: value}), name) is True


# -- a limit that may be absent


@pytest.mark.parametrize("value", [None, "off", "OFF", "none", " None ", False])
def test_the_total_may_have_no_limit(value):
    config = load({"max_total_mb": value})
    assert (config.max_total_mb, config.max_total_bytes) == (None, None)
    assert config == Config(max_total_mb=value) == Config()


@pytest.mark.parametrize("text", ["off", "none", "null", "~", "no", '"off"'])
def test_the_total_may_be_turned_off_in_a_file(tmp_path, text):
    assert load(written(tmp_path, f"max_total_mb: {text}")).max_total_mb is None


@pytest.mark.parametrize("value", [True, "", "on", 0, 1, 1.9, [None], "nil"])
def test_a_total_that_is_no_number_is_told_that_it_may_be_off(value):
    with pytest.raises(
        InvalidSetting, match=r"`max_total_mb` must be a number from 2 to 100,000,000, or off; got"
    ):
        load({"max_total_mb": value})


# -- retention rules

RULES = [
    {"role": "system", "pinned": True},
    {"session": "web-*", "archive_after_days": 7, "importance": 0.2},
    {"role": "tool", "session": "[a-c]?", "pinned": False},
]
RULES_KEPT = (
    RetentionRule(role="system", pinned=True),
    RetentionRule(session="web-*", archive_after_days=7.0, importance=0.2),
    RetentionRule(role="tool", session="[a-c]?", pinned=False),
)


def test_retention_rules_are_taken_from_everywhere(tmp_path):
    text = json.dumps(RULES)
    for config in (
        load({"retention_rules": RULES}),
        load(None, {"retention_rules": tuple(RULES)}),
        load(None, {"retention_rules": text}),
        load(environ={"ELYTRON_RETENTION_RULES": text}),
        load(written(tmp_path, f"retention_rules: {text}")),
        load({"retention_rules": RULES_KEPT}),
        Config(retention_rules=RULES),
    ):
        assert config.retention_rules == RULES_KEPT
        assert load(config) == config
    for none in ([], (), "[]"):
        assert load({"retention_rules": none}).retention_rules == ()
    assert load({"retention_rules": [RULES[0]] * 100}).retention_rules == RULES_KEPT[:1] * 100


def test_the_rules_in_the_documents_are_rules(tmp_path):
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    (block,) = (part for part in re.findall(r"```yaml\n(.*?)```", text, re.S) if "rules" in part)
    assert load(written(tmp_path, block)).retention_rules == RULES_KEPT[:2]
    (variable,) = re.findall(r"`ELYTRON_RETENTION_RULES='(.*)'`", text)
    assert load(None, {"retention_rules": variable}).retention_rules == RULES_KEPT[:1]


def test_a_rule_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RULES_KEPT[0].pinned = False


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        (None, "must be a list of rules"),
        (7, "must be a list of rules"),
        (True, "must be a list of rules"),
        (RULES[0], "must be a list of rules"),
        ("{}", "must be a list of rules"),
        ("", "is not JSON"),
        ("[{", "is not JSON"),
        ("system", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[" + "9" * 5000 + "]", "is not JSON"),
        ([RULES[0]] * 101, "holds 101 rules, at most 100"),
        ([RULES[0], 7], "rule 2 of `retention_rules` must be a mapping"),
        (["system"], "rule 1 of `retention_rules` must be a mapping"),
        ([{}], "rule 1 of `retention_rules` does not say which.*`role` or `session`"),
        ([{"pinned": True}], "does not say which messages it is for; give `role` or `session`"),
        ([{"role": "user"}], "does not say what it does; give `pinned` or `archive_after_days`"),
        ([RetentionRule(role="user")], "does not say what it does"),
        ([RetentionRule(pinned=True)], "does not say which messages"),
        ([{"rol": "user", "pinned": True}], "unknown member 'rol'; did you mean `role`?"),
        ([{"role": "user", "pined": 1}], "unknown member 'pined'; did you mean `pinned`?"),
        ([{"role": "user", "archive_after": 1}], "did you mean `archive_after_days`?"),
        ([{"role": "user", "qqq": 1}], "unknown member 'qqq'$"),
        ([{7: "user", "pinned": True}], "unknown member 7"),
        ([{"role": "usr", "pinned": True}], "must be one of system, .*; did you mean `user`?"),
        ([{"role": "User", "pinned": True}], "must be one of"),
        ([{"role": None, "session": "a", "pinned": True}], "`role` in rule 1 of `retention_rules`"),
        ([{"role": ["user"], "pinned": True}], "must be one of"),
        ([{"session": "", "pinned": True}], "must be a glob of 1 to 200 characters"),
        ([{"session": "x" * 201, "pinned": True}], "must be a glob of 1 to 200 characters"),
        ([{"session": 7, "pinned": True}], "must be a glob of 1 to 200 characters"),
        ([{"role": "user", "pinned": "often"}], "`pinned` in rule 1 .* must be true or false"),
        ([{"role": "user", "pinned": None}], "must be true or false"),
        ([{"role": "user", "importance": 1.01}], "`importance` in rule 1 .* from 0 to 1; got"),
        ([{"role": "user", "importance": -0.01}], "from 0 to 1"),
        ([{"role": "user", "importance": True}], "from 0 to 1"),
        ([{"role": "user", "importance": float("nan")}], "from 0 to 1"),
        ('[{"role": "user", "importance": NaN}]', "from 0 to 1"),
        ([{"role": "user", "archive_after_days": 0}], r"from 0\.01 to 36,500"),
        ([{"role": "user", "archive_after_days": 36_501}], r"from 0\.01 to 36,500"),
        ([{"role": "user", "archive_after_days": "long"}], r"from 0\.01 to 36,500"),
    ],
)
def test_a_rule_that_cannot_hold_is_told_which_and_why(rules, complaint):
    with pytest.raises(InvalidSetting, match=f"`retention_rules`.*{complaint}|{complaint}") as told:
        load({"retention_rules": rules})
    assert "`retention_rules`" in str(told.value)
    assert len(str(told.value)) < 400


def test_the_ends_of_a_rules_ranges_are_taken():
    for importance, days in ((0, 0.01), (1, 36_500), ("0.5", "7")):
        rule = {"session": "x" * 200, "importance": importance, "archive_after_days": days}
        (kept,) = load({"retention_rules": [rule]}).retention_rules
        assert (kept.importance, kept.archive_after_days) == (float(importance), float(days))


def test_the_embedder_that_a_config_names_is_the_one_that_is_turned_on():
    config = Config(embedder="wordllama")
    assert not load(config).enable_embeddings, "nobody has turned it on"
    assert load(config).embedder == "wordllama"
    on = load(config, {"enable_embeddings": True})
    assert (on.enable_embeddings, on.embedder) == (True, "wordllama")
    on = load(config, environ={"ELYTRON_ENABLE_EMBEDDINGS": "yes"})
    assert (on.enable_embeddings, on.embedder) == (True, "wordllama")
    given = load(config, {"embedder": "ollama:other"})
    assert (given.enable_embeddings, given.embedder) == (True, "ollama:other")
    assert not load(config, {"embedder": "wordllama", "enable_embeddings": False}).enable_embeddings
