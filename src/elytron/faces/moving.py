"""
Moving: the command that carries agents from one store into another.

Rich is imported once it is known that a person reads.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from elytron import config_sources
from elytron.errors import Corrupt
from elytron.faces import documents
from elytron.faces.options import read_pairs
from elytron.faces.visible import clip_name
from elytron.migration import Migration
from elytron.store import names_of

if TYPE_CHECKING:
    from elytron.upkeep.transferring import Progress

_NAME_SHOWN = 30  # characters of a name beside a bar


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.argument("agents", metavar="[AGENT]...", nargs=-1)
@click.option(
    "--anew", is_flag=True,
    help="In place of what another migration, from elsewhere, left half done in TO.",
)  # fmt: skip
@click.option(
    "--from-set", "source_settings", metavar="NAME=VALUE", multiple=True, callback=read_pairs,
    help="A setting that FROM has instead, such as files_path=PATH; may be repeated.",
)  # fmt: skip
@click.option(
    "--config", "config_file", metavar="FILE", envvar="ELYTRON_CONFIG",
    help="Settings in YAML; else the file named by ELYTRON_CONFIG.",
)  # fmt: skip
@click.option(
    "--set", "settings", metavar="NAME=VALUE", multiple=True, callback=read_pairs,
    help="One setting, such as max_db_size_mb=50; may be repeated.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
def store(
    source: str,
    target: str,
    agents: tuple[str, ...],
    *,
    anew: bool,
    source_settings: Mapping[str, str],
    config_file: str | None,
    settings: Mapping[str, str],
    as_json: bool,
) -> None:
    """Carry agents from the store FROM into the store TO.

    All of them if none is named. Each is a folder, or an address of PostgreSQL; TO is made if it is
    not there. Programs may go on saving to FROM, which is left as it is. All that an agent has is
    carried as it is: messages, memories, concepts, relations, vectors and archive; then it is read
    back and compared. Stopped at any moment, the same command goes on where it was.

    To change over: run it, end the programs that save to FROM, run it again, and start them on TO.
    An agent that is half there cannot be used before the command has come to its end.

    An agent that TO has with other content is refused, and so is one that is damaged in FROM; the
    others are carried, and the command ends with that error.

    JSON: source, target, agents (each with agent, messages, archived, memories, concepts,
    relations, rows, checksum, written, again and behind), failed (each with agent and cause),
    left_out, behind and ok.
    """
    here = config_sources.load(config_file, {**settings, **source_settings}, os.environ)
    there = config_sources.load(config_file, settings, os.environ)

    @contextlib.contextmanager
    def watching(name: str, number: int, count: int) -> "Iterator[Progress | None]":
        if as_json:
            yield None
            return
        from elytron.faces.terminal import progress

        place = f" ({number + 1} of {count})" if count > 1 else ""
        label = f"moving {clip_name(name, _NAME_SHOWN)}{place}"
        with progress(label, transient=True) as on_progress:
            yield on_progress

    with Migration(source, target, here, there) as migration:
        report = migration.run(names_of(agents or None), anew=anew, watching=watching)
    if as_json:
        documents.write(report)
    else:
        from elytron.faces import moving_tables
        from elytron.faces.terminal import show

        show(*moving_tables.migrated(report))
    causes = [one.cause for one in report.failed]
    for cause in sorted(causes, key=lambda cause: not isinstance(cause, Corrupt)):
        raise cause
    if report.left_out:
        raise Corrupt(
            f"{len(report.left_out)} files or folders among the agents of {report.source} say of no"
            " agent that they are its own, and were not carried: look at them"
        )
