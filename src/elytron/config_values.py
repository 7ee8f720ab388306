"""
Values: what each kind of setting accepts, and how a refused value is shown.

`config` says which settings there are; here is what a number, a switch, a list of names or a
retention rule may look like in YAML, in the environment (text) and as a keyword.
"""

import dataclasses
import difflib
import json
import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elytron.errors import InvalidSetting
from elytron.records import ROLES

MB = 1 << 20
DAYS_RANGE = (0.01, 36_500)
_RULES_MAX = 100
_GLOB_MAX = 200  # characters
_TEXT_MAX = 1000  # characters
_SCHEMA = re.compile("[a-z_][a-z0-9_]{0,62}")
ENGINES = ("ladybug", "kuzu")
_SWITCHES = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """
    What holds for the messages of one role, or of the sessions whose id matches a glob.

    Where both are given, both have to match. For each effect the first matching rule that sets
    it decides; None leaves it to a later rule, and then to the general settings.
    """

    role: str | None = None
    session: str | None = None
    pinned: bool | None = None
    archive_after_days: float | None = None
    importance: float | None = None


_MEMBERS = tuple(field.name for field in dataclasses.fields(RetentionRule))
_MATCHERS, _EFFECTS = _MEMBERS[:2], _MEMBERS[2:]


def shown(value: object) -> str:
    """A value as it may stand in a message, cut where it is long."""
    try:
        return reprlib.repr(value)[:100]
    except ValueError:  # an `int` with more digits than Python writes out
        return f"a huge {type(value).__name__}"


def nearest(name: object, known: Iterable[str]) -> str:
    """A hint at the known name that comes nearest; empty where none comes near."""
    near = difflib.get_close_matches(str(name)[:_GLOB_MAX], list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def number(
    title: str, value: Any, *, low: float, high: float, whole: bool = False, instead: str = ""
) -> float:
    """
    A number in its range, an `int` where *whole* asks for it. A switch is no number.

    *instead* tells what else the caller would have taken.
    """
    try:
        checked = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        checked = math.nan
    if not low <= checked <= high or (whole and checked != int(checked)):
        kind = "a whole number" if whole else "a number"
        raise InvalidSetting(
            f"{title} must be {kind} from {low:,} to {high:,}{instead}; got {shown(value)}"
        )
    return int(checked) if whole else checked


def is_off(value: Any) -> bool:
    """Whether a limit that may be absent is. YAML reads a bare `off` as false."""
    return (
        value is None
        or value is False
        or (isinstance(value, str) and value.strip().lower() in ("off", "none"))
    )


def switch(title: str, value: Any) -> bool:
    """True or false, also in the words that a shell or a file uses for them."""
    # Only short plain values are turned into text: what YAML holds may be endless written out.
    plain = isinstance(value, str | bool) or (isinstance(value, int) and value in (0, 1))
    checked = _SWITCHES.get(str(value).strip().lower()) if plain else None
    if checked is None:
        raise InvalidSetting(f"{title} must be true or false; got {shown(value)}")
    return checked


def engine(title: str, value: Any) -> str:
    """The name of a graph engine."""
    if not isinstance(value, str) or value.strip().lower() not in ENGINES:
        raise InvalidSetting(f"{title} must be one of {', '.join(ENGINES)}; got {shown(value)}")
    return value.strip().lower()


def text(title: str, value: Any) -> str:
    """A short text, without what cannot be printed."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise InvalidSetting(f"{title} must be a text; got {shown(value)}")
    if len(value) > _TEXT_MAX:
        raise InvalidSetting(f"{title} has {len(value)} characters, at most {_TEXT_MAX}")
    return value.strip()


def folder(title: str, value: Any) -> str:
    """The path of a folder."""
    return text(title, str(value) if isinstance(value, Path) else value)


def schema(title: str, value: Any) -> str:
    """A name of a schema that needs no quotes anywhere, and is none of PostgreSQL's own."""
    if not isinstance(value, str) or not _SCHEMA.fullmatch(value) or value.startswith("pg_"):
        raise InvalidSetting(
            f"{title} must be 1 to 63 of a-z, 0-9 and _, not beginning with a digit or pg_; got"
            f" {shown(value)}"
        )
    return value


def optional_text(title: str, value: Any) -> str | None:
    """The same, or none."""
    return None if is_off(value) else text(title, value)


def role_names(title: str, value: Any) -> tuple[str, ...]:
    """Roles of messages, each once; none is allowed."""
    names = [name for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise InvalidSetting(f"{title} must be roles, as user,assistant; got {shown(value)}")
    for name in names:
        if name.strip() not in ROLES:
            raise InvalidSetting(
                f"{title} has the role {shown(name)}; there are {', '.join(ROLES)}"
                f"{nearest(name, ROLES)}"
            )
    return tuple(dict.fromkeys(n.strip() for n in names))


def language_names(title: str, value: Any) -> tuple[str, ...]:
    """Names, lower case, each once. Whether there is such a stemmer is for `text` to say."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise InvalidSetting(f"{title} must be names, as english,french; got {shown(value)}")
    return tuple(dict.fromkeys(n.strip().lower() for n in names))


def retention_rules(title: str, value: Any) -> tuple[RetentionRule, ...]:
    """Rules from a list of mappings or of `RetentionRule`s, or from JSON text of such a list."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InvalidSetting(f"{title} is not JSON: {error!s:.200}") from error
    if not isinstance(value, list | tuple):
        raise InvalidSetting(
            f'{title} must be a list of rules, as [{{"role": "system", "pinned": true}}];'
            f" got {shown(value)}"
        )
    if len(value) > _RULES_MAX:
        raise InvalidSetting(
            f"{title} holds {len(value):,} rules, at most {_RULES_MAX}; a rule may match many"
            " sessions by a glob, as web-*"
        )
    return tuple(_rule(f"rule {n} of {title}", rule) for n, rule in enumerate(value, 1))


def _rule(title: str, rule: Any) -> RetentionRule:
    if isinstance(rule, RetentionRule):
        given = {name: getattr(rule, name) for name in _MEMBERS}
        rule = {name: value for name, value in given.items() if value is not None}
    if not isinstance(rule, Mapping):
        raise InvalidSetting(f"{title} must be a mapping, as role: system; got {shown(rule)}")
    for name in rule:
        if name not in _MEMBERS:
            raise InvalidSetting(
                f"{title} has an unknown member {shown(name)}{nearest(name, _MEMBERS)}"
            )
    for needed, what in ((_MATCHERS, "which messages it is for"), (_EFFECTS, "what it does")):
        if not any(name in rule for name in needed):
            listed = " or ".join(f"`{name}`" for name in needed)
            raise InvalidSetting(f"{title} does not say {what}; give {listed}")
    return RetentionRule(**{n: _member(f"`{n}` in {title}", n, v) for n, v in rule.items()})


def _member(title: str, name: str, value: Any) -> Any:
    if name == "role":
        if value not in ROLES:
            raise InvalidSetting(
                f"{title} must be one of {', '.join(ROLES)}; got {shown(value)}"
                f"{nearest(value, ROLES) if isinstance(value, str) else ''}"
            )
        return value
    if name == "session":
        if not isinstance(value, str) or not 1 <= len(value) <= _GLOB_MAX:
            raise InvalidSetting(
                f"{title} must be a glob of 1 to {_GLOB_MAX} characters, as web-*;"
                f" got {shown(value)}"
            )
        return value
    if name == "pinned":
        return switch(title, value)
    low, high = DAYS_RANGE if name == "archive_after_days" else (0, 1)
    return number(title, value, low=low, high=high)
