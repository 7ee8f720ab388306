"""
R@10 on LoCoMo: the share of a question's evidence among the first ten hits, mean over questions.

    python bench/quality.py [path of a LoCoMo file]

Each conversation is an agent of its own. Categories 1 to 4 count; adversarial questions
(category 5) are shown beside. Targets are those of docs/performance.md.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path

import elytron
from recall_sets import LOCOMO_PATH as DEFAULT
from recall_sets import turns

TARGET = 74


def measure(agent: elytron.Agent, questions: list[dict], ids: set[str]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for question in questions:
        evidence = set(re.findall(r"D\d+:\d+", " ".join(question["evidence"]))) & ids
        if evidence:
            hits = {hit.message.id for hit in agent.recall(question["question"], limit=10)}
            share = len(evidence & hits) / len(evidence)
            found.setdefault(question["category"], []).append(share)
    return found


def percent(shares: list[float]) -> str:
    return f"{100 * sum(shares) / len(shares):5.1f} ({len(shares)} questions)" if shares else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    if not arguments.path.exists():
        print(f"{arguments.path} is not there: give that of a LoCoMo file; nothing was measured")
        return
    settings = dict(pair.split("=", 1) for pair in arguments.set)
    total: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, elytron.open(folder, **settings) as store:
        for sample in json.loads(arguments.path.read_text(encoding="utf-8")):
            agent = store.agent(sample["sample_id"])
            messages = turns(sample["conversation"])
            agent.import_(messages)
            found = measure(agent, sample["qa"], {message["id"] for message in messages})
            counted = [share for category in range(1, 5) for share in found.get(category, [])]
            print(f"{sample['sample_id']:10} R@10 {percent(counted)}")
            for category, shares in found.items():
                total.setdefault(category, []).extend(shares)
    counted = [share for category in range(1, 5) for share in total.get(category, [])]
    print(f"all        R@10 {percent(counted)}, target at least {TARGET}")
    print(f"adversarial     {percent(total.get(5, []))}")


if __name__ == "__main__":
    main()
