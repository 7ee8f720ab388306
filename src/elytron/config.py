"""
Config: every bound and weight, with its unit, default and range.

Checked whole; one bad value and nothing is opened. Where the values come from is in
`config_sources.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from elytron import config_values as values_of
from elytron.config_values import DAYS_RANGE, MB
from elytron.config_values import RetentionRule as RetentionRule
from elytron.errors import InvalidSetting

WAL_MIN_MB = 0.25
PAGE_CACHE_MIN_MB = 0.1
EMERGENCY_MIN = 2


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
        WAL_MIN_MB,
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
        500,
        1,
        10_000_000,
        "Archive of one agent, an eighth of it kept free. Then its oldest segment is dropped, and"
        " told.",
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
        2500,
        EMERGENCY_MIN,
        100_000_000,
        "From so many messages on, `emergency_cleanup` archives the oldest half. Half of"
        " `max_messages_per_agent`, at most 5,000, if that alone is set.",
    )
    change_max: int = _bound(
        20_000, 100, 10_000_000, "Changes kept for later readers; one further behind rebuilds."
    )
    page_cache_mb: float = _bound(
        2, PAGE_CACHE_MIN_MB, 1024, "SQLite page cache of one connection."
    )
    queue_max: int = _bound(10_000, 1, 1_000_000, "Messages waiting to be committed, in the store.")
    queue_max_mb: float = _bound(64, 1, 65_536, "The same in bytes.")
    batch_max: int = _bound(256, 1, 10_000, "Waiting saves committed together.")
    save_timeout_s: float = _bound(30, 0.001, 3600, "How long a write may wait. Then `Busy`.")
    read_timeout_s: float = _bound(10, 0.001, 3600, "How long a read may wait. Then `Busy`.")
    max_connections: int = _bound(5, 1, 100, "Reader connections of one agent.")
    max_readers: int = _bound(32, 1, 10_000, "Reader connections in use at once, in the store.")
    max_open_agents: int = _bound(
        40,
        1,
        10_000,
        "Agents with open files; the least recently used is put to rest. On PostgreSQL 25 times as"
        " many may be open, since none has files.",
    )
    writer_threads: int = _bound(
        2, 1, 64, "Threads that commit what `submit` and the async face queued."
    )
    async_threads: int = _bound(
        8, 1, 64, "Threads behind the async face, for all verbs but `save`."
    )
    max_message_kb: float = _bound(
        256,
        1,
        65_536,
        "Content of one message, and its metadata. At most half of the WAL, or archive.",
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
    files_path: str = _choice(
        "data/elytron-files",
        values_of.folder,
        "Of a store on PostgreSQL: the folder of its archives, its graphs and the locks of its"
        " chores. One folder a store: another one is refused.",
    )
    postgres_schema: str = _choice(
        "elytron", values_of.schema, "The schema of a store on PostgreSQL; one schema a store."
    )
    postgres_connections: int = _bound(
        32, 2, 1000, "Connections to PostgreSQL of one process; half of them only read."
    )
    candidates_max: int = _bound(100, 10, 10_000, "Messages rescored for one question.")
    common_word_ratio: float = _bound(
        0.05, 0, 1, "Words in a larger share of the messages (and over 1000) find no candidates."
    )
    bm25_k1: float = _bound(1.2, 0, 10, "Saturation of a word's frequency.")
    bm25_b: float = _bound(0.9, 0, 1, "How much length counts against a message.")
    neighbour_weight: float = _bound(
        0.6, 0, 1, "Worth of a word that stands in the previous or next message instead."
    )
    second_neighbour_weight: float = _bound(
        0.4, 0, 1, "Worth of one that stands two messages before or after."
    )
    answer_weight: float = _bound(
        1.5,
        0,
        10,
        "Factor for words of a message that asks, in those after it; not where an assistant"
        " speaks.",
    )
    coverage_weight: float = _bound(
        0.5, 0, 1, "How much it counts that many of the question's words are held, not one often."
    )
    vector_weight: float = _bound(
        0.5, 0, 1, "Part of vectors in the score; the rest is that of words."
    )
    length_prior_words: float = _bound(
        6, 0, 1000, "Vectors of texts much shorter than this count less."
    )
    vector_neighbour_weight: float = _bound(
        0.1, 0, 1, "Share of the vectors of the previous and next message that is added."
    )
    session_weight: float = _bound(
        0.5, 0, 10, "Share of the mean of the session's three best that is added."
    )
    speaker_weight: float = _bound(
        1.2, 0, 10, "Factor for messages of the one speaker whom the question names."
    )
    user_weight: float = _bound(
        1.5, 0, 10, "Factor for messages of the role user, where an assistant answers them."
    )
    memory_weight: float = _bound(1.5, 0, 10, "Factor for memories beside messages.")
    asking_weight: float = _bound(
        0.3, 0, 1, "How much less a message is worth that only asks questions."
    )
    when_weight: float = _bound(
        0.3, 0, 10, "What telling a time adds to a message where the question asks for one."
    )
    date_weight: float = _bound(
        0.5, 0, 10, "What being of, or telling of, the date that the question names adds."
    )
    importance_weight: float = _bound(
        0.1, 0, 1, "What an importance of 1 adds to a hit, and one of 0 takes from it."
    )
    pin_weight: float = _bound(0.1, 0, 10, "What being pinned adds to a hit.")
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
        values_of.switch,
        "Make a vector of each message, in the background, and use them in recall. On where an"
        " `embedder` was set and this was not.",
    )
    embedder: str = _choice(
        "ollama",
        values_of.text,
        "What makes them: ollama, openai (any compatible endpoint), fastembed,"
        " sentence-transformers or wordllama; or, as a keyword, a function. Kept by each agent"
        " (`reembed`).",
    )
    embedding_model: str | None = _choice(
        None, values_of.optional_text, "Its model; each has a default. Kept by each agent."
    )
    embedding_url: str | None = _choice(
        None, values_of.optional_text, "Where ollama or the compatible endpoint is."
    )
    embedding_key_env: str | None = _choice(
        None,
        values_of.optional_text,
        "The environment variable that holds the endpoint's key; OPENAI_API_KEY for OpenAI's own.",
    )
    embed_roles: tuple[str, ...] = _choice(
        ("user", "assistant"), values_of.role_names, "Messages of other roles get no vector."
    )
    min_embed_chars: int = _bound(20, 0, 1_000_000, "Nor do those of fewer characters.")
    embed_batch_max: int = _bound(64, 1, 1000, "Texts in one call of the embedder.")
    embed_batch_kb: float = _bound(256, 1, 65_536, "The same in size, of more than one text.")
    embed_timeout_s: float = _bound(60, 0.05, 600, "How long one such call may take.")
    embed_query_timeout_s: float = _bound(
        2, 0.01, 600, "How long a question waits for its vector; then words alone answer."
    )
    embed_threads: int = _bound(2, 1, 64, "Threads that call the embedder.")
    max_vector_mb: float = _bound(
        25,
        0.01,
        1_000_000,
        "Vectors of one agent, and never more than half of `max_db_size_mb`, within which they are."
        " Then those of the least valuable messages go; the messages stay.",
    )
    vector_dims: int = _bound(
        128, 0, 8192, "Dimensions that vectors are reduced to, once there are 1 000; 0 for all."
    )
    exact_vectors_max: int = _bound(
        20_000, 0, 10_000_000, "Up to so many are held in memory whole; beyond, their signs."
    )
    vector_candidates_max: int = _bound(
        100, 1, 10_000, "Messages found by vectors that are ranked for one question."
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = checked(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        """Two values may each be in range and yet not hold together."""
        _at_most(self, "wal_limit_mb", "max_db_size_mb", factor=2, words="more than half of")
        if self.max_message_bytes * 2 > self.wal_limit_bytes:
            raise _contradiction(self, "max_message_kb", "wal_limit_mb", "more than half of")
        if self.max_message_bytes * 2 > self.max_archive_bytes:
            raise _contradiction(self, "max_message_kb", "max_archive_mb", "more than half of")
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
    def archive_spare_bytes(self) -> int:
        """
        What of an archive's limit is kept free for what is there twice for a moment: messages on
        their way into it, segments that are joined, and one from which something is taken out.
        """
        return self.max_archive_bytes // 8

    @property
    def archive_full_bytes(self) -> int:
        """From so many bytes on an archive drops its oldest segments."""
        return self.max_archive_bytes - self.archive_spare_bytes

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
    def max_vector_bytes(self) -> int:
        return int(min(self.max_vector_mb, self.max_db_size_mb / 2) * MB)

    @property
    def embed_batch_bytes(self) -> int:
        return int(self.embed_batch_kb * 1024)

    @property
    def reserve_bytes(self) -> int:
        return int(self.reserve_mb * MB)


FIELDS: Mapping[str, "dataclasses.Field[Any]"] = {f.name: f for f in dataclasses.fields(Config)}


def checked(field: "dataclasses.Field[Any]", value: Any, name: str | None = None) -> Any:
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
