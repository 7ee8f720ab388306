"""
Config: every bound and weight, with its unit, default and range.

`open(path, config=..., **settings)` reads them here: keywords win, then `ELYTRON_*` in the
environment, then the file or mapping. Checked whole; one bad value and nothing is opened.
"""

import dataclasses
import difflib
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elytron.errors import InvalidSetting

MB = 1 << 20
_FILE_MAX_BYTES = MB  # a settings file is a page or two


def _bound(default: Any, low: float, high: float, doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"range": (low, high), "doc": doc})


def _choice(default: Any, doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one store. Sizes in MB are of 1,048,576 bytes."""

    max_db_size_mb: float = _bound(
        100,
        1,
        1_000_000,
        "Bytes on disk of one agent: ledger and WAL, for which `wal_limit_mb` are kept free. Then"
        " `OverBudget`.",
    )
    wal_limit_mb: float = _bound(
        4,
        0.25,
        1024,
        "Write-ahead log of one agent, at most half of `max_db_size_mb`. Bounds a `save_many` too,"
        " which is one commit.",
    )
    change_max: int = _bound(
        20_000, 100, 10_000_000, "Changes kept for later readers; one further behind rebuilds."
    )
    page_cache_mb: float = _bound(2, 0.1, 1024, "SQLite page cache of one connection.")
    queue_max: int = _bound(10_000, 1, 1_000_000, "Messages waiting to be committed, in the store.")
    queue_max_mb: float = _bound(64, 1, 65_536, "The same in bytes.")
    batch_max: int = _bound(256, 1, 10_000, "Waiting saves committed together.")
    save_timeout_s: float = _bound(30, 0.001, 3600, "How long a write may wait. Then `Busy`.")
    read_timeout_s: float = _bound(10, 0.001, 3600, "How long a read may wait. Then `Busy`.")
    max_connections: int = _bound(5, 1, 100, "Reader connections of one agent.")
    max_readers: int = _bound(32, 1, 10_000, "Reader connections in use at once, in the store.")
    max_open_agents: int = _bound(
        40, 1, 10_000, "Agents with open files; the least recently used is put to rest."
    )
    writer_threads: int = _bound(
        2, 1, 64, "Threads that commit what `submit` and the async face queued."
    )
    async_threads: int = _bound(
        8, 1, 64, "Threads behind the async face, for all verbs but `save`."
    )
    max_message_kb: float = _bound(
        256, 1, 65_536, "Content of one message, and its metadata. At most half of the WAL."
    )
    max_query_rows: int = _bound(10_000, 1, 1_000_000, "The largest `limit` that a read accepts.")
    max_query_terms: int = _bound(64, 1, 1000, "Different words of a question that are used.")
    max_future_s: float = _bound(
        86_400, 0, 31_622_400, "How far ahead of the clock a message's time may be."
    )
    languages: tuple[str, ...] = _choice(
        ("english", "french"),
        "Stemmers, or none; the first where a text gives no sign. Kept by each agent (`reindex`).",
    )
    allow_network_path: bool = _choice(
        False, "Open a store on a network file system, whose locks may not hold."
    )
    candidates_max: int = _bound(200, 10, 10_000, "Messages rescored for one question.")
    common_word_ratio: float = _bound(
        0.05, 0, 1, "Words in a larger share of the messages (and over 1000) find no candidates."
    )
    bm25_k1: float = _bound(1.2, 0, 10, "Saturation of a word's frequency.")
    bm25_b: float = _bound(0.9, 0, 1, "How much length counts against a message.")
    neighbour_weight: float = _bound(
        0.3, 0, 10, "Share of the scores of the previous and next message that is added."
    )
    session_weight: float = _bound(
        0.5, 0, 10, "Share of the mean of the session's three best that is added."
    )
    speaker_weight: float = _bound(
        1.1, 0, 10, "Factor for messages of the one speaker whom the question names."
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _checked(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if self.wal_limit_mb * 2 > self.max_db_size_mb:
            raise InvalidSetting(
                f"`wal_limit_mb` is {self.wal_limit_mb:g}, more than half of `max_db_size_mb`,"
                f" which is {self.max_db_size_mb:g}; lower the one or raise the other"
            )
        if self.max_message_bytes * 2 > self.wal_limit_bytes:
            raise InvalidSetting(
                f"`max_message_kb` is {self.max_message_kb:g}, more than half of `wal_limit_mb`,"
                f" which is {self.wal_limit_mb:g}; lower the one or raise the other"
            )

    @property
    def wal_limit_bytes(self) -> int:
        return int(self.wal_limit_mb * MB)

    @property
    def commit_bytes(self) -> int:
        """What one commit of many parts writes, so that it fits into the WAL beside others."""
        return self.wal_limit_bytes // 4

    @property
    def max_db_size_bytes(self) -> int:
        return int(self.max_db_size_mb * MB)

    @property
    def max_message_bytes(self) -> int:
        return int(self.max_message_kb * 1024)

    @property
    def queue_max_bytes(self) -> int:
        return int(self.queue_max_mb * MB)


FIELDS: Mapping[str, "dataclasses.Field[Any]"] = {f.name: f for f in dataclasses.fields(Config)}


def _checked(field: "dataclasses.Field[Any]", value: Any) -> Any:
    """The value in the field's own type, or `InvalidSetting` with its name and range."""
    name = field.name
    if name == "languages":
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
            raise InvalidSetting(
                f"`languages` must be names, as english,french; got {_shown(value)}"
            )
        return tuple(dict.fromkeys(n.strip().lower() for n in names))
    if name == "allow_network_path":
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        checked = known.get(str(value).lower())
        if checked is None:
            raise InvalidSetting(f"`{name}` must be true or false; got {_shown(value)}")
        return checked
    low, high = field.metadata["range"]
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    whole = isinstance(field.default, int) and field.type is int
    if not low <= number <= high or (whole and number != int(number)):
        kind = "a whole number" if whole else "a number"
        raise InvalidSetting(
            f"`{name}` must be {kind} from {low:,} to {high:,}; got {_shown(value)}"
        )
    return int(number) if whole else number


def _shown(value: object) -> str:
    """A value as it may stand in a message, cut where it is long."""
    return reprlib.repr(value)[:100]


def load(
    config: str | Path | Mapping[str, Any] | Config | None = None,
    settings: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """
    Gather the settings from everywhere and check them.

    Args:
        config: a YAML file, a mapping, or a `Config`. A top-level `memory:` block is read as
            if it were the whole.
        settings: keywords; they win over everything.
        environ: the environment; `ELYTRON_QUEUE_MAX=100` sets `queue_max`.

    Raises:
        InvalidSetting: an unknown name (the nearest known one is given), a value out of its
            range, or a file that cannot be read.
    """
    values: dict[str, Any] = {}
    variables = {}
    if isinstance(config, Config):
        values.update({name: getattr(config, name) for name in FIELDS})
    elif isinstance(config, Mapping):
        values.update(_flat(config, "config"))
    elif isinstance(config, str | Path):
        values.update(_flat(_read_yaml(Path(config)), str(config)))
    elif config is not None:
        raise InvalidSetting(f"config must be a path, a mapping or a Config; got {_shown(config)}")
    for key, value in (environ or {}).items():
        name = key.removeprefix("ELYTRON_").lower()
        # ELYTRON_CONFIG and ELYTRON_STORE name files, for the faces; they are no settings.
        if key.startswith("ELYTRON_") and name not in ("config", "store"):
            values[name] = value
            variables[name] = f" (from {key} in the environment)"
    values.update(settings or {})
    for name in values:
        if name not in FIELDS:
            near = difflib.get_close_matches(str(name), FIELDS, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise InvalidSetting(f"unknown setting `{name}`{variables.get(name, '')}{hint}")
    _yield_defaults(values)
    return Config(**values)


def _yield_defaults(values: dict[str, Any]) -> None:
    """Only two values that a person set can contradict each other: a default gives way."""
    set_mb = [_checked(FIELDS[n], values[n]) for n in ("max_db_size_mb",) if n in values]
    if set_mb and "wal_limit_mb" not in values:
        values["wal_limit_mb"] = min(FIELDS["wal_limit_mb"].default, set_mb[0] / 4)
    if "wal_limit_mb" in values and "max_message_kb" not in values:
        wal_kb = _checked(FIELDS["wal_limit_mb"], values["wal_limit_mb"]) * 1024
        values["max_message_kb"] = min(FIELDS["max_message_kb"].default, wal_kb / 4)


def _flat(mapping: Mapping[str, Any], source: str) -> dict[str, Any]:
    inner = mapping.get("memory", mapping)
    if not isinstance(inner, Mapping):
        raise InvalidSetting(f"{source}: `memory:` must hold settings")
    return {str(name): value for name, value in inner.items()}


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml  # only where a file is given: it costs 15 ms

    try:
        with path.open("rb") as file:
            data = file.read(_FILE_MAX_BYTES + 1)
        if len(data) > _FILE_MAX_BYTES:
            raise InvalidSetting(f"settings file {path} is over {_FILE_MAX_BYTES} bytes")
        parsed = yaml.safe_load(data)
    except OSError as error:
        raise InvalidSetting(f"settings file {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The last three from values that call themselves a date or a number.
        raise InvalidSetting(f"settings file {path} is not YAML: {error!s:.500}") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, Mapping):
        raise InvalidSetting(f"settings file {path} must hold names and values")
    return parsed
