"""
Options: what the commands have in common, and how their values are read.

Every command takes `--store`, `--config`, `--set` and `--json`; they arrive as one `Place`.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from elytron import config_sources
from elytron.agent import Agent
from elytron.config import Config
from elytron.errors import InvalidArgument, NotFound
from elytron.faces.visible import clip_name
from elytron.store import Store, is_address

DEFAULT_STORE = "data/memory"
COMMON = ("store", "config_file", "settings", "as_json")  # the names of every command's options
_A_TIME = "2026-03-02T18:04+01:00"
_NEAREST_MAX = 3
_NAME_SHOWN = 80  # characters of a name in an error

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command works, by which settings, and for whom it prints."""

    # A str is an address. None only where a command has a default of its own.
    path: Path | str | None
    config_file: str | None
    settings: Mapping[str, str]
    as_json: bool

    def settled(self) -> Config:
        """The settings: `--set` wins over the environment, which wins over the file."""
        return config_sources.load(self.config_file, self.settings, os.environ)

    def open(self, path: Path | str | None = None) -> Store:
        """The store at *path*, or at the one that was given; use it in a `with` block."""
        # Not `elytron.open`: a setting named as one of its arguments has to be refused by name.
        return Store(path or self.path or DEFAULT_STORE, self.settled())


def common(command: Command) -> Command:
    """Give a command the common options; it is called with a `Place` first."""
    return _common(command, default_store=DEFAULT_STORE)


def common_without_store(command: Command) -> Command:
    """The same where no store is meant unless one is named on the command line."""
    return _common(command, default_store=None)


def _common(command: Command, *, default_store: str | None) -> Command:
    @click.option(
        "--store",
        metavar="PLACE",
        default=default_store,
        envvar="ELYTRON_STORE" if default_store else None,
        callback=_store_path,
        help="Folder of the store, or its postgresql:// address;"
        f" `{DEFAULT_STORE}` if neither this nor ELYTRON_STORE is given."
        if default_store
        else "Of a store to keep; a temporary one if not given.",
    )
    @click.option(
        "--config",
        "config_file",
        metavar="FILE",
        envvar="ELYTRON_CONFIG",
        help="Settings in YAML; else the file named by ELYTRON_CONFIG.",
    )
    @click.option(
        "--set",
        "settings",
        metavar="NAME=VALUE",
        multiple=True,
        callback=read_pairs,
        help="One setting, such as max_db_size_mb=50; may be repeated.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print for programs.")
    @functools.wraps(command)
    def run(
        *args: Any,
        store: Path | str | None,
        config_file: str | None,
        settings: Mapping[str, str],
        as_json: bool,
        **rest: Any,
    ) -> None:
        command(Place(store, config_file, settings, as_json), *args, **rest)

    return run


def selection(command: Command) -> Command:
    """Options of `recall` and `context`: which messages and memories may be hits, asked when."""
    for option in (
        time_option("--at", zone_needed=False, help="When it is asked; now if not given."),
        click.option(
            "--kind",
            "kinds",
            metavar="KIND",
            multiple=True,
            callback=_kinds,
            help="Only this: `message`, `memory`, or a kind of memory, such as `fact`; may be"
            " repeated.",
        ),
        time_option("--until", zone_needed=False, help="Only before this time."),
        time_option("--since", zone_needed=False, help="Only from this time on."),
        click.option("--role", metavar="ROLE", help="Only messages of this role."),
        click.option("--user", metavar="USER", help="Only messages of this user."),
        click.option("--session", metavar="SESSION", help="Only messages of this session."),
    ):
        command = option(command)
    return command


def _kinds(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...] | None:
    return values or None


def limit_option(default: int, help: str = "At most so many.") -> Callable[[Command], Command]:
    """How many results are wanted; the library says how many it gives."""
    return click.option(
        "--limit", type=int, metavar="N", default=default, show_default=True, help=help
    )


def time_option(name: str, *, zone_needed: bool, help: str) -> Callable[[Command], Command]:
    """
    An option whose value is a time in ISO 8601.

    Args:
        zone_needed: refuse a time without a zone, since it will be stored; else it is local.
    """

    def read(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
        if value is None:
            return None
        try:
            at = datetime.fromisoformat(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r:.80} is no ISO 8601 time, as {_A_TIME}") from error
        if at.tzinfo is not None:
            return at
        if zone_needed:
            raise click.BadParameter(f"{value!r} has no zone; add one, as {_A_TIME}")
        try:
            return at.astimezone()
        except (OverflowError, ValueError, OSError) as error:  # what the C library cannot count
            raise click.BadParameter(f"{value!r} is out of range") from error

    return click.option(name, metavar="TIME", callback=read, help=help)


def read_json_object(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> dict[str, Any] | None:
    """The value of an option that is a JSON object."""
    if value is None:
        return None
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise click.BadParameter(f'not a JSON object, as {{"channel": "web"}}: {value!r:.50}')
    return parsed


def read_stdin(limit_bytes: int) -> str:
    """
    What stands on stdin, without the newline at its end.

    Raises:
        InvalidArgument: over *limit_bytes*, or not UTF-8.
    """
    if sys.stdin is None:
        raise InvalidArgument("stdin is closed; give the content as an argument")
    data = sys.stdin.buffer.read(limit_bytes + 2)
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if len(data) > limit_bytes:
        raise InvalidArgument(
            f"stdin holds more than {limit_bytes} bytes; split it, or raise `max_message_kb`"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"stdin is not UTF-8 at byte {error.start}; decode it first"
        ) from error


def held_agent(store: Store, name: str) -> Agent:
    """
    An agent that holds something. Makes nothing.

    Raises:
        NotFound: there is none, with the names that come nearest.
    """
    agent = store.agent(name)
    if agent.exists():
        return agent
    names = store.agents()
    if not names:
        raise NotFound(f"no agent is called {quoted(name)}: {store.shown} holds none")
    raise NotFound(f"no agent is called {quoted(name)} in {store.shown}{hint(name, names)}")


def hint(name: str, names: list[str]) -> str:
    """The *names* that come nearest to one that is not among them."""
    import difflib

    by_fold: dict[str, list[str]] = {}
    for known in names:
        by_fold.setdefault(known.casefold(), []).append(known)
    near = difflib.get_close_matches(name.casefold(), by_fold, n=_NEAREST_MAX)
    found = [known for folded in near for known in by_fold[folded]][:_NEAREST_MAX]
    return f"; did you mean {' or '.join(map(quoted, found))}?" if found else ""


def quoted(name: str) -> str:
    """A name as it may stand in an error."""
    return f"'{clip_name(name, _NAME_SHOWN)}'"


def _store_path(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> Path | str | None:
    if value is None:
        return None
    if not value:
        raise click.BadParameter("the path is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        shown = "the address" if is_address(value) else f"{value!r:.80}"  # it has a password
        raise click.BadParameter(f"{shown} is not UTF-8, which the store needs") from error
    return value if is_address(value) else Path(value)


def read_pairs(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> Mapping[str, str]:
    """The values of an option that is repeated, each `NAME=VALUE`."""
    pairs = {}
    for pair in values:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r:.50} is not NAME=VALUE")
        pairs[name] = value
    return pairs
