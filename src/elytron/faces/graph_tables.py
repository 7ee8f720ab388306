"""
Graph tables: memories, concepts, relations and the rows of a query, laid out for people.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from elytron.faces import graph_values, tables
from elytron.faces.columns import DIM, NARROW, ROOMY, STRONG, Columns, Head
from elytron.faces.tables import day, moment, name_of
from elytron.faces.visible import clip, clip_name, human_bytes, one_line, visible
from elytron.records import Concept, ConceptDetails, GraphUsage, Memory, Related, Relation

_NAMES_MAX = 10  # concepts that a memory is about, of those that are shown
_NAME_MAX = 60  # characters of each


def memories(found: Sequence[Memory], *, text_max: int, ids: bool) -> Iterator[RenderableType]:
    """What was remembered, each with its date, kind and concepts."""
    for memory in found:
        head = Text.assemble(
            (day(memory.created), "green"), "  ", (clip_name(memory.kind, _NAME_MAX), "cyan")
        )
        if memory.about:
            head.append(f"  about {_listed(memory.about)}", DIM)
        head.append(_valid(memory.valid_from, memory.valid_to), DIM)
        head.append(f"  importance {memory.importance:g}", DIM)
        if memory.pinned:
            head.append("  pinned", "yellow")
        yield head
        yield Padding(Text(clip(visible(memory.content), text_max)), (0, 0, 0, 4))
        if ids:
            yield Padding(Text(f"id {one_line(memory.id)}", DIM), (0, 0, 0, 4))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(clip_name(name, _NAME_MAX) for name in names[:_NAMES_MAX])
    more = len(names) - _NAMES_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def _valid(since: datetime | None, until: datetime | None) -> str:
    """When a fact holds, as far as it is known."""
    text = f"  since {moment(since)} (UTC)" if since is not None else ""
    return text + (f"  until {moment(until)} (UTC)" if until is not None else "")


def relations(found: Sequence[Relation]) -> Columns:
    heads = (
        Head("source", "name"),
        Head("relation", "text"),
        Head("target", "name"),
        Head("since (UTC)", "time", room=NARROW),
        Head("until (UTC)", "time", room=NARROW),
        Head("strength", "number", room=ROOMY),
    )
    rows = [
        (
            name_of(relation.source),
            name_of(relation.relation),
            name_of(relation.target),
            moment(relation.valid_from),
            moment(relation.valid_to),
            f"{relation.strength:g}",
        )
        for relation in found
    ]
    return Columns(heads, rows)


def concepts(found: Sequence[Concept]) -> Columns:
    heads = (
        Head("concept", "name"),
        Head("type", "text"),
        Head("mentions", "number"),
        Head("origin", "time"),
        Head("confidence", "number", room=NARROW),
        Head("description", "text", room=ROOMY),
    )
    rows = [
        (
            name_of(concept.name),
            name_of(concept.type or ""),
            f"{concept.mentions:,}",
            one_line(concept.origin),
            f"{concept.confidence:g}",
            name_of(concept.description or ""),
        )
        for concept in found
    ]
    return Columns(heads, rows)


def concept(details: ConceptDetails, *, text_max: int) -> Iterator[RenderableType]:
    """One concept, and where it occurs."""
    shown = details.concept
    yield Text(clip_name(shown.name, 200), STRONG)
    yield _labelled(
        ("type", one_line(shown.type or "")),
        ("described", visible(shown.description or "")),
        ("origin", f"{one_line(shown.origin)}, confidence {shown.confidence:g}"),
        ("mentioned", _mentioned(details)),
    )
    if details.relations:
        yield ""
        yield relations(details.relations)
    if details.memories:
        yield ""
        yield from memories(details.memories, text_max=text_max, ids=False)
    if details.examples:
        yield ""
        by_time = sorted(details.examples, key=lambda message: message.at)
        yield from tables.history(by_time, text_max=text_max, ids=False)


def _mentioned(details: ConceptDetails) -> str:
    mentions = details.concept.mentions
    if details.first_at is None:
        return f"{mentions:,} times"
    times = "once, on" if mentions == 1 else f"{mentions:,} times, first on"
    last = "" if mentions == 1 else f", last on {moment(details.last_at)}"
    return f"{times} {moment(details.first_at)}{last}"


def related(found: Sequence[Related]) -> Columns:
    heads = (
        Head("concept", "name"),
        Head("type", "text", room=NARROW),
        Head("depth", "number"),
        Head("by", "text"),
        Head("times", "number"),
    )
    rows = [
        (
            name_of(near.name),
            name_of(near.type or ""),
            f"{near.depth:,}",
            name_of(near.relation),
            f"{near.times:,}" if near.times else "",
        )
        for near in found
    ]
    return Columns(heads, rows)


def path(found: Sequence[Relation]) -> Columns:
    """The steps of a way, each as it was said, whichever way it is gone."""
    heads = (
        Head("", "number"),
        Head("source", "name"),
        Head("relation", "text"),
        Head("target", "name"),
    )
    rows = [
        (f"{number}", name_of(step.source), name_of(step.relation), name_of(step.target))
        for number, step in enumerate(found, 1)
    ]
    return Columns(heads, rows)


def rows(found: Sequence[Mapping[str, Any]], *, text_max: int) -> Table:
    """The rows of a query, numbers on the right."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style=DIM)
    for name in found[0]:
        values = [row[name] for row in found if row[name] is not None]
        numbers = bool(values) and all(map(graph_values.is_number, values))
        table.add_column(
            Text(clip_name(name, _NAME_MAX)),
            justify="right" if numbers else "left",
            no_wrap=numbers,
            overflow="fold",
        )
    for row in found:
        table.add_row(*[Text(graph_values.words(value, limit=text_max)) for value in row.values()])
    return table


def graph(usage: GraphUsage) -> RenderableType:
    """What is known of a graph."""
    if usage.position is None and not usage.bytes:
        return Text("no graph: it is made when it is first asked")
    built = f"{usage.built_at.astimezone():%Y-%m-%d %H:%M:%S}" if usage.built_at else ""
    why = f", because: {one_line(usage.built_because)}" if usage.built_because else ""
    return _labelled(
        ("size", human_bytes(usage.bytes)),
        ("engine", one_line(usage.engine or "")),
        ("has changes", "" if usage.position is None else f"up to {usage.position:,}"),
        ("built", built + why),
        ("set aside", f"{one_line(usage.damaged)}, damaged" if usage.damaged else ""),
    )


def _labelled(*rows: tuple[str, str]) -> Table:
    """Labels and texts, those that are empty left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style=DIM)
    table.add_column(ratio=1, overflow="fold")
    for label, text in rows:
        if text:
            table.add_row(label, Text(text))
    return table
