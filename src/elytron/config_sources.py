"""
Config sources: where the settings of a store come from.

`open(path, config=..., **settings)` reads them here: keywords win, then `ELYTRON_*` in the
environment, then the file or mapping.
"""

import logging
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from elytron.config import EMERGENCY_MIN, FIELDS, PAGE_CACHE_MIN_MB, WAL_MIN_MB, Config, checked
from elytron.config_values import MB, nearest, shown
from elytron.errors import InvalidSetting

# What the project's origin called a setting; accepted wherever the setting is.
ALIASES: Mapping[str, str] = {"max_messages_per_locrit": "max_messages_per_agent"}
_KNOWN = (*FIELDS, *ALIASES)
_FILE_MAX_BYTES = MB  # a settings file is a page or two
_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_\w+)?)$")
_EMERGENCY_DEFAULT_MAX = 5000  # messages
_TOLD_MAX = 20  # variables that are named

_log = logging.getLogger("elytron.config")


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
        environ: the environment; `ELYTRON_QUEUE_MAX=100` sets `queue_max`. What is near no setting
            is left alone.

    Raises:
        InvalidSetting: an unknown name (the nearest known one is given), a value out of its
            range, or a file that cannot be read.
    """
    values: dict[str, Any] = {}
    unsaid = set[str]()
    if isinstance(config, Config):
        values.update({name: getattr(config, name) for name in FIELDS})
        if not config.enable_embeddings:  # nobody said so: an embedder that is given turns it on,
            del values["enable_embeddings"]
            unsaid = {"embedder"}  # and the one that it names is only which it would be
        if config.emergency_messages == FIELDS["emergency_messages"].default:  # nor this
            del values["emergency_messages"]
    elif isinstance(config, Mapping):
        values.update(_named(_flat(config, "config")))
    elif isinstance(config, str | Path):
        values.update(_named(_flat(_read_yaml(Path(config)), str(config))))
    elif config is not None:
        raise InvalidSetting(f"config must be a path, a mapping or a Config; got {shown(config)}")
    variables = _variables(environ or {})
    outside = {name: (environ or {})[key] for name, key in variables.items()}
    over = _named(outside, variables) | _named(settings or {})
    values.update(over)
    _yield_defaults(values, unsaid - over.keys())
    return Config(**values)


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """
    The variables of the environment that set something, by the setting.

    One that is near no setting is somebody else's, and so is what Kubernetes tells every program
    about a service of the name "elytron". It is logged and left alone.
    """
    variables, foreign = dict[str, str](), list[str]()
    for key in environ:
        # ELYTRON_CONFIG and ELYTRON_STORE name files, for the faces; they are no settings.
        if key.startswith("ELYTRON_") and key not in ("ELYTRON_CONFIG", "ELYTRON_STORE"):
            name = key.removeprefix("ELYTRON_").lower()
            if name in _KNOWN or (nearest(name, _KNOWN) and not _SERVICE.search(key)):
                variables[name] = key
            else:
                foreign.append(key)
    if foreign:
        _log.info("no settings, and left alone: %s", ", ".join(sorted(foreign)[:_TOLD_MAX]))
    return variables


def _named(given: Mapping[str, Any], variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """
    The settings of one source by their own names.

    An alias and its setting may both be there if they say the same; between two sources the
    stronger wins, whichever name it uses.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _KNOWN:
            whence = f" (from {variables[name]} in the environment)" if variables else ""
            hint = nearest(name, _KNOWN)
            raise InvalidSetting(f"unknown setting `{name}`{whence}{hint}")
        if name in FIELDS:
            values[name] = value
    for alias, name in ALIASES.items():
        if alias not in given:
            continue
        value = checked(FIELDS[name], given[alias], alias)
        other = checked(FIELDS[name], values.get(name, value))
        if value != other:
            raise InvalidSetting(
                f"`{alias}` is {value:,} and `{name}` is {other:,}, but they are one setting;"
                " leave one of them out"
            )
        values[name] = value
    return values


def _yield_defaults(values: dict[str, Any], unsaid: Set[str]) -> None:
    """
    Only two values that a person set can contradict each other: a default gives way. Of what is
    *unsaid* nobody knows whether a person set it.

    In this order, since each takes the ones before it as settled.
    """
    given = {name: checked(FIELDS[name], value) for name, value in values.items()}

    def now(name: str) -> Any:
        return given.get(name, FIELDS[name].default)

    def default(name: str, value: Any) -> None:
        if name not in values:
            given[name] = values[name] = value

    default("enable_embeddings", now("enable_embeddings") or "embedder" in values.keys() - unsaid)
    total_mb = now("max_total_mb")
    if total_mb is not None:
        default("max_db_size_mb", min(now("max_db_size_mb"), total_mb))
        default("reserve_mb", min(now("reserve_mb"), total_mb / 16))
    default("wal_limit_mb", _default_wal_mb(given))
    default("max_message_kb", min(now("max_message_kb"), now("wal_limit_mb") * 1024 / 4))
    if "keep_messages" in values:
        default("max_messages_per_agent", max(now("max_messages_per_agent"), now("keep_messages")))
    default("keep_messages", min(now("keep_messages"), now("max_messages_per_agent")))
    half = now("max_messages_per_agent") // 2  # the whole is never held where room is made ahead
    default("emergency_messages", min(max(EMERGENCY_MIN, half), _EMERGENCY_DEFAULT_MAX))
    if "graph_buffer_mb" in values:
        default("max_worker_mb", max(now("max_worker_mb"), 2 * now("graph_buffer_mb")))
    if "page_cache_mb" in values:
        # Room for one busy agent at least, since that much is asked for.
        least_mb = now("page_cache_mb") * (now("max_connections") + 1)
        default("max_ram_mb", max(now("max_ram_mb"), least_mb))
    # Every reader in use and, of each open agent, a spare one and the one that writes.
    connections = now("max_readers") + 2 * now("max_open_agents") + now("writer_threads")
    connections = max(connections, now("max_connections") + 1)
    fair_mb = max(PAGE_CACHE_MIN_MB, now("max_ram_mb") / 2 / connections)
    default("page_cache_mb", min(now("page_cache_mb"), fair_mb))


def _default_wal_mb(given: Mapping[str, Any]) -> float:
    """The WAL's limit where nobody set it: a share of what the agent, and the store, may take."""
    db_mb = given.get("max_db_size_mb", FIELDS["max_db_size_mb"].default)
    share_mb = db_mb / 4
    if given.get("max_total_mb") is not None:
        # Every open agent may have a WAL of that size.
        agents = given.get("max_open_agents", FIELDS["max_open_agents"].default)
        share_mb = min(share_mb, given["max_total_mb"] / (8 * agents))
    usual_mb = max(WAL_MIN_MB, min(FIELDS["wal_limit_mb"].default, share_mb))
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
    except (
        yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError,
    ) as error:  # fmt: skip
        # All but the first from values that call themselves a date, a number or a switch.
        raise InvalidSetting(f"settings file {path} is not YAML: {error!s:.500}") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, Mapping):
        raise InvalidSetting(f"settings file {path} must hold names and values")
    return parsed
