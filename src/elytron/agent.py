"""
Agent: one agent's memory, and the verbs on it.

Each verb checks its arguments, borrows the open ledger, and makes one call on a part below.
Nothing is made on disk before the first write.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from elytron import recall
from elytron.config import Config
from elytron.errors import Busy, ElytronError, InvalidSetting, NotFound
from elytron.import_run import ImportRun
from elytron.ledger import ops, reads, rows
from elytron.ledger.files import check_outside, translate_os_errors
from elytron.ledger.sqlite import Ledger
from elytron.lines import replaced, write_lines
from elytron.open_agents import OpenAgent, OpenAgents, Use
from elytron.recall import context
from elytron.records import (
    Context,
    Draft,
    Hit,
    ImportReport,
    Message,
    Receipt,
    Session,
    Usage,
)
from elytron.reindex_run import reindex_all
from elytron.text import Analyzer
from elytron.write.admission import (
    IdClock,
    admit,
    admit_many,
    check_aware,
    check_content,
    check_id,
    check_limit,
    check_question,
    check_role,
    check_timeout,
)

_T = TypeVar("_T")
_PAGE = 500  # messages: a page of an export
_TOKENS_MAX = 10_000_000


class Agent:
    """
    One agent's memory. Got from `Store.agent`; cheap; safe for many threads.

    Every verb raises `Closed` after the store was closed, `Forked` in a forked process, and
    `Corrupt` where stored data is not what was written.
    """

    def __init__(self, name: str, agents: OpenAgents, analyzer: Analyzer, ids: IdClock) -> None:
        self.name = name
        self._agents = agents
        self._analyzer = analyzer
        self._languages = ",".join(analyzer.names)
        self._admit = partial(admit, config=agents.config, analyzer=analyzer, ids=ids)
        self._admit_many = partial(admit_many, config=agents.config, analyzer=analyzer, ids=ids)

    @property
    def _config(self) -> Config:
        return self._agents.config

    # -- writing

    def save(
        self,
        role: str,
        content: str,
        *,
        session: str | None = None,
        user: str | None = None,
        at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,
    ) -> Receipt:
        """
        Save one message; when this returns it is durable.

        Args:
            role: one of system, developer, user, assistant, tool, function.
            content: 1 character to `max_message_kb`.
            session: the conversation it belongs to, 1 to 200 characters; `default` if None.
            user: who said it, 1 to 200 characters; a message without one is by its role.
            at: when it was said, with a zone, from 1970 to `max_future_s` ahead; now if None.
            metadata: what JSON can carry (names are strings, no tuples or NaN, 100 levels at most),
                returned as it was; with the content at most `max_message_kb`.
            id: 1 to 200 characters; made if None. Saving the same id again with the same
                content is harmless: give one, and a retry cannot double a message.

        Raises:
            InvalidArgument: a value is not acceptable. Nothing was written.
            Conflict: the id is held with other content. Nothing was written.
            Busy, OverBudget, DiskFull: as they say. Nothing was written.
            OutcomeUnknown: the disk failed in the middle; save again with the same id.

        One commit with one fsync, shared with whoever is saving at the same moment.
        """
        draft = self._admit(
            role, content, session=session, user=user, at=at, metadata=metadata, id=id
        )
        receipt: Receipt = self._write(ops.SaveOne(draft))
        return receipt

    def save_many(self, messages: Iterable[Mapping[str, Any] | Message]) -> list[Receipt]:
        """
        Save messages in one commit: all of them or, after an error, none.

        Args:
            messages: mappings with `role` and `content` and, where wanted, `session, user,
                at, metadata, id`; or `Message`s. At most `queue_max`, and as many bytes as
                fit into `wal_limit_mb`: some 6,000 chat messages.

        Returns:
            Receipts, in order.

        Raises:
            As `save`; the message of `InvalidArgument` says which one, counted from 0.
        """
        self._agents.check_usable()
        drafts = self._admit_many(messages)
        if not drafts:
            return []
        receipts: list[Receipt] = self._write(ops.Save(drafts))
        return receipts

    def submit(
        self,
        role: str,
        content: str,
        *,
        session: str | None = None,
        user: str | None = None,
        at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,
    ) -> "Future[Receipt]":
        """
        Queue one message and return at once; the future's result is its `Receipt`.

        Arguments and errors as `save`; what admission refuses is raised here, what the commit
        meets is raised by the future. The future cannot be cancelled. Waits up to
        `save_timeout_s` while the queue is full, then `Busy`.
        """
        draft = self._admit(
            role, content, session=session, user=user, at=at, metadata=metadata, id=id
        )
        return self._submit(draft)

    def flush(self, *, timeout_s: float | None = None) -> None:
        """
        Wait until everything submitted so far is settled.

        Args:
            timeout_s: how long to wait at most; `save_timeout_s` if None.

        Raises:
            Busy: not settled in that time. Nothing is lost; flush again.
        """
        limit_s = self._config.save_timeout_s if timeout_s is None else check_timeout(timeout_s)
        if not self._agents.wait_submitted(self.name, limit_s):
            raise Busy(
                f"what was submitted to {self.name!r} is not settled after {limit_s:g} s;"
                " flush again"
            )

    def edit(self, id: str, content: str) -> None:
        """
        Replace a message's content. Its place, time, speaker and metadata stay.

        Raises:
            NotFound: no message has this id.
            InvalidArgument: the content is not acceptable.
        """
        check_id(id, "id")
        size_bytes = check_content(content, self._config)
        message = self.get(id)
        if message is None:
            raise NotFound(f"no message has the id {id!r}; nothing was changed")
        terms = self._analyzer.document(content, speaker=message.speaker, at=message.at)
        self._write(ops.Edit(id, content, terms, size_bytes + self._config.max_message_bytes))

    def delete(self, id: str) -> bool:
        """Remove one message for good, with its index. Returns whether it was there."""
        check_id(id, "id")
        if not self.exists():
            return False
        size_bytes = ops.DELETED_BYTES + self._config.max_message_bytes
        return bool(self._write(ops.Delete(id, size_bytes)))

    def delete_session(self, session: str) -> int:
        """
        Remove a session with all its messages for good; returns how many there were.

        In commits that fit into the WAL, the oldest first; stopped in between, call it again.
        """
        check_id(session, "session")
        if not self.exists():
            return 0
        removed, left = 0, True
        while left:
            try:
                step, left = self._write(ops.DeleteSession(session, self._config.commit_bytes))
            except ElytronError as error:
                raise type(error)(f"{error}. {removed} messages of it are gone") from error
            removed += step
        return removed

    def import_(
        self,
        messages: Iterable[Mapping[str, Any] | Message],
        *,
        skip_bad: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> ImportReport:
        """
        Save any number of messages, in commits of at most 500. With ids, running it twice
        adds nothing twice.

        Args:
            messages: as in `save_many`; a mapping's `line`, if it has one, is where it stands
                in its source, for the report. Without it they are counted from 1.
            skip_bad: leave out what is not acceptable, and report it, rather than stop.
            on_progress: called after each commit with the number of messages dealt with.

        Raises:
            InvalidArgument: a message is not acceptable, or its id is held with other
                content. Those before it are held; the error says how many.
        """
        self._agents.check_usable()
        run = ImportRun(
            admit=self._admit_many,
            write=lambda drafts: self._write(ops.Save(drafts)),
            commit_max_bytes=self._config.commit_bytes,
            skip_bad=skip_bad,
            on_progress=on_progress,
        )
        return run.run(self.name, messages)

    def reindex(self, *, on_progress: Callable[[int], None] | None = None) -> int:
        """
        Make the word index anew, for the present `languages`. Returns the messages read.

        In commits that fit into the WAL; stopped in between, run it again. Other processes that
        use the agent with other `languages` have to be closed first.
        """
        if not self.exists():
            return 0
        return reindex_all(
            read=self._page,
            write=lambda op: self._write(op, other_languages=True),
            analyzer=self._analyzer,
            commit_max_bytes=self._config.commit_bytes,
            on_progress=on_progress,
        )

    # -- reading

    def exists(self) -> bool:
        """Whether anything was ever written to this memory."""
        return self._read(lambda _db, _source: True, default=False)

    def history(
        self, session: str | None = None, *, limit: int = 50, before: str | None = None
    ) -> list[Message]:
        """
        The newest messages, oldest first, in the order of saving.

        Args:
            session: of this session; of all if None.
            limit: at most this many, 1 to `max_query_rows`.
            before: only those saved before the message with this id, for paging back.

        An unknown session, agent or *before* gives an empty list.
        """
        check_limit(limit, self._config.max_query_rows)
        if session is not None:
            check_id(session, "session")
        if before is not None:
            check_id(before, "before")
        return self._read(
            lambda db, source: reads.history(
                db, session=session, limit=limit, before=before, source=source
            ),
            default=[],
        )

    def get(self, id: str) -> Message | None:
        """The message with this id, or None."""
        check_id(id, "id")
        return self._read(lambda db, source: reads.message(db, id, source), default=None)

    def sessions(self, *, limit: int = 100) -> list[Session]:
        """The sessions, the one last spoken in first; at most *limit*."""
        check_limit(limit, self._config.max_query_rows)
        return self._read(
            lambda db, source: reads.sessions(db, limit=limit, source=source), default=[]
        )

    def recall(
        self,
        question: str,
        *,
        limit: int = 8,
        session: str | None = None,
        user: str | None = None,
        role: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Hit]:
        """
        The messages that answer a question, best first.

        Args:
            question: 1 to 20,000 characters; its first `max_query_terms` words are used.
            limit: at most this many, 1 to `max_query_rows`.
            session, user, role: only messages of these.
            since, until: only messages said from *since* on and before *until*; with a zone.

        Returns:
            Hits, each with its score and `why`. Empty if no word of the question is held, or
            it has only words such as "what" and "did".
        """
        check_limit(limit, self._config.max_query_rows)
        check_question(question)
        accept = reads.Filter(
            session=None if session is None else check_id(session, "session"),
            user=None if user is None else check_id(user, "user"),
            role=None if role is None else check_role(role),
            since_us=None if since is None else rows.to_us(check_aware(since, "since")),
            until_us=None if until is None else rows.to_us(check_aware(until, "until")),
        )
        with self._agents.use(self.name, create=False) as agent:
            if agent is None:
                return []
            self._check_languages(agent.ledger)
            return recall.answer(
                agent.ledger,
                question,
                self._analyzer.query(question, terms_max=self._config.max_query_terms),
                accept,
                limit=limit,
                config=self._config,
            )

    def context(
        self,
        question: str,
        *,
        max_tokens: int = 800,
        limit: int = 50,
        count_tokens: Callable[[str], int] | None = None,
        session: str | None = None,
        user: str | None = None,
        role: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Context:
        """
        What a prompt should hold to answer a question: hits with dates and speakers.

        Args:
            max_tokens: the budget, 1 to 10,000,000; `Context.tokens` never exceeds it.
            limit: hits considered.
            count_tokens: your model's counter; without it tokens are estimated.
            The rest as in `recall`.

        Session by session, each oldest first.
        """
        check_limit(max_tokens, _TOKENS_MAX, what="max_tokens")
        hits = self.recall(
            question, limit=limit, session=session, user=user, role=role, since=since, until=until
        )
        return context.pack(hits, max_tokens=max_tokens, count_tokens=count_tokens)

    def usage(self) -> Usage:
        """What this memory holds and costs. Counts rows and index pages: milliseconds."""
        limit = self._config.max_db_size_bytes
        with self._agents.use(self.name, create=False) as agent:
            if agent is None:
                return Usage(self.name, limit)
            file, wal = agent.ledger.file_sizes()
            with agent.ledger.reading(snapshot=True) as db:
                return reads.usage(
                    db,
                    file=file,
                    wal=wal,
                    source=agent.ledger.path,
                    agent=self.name,
                    limit_bytes=limit,
                    queued=agent.writer.queued,
                    failed_writes=agent.writer.failed,
                )

    def messages(self) -> Iterator[Message]:
        """
        All messages, in the order of arrival, read in pages of 500.

        What is saved meanwhile may be seen; no snapshot is held between pages.
        """
        after = 0
        while page := self._page(after):
            for _, message in page:
                yield message
            after = page[-1][0]

    def export(
        self,
        target: str | Path | IO[str],
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """
        Write all messages as JSON Lines, the format of `docs/formats.md`.

        Args:
            target: a path, which is replaced once the export is whole; or a text stream.

        Returns how many. What comes out can be imported again, here or elsewhere.
        """
        if not isinstance(target, str | Path):
            return write_lines(self.messages(), target, on_progress=on_progress)
        check_outside(Path(target), self._agents.path)
        with translate_os_errors(Path(target)), replaced(Path(target)) as file:
            return write_lines(self.messages(), file, on_progress=on_progress)

    # -- inside

    def _write(self, op: ops.Op, *, other_languages: bool = False) -> Any:
        use = Use()
        try:
            agent = self._agents.borrow(self.name, use, create=True)
            assert agent is not None, "an agent that is made on demand is there"
            if not other_languages:
                self._check_languages(agent.ledger)
            return agent.writer.call(op)
        finally:
            self._agents.give_back(use)

    def _submit(self, draft: Draft) -> "Future[Receipt]":
        """Queue a draft, waiting for room; the agent stays open until it is settled."""
        use = Use()
        return self._queue(self._agents.borrow(self.name, use, create=True), use, draft, wait=True)

    def _try_submit(self, draft: Draft) -> "Future[Receipt] | None":
        """Queue a draft if that takes no waiting: the agent is open, and the queue has room."""
        use = Use()
        agent = self._agents.borrow_open(self.name, use)
        try:
            return None if agent is None else self._queue(agent, use, draft, wait=False)
        except Busy:
            return None

    def _queue(
        self, agent: OpenAgent | None, use: Use, draft: Draft, *, wait: bool
    ) -> "Future[Receipt]":
        assert agent is not None, "an agent that is made on demand is there"
        try:
            self._check_languages(agent.ledger)
            future: Future[Receipt] = agent.writer.submit(ops.SaveOne(draft), wait=wait)
        except BaseException:
            self._agents.give_back(use)
            raise
        self._agents.give_back_after(self.name, use, future)
        return future

    def _check_languages(self, ledger: Ledger) -> None:
        if ledger.languages != self._languages:
            raise InvalidSetting(
                f"the memory of {self.name!r} is indexed for {ledger.languages}, `languages` is"
                f" {self._languages}: restore the setting, or run `elytron reindex`"
            )

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
                return query(db, agent.ledger.path)
