"""
R@10 with and without messages reached over concepts (`concept_weight`).

    python bench/recall_concepts.py [path of a LoCoMo file]

On the set in `concept_set.py`, told among the demonstration's messages; and on LoCoMo, where
nobody tells relations, and concepts are only proposed. A weight is worth its cost if it raises one
and does not lower the other.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import elytron
from concept_set import SMALL_TALK, STORIES
from elytron.importers import import_file
from quality import DEFAULT, measure, percent, turns

WEIGHTS = (0, 0.25, 0.5, 1, 1.5, 2, 3)


def fill(store: elytron.Store, agent: elytron.Agent) -> list[tuple[str, set[str]]]:
    """Tell the stories, mixed; returns the questions with the ids of their evidence."""
    dice = random.Random(5)
    lines, questions = [], []
    for number, (relations, talk, asked) in enumerate(STORIES):
        for source, relation, target in relations:
            agent.relate(source, relation, target)
        lines += [(f"{number}:{place}", *line) for place, line in enumerate(talk)]
        questions += [
            (question, {f"{number}:{place}" for place in places}) for question, places in asked
        ]
    for again in range(2):
        lines += [(f"small:{n}:{again}", "user", text) for n, text in enumerate(SMALL_TALK)]
    dice.shuffle(lines)
    demonstration = Path(elytron.__file__).parent / "demo" / "conversation.jsonl"
    import_file(store, demonstration, agent=agent.name)
    agent.save_many(
        [
            {"role": "user", "user": user, "content": text, "id": key, "session": f"s{place // 8}"}
            for place, (key, user, text) in enumerate(lines)
        ]
    )
    agent.flush()
    return questions


def shares(agent: elytron.Agent, questions: list[tuple[str, set[str]]]) -> list[float]:
    found = []
    for question, evidence in questions:
        hits = {hit.message.id for hit in agent.recall(question, limit=10)}
        found.append(len(evidence & hits) / len(evidence))
    return found


def on_stories() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with elytron.open(folder) as store:
            questions = fill(store, store.agent("stories"))
        for weight in WEIGHTS:
            with elytron.open(folder, concept_weight=weight) as store:
                agent = store.agent("stories")
                found = shares(agent, questions)
                start = time.perf_counter()
                shares(agent, questions)
                took_ms = (time.perf_counter() - start) / len(questions) * 1000
            own = [share for share, number in zip(found, _numbers_of_last(), strict=True) if number]
            print(
                f"stories, weight {weight:<4} R@10 {percent(found)}, of the last of each story"
                f" {percent(own)}; {took_ms:.2f} ms"
            )


def _numbers_of_last() -> list[bool]:
    return [place == len(asked) - 1 for _, _, asked in STORIES for place in range(len(asked))]


def on_locomo(path: Path) -> None:
    samples = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        with elytron.open(folder) as store:
            for sample in samples:
                agent = store.agent(sample["sample_id"])
                agent.import_(turns(sample["conversation"]))
                agent.flush()
                print(f"{sample['sample_id']:10} {agent.usage().concepts} concepts proposed")
        for weight in WEIGHTS:
            total: dict[int, list[float]] = {}
            with elytron.open(folder, concept_weight=weight) as store:
                for sample in samples:
                    ids = {message["id"] for message in turns(sample["conversation"])}
                    found = measure(store.agent(sample["sample_id"]), sample["qa"], ids)
                    for category, some in found.items():
                        total.setdefault(category, []).extend(some)
            counted = [share for number in range(1, 5) for share in total.get(number, [])]
            print(
                f"LoCoMo, weight {weight:<4} R@10 {percent(counted)},"
                f" adversarial {percent(total.get(5, []))}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=DEFAULT)
    path = parser.parse_args().path
    on_stories()
    if path.exists():
        on_locomo(path)
    else:
        print(f"{path} is not there: no figure on LoCoMo")


if __name__ == "__main__":
    main()
