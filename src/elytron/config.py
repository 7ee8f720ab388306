"""
Config: every bound and weight, with its unit, default and range.

`open(path, config=..., **settings)` reads them here: keywords win, then `ELYTRON_*` in the
environment, then the file or mapping. Checked whole; one bad value and nothing is opened.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elytron import config_values as values_of
from elytron.config_values import DAYS_RANGE, MB, nearest, shown
from elytron.config_values import RetentionRule as RetentionRule
from elytron.errors import InvalidSetting

# What the project's origin called a setting; accepted wherever the setting is.
ALIASES: Mapping[str, str] = {"max_messages_per_locrit": "max_messages_per_agent"}
_FILE_MAX_BYTES = MB  # a settings file is a page or two
_WAL_MIN_MB = 0.25
_PAGE_CACHE_MIN_MB = 0.1
_EMERGENCY_MIN = 2


def _bound(default: Any, low: float, high: float, doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"range": (low, high), "doc": doc})


def _choice(default: Any, check: Callable[[str, Any], Any], doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"check": check, "doc": doc})


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one store. Sizes in MB are of 1,048,576 bytes."""

    max_db_size_mb: float = _bound(
        100,
        1,
        1_000_000,
        "Bytes on disk of one agent: ledger, graph, and WAL, for which `wal_limit_mb` are kept"
        " free. Then the graph is deleted, and the least valuable messages are archived; where"
        " that cannot help, `OverBudget`.",
    )
    wal_limit_mb: float = _bound(
        4,
        _WAL_MIN_MB,
        1024,
        "Write-ahead log of one agent, at most half of `max_db_size_mb`. Bounds a `save_many` too,"
        " which is one commit.",
    )
    max_messages_per_agent: int = _bound(
        5000,
        1,
        100_000_000,
        "Messages that one agent holds; then the least valuable are archived. Also called"
        " `max_messages_per_locrit`.",
    )
    archive_after_days: float = _bound(
        30, *DAYS_RANGE, "Older messages are archived, while more than `keep_messages` are held."
    )
    keep_messages: int = _bound(
        1000, 0, 100_000_000, "The newest so many are never archived for their age."
    )
    retention_rules: tuple[RetentionRule, ...] = _choice(
        (),
        values_of.retention_rules,
        "Exceptions by role or session, at most 100; see below.",
    )
    max_archive_mb: float = _bound(
        500, 1, 10_000_000, "Archive of one agent. Then its oldest segment is dropped, and told."
    )
    max_total_mb: float | None = _bound(
        None, 2, 100_000_000, "Bytes on disk of the whole store; `off` for no such limit."
    )
    max_ram_mb: float = _bound(
        512,
        16,
        10_000_000,
        "Memory of the process for caches; then the least recently used agents are put to rest.",
    )
    reserve_mb: float = _bound(
        8, 0, 1024, "Kept on the disk, to be given up first when it is full; 0 for none."
    )
    soft_limit_ratio: float = _bound(
        0.9, 0.1, 1, "The share of a limit at which it is near: hooks are told."
    )
    auto_cleanup: bool = _choice(
        True,
        values_of.switch,
        "Clean up periodically and at a limit. If false, limits refuse instead of archiving.",
    )
    cleanup_interval_hours: float = _bound(
        24, 0.01, 87_600, "Time between two periodic clean-ups of an agent."
    )
    emergency_messages: int = _bound(
        5000,
        _EMERGENCY_MIN,
        100_000_000,
        "From so many messages on, `emergency_cleanup` archives the oldest half.",
    )
    change_max: int = _bound(
        20_000, 100, 10_000_000, "Changes kept for later readers; one further behind rebuilds."
    )
    page_cache_mb: float = _bound(
        2, _PAGE_CACHE_MIN_MB, 1024, "SQLite page cache of one connection."
    )
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
        values_of.language_names,
        "Stemmers, or none; the first where a text gives no sign. Kept by each agent (`reindex`).",
    )
    allow_network_path: bool = _choice(
        False,
        values_of.switch,
        "Open a store on a network file system, whose locks may not hold.",
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
    concept_weight: float = _bound(
        1,
        0,
        10,
        "Worth of naming a concept that is related to one in the question; 0 for words alone.",
    )

    engine: str = _choice(
        "ladybug", values_of.engine, "Graph engine: ladybug, or kuzu, which needs the extra `kuzu`."
    )
    max_open_graphs: int = _bound(
        16, 1, 1000, "Graph files that the worker has open; the least recently used is closed."
    )
    graph_buffer_mb: float = _bound(64, 32, 65_536, "Buffer pool of one graph, at most.")
    max_worker_mb: float = _bound(
        512, 128, 1_000_000, "Memory of the graph's worker process; beyond, it is replaced."
    )
    max_result_mb: float = _bound(16, 0.01, 1024, "Result of one Cypher query.")
    graph_timeout_s: float = _bound(10, 0.001, 3600, "How long one question to the graph may take.")
    graph_build_timeout_s: float = _bound(
        120, 0.001, 86_400, "How long a question may wait for the graph to be brought up to date."
    )
    graph_idle_s: float = _bound(
        300, 0.1, 86_400, "An unused graph is closed, and an unused worker ended, after that."
    )
    link_concepts: bool = _choice(
        True, values_of.switch, "Link messages to the concepts that they name, in the background."
    )
    propose_concepts: bool = _choice(
        True, values_of.switch, "Propose concepts from names and quoted terms that recur."
    )
    max_concepts: int = _bound(20_000, 1, 10_000_000, "Concepts of one agent.")

    enable_embeddings: bool = _choice(
        False,
        values_of.embeddings_switch,
        "Make a vector of each message. There are no embedders yet: true is refused.",
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _checked(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        """Two values may each be in range and yet not hold together."""
        _at_most(self, "wal_limit_mb", "max_db_size_mb", factor=2, words="more than half of")
        if self.max_message_bytes * 2 > self.wal_limit_bytes:
            raise _contradiction(self, "max_message_kb", "wal_limit_mb", "more than half of")
        _at_most(self, "keep_messages", "max_messages_per_agent")
        if self.max_total_mb is not None:
            _at_most(self, "max_db_size_mb", "max_total_mb")
        connections = self.max_connections + 1  # its readers, and the one that writes
        words = f"and an agent may have {connections} such caches, which is more than"
        _at_most(self, "page_cache_mb", "max_ram_mb", factor=connections, words=words)
        _at_most(self, "graph_buffer_mb", "max_worker_mb", factor=2, words="more than half of")

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

    @property
    def max_archive_bytes(self) -> int:
        return int(self.max_archive_mb * MB)

    @property
    def max_total_bytes(self) -> int | None:
        return None if self.max_total_mb is None else int(self.max_total_mb * MB)

    @property
    def max_ram_bytes(self) -> int:
        return int(self.max_ram_mb * MB)

    @property
    def max_worker_bytes(self) -> int:
        return int(self.max_worker_mb * MB)

    @property
    def graph_buffer_bytes(self) -> int:
        return int(self.graph_buffer_mb * MB)

    @property
    def max_result_bytes(self) -> int:
        return int(self.max_result_mb * MB)

    @property
    def reserve_bytes(self) -> int:
        return int(self.reserve_mb * MB)


FIELDS: Mapping[str, "dataclasses.Field[Any]"] = {f.name: f for f in dataclasses.fields(Config)}


def _checked(field: "dataclasses.Field[Any]", value: Any, name: str | None = None) -> Any:
    """The value in the field's own type, or `InvalidSetting` with its name and range."""
    title = f"`{name or field.name}`"
    if "check" in field.metadata:
        return field.metadata["check"](title, value)
    optional = field.default is None
    if optional and values_of.is_off(value):
        return None
    low, high = field.metadata["range"]
    return values_of.number(
        title,
        value,
        low=low,
        high=high,
        whole=field.type is int,
        instead=", or off" if optional else "",
    )


def _at_most(
    config: Config, low: str, high: str, *, factor: float = 1, words: str = "more than"
) -> None:
    if getattr(config, low) * factor > getattr(config, high):
        raise _contradiction(config, low, high, words)


def _contradiction(config: Config, low: str, high: str, words: str) -> InvalidSetting:
    # Ten digits, so that two numbers that differ also look different.
    return InvalidSetting(
        f"`{low}` is {getattr(config, low):,.10g}, {words} `{high}`, which is"
        f" {getattr(config, high):,.10g}; lower the one or raise the other"
    )


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
    if isinstance(config, Config):
        values.update({name: getattr(config, name) for name in FIELDS})
    elif isinstance(config, Mapping):
        values.update(_named(_flat(config, "config")))
    elif isinstance(config, str | Path):
        values.update(_named(_flat(_read_yaml(Path(config)), str(config))))
    elif config is not None:
        raise InvalidSetting(f"config must be a path, a mapping or a Config; got {shown(config)}")
    # ELYTRON_CONFIG and ELYTRON_STORE name files, for the faces; they are no settings.
    variables = {
        key.removeprefix("ELYTRON_").lower(): key
        for key in environ or {}
        if key.startswith("ELYTRON_") and key not in ("ELYTRON_CONFIG", "ELYTRON_STORE")
    }
    outside = {name: (environ or {})[key] for name, key in variables.items()}
    values.update(_named(outside, variables))
    values.update(_named(settings or {}))
    _yield_defaults(values)
    return Config(**values)


def _named(given: Mapping[str, Any], variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """
    The settings of one source by their own names.

    An alias and its setting may both be there if they say the same; between two sources the
    stronger wins, whichever name it uses.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in FIELDS and name not in ALIASES:
            whence = f" (from {variables[name]} in the environment)" if variables else ""
            hint = nearest(name, (*FIELDS, *ALIASES))
            raise InvalidSetting(f"unknown setting `{name}`{whence}{hint}")
        if name in FIELDS:
            values[name] = value
    for alias, name in ALIASES.items():
        if alias not in given:
            continue
        value = _checked(FIELDS[name], given[alias], alias)
        other = _checked(FIELDS[name], values.get(name, value))
        if value != other:
            raise InvalidSetting(
                f"`{alias}` is {value:,} and `{name}` is {other:,}, but they are one setting;"
                " leave one of them out"
            )
        values[name] = value
    return values


def _yield_defaults(values: dict[str, Any]) -> None:
    """
    Only two values that a person set can contradict each other: a default gives way.

    In this order, since each takes the ones before it as settled.
    """
    given = {name: _checked(FIELDS[name], value) for name, value in values.items()}

    def now(name: str) -> Any:
        return given.get(name, FIELDS[name].default)

    def default(name: str, value: float) -> None:
        if name not in values:
            given[name] = values[name] = value

    total_mb = now("max_total_mb")
    if total_mb is not None:
        default("max_db_size_mb", min(now("max_db_size_mb"), total_mb))
        default("reserve_mb", min(now("reserve_mb"), total_mb / 16))
    default("wal_limit_mb", _default_wal_mb(given))
    default("max_message_kb", min(now("max_message_kb"), now("wal_limit_mb") * 1024 / 4))
    if "keep_messages" in values:
        default("max_messages_per_agent", max(now("max_messages_per_agent"), now("keep_messages")))
    default("keep_messages", min(now("keep_messages"), now("max_messages_per_agent")))
    most = max(_EMERGENCY_MIN, now("max_messages_per_agent"))
    default("emergency_messages", min(now("emergency_messages"), most))
    if "graph_buffer_mb" in values:
        default("max_worker_mb", max(now("max_worker_mb"), 2 * now("graph_buffer_mb")))
    if "page_cache_mb" in values:
        # Room for one busy agent at least, since that much is asked for.
        least_mb = now("page_cache_mb") * (now("max_connections") + 1)
        default("max_ram_mb", max(now("max_ram_mb"), least_mb))
    # Every reader in use and, of each open agent, a spare one and the one that writes.
    connections = now("max_readers") + 2 * now("max_open_agents") + now("writer_threads")
    connections = max(connections, now("max_connections") + 1)
    fair_mb = max(_PAGE_CACHE_MIN_MB, now("max_ram_mb") / 2 / connections)
    default("page_cache_mb", min(now("page_cache_mb"), fair_mb))


def _default_wal_mb(given: Mapping[str, Any]) -> float:
    """The WAL's limit where nobody set it: a share of what the agent, and the store, may take."""
    db_mb = given.get("max_db_size_mb", FIELDS["max_db_size_mb"].default)
    share_mb = db_mb / 4
    if given.get("max_total_mb") is not None:
        # Every open agent may have a WAL of that size.
        agents = given.get("max_open_agents", FIELDS["max_open_agents"].default)
        share_mb = min(share_mb, given["max_total_mb"] / (8 * agents))
    usual_mb = max(_WAL_MIN_MB, min(FIELDS["wal_limit_mb"].default, share_mb))
    # Where the size of a message was set, the log makes room for it, within the agent's own.
    message_mb = given.get("max_message_kb", 0) / 1024
    return float(max(usual_mb, min(2 * message_mb, db_mb / 2)))


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
