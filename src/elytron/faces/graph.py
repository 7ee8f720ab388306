"""
Graph: the commands that the graph answers: what is near a concept, how two are connected, Cypher.

The first of them builds the graph from the ledger; a bar shows that, if it lasts. Rich is
imported by those that print for people, once it is known that they do.
"""

import json
from collections.abc import Mapping
from typing import Any

import click

from elytron.faces import documents, graph_values
from elytron.faces.learning import near_names
from elytron.faces.options import (
    Place,
    common,
    held_agent,
    limit_option,
    quoted,
    read_pairs,
    read_stdin,
    time_option,
)
from elytron.faces.output import note
from elytron.faces.progress import stepping, waiting

_CELL_MAX = 200  # characters of a value that a table shows
_ALL = 1 << 40  # no value is that long


@click.command()
@common
@click.argument("agent")
@click.argument("name")
@click.option(
    "--depth", type=int, metavar="N", default=2, show_default=True, help="Relations to follow."
)
@click.option("--relation", metavar="RELATION", help="Only over those called so.")
@time_option("--as-of", zone_needed=False, help="Over those that held then, instead of now.")
@limit_option(100)
def related(place: Place, agent: str, name: str, **only: Any) -> None:
    """Show the concepts near one, the nearest first.

    Over relations in either direction, and those that are mentioned in the same messages.

    JSON: a list, each with name, type, depth, relation (the last one on the way, or `mentioned
    with`) and times.
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        with waiting(memory, "asking the graph of", silent=place.as_json):
            found = memory.related(name, **only)
        if not found and not place.as_json:
            known = memory.concept(name) is not None
            note(
                f"nothing is near {quoted(name)}"
                if known
                else f"no concept is called {quoted(name)}{near_names(store, memory, name)}"
            )
            return
    if place.as_json:
        documents.write(found)
        return
    from elytron.faces import graph_tables
    from elytron.faces.terminal import show

    show(graph_tables.related(found))


@click.command()
@common
@click.argument("agent")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option(
    "--max-depth", type=int, metavar="N", default=6, show_default=True,
    help="At most so many relations.",
)  # fmt: skip
@time_option("--as-of", zone_needed=False, help="Over those that held then, instead of now.")
def path(place: Place, agent: str, source: str, target: str, **only: Any) -> None:
    """Show how two concepts are connected.

    The shortest way over relations, in either direction. That there is none is no error.

    JSON: a list of relations in their order (as in `relations`), or null if there is no way.
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        with waiting(memory, "asking the graph of", silent=place.as_json):
            found = memory.path(source, target, **only)
    if place.as_json:
        documents.write(found)
    elif found is None:
        note(f"no way from {quoted(source)} to {quoted(target)} was found")
    elif not found:
        note(f"{quoted(source)} and {quoted(target)} are the same concept")
    else:
        from elytron.faces import graph_tables
        from elytron.faces.terminal import show

        show(graph_tables.path(found))


def _read_params(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """Each value as JSON if it is, and else as the text that it is."""

    def not_json(name: str) -> Any:  # which Python would read as a number
        raise ValueError(name)

    read = {}
    for name, text in read_pairs(ctx, param, values).items():
        try:
            read[name] = json.loads(text, parse_constant=not_json)
        except (ValueError, RecursionError):
            read[name] = text
    return read


@click.command()
@common
@click.argument("agent")
@click.argument("query")
@click.option(
    "--param", "params", metavar="NAME=VALUE", multiple=True, callback=_read_params,
    help="The value of `$NAME`: JSON, such as 3 or [1, 2], or else text; may be repeated.",
)  # fmt: skip
@click.option(
    "--timeout", "timeout_s", type=float, metavar="SECONDS",
    help="How long it may take; `graph_timeout_s` if not given.",
)  # fmt: skip
@click.option("--full", is_flag=True, help="Show long values whole.")
def cypher(
    place: Place,
    agent: str,
    query: str,
    params: Mapping[str, Any],
    timeout_s: float | None,
    full: bool,
) -> None:
    """Ask the graph in Cypher.

    It can only read. A QUERY - reads stdin. What varies belongs in --param, not in the query.
    Times are in UTC; docs/graph.md has the schema and examples. Ends with 12 if it took too long
    or too much memory.

    JSON: a list of rows, each by the names of its columns. Nodes and relations are objects with
    their properties and `_LABEL`; durations are in seconds, bytes in hexadecimal.
    """
    with place.open() as store:
        if query == "-":
            query = read_stdin(store.config.max_message_bytes)
        memory = held_agent(store, agent)
        with waiting(memory, "asking the graph of", silent=place.as_json):
            found = memory.cypher(query, params, timeout_s=timeout_s)
    if place.as_json:
        documents.write(graph_values.plain(found))
        return
    if not found:
        note("no rows")
        return
    from elytron.faces import graph_tables
    from elytron.faces.terminal import show

    show(graph_tables.rows(found, text_max=_ALL if full else _CELL_MAX))


@click.command()
@common
@click.argument("agent")
@click.option("--rebuild", is_flag=True, help="Build it anew from the ledger.")
def graph(place: Place, agent: str, rebuild: bool) -> None:
    """Show what is known of an agent's graph, or rebuild it.

    The graph is made from the ledger when it is first asked, and kept up to date from then on.
    It needs no care: it is rebuilt by itself when it is damaged, or has grown.

    JSON: bytes, engine, position (the last change of the ledger that it has), built_at,
    built_because and damaged (the file that was set aside, if one lies there).
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        if rebuild:
            with stepping(memory, "building the graph of", silent=place.as_json):
                found = memory.rebuild_graph()
        else:
            found = memory.usage().graph
    if place.as_json:
        documents.write(found)
        return
    from elytron.faces import graph_tables
    from elytron.faces.terminal import show

    show(graph_tables.graph(found))
