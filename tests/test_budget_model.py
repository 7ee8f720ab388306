"""A model: whoever takes, settles, dies or comes back, the budget holds what plain dicts hold."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from elytron.ledger.budget import Budget
from test_budget import TIMEOUT_S, die

AGENTS = some.sampled_from("abcd")
WHO = some.integers(0, 2)
BYTES = some.integers(0, 9)
TOTAL = 20


class Books(RuleBasedStateMachine):
    """Three budgets on one file beside plain dicts. They are closed, killed, and opened anew."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="elytron-budget-"))
        self.budgets = [self.open() for _ in range(3)]
        self.budgets[0].recount({})
        self.grants: dict[str, int] = {}
        self.reserves: dict[tuple[Budget, str], int] = {}
        self.dead: list[tuple[str, int]] = []

    def open(self) -> Budget:
        return Budget(self.folder / "budget.db", total_bytes=TOTAL, timeout_s=TIMEOUT_S)

    def teardown(self) -> None:
        for budget in self.budgets:
            budget.close()
        assert not list(self.folder.glob("*.damaged"))
        shutil.rmtree(self.folder)

    @property
    def held(self) -> int:
        return sum(self.grants.values()) + self.reserved

    @property
    def reserved(self) -> int:
        return sum(self.reserves.values()) + sum(size for _, size in self.dead)

    def free(self, wanted: int) -> int:
        if TOTAL - self.held < wanted:
            self.dead.clear()
        return TOTAL - self.held

    @rule(who=WHO, agent=AGENTS, need=BYTES, step=BYTES)
    def take(self, who: int, agent: str, need: int, step: int) -> None:
        old, wanted = self.grants.get(agent, 0), max(need, step)
        free = self.free(wanted)
        new = old + min(wanted, free) if free >= need and free > 0 else old
        assert self.budgets[who].take(agent, need_bytes=need, step_bytes=step) == new
        if new > old:
            self.grants[agent] = new
            assert self.held <= TOTAL

    @rule(who=WHO, agent=AGENTS, used=BYTES)
    def settle(self, who: int, agent: str, used: int) -> None:
        self.grants.update({name: min(g, used) for name, g in self.grants.items() if name == agent})
        assert self.budgets[who].settle(agent, used) == self.grants.get(agent, 0)

    @rule(who=WHO, agent=AGENTS)
    def forget(self, who: int, agent: str) -> None:
        self.budgets[who].forget(agent)
        self.grants.pop(agent, None)

    @rule(who=WHO, agent=AGENTS, size=BYTES)
    def reserve(self, who: int, agent: str, size: int) -> None:
        budget = self.budgets[who]
        growth = size - self.reserves.get((budget, agent), 0)
        fits = growth <= 0 or self.free(growth) >= growth
        assert budget.reserve(agent, size) == fits
        if fits:
            self.reserves[budget, agent] = size
            assert growth <= 0 or self.held <= TOTAL

    @rule(who=WHO, agent=AGENTS)
    def release(self, who: int, agent: str) -> None:
        self.budgets[who].release(agent)
        self.reserves.pop((self.budgets[who], agent), None)

    @rule(who=WHO, measured=some.dictionaries(AGENTS, BYTES))
    def recount(self, who: int, measured: dict[str, int]) -> None:
        self.budgets[who].recount(measured)
        kept = {
            *measured,
            *(agent for _, agent in self.reserves),
            *(agent for agent, _ in self.dead),
        }
        self.grants = {agent: size for agent, size in self.grants.items() if agent in kept}
        for agent, used in measured.items():
            self.grants[agent] = max(used, self.grants.get(agent, 0))

    @rule(who=WHO, killed=some.booleans())
    def end(self, who: int, killed: bool) -> None:
        budget = self.budgets[who]
        left = [(agent, size) for (owner, agent), size in self.reserves.items() if owner is budget]
        self.reserves = {key: size for key, size in self.reserves.items() if key[0] is not budget}
        if killed:
            die(budget)
            self.dead += left
        else:
            budget.close()
        self.budgets[who] = self.open()

    @invariant()
    def the_books_agree(self) -> None:
        budget = self.budgets[0]
        assert budget.uses() == self.grants
        assert budget.free_bytes() == TOTAL - self.held
        assert budget.reserved_bytes() == self.reserved


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40)
