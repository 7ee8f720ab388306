"""
Reference: `docs/cli.md`, made from the commands themselves.

`python -m elytron.faces.reference > docs/cli.md` writes it anew; a test holds the two in step.
"""

import inspect
import itertools
from collections.abc import Iterator

import click

from elytron.faces.cli import main
from elytron.faces.exits import EXITS
from elytron.faces.options import COMMON, DEFAULT_STORE

_HEAD = f"""\
# Command line

Made from the commands by `python -m elytron.faces.reference > docs/cli.md`; do not edit.

    elytron COMMAND [ARGUMENTS] [OPTIONS]

`python -m elytron` is the same. Options stand after the command. A value that begins with a
dash comes after `--`, as in `elytron recall Bob -- "-5 degrees?"`.

## Options of every command

| option | what it does |
|---|---|
| `--store PLACE` | Folder or `postgresql://` address. Else `ELYTRON_STORE`, or `{DEFAULT_STORE}`. |
| `--config FILE` | Settings in YAML. Without it the file named by `ELYTRON_CONFIG`, if any. |
| `--set NAME=VALUE` | A setting, such as `max_db_size_mb=50`; may be repeated. |
| `--json` | Print for programs. |
| `-h`, `--help` | Say what the command does. |

`--set` wins over `ELYTRON_*` in the environment (`ELYTRON_QUEUE_MAX=100` sets `queue_max`),
which wins over the file. Commands that only read make nothing on disk: asked for an agent that
is not there, they name those that come nearest.

## What is printed

For people, text and tables on stdout, as wide as the terminal, at most 120 columns: where it is
narrow, bars and columns that can be spared are left out, which `--json` has. Notes and progress go
to stderr. Where stdout is no terminal there are no control codes; `NO_COLOR` and
`COLUMNS` are respected. Control characters in stored text are shown as escapes, such as
`\\x1b`. Times of messages are on the clock of whoever saved them; where a column says UTC, in
UTC. Sizes are in units of 1024.

With `--json`, one JSON document in UTF-8 (an export is JSON Lines), with times in ISO 8601. The
names in it are those of the Python library's records and do not change.

## Errors and exit codes

An error is one line on stderr, `elytron: message`; under that of a Cypher query that is wrong stand
its line and marks at the place. With `--json` a last line follows,
`{{"error": code, "message": ...}}`.

| exit code | errors | meaning |
|---|---|---|
"""


def markdown() -> str:
    """The whole page."""
    rows = [
        f"| {row.number} | {', '.join(f'`{code}`' for code in row.codes)} | {row.meaning} |"
        for row in EXITS
    ]
    sections = itertools.starmap(_section, _commands(main))
    return _HEAD + "\n".join(rows) + "\n\n## Commands\n\n" + "\n".join(sections)


def _commands(group: click.Group, *before: str) -> Iterator[tuple[str, click.Command]]:
    """Each command with its words; those of a group stand under it."""
    for name, command in group.commands.items():
        yield " ".join((*before, name)), command
        if isinstance(command, click.Group):
            yield from _commands(command, *before, name)


def _section(name: str, command: click.Command) -> str:
    words = ["elytron", name, *map(_argument, _arguments(command))]
    lines = [f"### `{' '.join(words)}`", "", inspect.cleandoc(command.help or "")]
    own = [
        parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in COMMON
    ]
    if own:
        lines += ["", "| option | what it does |", "|---|---|"]
        lines += [f"| {_names(option)} | {_help(option)} |" for option in own]
    return "\n".join(lines) + "\n"


def _arguments(command: click.Command) -> list[click.Argument]:
    return [p for p in command.params if isinstance(p, click.Argument)]


def _argument(argument: click.Argument) -> str:
    name = argument.human_readable_name + ("..." if argument.nargs < 0 else "")
    return name if argument.required else f"[{name}]"


def _names(option: click.Option) -> str:
    value = "" if option.is_flag else f" {_metavar(option)}"
    return ", ".join(f"`{name}{value}`" for name in (*option.opts, *option.secondary_opts))


def _metavar(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return r"\|".join(map(str, option.type.choices))
    assert option.metavar is not None, f"{option.opts[0]} shows its value by a name of its own"
    return option.metavar


def _help(option: click.Option) -> str:
    default = f" Default {option.default}." if option.show_default else ""
    return f"{option.help}{default}"


if __name__ == "__main__":
    click.echo(markdown(), nl=False)
