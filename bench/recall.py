"""
Recall: how much of what answers a question is among the first hits.

    python bench/recall.py [--set own|locomo|longmemeval|all] [--per-kind]
    python bench/recall.py --embedder wordllama --setting concept_weight=0
    python bench/recall.py --leave-out --grid neighbour_weight=0.1,0.2,0.3

A row for each system: no model, and each embedder. R@10 is the share of a question's evidence
among the first ten hits, R@5 among the first five, MRR one over the place of the first that is
evidence (0 if none is there); each is the mean over questions. LoCoMo's adversarial questions
stand beside and count for nothing else. docs/recall.md says what the sets are.

`--leave-out` chooses weights on all conversations but one and tests them on that one, for each in
turn, so that the figure is for weights which never saw the questions.
"""

import argparse
import importlib.util
import inspect
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import elytron
import recall_sets
from recall_sets import ADVERSARIAL, BadSet, Conversation, Question

_T = TypeVar("_T")
NO_MODEL = "no model"
DEFAULT_EMBEDDER = "wordllama"
SETS = ("own", "locomo", "longmemeval")
_TAKES_TIME = "at" in inspect.signature(elytron.Agent.recall).parameters
_EMBED_TIMEOUT_S = 600
_STORE_MAX = 50  # conversations in one store, so that a set of 500 needs no 500 on the disk
_GRID_MAX = 500  # combinations of weights
_TIMED_MAX = 100  # questions that are embedded once more, to time that alone


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and how its answer was: shares and reciprocal 0 to 1."""

    agent: str
    question: Question
    share: float
    share_5: float
    reciprocal: float
    took_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """What one system reached on one set. `embed_ms` is None where it has no part or is unknown."""

    system: str
    asked: tuple[Asked, ...]
    embed_ms: float | None


@dataclass(frozen=True, slots=True)
class Fold:
    """The conversation left out, what was chosen without it, and the mean share on it."""

    agent: str
    chosen: str
    share: float


# -- deciding: pure


def scored(keys: Sequence[str], evidence: frozenset[str], *, limit: int) -> tuple[float, ...]:
    """
    (share among the first *limit*, among the first five, one over the first place).

    A key that comes twice, as a session does, holds its first place only.
    """
    places = [place for place, key in enumerate(keys[:limit], 1) if key in evidence]
    found = evidence.intersection(keys[:limit])
    found_5 = evidence.intersection(keys[: min(5, limit)])
    return (
        len(found) / len(evidence),
        len(found_5) / len(evidence),
        1 / places[0] if places else 0.0,
    )


def counted(asked: Iterable[Asked]) -> list[Asked]:
    return [one for one in asked if one.question.kind != ADVERSARIAL]


def answered(row: Row) -> list[tuple[float, float]]:
    """What two systems have in common only if one had no part in it."""
    return [(one.share, one.reciprocal) for one in row.asked]


def folds(shares: Mapping[str, Mapping[str, float]]) -> list[Fold]:
    """
    Choose on all conversations but one, for each in turn.

    Args:
        shares: by the label of the weights, the mean share of each conversation; at least two.

    Each conversation has one vote, however many questions it has. Among equals the first label.
    """
    agents = list(next(iter(shares.values())))
    found = []
    for left_out in agents:
        others = [agent for agent in agents if agent != left_out]
        chosen = max(
            shares, key=lambda label: statistics.fmean([shares[label][one] for one in others])
        )
        found.append(Fold(left_out, chosen, shares[chosen][left_out]))
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the first to the left and the rest to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    )


def percent(values: Sequence[float]) -> str:
    return f"{100 * statistics.fmean(values):.1f}" if values else "-"


def overview(name: str, rows: Sequence[Row], *, limit: int) -> str:
    """The table of one set."""
    asked = rows[0].asked
    adversarial = len(asked) > len(counted(asked))
    head = ["system", f"R@{limit}", *(["R@5"] if limit > 5 else []), "MRR"]
    head += [*(["adversarial"] if adversarial else []), "ms", "of it embedding"]
    lines = []
    for row in rows:
        kept = counted(row.asked)
        others = [one for one in row.asked if one.question.kind == ADVERSARIAL]
        line = [row.system, percent([one.share for one in kept])]
        if limit > 5:
            line.append(percent([one.share_5 for one in kept]))
        line.append(f"{statistics.fmean([one.reciprocal for one in kept]):.3f}")
        if adversarial:
            line.append(percent([one.share for one in others]))
        line.append(f"{statistics.median([one.took_ms for one in row.asked]):.2f}")
        line.append("-" if row.embed_ms is None else f"{row.embed_ms:.2f}")
        lines.append(line)
    by_session = sum([one.question.by_session for one in asked])
    note = f", {by_session} of them judged by session" if by_session else ""
    return (
        f"{name}: {len(counted(asked))} questions{note},"
        f" {len({one.agent for one in asked})} conversations; median ms a question\n"
        + table(head, lines)
    )


def by_kind(rows: Sequence[Row], *, limit: int) -> str:
    """R@*limit* of each kind, and of each level, language and agent where a set has few of them."""
    parts: list[tuple[str, Callable[[Asked], str | None]]] = [
        ("", lambda one: one.question.kind),
        ("level ", lambda one: one.question.level),
        ("language ", lambda one: one.question.language),
        ("agent ", lambda one: one.agent),
    ]
    lines = []
    for prefix, part in parts:
        of_rows = [row.asked if not prefix else counted(row.asked) for row in rows]
        of_questions = [part(one) for one in of_rows[0]]
        names = [name for name in dict.fromkeys(of_questions) if name is not None]
        if len(names) == len(of_questions):
            continue  # each question has its own agent
        for name in names:
            line = [f"{prefix}{name}", str(of_questions.count(name))]
            line += [percent([one.share for one in kept if part(one) == name]) for kept in of_rows]
            lines.append(line)
    return table([f"R@{limit} of", "questions", *[row.system for row in rows]], lines)


# -- doing


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fill(store: elytron.Store, talks: Sequence[Conversation]) -> None:
    """Tell each agent its messages, memories and relations, and wait for the vectors."""
    for talk in talks:
        agent = store.agent(talk.agent)
        agent.import_(talk.messages)
        for memory in talk.memories:
            agent.remember(**memory)
        for relation in talk.relations:
            agent.relate(**relation)
        agent.flush(timeout_s=_EMBED_TIMEOUT_S)


def ask(store: elytron.Store, talk: Conversation, *, limit: int) -> list[Asked]:
    """Ask the agent of *talk* its questions, once each."""
    agent = store.agent(talk.agent)
    found = []
    for question in talk.questions:
        when: dict[str, Any] = {}
        if _TAKES_TIME and question.at is not None:
            when["at"] = question.at
        start_s = time.perf_counter()
        hits = agent.recall(question.text, limit=limit, **when)
        took_ms = (time.perf_counter() - start_s) * 1000
        keys = [hit.message.session if question.by_session else hit.message.id for hit in hits]
        share, share_5, reciprocal = scored(keys, question.evidence, limit=limit)
        found.append(Asked(talk.agent, question, share, share_5, reciprocal, took_ms))
    return found


def of_system(system: str, settings: Mapping[str, str]) -> dict[str, str]:
    return dict(settings) if system == NO_MODEL else {**settings, "embedder": system}


def measure(
    system: str, *, talks: Sequence[Conversation], settings: Mapping[str, str], limit: int
) -> Row:
    """Fill stores with the conversations and ask; `_STORE_MAX` of them at a time."""
    asked: list[Asked] = []
    for first in range(0, len(talks), _STORE_MAX):
        some = talks[first : first + _STORE_MAX]
        with (
            tempfile.TemporaryDirectory() as folder,
            elytron.open(folder, **of_system(system, settings)) as store,
        ):
            fill(store, some)
            for talk in some:
                asked += ask(store, talk, limit=limit)
        say(f"  {system}: {first + len(some)} of {len(talks)} conversations")
    embed_ms = embedding_ms(system, [one.question.text for one in asked], settings)
    return Row(system, tuple(asked), embed_ms)


def embedding_ms(system: str, texts: Sequence[str], settings: Mapping[str, str]) -> float | None:
    """
    The median time of embedding one question, asked of the embedder alone.

    None without a model, and where settings say how it is to be asked: those are not repeated here.
    """
    if system == NO_MODEL or any(name.startswith("embed") for name in settings):
        return None
    from elytron.embed.embedder import EmbedderSettings
    from elytron.embed.providers import make_embedder

    embedder = make_embedder(system, settings=EmbedderSettings())
    try:
        embedder.embed(texts[:1], "query")  # what is loaded at first counts for none
        took_ms = []
        for text in texts[:_TIMED_MAX]:
            start_s = time.perf_counter()
            embedder.embed([text], "query")
            took_ms.append((time.perf_counter() - start_s) * 1000)
    finally:
        embedder.close()
    return statistics.median(took_ms)


def leave_out(
    system: str,
    *,
    talks: Sequence[Conversation],
    settings: Mapping[str, str],
    grid: Sequence[Mapping[str, str]],
    limit: int,
) -> str:
    """Measure each combination of weights on one filled store; the table of what was chosen."""
    asked: dict[str, dict[str, list[Asked]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        with elytron.open(folder, **of_system(system, settings)) as store:
            fill(store, talks)
        for number, weights in enumerate(grid, 1):
            label = " ".join([f"{name}={value}" for name, value in weights.items()])
            with elytron.open(folder, **of_system(system, {**settings, **weights})) as store:
                asked[label] = {talk.agent: ask(store, talk, limit=limit) for talk in talks}
            say(f"  {system}: {number} of {len(grid)} weights, {label}")
    return chosen_table(system, asked, limit=limit)


def chosen_table(
    system: str, asked: Mapping[str, Mapping[str, Sequence[Asked]]], *, limit: int
) -> str:
    """Each fold's weights and figure, then the means over questions: chosen apart, and on all."""
    shares = {
        label: {
            agent: statistics.fmean([one.share for one in counted(answers)])
            for agent, answers in of_agents.items()
        }
        for label, of_agents in asked.items()
    }
    chosen = folds(shares)
    apart = [one for fold in chosen for one in asked[fold.chosen][fold.agent]]
    lines = [[fold.agent, f"{100 * fold.share:.1f}", fold.chosen] for fold in chosen]
    lines.append(["out of fold", percent([one.share for one in counted(apart)]), ""])
    adversarial = [one.share for one in apart if one.question.kind == ADVERSARIAL]
    if adversarial:
        lines.append(["adversarial", percent(adversarial), ""])
    best = max(shares, key=lambda label: statistics.fmean(shares[label].values()))
    at_best = [one.share for answers in asked[best].values() for one in counted(answers)]
    lines.append(["chosen on all", percent(at_best), best])
    return f"{system}, leaving one conversation out\n" + table(
        ["left out", f"R@{limit}", "weights"], lines
    )


# -- arguments


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r:.80}")
    return name, value


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=[*SETS, "all"], default="all")
    parser.add_argument("--locomo", type=Path, metavar="PATH", default=recall_sets.LOCOMO_PATH)
    parser.add_argument("--longmemeval", type=Path, metavar="PATH")
    parser.add_argument(
        "--embedder",
        action="append",
        metavar="NAME",
        help=f"repeatable; {DEFAULT_EMBEDDER} if it is installed and none is named",
    )
    parser.add_argument(
        "--setting", action="append", type=pair, default=[], metavar="NAME=VALUE", help="repeatable"
    )
    parser.add_argument("--limit", type=int, default=10, help="hits a question, 1 to 1000")
    parser.add_argument("--per-kind", action="store_true", help="tables by kind of question too")
    parser.add_argument("--leave-out", action="store_true", help="choose weights of --grid")
    parser.add_argument(
        "--grid", action="append", type=pair, default=[], metavar="NAME=V1,V2", help="repeatable"
    )
    found = parser.parse_args(argv)
    if not 1 <= found.limit <= 1000:
        parser.error(f"--limit must be 1 to 1000; got {found.limit}")
    if found.leave_out != bool(found.grid):
        parser.error("--leave-out and --grid go together")
    if found.set == "longmemeval" and found.longmemeval is None:
        parser.error("--set longmemeval needs --longmemeval PATH")
    return found


def grid_of(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """
    Every combination of the values, those that are named first as the last to vary.

    Raises:
        BadSet: over `_GRID_MAX` combinations.
    """
    values = {name: text.split(",") for name, text in pairs}
    grid = [dict(zip(values, some, strict=True)) for some in itertools.product(*values.values())]
    if len(grid) > _GRID_MAX:
        raise BadSet(f"the grid has {len(grid)} combinations, at most {_GRID_MAX}; take fewer")
    return grid


def sets_of(arguments: argparse.Namespace) -> dict[str, tuple[Conversation, ...]]:
    """The sets that were asked for, and are there; says which are not."""
    wanted = SETS if arguments.set == "all" else (arguments.set,)
    found: dict[str, tuple[Conversation, ...]] = {}
    if "own" in wanted:
        found["own"] = recall_sets.own()
    if "locomo" in wanted:
        if arguments.locomo.exists():
            found["LoCoMo"] = recall_sets.locomo(arguments.locomo)
        else:
            print("LoCoMo: its file is not there, so there is no figure; give --locomo PATH\n")
    if "longmemeval" in wanted and arguments.longmemeval is not None:
        found["LongMemEval"] = recall_sets.longmemeval(arguments.longmemeval)
    return found


def systems_of(named: Sequence[str] | None) -> list[str]:
    if named is None:
        named = [DEFAULT_EMBEDDER] if importlib.util.find_spec(DEFAULT_EMBEDDER) else []
    return [NO_MODEL, *dict.fromkeys(named)]


def run(arguments: argparse.Namespace) -> bool:
    """
    Print the tables; whether all systems could be measured. One that could not has no row.

    Raises:
        BadSet: a file or the grid cannot be used.
    """
    settings = dict(arguments.setting)
    grid = grid_of(arguments.grid)
    sets = sets_of(arguments)
    systems = systems_of(arguments.embedder)
    if not _TAKES_TIME:
        say("recall takes no `at`: questions are asked without their time")
    if arguments.leave_out:
        talks = [talk for some in sets.values() for talk in some]
        if len(talks) < 2:
            raise BadSet("--leave-out needs two conversations at least")
        texts = of_each(
            systems,
            lambda one: leave_out(
                one, talks=talks, settings=settings, grid=grid, limit=arguments.limit
            ),
        )
        for text in texts:
            print(text, end="\n\n")
        return len(texts) == len(systems)
    complete = True
    for name, talks in sets.items():
        say(f"{name}: {len(talks)} conversations")
        rows = of_each(
            systems, partial(measure, talks=talks, settings=settings, limit=arguments.limit)
        )
        complete = complete and len(rows) == len(systems)
        for row in rows[1:]:
            if answered(row) == answered(rows[0]):
                say(f"  {row.system}: the same answers as {rows[0].system}; has it had a part?")
        if rows:
            print(overview(name, rows, limit=arguments.limit), end="\n\n")
        if rows and arguments.per_kind:
            print(by_kind(rows, limit=arguments.limit), end="\n\n")
    return complete


def of_each(systems: Iterable[str], measured: Callable[[str], _T]) -> list[_T]:
    """What was *measured* of each system; why there is nothing of the others goes to stderr."""
    found = []
    for system in systems:
        try:
            found.append(measured(system))
        except elytron.ElytronError as error:
            say(f"  {system} is left out: {error}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    arguments = arguments_of(argv)
    try:
        complete = run(arguments)
    except BadSet as error:
        say(f"recall: {error}")
        return 2
    return 0 if complete else 2


if __name__ == "__main__":
    sys.exit(main())
