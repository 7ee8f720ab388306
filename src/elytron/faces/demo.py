"""
Demo: a conversation poured into a memory, questions put to it, and what it costs.

The conversation that the package carries is between a household and its assistant Bob, in
English and French, over seven weeks. Everything shown is measured in the run that shows it.
"""

import contextlib
import importlib.resources
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from elytron.faces import costs, demo_graph, documents
from elytron.faces.asking import Asked, Question, ask, shown
from elytron.faces.demo_graph import GraphAsked
from elytron.faces.options import Place
from elytron.faces.output import say
from elytron.faces.pouring import Poured, carried_questions, pour
from elytron.store import Store, is_address

AGENT = "Bob"
QUESTIONS = 5
_HITS_SHOWN = 3
_KEPT_STORE = "data/demo"  # proposed to those who want to keep what they saw


class _Seen(NamedTuple):
    """All that the demo has to show."""

    poured: Poured
    answers: list[Asked]
    graph: GraphAsked | None
    costs: costs.Costs


def run(place: Place, file: Path | None) -> None:
    """Show the demo with *file*, or with the carried conversation."""
    with _store_path(place) as path, place.open(path) as store:
        if file is None:
            with _carried("conversation.jsonl") as conversation:
                poured = _pour(place, store, conversation, agent=AGENT)
            questions = _own_questions()
        else:
            poured = _pour(place, store, file, agent=None)
            questions = carried_questions(file, QUESTIONS)
        answers = ask(store, questions)
        graph = demo_graph.ask(store, poured.agents[0].agent, silent=place.as_json)
        found = costs.read(store, [report.agent for report in poured.agents])
        seen = _Seen(poured, answers, graph, found)
        if place.as_json:
            _write_document(place, store, seen)
        else:
            _show(place, store, file, seen)


@contextlib.contextmanager
def _store_path(place: Place) -> Iterator[Path | str]:
    if place.path is not None:
        yield place.path
        return
    with tempfile.TemporaryDirectory(prefix="elytron-demo-") as folder:
        yield Path(folder)


def _carried(name: str) -> contextlib.AbstractContextManager[Path]:
    """A file of the package, on disk even where the package is not."""
    return importlib.resources.as_file(importlib.resources.files("elytron") / "demo" / name)


def _own_questions() -> list[Question]:
    with _carried("questions.json") as path:
        listed = json.loads(path.read_text(encoding="utf-8"))
    return [
        Question(AGENT, entry["question"], entry["answer"], tuple(entry["evidence"]))
        for entry in listed[:QUESTIONS]
    ]


def _pour(place: Place, store: Store, path: Path, *, agent: str | None) -> Poured:
    return pour(store, path, agent=agent, silent=place.as_json)


def _write_document(place: Place, store: Store, seen: _Seen) -> None:
    documents.write(
        {
            "store": store.shown,
            "kept": place.path is not None,
            "import": seen.poured,
            "questions": seen.answers,
            "graph": seen.graph,
            "usage": seen.costs,
        }
    )


def _show(place: Place, store: Store, file: Path | None, seen: _Seen) -> None:
    from elytron.faces import tables, usage_tables
    from elytron.faces.terminal import show

    show(
        tables.title("Poured in"),
        tables.imports(seen.poured.agents),
        *tables.bad_lines(seen.poured.agents),
        "",
        speed(seen.poured, store),
        "",
        tables.title("Asked" if seen.answers else "This file brings no questions"),
        *shown(seen.answers, hits_max=_HITS_SHOWN, languages=store.config.languages),
        "",
    )
    if seen.graph is not None:
        show(tables.title("Asked in Cypher"), *demo_graph.shown(seen.graph), "")
    show(
        tables.title("What it costs"),
        usage_tables.usages(seen.costs),
        "",
        tables.title("Try next"),
    )
    # Not wrapped: a command has to stay in one piece to be copied.
    for command in _try_next(store, file, seen, kept=place.path is not None):
        say(f"  {command}")
    if place.path is None:
        say("\nThis memory was temporary and is removed now.")
    else:
        say(f"\nThis memory is kept in {store.shown}.")


def speed(poured: Poured, store: Store) -> str:
    """How fast messages were saved, as measured, and onto what."""
    total = sum(report.already_held for report in poured.agents)
    if poured.messages_per_second is None:
        return f"Nothing was new: {total:,} {poured.what} were held already; none was doubled."
    memory = None if is_address(store.shown) else memory_type(store.path)
    durably = f"on {memory}, which no power cut survives" if memory else "durably"
    return (
        f"{poured.imported:,} {poured.what} saved {durably} in {poured.seconds:.2f} s:"
        f" {poured.messages_per_second:,.0f} a second."
    )


def memory_type(place: Path) -> str | None:
    """The type of the file system under *place*, if it keeps its files in memory only."""
    import psutil

    here = place.resolve()
    best, kind = 0, ""
    with contextlib.suppress(OSError, psutil.Error):  # no mount table: say nothing of it
        for part in psutil.disk_partitions(all=True):
            mount = Path(part.mountpoint)
            if (mount == here or mount in here.parents) and len(part.mountpoint) >= best:
                best, kind = len(part.mountpoint), part.fstype
    return kind if kind in ("tmpfs", "ramfs") else None


def _try_next(store: Store, file: Path | None, seen: _Seen, *, kept: bool) -> list[str]:
    """Commands that work as they stand, one after the other."""
    place = shlex.quote(store.shown if kept else _KEPT_STORE)
    answered = [asked for asked in seen.answers if asked.hits]
    shortest = min(answered, key=lambda asked: len(asked.question), default=None)
    agent = shlex.quote(seen.poured.agents[0].agent if shortest is None else shortest.agent)
    if kept:
        first = f"history {agent} --limit 20"
    else:
        first = "demo" if file is None else f"demo {shlex.quote(str(file))}"
    if shortest is None:
        second = f"sessions {agent}"
    else:
        second = f"recall {agent} {shlex.quote(shortest.question)} --why"
    third = [] if seen.graph is None else [f"concepts {shlex.quote(seen.graph.agent)}"]
    program = _program()
    lines = (first, second, *third, f"usage {agent}")
    return [f"{program} {line} --store {place}" for line in lines]


def _program() -> str:
    """How to call this program from here: by name, or, if that is not on the path, as it was."""
    called = Path(sys.argv[0])
    if shutil.which("elytron") is None and called.name == "elytron" and called.exists():
        return shlex.quote(str(called))
    return "elytron"
