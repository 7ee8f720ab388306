"""
Learning: the verbs for what was learned: memories, concepts, and relations between these.

They are answered from the ledger alone. What the graph answers is in `asking.py`.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from elytron import recall
from elytron.errors import Busy, DiskFull, ElytronError, InvalidArgument, NotFound, OverBudget
from elytron.ledger import knowledge, ops
from elytron.ledger.knowledge import Sought
from elytron.ledger.learned import DeleteConcept, DeleteMemory
from elytron.ledger.rows import to_us
from elytron.recall.candidates import MEMORIES_MAX
from elytron.recall.question import Question
from elytron.recall.remembered import rank_memories
from elytron.records import Concept, ConceptDetails, Memory, Receipt, Relation
from elytron.verbs.reading import Reading
from elytron.write import remembering
from elytron.write.admission import check_id, check_limit, check_question
from elytron.write.remembering import check_as_of, check_line, check_relation, to_name

_log = logging.getLogger("elytron.verbs")
_DELETED_MAX = 200  # ties of a concept that go in the same commit


class Learning(Reading):
    """Memories, concepts and relations."""

    # -- memories

    def remember(
        self,
        content: str,
        *,
        about: Iterable[str] = (),
        kind: str = "fact",
        importance: float | None = None,
        pinned: bool = False,
        session: str | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,
        replaces: str | None = None,
    ) -> Receipt:
        """
        Remember something in words; when this returns it is durable.

        Args:
            content: 1 character to `max_message_kb`.
            about: names of concepts, at most 100; those that are new are made, and one that was
                only proposed is confirmed. A name has 1 to 200 characters and is compared without
                case, accents, and signs beside its words: "C++", "C#" and "C" are one.
            kind: 1 to 200 characters, such as fact, preference, summary.
            importance: 0 to 1, 0.5 if None.
            pinned: kept as it is given.
            session: the conversation that it was learned in, made if it is new. It is forgotten
                with that.
            valid_from, valid_to: it holds from the one on and before the other, with a zone; None
                where no end is known.
            metadata: as in `save`.
            id: 1 to 200 characters; made if None. Remembering the same content under the same id
                again is harmless.
            replaces: the id of a memory that holds no longer. It is closed where this one begins:
                at *valid_from*, or now. Asked `as_of` a time before, it is still found.

        Raises:
            InvalidArgument: a value is not acceptable. Nothing was written.
            Conflict: the id is held with other content. Nothing was written.
            NotFound: there is no memory to be replaced. Nothing was written.
            OverBudget: `max_concepts` or the agent's bytes are reached. Nothing was written.
            Busy, DiskFull, OutcomeUnknown: as for `save`.

        One commit with one fsync, as a save.
        """
        self._agents.check_usable()  # first: in a fork a lock of the ids may be held for ever
        op = remembering.admit_memory(
            content,
            about=about,
            kind=kind,
            importance=importance,
            pinned=pinned,
            session=session,
            valid_from=valid_from,
            valid_to=valid_to,
            metadata=metadata,
            id=id,
            replaces=replaces,
            config=self._config,
            analyzer=self._analyzer,
            ids=self._ids,
        )
        if replaces is not None:
            self._check_exists(f"no memory has the id {replaces!r}")
        receipt: Receipt = self._write(op)
        return receipt

    def memories(
        self,
        question: str | None = None,
        *,
        about: str | None = None,
        kind: str | None = None,
        session: str | None = None,
        as_of: datetime | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Memory]:
        """
        What is remembered.

        Args:
            question: those that hold one of its words, best first, and with vectors those that
                mean about the same; without it the newest first.
            about: only those that name this concept, whether they were told to or their text does.
            kind, session: only those of this kind, of this session.
            as_of: those that held at this time, with a zone; those that hold now if None.
            limit: at most this many, 1 to `max_query_rows`.
            before: only those remembered before the one with this id, for paging back; not with a
                question. An unknown one gives an empty list.

        With a question, the words of each memory are scored, of the newest 20,000 and of the pinned
        ones: some 3 us a memory. While the embedder does not answer, words do.
        """
        check_limit(limit, self._config.max_query_rows)
        sought = Sought(
            to_us(check_as_of(as_of)),
            None if about is None else to_name(about, "about").folded,
            None if kind is None else check_line(kind, "kind"),
            None if session is None else check_id(session, "session"),
            before=None if before is None else check_id(before, "before"),
        )
        if question is not None and before is not None:
            raise InvalidArgument("`before` pages a list back; leave it out with a question")
        if about is not None:
            self._link_first()
        if question is None:
            return self._read(
                lambda db, source: knowledge.memories(db, sought, limit=limit, source=source),
                default=[],
            )
        return self._best(sought, check_question(question), limit)

    def _best(self, sought: Sought, question: str, limit: int) -> list[Memory]:
        terms = self._analyzer.query(question, terms_max=self._config.max_query_terms)
        with self._agents.use(self.name, create=False) as agent:
            if agent is None:
                return []
            self._check_same(agent)
            vector = self._vector(agent, question)
            if vector is not None:
                asked = Question(question, terms, datetime.now(UTC), None, sought, limit, vector)
                return recall.memories(
                    agent.ledger, asked, config=self._config, nearest=agent.nearest
                )
            with agent.ledger.reading(snapshot=True) as db:
                source = agent.ledger.source
                held = knowledge.memory_terms(db, sought, limit=MEMORIES_MAX, source=source)
                keys = rank_memories(held, terms, limit=limit, config=self._config)
                found = knowledge.memories_of(db, keys, source)
            agent.ledger.uses.note(keys)
            return [found[key] for key in keys]

    def get_memory(self, id: str) -> Memory | None:
        """The memory with this id, whether it holds or not; or None."""
        check_id(id, "id")
        return self._read(lambda db, source: knowledge.memory(db, id, source), default=None)

    def edit_memory(self, id: str, content: str) -> None:
        """
        Replace a memory's content, as to mend a slip. What else is known of it stays.

        For something that is no longer so, `remember` with `replaces` keeps the past.

        Raises:
            NotFound: no memory has this id.
            InvalidArgument: the content is not acceptable.
        """
        memory = self.get_memory(id)
        if memory is None:
            raise NotFound(f"no memory has the id {id!r}; nothing was changed")
        self._write(remembering.admit_edit(memory, content, self._config, self._analyzer))

    def close_memory(self, id: str, *, at: datetime | None = None) -> None:
        """
        Say that a memory holds no longer: from *at* on, with a zone, or from now on.

        With *at* an end that it has is corrected. Without, one that has ended keeps its end.

        Raises:
            NotFound: no memory has this id.
            InvalidArgument: it begins after *at*.
        """
        op = remembering.admit_end(id, at)
        self._check_exists(f"no memory has the id {id!r}")
        self._write(op)

    def delete_memory(self, id: str) -> bool:
        """
        Remove one memory for good. Returns whether it was there.

        The concepts that it is about stay.
        """
        check_id(id, "id")
        if not self.exists():
            return False
        # Its text and its words are overwritten.
        size_bytes = ops.DELETED_BYTES + 2 * self._config.max_message_bytes
        return bool(self._write(DeleteMemory(id, size_bytes)))

    # -- relations

    def relate(
        self,
        source: str,
        relation: str,
        target: str,
        *,
        strength: float = 1.0,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        replaces: bool = False,
    ) -> None:
        """
        Note a fact about two concepts, as "Alice" "lives in" "Lyon".

        Args:
            source, target: names as in `remember`; concepts that are new are made.
            relation: 1 to 200 characters, compared as it is written.
            strength: 0 to 1.
            valid_from, valid_to: it holds from the one on and before the other, with a zone; None
                where no end is known.
            replaces: whatever else *source* has by this *relation* is closed where this begins: at
                *valid_from*, or now. Asked `as_of` a time before, it is still found.

        The same fact again is harmless: while it holds there is one row of it, which takes the
        strength, and the beginning and the end where these are given. Where one was told that
        begins later, one without *valid_from* holds until then, and that one from then on.

        Raises:
            InvalidArgument: a value is not acceptable, or a fact to be replaced begins later.
            OverBudget: `max_concepts` or the agent's bytes are reached.
            Busy, DiskFull, OutcomeUnknown: as for `save`.

        After any of them nothing was changed; after `OutcomeUnknown`, relate again.
        """
        self._write(
            remembering.admit_relation(
                source,
                relation,
                target,
                strength=strength,
                valid_from=valid_from,
                valid_to=valid_to,
                replaces=replaces,
            )
        )

    def unrelate(
        self,
        source: str,
        relation: str | None = None,
        target: str | None = None,
        *,
        at: datetime | None = None,
    ) -> int:
        """
        Close what *source* is told to have: by this *relation*, with this *target*, or all of it.

        Args:
            at: from when on it does not hold any more, with a zone; now if None.

        Returns how many facts held then. None is removed: `as_of` a time before, they are found.
        In commits of 200; stopped in between, call it again.
        """
        op = remembering.admit_unrelate(source, relation, target, at, self._config)
        closed, more = 0, self.exists()
        while more:
            step, more = self._write(op)
            closed += step
        return closed

    def relations(
        self,
        name: str | None = None,
        *,
        relation: str | None = None,
        as_of: datetime | None = None,
        limit: int = 1000,
    ) -> list[Relation]:
        """
        Facts, the newest first.

        Args:
            name: only those of this concept, on either side.
            relation: only these.
            as_of: those that held at this time, with a zone; those that hold now if None.
            limit: at most this many, 1 to `max_query_rows`.
        """
        check_limit(limit, self._config.max_query_rows)
        at_us = to_us(check_as_of(as_of))
        folded = None if name is None else to_name(name).folded
        wanted = None if relation is None else check_relation(relation)
        return self._read(
            lambda db, source: knowledge.relations(
                db, at_us=at_us, folded=folded, relation=wanted, limit=limit, source=source
            ),
            default=[],
        )

    # -- concepts

    def concepts(
        self,
        question: str | None = None,
        *,
        type: str | None = None,
        origin: str | None = None,
        limit: int = 100,
    ) -> list[Concept]:
        """
        What is talked about, the most mentioned first.

        Args:
            question: only those whose name has this in it, without case and accents; first those
                that begin with it.
            type: only those of this type.
            origin: only those that were `told`, `extracted` or `proposed`.
            limit: at most this many, 1 to `max_query_rows`.

        What was saved before is looked through for names first. Counts all mentions: some 10 ms
        for 100,000 of them.
        """
        check_limit(limit, self._config.max_query_rows)
        part = None if question is None else to_name(question, "question").folded
        kind = None if type is None else check_line(type, "type")
        number = None if origin is None else remembering.check_origin(origin)
        self._link_first()
        return self._read(
            lambda db, source: knowledge.concepts(
                db, question=part, type=kind, origin=number, limit=limit, source=source
            ),
            default=[],
        )

    def concept(self, name: str) -> ConceptDetails | None:
        """
        A concept with where it occurs: the newest five messages that name it, the memories and
        relations that hold now, at most a hundred of each. None if there is none of that name.

        What was saved before is looked through for names first.
        """
        folded = to_name(name).folded
        at_us = to_us(check_as_of(None))
        self._link_first()
        return self._read(
            lambda db, source: knowledge.concept_details(db, folded, at_us=at_us, source=source),
            default=None,
        )

    def set_concept(
        self,
        name: str,
        *,
        rename: str | None = None,
        type: str | None = None,
        description: str | None = None,
        confidence: float | None = None,
    ) -> Concept:
        """
        Change what is known of a concept, each where it is given, and confirm it: one that was
        proposed or extracted counts as told.

        Args:
            rename: 1 to 200 characters. It stays the same concept, with all that names it; a text
                that is edited later is looked through for the new name alone.
            type: 1 to 200 characters; an empty one takes it away.
            description: at most 2000 characters; an empty one takes it away.
            confidence: 0 to 1.

        Raises:
            NotFound: no concept has this name.
            Conflict: another has the new one.
        """
        op = remembering.admit_change(
            name, rename=rename, type=type, description=description, confidence=confidence
        )
        self._check_exists("no concept has this name")
        if rename is not None:
            self._link_first()  # what still waits to be looked through has the old name
        row, times = self._write(op)
        return knowledge.to_concept(row, times)

    def delete_concept(self, name: str) -> bool:
        """
        Remove a concept for good, with its relations; what was saved stays. Returns whether it was
        there.

        If its name recurs it may be proposed again: see `propose_concepts`.
        """
        folded = to_name(name).folded
        if not self.exists():
            return False
        at_once = max(1, min(_DELETED_MAX, self._config.commit_bytes // (4 * 4096)))
        found, more = self._write(DeleteConcept(folded, at_once))
        if more:
            self._sweep()
        return bool(found)

    def _sweep(self) -> None:
        """Take away the ties that a deleted concept has left; what is not, a clean-up does."""
        try:
            with self._agents.upkeep.chores(self.name) as chores:
                if chores is not None:
                    chores.desk.sweep(())
        except ElytronError as error:
            _log.info(
                "ties of a deleted concept of %r are left for a clean-up: %s", self.name, error
            )

    def _link_first(self) -> None:
        """Look what was saved through for names, unless a limit is in the way."""
        with self._agents.use(self.name, create=False) as agent:
            if agent is None:
                return
            try:
                self._agents.link(self.name, agent)
            except (Busy, OverBudget, DiskFull) as error:
                _log.info("%r is answered without its newest links: %s", self.name, error)

    def _check_exists(self, what: str) -> None:
        if not self.exists():
            raise NotFound(f"{what}; nothing was changed")
