"""
What each part of the ranking is worth: each weight at other values, all else as it is.

    python bench/recall_parts.py [--only NAME ...] [--locomo PATH]

R@10 on the set that the project carries and on LoCoMo-dev (with its adversarial questions), without
a model and with wordllama; the first row is as it is. Weights that concern vectors alone are not
tried without a model. docs/ranking.md has the table.
"""

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from elytron.config import FIELDS
from recall import counted, measure, table
from recall_sets import ADVERSARIAL, LOCOMO_PATH, Conversation, locomo, own

VALUES = {
    "bm25_b": ("0.5", "0.75"),
    "neighbour_weight": ("0", "0.3", "0.8"),
    "second_neighbour_weight": ("0", "0.25", "0.6"),
    "answer_weight": ("1", "1.25", "2"),
    "coverage_weight": ("0", "0.25", "0.75"),
    "session_weight": ("0", "0.25", "0.75"),
    "speaker_weight": ("1", "1.1", "1.3"),
    "user_weight": ("1", "1.25", "1.5", "2"),
    "memory_weight": ("1", "1.3", "1.7"),
    "asking_weight": ("0", "0.15", "0.45"),
    "when_weight": ("0", "0.15", "0.5"),
    "date_weight": ("0", "0.25", "1"),
    "importance_weight": ("0", "0.2"),
    "concept_weight": ("0", "2"),
    "candidates_max": ("50", "200"),
}
OF_VECTORS = {
    "vector_weight": ("0.3", "0.4", "0.6"),
    "length_prior_words": ("0", "3", "10"),
    "vector_neighbour_weight": ("0", "0.2", "0.4"),
    "vector_candidates_max": ("50", "200"),
}
# These tell where there are many messages: all conversations of LoCoMo-dev as one agent's.
OF_MANY = {
    "vector_dims": ("64", "0"),
    "exact_vectors_max": ("0",),
    "vector_candidates_max": ("50", "200"),
    "candidates_max": ("50", "200"),
}
MODEL = "wordllama"


def merged(talks: tuple[Conversation, ...]) -> tuple[Conversation, ...]:
    """All conversations as one agent's, sessions and evidence told apart by theirs."""
    messages, questions = [], []
    for talk in talks:
        for one in talk.messages:
            name, session = f"{talk.agent}/{one['id']}", f"{talk.agent}/{one['session']}"
            messages.append({**one, "id": name, "session": session})
        for question in talk.questions:
            evidence = frozenset(f"{talk.agent}/{one}" for one in question.evidence)
            questions.append(replace(question, evidence=evidence))
    return (Conversation("all", tuple(messages), (), (), tuple(questions)),)


def figures(
    sets: dict[str, tuple[Conversation, ...]], system: str, settings: dict[str, str]
) -> list[str]:
    found = []
    for name, talks in sets.items():
        asked = measure(system, talks=talks, settings=settings, limit=10).asked
        parts = [counted(asked)]
        if name.startswith("LoCoMo"):
            parts.append([one for one in asked if one.question.kind == ADVERSARIAL])
        found += [f"{100 * statistics.fmean([one.share for one in part]):.1f}" for part in parts]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--locomo", type=Path, default=LOCOMO_PATH)
    arguments = parser.parse_args()
    sets = {"own": own()}
    if arguments.locomo.exists():
        sets["LoCoMo"] = locomo(arguments.locomo)
    else:
        print(f"{arguments.locomo} is not there: no figures of LoCoMo", file=sys.stderr)
    head = ["setting", *sets, *(["adversarial"] if "LoCoMo" in sets else [])]
    for system in ("no model", MODEL):
        values = VALUES if system != MODEL else {**VALUES, **OF_VECTORS}
        rows = [["as it is", *figures(sets, system, {})]]
        for name, tried in values.items():
            if arguments.only and name not in arguments.only:
                continue
            for value in tried:
                if float(value) == FIELDS[name].default:
                    continue
                print(f"{system}: {name}={value}", file=sys.stderr, flush=True)
                rows.append([f"{name} {value}", *figures(sets, system, {name: value})])
        print(f"{system}\n{table(head, rows)}\n", flush=True)
    if "LoCoMo" in sets and (not arguments.only or set(arguments.only) & OF_MANY.keys()):
        many(sets["LoCoMo"], arguments.only)


def many(talks: tuple[Conversation, ...], only: list[str] | None) -> None:
    sets = {"LoCoMo as one agent": merged(talks)}
    rows = [["as it is", *figures(sets, MODEL, {})]]
    for name, tried in OF_MANY.items():
        for value in tried if not only or name in only else ():
            rows.append([f"{name} {value}", *figures(sets, MODEL, {name: value})])
    print(f"{MODEL}\n{table(['setting', *sets, 'adversarial'], rows)}", flush=True)


if __name__ == "__main__":
    main()
