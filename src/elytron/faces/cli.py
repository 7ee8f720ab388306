"""
Command line: the program, its commands, and the one way out of it.

The commands are the verbs of the library: `writing.py`, `reading.py`, `learning.py`, `graph.py`,
`migrating.py`, `keeping.py`, `backing_up.py`, `embedding.py`, `forgetting.py`, `watching.py` and
`serving.py` hold them.
`options.py` reads values, `documents.py` and the modules of tables lay out what is printed,
`exits.py` ends.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

import elytron
from elytron.faces import (
    backing_up,
    embedding,
    exits,
    forgetting,
    graph,
    keeping,
    learning,
    mcp_command,
    migrating,
    reading,
    serving,
    watching,
    writing,
)

_EPILOG = "\b\nExit codes:\n" + "\n".join(
    f"  {row.number:>3}  {row.meaning}" for row in exits.EXITS
)


class Program(click.Group):
    """The group of commands; every way out of it goes through the table of exits."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        arguments = list(sys.argv[1:] if args is None else args)
        _ready_streams()
        before_values = arguments[: arguments.index("--")] if "--" in arguments else arguments

        def program() -> Any:
            # Not click's own `main`, which ends with 1 on a closed pipe.
            with self.make_context("elytron", list(arguments)) as context:
                return self.invoke(context)

        with exits.ended_by_signals():
            code = exits.run(program, as_json="--json" in before_values)
        sys.exit(code)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(self.commands)  # in the order of this file, which is that of use


def _ready_streams() -> None:
    """
    Let printing never fail for what is printed.

    A stream that was closed from the beginning goes nowhere; a character that the terminal's
    encoding lacks is shown as an escape.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as we
            setattr(sys, name, nowhere)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@click.group(
    name="elytron",
    cls=Program,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(elytron.__version__, prog_name="elytron", message="%(prog)s %(version)s")
def main() -> None:
    """Bounded, crash-proof memory for AI agents.

    One agent's memory is a name in a store: a folder, or a schema on PostgreSQL. Begin with
    `elytron demo`.
    """


for command in (
    writing.demo,
    writing.import_,
    migrating.migrate,
    writing.save,
    reading.history,
    reading.sessions,
    reading.recall,
    reading.context,
    learning.remember,
    learning.memories,
    learning.relate,
    learning.unrelate,
    learning.relations,
    learning.concepts,
    learning.concept,
    graph.related,
    graph.path,
    graph.cypher,
    graph.graph,
    reading.usage,
    watching.watch,
    reading.agents,
    writing.export,
    keeping.archive,
    keeping.restore,
    keeping.pin,
    keeping.unpin,
    keeping.cleanup,
    keeping.emergency,
    keeping.reclaim,
    keeping.check,
    backing_up.backup,
    writing.reindex,
    embedding.embed,
    embedding.reembed,
    writing.rename,
    writing.delete,
    forgetting.forget,
    forgetting.clear,
    serving.serve,
    serving.token,
    mcp_command.mcp,
):
    main.add_command(command)
