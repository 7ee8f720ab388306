"""
Verbs: what those on one agent have in common: the agent, its settings, a write and a read.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from elytron.config import Config
from elytron.errors import Busy, ElytronError, InvalidSetting, NotFound
from elytron.ledger import ops, reads
from elytron.open_agent import OpenAgent, Use
from elytron.open_agents import OpenAgents
from elytron.records import Message, Receipt
from elytron.text import Analyzer
from elytron.write.admission import IdClock, admit, admit_many

_T = TypeVar("_T")
_PAGE = 500  # messages: a page of an export
_NOTHING = re.compile(r"(and )?nothing was (written|changed)( either)?")


@contextmanager
def in_steps() -> Iterator[None]:
    """For what is done in several commits: an error speaks of its step, and not of the whole."""
    try:
        yield
    except ElytronError as error:
        error.args = (of_step(error),)
        raise


def of_step(error: ElytronError) -> str:
    """What an error says, where it met one step of several."""
    return _NOTHING.sub("this step wrote nothing, and what came before it stays done", str(error))


class Verbs:
    """One agent of a store. Each verb borrows its open ledger and makes one call below."""

    def __init__(self, name: str, agents: OpenAgents, analyzer: Analyzer, ids: IdClock) -> None:
        self.name = name
        self._agents = agents
        self._analyzer = analyzer
        self._ids = ids
        self._languages = ",".join(analyzer.names)
        self._admit = partial(admit, config=agents.config, analyzer=analyzer, ids=ids)
        self._admit_many = partial(admit_many, config=agents.config, analyzer=analyzer, ids=ids)

    @property
    def _config(self) -> Config:
        return self._agents.config

    def _write(self, op: ops.Op, *, other_languages: bool = False) -> Any:
        use = Use()
        # What makes room, or only marks, makes no agent, and has to go where nothing else does.
        adds = not isinstance(op, ops.REMOVING)
        try:
            agent = self._agents.borrow(self.name, use, create=adds)
            if agent is None:
                raise NotFound(f"there is no agent {self.name!r}; nothing was changed")
            if not other_languages:
                self._check_same(agent)
            return agent.writer.call(op)
        finally:
            self._agents.give_back(use)

    def _submit(self, op: ops.SaveOne) -> "Future[Receipt]":
        """Queue a message, waiting for room; the agent stays open until it is settled."""
        use = Use()
        try:
            agent = self._agents.borrow(self.name, use, create=True)
        except BaseException:  # whoever keeps the error would keep the use
            self._agents.give_back(use)
            raise
        return self._queue(agent, use, op, wait=True)

    def _try_submit(self, op: ops.SaveOne) -> "Future[Receipt] | None":
        """Queue a message if that takes no waiting: the agent is open, and the queue has room."""
        use = Use()
        agent = self._agents.borrow_open(self.name, use)
        try:
            if agent is None or not agent.admitted:
                self._agents.give_back(use)
                return None
            return self._queue(agent, use, op, wait=False)
        except Busy:
            return None

    def _queue(
        self, agent: OpenAgent | None, use: Use, op: ops.SaveOne, *, wait: bool
    ) -> "Future[Receipt]":
        assert agent is not None, "an agent that is made on demand is there"
        try:
            self._check_same(agent)
            future: Future[Receipt] = agent.writer.submit(op, wait=wait)
        except BaseException:
            self._agents.give_back(use)
            raise
        self._agents.give_back_after(self.name, use, future)
        return future

    def _check_same(self, agent: OpenAgent) -> None:
        """
        Raises:
            InvalidSetting: the memory was made for other `languages`, or with another `embedder`.
        """
        if agent.embedded_otherwise is not None:
            agent.look_whose()
        if agent.embedded_otherwise is not None:
            raise InvalidSetting(f"the memory of {self.name!r}: {agent.embedded_otherwise}")
        languages = agent.indexed_for(self._languages)
        if languages != self._languages:
            raise InvalidSetting(
                f"the memory of {self.name!r} is indexed for {languages}, `languages` is"
                f" {self._languages}: restore the setting, or run `elytron reindex`"
            )

    def _has_archive(self) -> bool:
        return self._agents.upkeep.archive_of(self.name).exists()

    def _page(self, after_key: int) -> list[tuple[int, Message]]:
        return self._read(
            lambda db, source: reads.page(db, after_key=after_key, limit=_PAGE, source=source),
            default=[],
        )

    def _read(self, query: Callable[[Any, object], _T], *, default: _T) -> _T:
        """Ask the ledger, or give *default* if there is none. The source is for errors."""
        with self._agents.use(self.name, create=False) as agent:
            if agent is None:
                return default
            with agent.ledger.reading(snapshot=True) as db:
                return query(db, agent.ledger.source)
