"""
Watching: the command that shows all limits of a store again and again. It makes nothing on disk.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from elytron.faces import costs, documents
from elytron.faces.costs import StoreCosts
from elytron.faces.options import Place, common, held_agent
from elytron.store import Store

if TYPE_CHECKING:  # rich is imported only by commands that print for people
    from rich.console import RenderableType

_INTERVAL_MIN_S, _INTERVAL_MAX_S = 0.1, 86_400.0
_FRAME_LINES = 12  # of a terminal, for what stands around the rows


def _check_interval(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    # Not click's own range, which lets NaN through.
    if not _INTERVAL_MIN_S <= value <= _INTERVAL_MAX_S:
        limits = f"{_INTERVAL_MIN_S:g} to {_INTERVAL_MAX_S:,.0f} seconds"
        raise click.BadParameter(f"{value:g} is not in the range of {limits}")
    return value


@click.command()
@common
@click.argument("agent", required=False)
@click.option(
    "--interval", "interval_s", type=float, callback=_check_interval, default=2.0,
    show_default=True, metavar="SECONDS", help="Time between two looks.",
)  # fmt: skip
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many looks.")
def watch(place: Place, agent: str | None, interval_s: float, count: int | None) -> None:
    """Show the agents against their limits, again and again.

    The fullest first. Ends on Ctrl-C, or after N looks; a pipe gets one table after the other.
    What is said of memory, queue and clean-up is of this process.

    JSON: one line a look: as `usage --json` for the store, with at.
    """
    with place.open() as store:
        if agent is not None:
            held_agent(store, agent)
        looks = _looks(store, agent, interval_s=interval_s, count=count)
        # Ctrl-C is how it is ended.
        with contextlib.suppress(KeyboardInterrupt):
            if place.as_json:
                for look in looks:
                    documents.write_line(_document(store, look))
            else:
                _show(store, looks)


def pause(seconds: float) -> None:
    """Wait; Ctrl-C ends it."""
    threading.Event().wait(seconds)


def _looks(
    store: Store, agent: str | None, *, interval_s: float, count: int | None
) -> Iterator[StoreCosts]:
    """What the store costs, now and after each pause. Agents may come and go meanwhile."""
    done = 0
    while True:
        yield _look(store, agent)
        done += 1
        if count is not None and done >= count:
            return
        pause(interval_s)


def _look(store: Store, agent: str | None) -> StoreCosts:
    return replace(costs.read_store(store), only=agent)


def _document(store: Store, look: StoreCosts) -> dict[str, object]:
    now = {"at": datetime.now().astimezone()}
    if look.usage is None:
        known = {"path": store.shown, "total_bytes": look.total_bytes}
        return {**now, **known, "agents": look.wanted}
    return {**now, **documents.plain(look.usage), "agents": look.wanted}


def _show(store: Store, looks: Iterator[StoreCosts]) -> None:
    from elytron.faces.terminal import live, redraws, show

    if not redraws():
        for number, look in enumerate(looks):
            if number:
                show("")
            show(*_frame(store, look, rows_max=None))
        return
    with live() as draw:
        for look in looks:
            draw(partial(_lines, store, look))


def _lines(store: Store, look: StoreCosts, lines: int) -> "list[RenderableType]":
    return _frame(store, look, rows_max=max(1, lines - _FRAME_LINES))


def _frame(store: Store, look: StoreCosts, *, rows_max: int | None) -> "list[RenderableType]":
    from rich.text import Text

    from elytron.faces import usage_tables
    from elytron.faces.columns import DIM

    config = store.config
    total = usage_tables.total(
        store.shown, len(look.agents), look.total_bytes, config.max_total_bytes
    )
    # The totals stand first: what a small terminal has no room for are the least full.
    parts: list[RenderableType] = [Text(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}"), total]
    if look.usage is not None:
        parts.append(usage_tables.store_details(look.usage))
    limit = config.archive_full_bytes
    parts += ["", usage_tables.bars(look.wanted, archive_full_bytes=limit, rows_max=rows_max)]
    hidden = 0 if rows_max is None else len(look.wanted) - rows_max
    if hidden > 0:
        parts.append(Text(f"and {hidden:,} less full", DIM))
    return parts
