"""
Embedding: the commands that make vectors, those that are missing or all anew.

Rich is imported once it is known that they print for people.
"""

from collections.abc import Callable
from dataclasses import replace

import click

from elytron.agent import Agent
from elytron.errors import EmbedderUnavailable, InvalidSetting
from elytron.faces import costs, documents
from elytron.faces.each import of_each
from elytron.faces.options import Command, Place, common
from elytron.faces.output import note
from elytron.faces.progress import OnStep, stepping
from elytron.reports import Embedded
from elytron.store import Store

_Make = Callable[[Agent, OnStep | None], Embedded]


def embedder_option(command: Command) -> Command:
    """Which embedder; the same as `--set embedder=NAME`."""
    return click.option(
        "--embedder", metavar="NAME", help="What makes them, for the setting `embedder`."
    )(command)


@click.command()
@common
@click.argument("agent", required=False)
@embedder_option
def embed(place: Place, agent: str | None, embedder: str | None) -> None:
    """Make the vectors that are missing, of one agent or of all.

    Of what was saved while embeddings were off, and of memories, the newest first, until
    `max_vector_mb` is reached. What was saved with --no-embed gets none. Stopped, by Ctrl-C or
    because the embedder fails, what was made is kept; run it again, and it goes on where it was.

    JSON: a list, each with agent, embedded, shared (with an equal text), held (before) and left_out
    (counts by reason); or, where it failed, with agent and cause.
    """
    _run(place, agent, embedder, "embedding", _embed)


@click.command()
@common
@click.argument("agent", required=False)
@embedder_option
def reembed(place: Place, agent: str | None, embedder: str | None) -> None:
    """Remove all vectors, and make them anew, of one agent or of all.

    With the present `embedder` and its model; needed after they were changed. Until it is done,
    words answer for what has no vector yet. Once the old ones are gone, `embed` goes on where this
    was stopped.

    JSON: as `embed`.
    """
    _run(place, agent, embedder, "embedding", _reembed)


def _embed(memory: Agent, on_progress: OnStep | None) -> Embedded:
    return memory.embed(on_progress=on_progress)


def _reembed(memory: Agent, on_progress: OnStep | None) -> Embedded:
    return memory.reembed(on_progress=on_progress)


def _run(place: Place, agent: str | None, embedder: str | None, doing: str, make: _Make) -> None:
    if embedder is not None:
        place = replace(place, settings={**place.settings, "embedder": embedder})
    with place.open() as store:
        _check_on(store)

        def each(memory: Agent) -> Embedded:
            with stepping(memory, doing, silent=place.as_json) as on_progress:
                return make(memory, on_progress)

        # All agents of a store have one embedder.
        reports = of_each(store, agent, each, ending=EmbedderUnavailable)
    if place.as_json:
        documents.write(reports)
    elif not reports:
        note(f"{store.shown} holds no agents")
    else:
        from elytron.faces import report_tables
        from elytron.faces.terminal import show

        show(*report_tables.embeddings(reports))
    costs.raise_first_error(reports)


def _check_on(store: Store) -> None:
    """
    Raises:
        InvalidSetting: embeddings are off.
    """
    if not store.config.enable_embeddings:
        raise InvalidSetting(
            "embeddings are off; name what makes them, as --embedder wordllama, and leave"
            " `enable_embeddings` out or set it to true"
        )
