"""
Reading: the verbs that only look. They make nothing on disk, but for an export's own file.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from elytron import recall
from elytron.archive import read_all
from elytron.embed import policy
from elytron.embed.calls import CallCounts
from elytron.errors import EmbedderUnavailable
from elytron.ledger import reads, rows, swapping, vector_reads, vectors
from elytron.ledger.knowledge import Sought
from elytron.open_agent import OpenAgent
from elytron.recall import context
from elytron.recall.question import Question, possible_names, without_names
from elytron.records import Context, Hit, Message, Session, Usage
from elytron.reports import EmbeddingUsage
from elytron.upkeep import monitor
from elytron.upkeep.forecast import since_us
from elytron.verbs.base import Verbs
from elytron.verbs.exporting import write_messages
from elytron.write.admission import (
    check_aware,
    check_id,
    check_kinds,
    check_limit,
    check_question,
    check_role,
)

_TOKENS_MAX = 10_000_000


class Reading(Verbs):
    """History, recall, usage, exports."""

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
        archived: bool = False,
        kinds: Iterable[str] | None = None,
        at: datetime | None = None,
    ) -> list[Hit]:
        """
        The messages and memories that answer a question, best first; of equal texts one.

        Args:
            question: 1 to 20,000 characters; its first `max_query_terms` words are used.
            limit: at most this many, 1 to `max_query_rows`.
            session, user, role: only messages of these; memories only of this session, and none
                where a user or role is asked for.
            since, until: only messages said, and memories learned, from *since* on and before
                *until*; with a zone.
            archived: search the archive too. It has no index, so that takes a second for some
                20,000 messages; `since` and `until` leave parts of it out.
            kinds: only these: `message`, `memory`, or kinds of memories, such as `fact`; all if
                None. The newest 20,000 memories are looked at, times the number of these kinds, and
                all that are pinned; other older ones are found by their vectors alone.
            at: when it is asked, with a zone: by that "last week" is understood, and memories are
                those that hold then. Now if None.

        Returns:
            Hits, each with its score and `why`. By words alone empty if no word of the question is
            held, or it has only words such as "what" and "did"; with vectors the nearest are
            always found.

        While the embedder does not answer, within `embed_query_timeout_s`, words do.
        """
        asked = self._question(
            question,
            limit,
            reads.Filter(
                session=None if session is None else check_id(session, "session"),
                user=None if user is None else check_id(user, "user"),
                role=None if role is None else check_role(role),
                since_us=None if since is None else rows.to_us(check_aware(since, "since")),
                until_us=None if until is None else rows.to_us(check_aware(until, "until")),
            ),
            kinds=kinds,
            at=at,
        )
        with self._agents.use(self.name, create=False) as agent:
            if agent is None:
                return []
            self._check_same(agent)
            hits = recall.answer(
                agent.ledger,
                replace(asked, vector=self._vector(agent, question)),
                config=self._config,
                analyzer=self._analyzer,
                nearest=agent.nearest,
                archive=agent.archive if archived else None,
                known=agent.known,
            )
            self._agents.bound_memory(self.name)
            return hits

    def _question(
        self,
        question: str,
        limit: int,
        accept: reads.Filter,
        *,
        kinds: Iterable[str] | None,
        at: datetime | None,
    ) -> Question:
        """What is asked, checked, before it is embedded."""
        check_limit(limit, self._config.max_query_rows)
        check_question(question)
        asked_at = datetime.now(UTC) if at is None else check_aware(at, "at")
        messages, of_kinds = check_kinds(kinds)
        sought = None
        if of_kinds != () and accept.user is None and accept.role is None:
            sought = Sought(
                rows.to_us(asked_at),
                session=accept.session,
                kinds=of_kinds,
                since_us=accept.since_us,
                until_us=accept.until_us,
            )
        terms = self._analyzer.query(question, terms_max=self._config.max_query_terms)
        return Question(question, terms, asked_at, accept if messages else None, sought, limit)

    def _vector(self, agent: OpenAgent, question: str) -> Any:
        """The vector of a question; None where there are none, or the embedder does not answer."""
        if self._agents.embeddings is None or not self._config.vector_weight:
            return None
        with agent.ledger.reading() as db:
            held = vectors.state(db)
            if held is None or held.name != self._agents.embeddings.calls.name:
                return None  # another's, made anew meanwhile: `usage` tells
            named = reads.users_named(db, possible_names(question))
        calls = self._agents.embeddings.calls
        try:
            vector = calls.question(
                without_names(question, named.values()).strip(),
                timeout_s=self._config.embed_query_timeout_s,
            )
        except EmbedderUnavailable:  # counted, and told by `usage`
            return None
        return vector if len(vector) == held.dim else None

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
        archived: bool = False,
        kinds: Iterable[str] | None = None,
        at: datetime | None = None,
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
            question,
            limit=limit,
            session=session,
            user=user,
            role=role,
            since=since,
            until=until,
            archived=archived,
            kinds=kinds,
            at=at,
        )
        return context.pack(hits, max_tokens=max_tokens, count_tokens=count_tokens)

    def usage(self) -> Usage:
        """What this memory holds and costs. Counts rows and index pages: milliseconds."""
        limit = self._config.max_db_size_bytes
        with self._agents.use(self.name, create=False) as agent:
            if agent is None:
                return Usage(self.name, limit, max_messages=self._config.max_messages_per_agent)
            file, wal = agent.ledger.file_sizes()
            with agent.ledger.reading(snapshot=True) as db:
                held = reads.usage(
                    db,
                    file=file,
                    wal=wal,
                    aside=swapping.aside_bytes(agent.ledger.folder),
                    archive=agent.archive.usage(),
                    source=agent.ledger.source,
                    agent=self.name,
                    limit_bytes=limit,
                    max_messages=self._config.max_messages_per_agent,
                    graph=self._agents.upkeep.graphs.usage(self.name),
                    queued=agent.writer.queued,
                    failed_writes=agent.writer.failed,
                )
                now_us = self._agents.upkeep.clock.now_us()
                arrivals = reads.arrivals(db, since_us=since_us(now_us))
                held = replace(held, **self._embeddings(agent, db))
                if agent.extracting is not None:
                    held = replace(held, extraction=agent.extracting.counts)
            left = agent.archive.written_since(since_us(now_us)) if held.archived else 0
            return monitor.with_forecast(held, arrivals, left, self._config, now_us=now_us)

    def _embeddings(self, agent: OpenAgent, db: Any) -> dict[str, Any]:
        """What `Usage` has of vectors."""
        held = vectors.state(db)
        reasons = policy.counted(vector_reads.reasons(db))
        reduced_to = None
        if held is not None and held.projection:
            reduced_to = vector_reads.projection(db, held.projection, agent.ledger.source).dims
        counts = CallCounts()
        if self._agents.embeddings is not None:
            counts = self._agents.embeddings.calls.counts
        otherwise = None if agent.embedding is None else agent.embedding.mismatch()
        embedded = reasons.get(policy.EMBEDDED, 0) + reasons.get(policy.SHARED, 0)
        usage = EmbeddingUsage(
            model=None if held is None else held.name,
            dim=None if held is None else held.dim,
            reduced_to=reduced_to,
            reasons=reasons,
            bytes=0 if held is None else held.bytes,
            limit_bytes=self._config.max_vector_bytes,
            memory_bytes=agent.nearest.bytes,
            failures=counts.failures,
            last_error=otherwise or counts.last_error,
            resting_s=counts.resting_s,
        )
        return {"embedded": embedded, "embeddings": usage}

    def messages(self, *, archived: bool = False) -> Iterator[Message]:
        """
        All messages, in the order of arrival, read in pages of 500.

        Args:
            archived: first those in the archive, in the order in which they left.

        What is saved meanwhile may be seen; no snapshot is held between pages. What leaves for the
        archive meanwhile is seen once.

        Raises:
            Corrupt: a segment of the archive is damaged; it is named.
        """
        seen, read = set[int](), set[str]()
        if archived:
            yield from self._archived_messages(seen, read)
        after = 0
        while page := self._page(after):
            for key, message in page:
                if key not in seen:
                    yield message
            if archived:
                seen.update([key for key, _ in page])
            after = page[-1][0]
        if archived:  # and what has left since we looked there
            yield from self._archived_messages(seen, read)

    def export(
        self,
        target: str | Path | IO[str],
        *,
        archived: bool = False,
        format: str | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """
        Write all messages to a file.

        Args:
            target: a path, whose file is replaced once the export is whole, and keeps its mode; or,
                for JSON Lines, the path of a pipe or a device, or a text stream.
            archived: those in the archive too, first.
            format: `jsonl`, the format of `docs/formats.md`, which can be imported again, here
                or elsewhere; or `parquet`, for analysis, which needs the extra `parquet`. If
                None, what the path ends in says, and otherwise JSON Lines.

        Returns how many.
        """
        return write_messages(
            self.messages(archived=archived),
            target,
            format=format,
            on_progress=on_progress,
            outside=self._agents.path,
        )

    def _archived_messages(self, seen: set[int], read: set[str]) -> Iterator[Message]:
        """What the archive has beyond the keys *seen*, in segments not *read*; adds to both."""
        archive = self._agents.upkeep.archive_of(self.name)
        for archived in read_all(archive, read=read) if archive.exists() else ():
            if archived.key not in seen:
                seen.add(archived.key)
                yield archived.message
