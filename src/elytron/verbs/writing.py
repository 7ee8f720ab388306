"""
Writing: the verbs that put messages in, change them, or take single ones out.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any

from elytron.embed import policy
from elytron.errors import Busy, ElytronError, NotFound, OutcomeUnknown
from elytron.import_run import ImportRun
from elytron.ledger import knowledge, ops
from elytron.records import Draft, ImportReport, Memory, Message, Receipt
from elytron.reindex_run import reindex_all, reindex_memories
from elytron.upkeep.chores import Unreadable
from elytron.verbs.base import in_steps, of_step
from elytron.verbs.in_archive import InArchive
from elytron.verbs.reading import Reading
from elytron.write.admission import check_content, check_id, check_timeout

_log = logging.getLogger("elytron.store")
_MEMORIES = 100  # read at once
_LOOKS_MAX = 3  # for a message that may be on its way between ledger and archive


class Writing(Reading):
    """Saving, editing, deleting, importing."""

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
        importance: float | None = None,
        pinned: bool = False,
        embed: bool | None = None,
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
            importance: 0 to 1, 0.5 if None: of two messages the less important one leaves
                first when a limit is reached.
            pinned: it never leaves the ledger for the archive.
            embed: whether it gets a vector; None leaves that to `embed_roles` and
                `min_embed_chars`. Without `enable_embeddings` it gets none.

        Raises:
            InvalidArgument: a value is not acceptable. Nothing was written.
            Conflict: the id is held with other content. Nothing was written.
            Busy, OverBudget, DiskFull: as they say. Nothing was written.
            OutcomeUnknown: the disk failed in the middle; save again with the same id.

        One commit with one fsync, shared with whoever is saving at the same moment.
        """
        self._agents.check_usable()  # first: in a fork a lock of the ids may be held for ever
        draft = self._admit(
            role,
            content,
            session=session,
            user=user,
            at=at,
            metadata=metadata,
            id=id,
            importance=importance,
            pinned=pinned,
            embed=embed,
        )
        receipt: Receipt = self._write(self._op(draft, id))
        return receipt

    def save_many(self, messages: Iterable[Mapping[str, Any] | Message]) -> list[Receipt]:
        """
        Save messages in one commit: all of them or, after an error, none.

        Args:
            messages: mappings with `role` and `content` and, where wanted, `session, user,
                at, metadata, id, importance, pinned, embed`; or `Message`s. At most `queue_max`,
                and as many bytes as fit into `wal_limit_mb`: some 6,000 chat messages.

        Returns:
            Receipts, in order.

        Raises:
            As `save`; the message of `InvalidArgument` says which one, counted from 0.
        """
        self._agents.check_usable()
        drafts = self._admit_many(messages)
        if not drafts:
            return []
        return self._save_drafts(drafts)

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
        importance: float | None = None,
        pinned: bool = False,
        embed: bool | None = None,
    ) -> "Future[Receipt]":
        """
        Queue one message and return at once; the future's result is its `Receipt`.

        Arguments and errors as `save`; what admission refuses is raised here, what the commit
        meets is raised by the future. The future cannot be cancelled. Waits up to
        `save_timeout_s` while the queue is full, then `Busy`. A callback of the future runs on one
        of the store's `writer_threads`, and may call any verb of any agent; but where all of them
        submit while the queue is full, each is `Busy`.
        """
        self._agents.check_usable()  # first: in a fork a lock of the ids may be held for ever
        draft = self._admit(
            role,
            content,
            session=session,
            user=user,
            at=at,
            metadata=metadata,
            id=id,
            importance=importance,
            pinned=pinned,
            embed=embed,
        )
        return self._submit(self._op(draft, id))

    def flush(self, *, timeout_s: float | None = None) -> None:
        """
        Wait until everything submitted so far is settled, linked to the concepts it names, and,
        with `enable_embeddings`, has its vectors.

        In the callback of a future it waits until all is durable, though not yet told.

        Args:
            timeout_s: how long to wait at most; `save_timeout_s` if None.

        Raises:
            Busy: not done in that time. Nothing is lost; flush again.
            OverBudget: a limit leaves no room for links or vectors. What was saved is durable.
            EmbedderUnavailable: the embedder failed; what was saved is durable, and gets its
                vectors in the background once it answers.
        """
        self._flush(timeout_s, calls=())

    def _flush(self, timeout_s: float | None, *, calls: "Iterable[Future[Any]]") -> None:
        """`flush`, once these *calls* of the async face have submitted what they had to."""
        limit_s = self._config.save_timeout_s if timeout_s is None else check_timeout(timeout_s)
        deadline = time.monotonic() + limit_s
        if not self._agents.wait_submitted(self.name, limit_s, calls=calls):
            raise Busy(
                f"what was submitted to {self.name!r} is not settled after {limit_s:g} s;"
                " flush again"
            )
        with in_steps(), self._agents.use(self.name, create=False) as agent:
            if agent is not None:
                rest_s = max(0.0, deadline - time.monotonic())
                self._agents.link(self.name, agent, timeout_s=rest_s)
                self._check_same(agent)
                rest_s = max(0.0, deadline - time.monotonic())
                self._agents.embed(self.name, agent, timeout_s=rest_s)

    def edit(self, id: str, content: str) -> None:
        """
        Replace a message's content. Its place, time, speaker and metadata stay.

        Raises:
            NotFound: no message has this id.
            InvalidArgument: the content is not acceptable.
        """
        key = check_id(id, "id")
        content, size_bytes = check_content(content, self._config)
        message = self.get(key)
        if message is None:
            raise NotFound(f"no message has the id {key!r}; nothing was changed")
        terms = self._analyzer.document(content, speaker=message.speaker, at=message.at)
        embedding = policy.decide(message.role, content, wanted=None, config=self._config)
        size_bytes += self._config.max_message_bytes + ops.DELETED_BYTES
        self._write(ops.Edit(key, content, terms, embedding, size_bytes))

    def delete(self, id: str) -> bool:
        """
        Remove one message for good, with its index. Returns whether it was there.

        Raises:
            OutcomeUnknown: it may be gone from what is held and still be archived; delete it again.
            Corrupt: it is not held, and may be in an archive segment that is damaged.
        """
        key = check_id(id, "id")
        if not self.exists():
            return False
        op = ops.Delete(key, ops.DELETED_BYTES + self._config.max_message_bytes)
        # Looked for first: once our deletion is known, whoever moves it may be the one to drop it.
        archive = self._agents.upkeep.archive_of(self.name)
        found = archive.exists() and bool(archive.find([key])[0])
        found = bool(self._write(op)) or found
        try:
            for _ in range(_LOOKS_MAX if archive.exists() else 0):
                found = bool(self._delete_archived(ids=[key])) or found
                # Once more, for what a restore brought back between the two.
                found = bool(self._write(op)) or found
                if found:
                    break
        except Unreadable as error:
            if not found:
                raise
            _log.warning("%s", error)  # a copy in there would be unreadable too
        except ElytronError as error:
            raise self._half_deleted(error) from error
        return found

    def delete_session(self, session: str) -> int:
        """
        Remove a session with all its messages for good; returns how many there were.

        In commits that fit into the WAL, the oldest first; stopped in between, call it again.

        Raises:
            OutcomeUnknown: some may be gone, others not, or still be archived; call it again.
            Corrupt: an archive segment is damaged and may have more of it; all others are gone.
        """
        session = check_id(session, "session")
        if not self.exists():
            return 0
        removed = self._delete_held(session)
        try:
            if not self._has_archive():
                return removed
            removed += self._delete_archived(session=session)
            # Once more, for what a restore brought back between the two.
            return removed + self._delete_held(session)
        except Unreadable:
            raise
        except ElytronError as error:
            raise self._half_deleted(error) from error

    def _delete_held(self, session: str) -> int:
        """Remove what the ledger holds of a session; returns how many messages."""
        removed, left = 0, True
        while left:
            try:
                step, left = self._write(ops.DeleteSession(session, self._config.commit_bytes))
            except ElytronError as error:
                told = of_step(error) if removed else str(error)
                raise error.saying(f"{told}. {removed} messages of it are gone") from error
            removed += step
        return removed

    def _half_deleted(self, error: ElytronError) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"deleted from the ledger of {self.name!r}, but the archive was not looked through"
            f" ({of_step(error)}): delete again"
        )

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
            write=self._save_drafts,
            commit_max_bytes=self._config.commit_bytes,
            # Room is made for one commit at a time.
            commit_max=max(1, self._config.max_messages_per_agent // 4),
            skip_bad=skip_bad,
            on_progress=on_progress,
        )
        return run.run(self.name, messages)

    def _memory_page(self, after_key: int) -> list[tuple[int, Memory]]:
        return self._read(
            lambda db, source: knowledge.memory_page(
                db, after_key=after_key, limit=_MEMORIES, source=source
            ),
            default=[],
        )

    def _save_drafts(self, drafts: tuple[Draft, ...]) -> list[Receipt]:
        """Save drafts in one commit, but for those that are in the archive already."""
        receipts: list[Receipt] = self._write(ops.Save(drafts, self._in_archive(drafts)))
        return receipts

    def _in_archive(self, drafts: Sequence[Draft]) -> InArchive:
        return InArchive(self._agents.upkeep.archive_of(self.name), drafts)

    def _op(self, draft: Draft, id: str | None) -> ops.SaveOne:
        """How to save a message; one to which the caller gave an *id* may be archived already."""
        return ops.SaveOne(draft, None if id is None else self._in_archive([draft]))

    def _delete_archived(
        self, *, ids: Sequence[str] | None = None, session: str | None = None
    ) -> int:
        if not self._agents.upkeep.archive_of(self.name).exists():
            return 0
        with self._agents.upkeep.chores(self.name) as chores:
            return 0 if chores is None else chores.delete_archived(ids=ids, session=session)

    def reindex(self, *, on_progress: Callable[[int], None] | None = None) -> int:
        """
        Make the word index anew, for the present `languages`. Returns the messages read.

        In commits that fit into the WAL; stopped in between, run it again. Other processes that
        use the agent with other `languages` have to be closed first.
        """
        if not self.exists():
            return 0
        with in_steps():
            reindex_memories(
                read=self._memory_page,
                write=lambda op: self._write(op, other_languages=True),
                analyzer=self._analyzer,
                commit_max_bytes=self._config.commit_bytes,
            )
            return reindex_all(
                read=self._page,
                write=lambda op: self._write(op, other_languages=True),
                analyzer=self._analyzer,
                commit_max_bytes=self._config.commit_bytes,
                on_progress=on_progress,
            )
