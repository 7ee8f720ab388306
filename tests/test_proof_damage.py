"""
A damaged file: no crash of the host, no silent loss, nothing wrong shown as right.

Forty files, or with `--proof` a thousand; a try that failed can be made again by its number.
"""

import itertools
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import proof_damage
from proof_damage import Target, Way
from proof_model import seed_of
from proof_nursery import Nursery, nursery
from proof_store import BOB, lines_until_end
from proof_verdicts import VERDICTS, judge, not_back

TRIES = 40
TRIES_PROVED = 1000
_TRY_MAX_S = 120


class Template:
    """A closed store with everything, what was in it, and what of it can be damaged."""

    def __init__(self, maker: Nursery, folder: Path, *, graph: bool) -> None:
        self.folder = folder
        child = maker.start("make", folder=str(folder), graph=graph)
        (made,) = child.to_end()
        assert "failed" not in made, made["failed"]
        assert child.ended() == 0
        self.truth: dict[str, Any] = {**made["seen"], "late": made["late"]}
        self.truth_path = folder.with_suffix(".json")
        known = json.dumps({name: self.truth[name] for name in made["seen"]})
        self.truth_path.write_text(known, encoding="utf-8")
        copy = folder.with_suffix(".pages")  # looked at by SQLite, which may change side files
        shutil.copytree(folder, copy)
        self.targets = proof_damage.targets(copy, BOB)


class Tries:
    """What is tried, in which order, and what came of it."""

    def __init__(self, maker: Nursery, folder: Path) -> None:
        self._maker, self._folder = maker, folder
        with_graph = Template(maker, folder / "with-graph", graph=True)
        without = Template(maker, folder / "without-graph", graph=False)
        self.pairs: list[tuple[Template, Target, Way]] = [
            *self._pairs(without, graph=False), *self._pairs(with_graph, graph=True)
        ]  # fmt: skip
        random.Random(seed_of("damage", 0)).shuffle(self.pairs)
        self.outcomes: dict[tuple[str, str], Counter[str]] = {}
        self.failed: list[str] = []
        self.not_back: Counter[str] = Counter()

    def _pairs(self, template: Template, *, graph: bool) -> Iterator[tuple[Template, Target, Way]]:
        """A graph's worker takes a second to start, so only damage of the graph meets one."""
        for target in template.targets:
            if target.kind.startswith("graph") == graph:
                yield from ((template, target, way) for way in target.ways)

    def make(self, number: int) -> None:
        """The try of this number: copy, damage, use, judge."""
        template, target, way = self.pairs[number % len(self.pairs)]
        dice = random.Random(seed_of("try", number))
        folder = self._folder / "try"
        shutil.copytree(template.folder, folder)
        before, after = damage(folder, target, way, dice)
        child = self._maker.start(
            "use", folder=str(folder), truth=str(template.truth_path),
            ask=target.kind.startswith("graph"),
        )  # fmt: skip
        try:
            lines = list(child.to_end(_TRY_MAX_S))
        except TimeoutError:
            child.kill()
            lines = [{"failed": f"it hung for {_TRY_MAX_S} s"}]
        code = child.ended()
        said = lines_until_end(iter(lines))
        behind = None
        if target.kind == "log":
            behind = proof_damage.whole_behind(before, after or b"")
        verdict = judge(said, template.truth, code=code, behind=behind)
        wrong = [*verdict.wrong, *[line["failed"] for line in lines if "failed" in line]]
        self.outcomes.setdefault((target.kind, way.__name__), Counter())[verdict.outcome] += 1
        if wrong:
            kept = self._folder / f"damaged-{number}"
            kept.write_bytes(after or b"")
            what = f"try {number}, {target.kind} ({way.__name__}), see {kept}: {wrong}"
            self.failed.append(what)
        elif target.kind.startswith("ledger") and not_back(said, before, after):
            self.not_back[target.kind] += 1
        shutil.rmtree(folder)

    def table(self) -> str:
        """How often each kind of damage came to what."""
        lines = [f"{'':22}{'':18}" + "".join(f"{verdict:>22}" for verdict in VERDICTS)]
        for (kind, way), counts in sorted(self.outcomes.items()):
            numbers = "".join(f"{counts[verdict] or '':>22}" for verdict in VERDICTS)
            lines.append(f"{kind:22}{way:18}{numbers}")
        return "\n".join(lines)


def damage(
    folder: Path, target: Target, way: Way, dice: random.Random
) -> tuple[bytes, bytes | None]:
    """Damage one file of a closed store; its bytes before and after, None if it is gone."""
    path = folder / target.path
    before = path.read_bytes()
    place = dice.choice(target.places) if target.places else range(len(before))
    others = [one for one in folder.rglob("*") if one.is_file() and one != path]
    other = dice.choice(sorted(others)).read_bytes()
    after = way(dice, bytearray(before), place, other) if before or not place else bytearray()
    if after is None:
        path.unlink()
    else:
        path.write_bytes(after)
    return before, None if after is None else bytes(after)


@pytest.mark.timeout(7200)
def test_a_damaged_file_crashes_nobody_and_loses_nothing_in_silence(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """
    Each try damages one file of a store that has everything, in a process of its own.

    The process never dies; each error is one of ours; each message, memory and relation is shown
    as it was written, or damage is named; and what is lost after a repair is named too.
    """
    count = TRIES_PROVED if pytestconfig.getoption("--proof") else TRIES
    begun = time.monotonic()
    with nursery("proof_store", tmp_path / "complaints") as maker:
        tries = Tries(maker, tmp_path)
        for number in itertools.islice(itertools.count(), count):
            tries.make(number)
    totals: Counter[str] = sum(tries.outcomes.values(), Counter())
    print(
        f"\n{tries.table()}\n{count} damaged files in {time.monotonic() - begun:.0f} s:"
        f" {dict(totals)}, {len(tries.failed)} failed; not back though whole:"
        f" {dict(tries.not_back)}"
    )
    assert not tries.failed, "\n".join(tries.failed[:40])
    assert totals["unharmed"] < count, "nothing was damaged by it"
