"""
Asking: the verbs that the graph answers: what is near a concept, how two are connected, Cypher.

What was saved before is linked and in the graph when the question is asked. The first question
to a memory builds its graph, some 10,000 messages a second.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from elytron.errors import InvalidArgument
from elytron.ledger import feeds
from elytron.records import GraphUsage, Related, Relation
from elytron.verbs.learning import Learning
from elytron.verbs.parameters import check_parameters, check_whole
from elytron.write.admission import check_limit
from elytron.write.remembering import check_as_of, check_name, check_relation

if TYPE_CHECKING:  # imported by the first question: most stores are never asked
    from elytron.graph.client import Rows, Statement

_TIMEOUT_MAX_S = 3600


class Asking(Learning):
    """Related concepts, paths, Cypher."""

    def related(
        self,
        name: str,
        *,
        depth: int = 2,
        relation: str | None = None,
        as_of: datetime | None = None,
        limit: int = 100,
    ) -> list[Related]:
        """
        The concepts near one: over relations in either direction, and those mentioned with it.

        Args:
            name: of a concept, in any case and with or without accents.
            depth: relations to follow, 1 to 6.
            relation: only over relations of this name; then nothing that is only mentioned with it.
            as_of: over relations that held then; now if None.
            limit: at most this many.

        Returns:
            Nearest first, then by name; after the related ones at their depth those that one
            message or memory names together with it, most often first. Empty for an unknown name.

        Raises:
            As `cypher`.
        """
        from elytron.graph import questions

        check_limit(limit, self._config.max_query_rows)
        question = questions.Nearby(
            check_name(name),
            questions.check_depth(depth, "depth", questions.DEPTH_MAX),
            None if relation is None else check_relation(relation),
            check_as_of(as_of),
            limit,
        )
        return questions.nearby(question, self._ask_widely)

    def path(
        self, source: str, target: str, *, max_depth: int = 6, as_of: datetime | None = None
    ) -> list[Relation] | None:
        """
        The shortest way from one concept to another, over relations in either direction.

        Args:
            source, target: names of concepts, in any case and with or without accents.
            max_depth: relations at most, 1 to 10.
            as_of: over relations that held then; now if None.

        Returns:
            The relations in order; empty if both are the same concept, None if there is no way.

        Raises:
            As `cypher`.
        """
        from elytron.graph import questions

        question = questions.Way(
            check_name(source),
            check_name(target),
            questions.check_depth(max_depth, "max_depth", questions.WAY_MAX),
            check_as_of(as_of),
        )
        return questions.way(question, self._ask_widely, self._learned_from)

    def cypher(
        self,
        query: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[dict[str, Any]]:
        """
        Ask the graph in Cypher. It can only read; docs/graph.md has the schema and examples.

        Args:
            query: 1 to 20,000 characters; one statement. What varies belongs in *params*, as
                `$name`.
            params: their values by name: what JSON can carry, and dates and times.
            timeout_s: how long the query itself may take; `graph_timeout_s` if None.

        Returns:
            A row for each result, by column name; at most `max_query_rows`. Times are aware, in
            UTC. Nodes and relations are mappings of their properties, with `_LABEL`. Empty for a
            memory that nothing was written to.

        Raises:
            InvalidArgument: the query is wrong, which is told with its place, or it writes, or it
                gives more than `max_query_rows` or `max_result_mb`.
            DeadlineExceeded: it took longer than *timeout_s*, or more memory than `max_worker_mb`.
            GraphUnavailable: the engine is not installed, or its process died twice over it.
            OverBudget: the memory is so near its limit that there is no room for a graph.
            Busy: bringing the graph up to date took `graph_build_timeout_s`, or other processes
                kept it for three times *timeout_s*. Safe to retry.
        """
        from elytron.graph.client import Statement

        _check_query(query)
        values = check_parameters(params)
        if timeout_s is not None:
            _check_timeout(timeout_s)
        found = self._ask(Statement(query, values), timeout_s=timeout_s)
        if found is None:
            return []
        twice = [name for n, name in enumerate(found.columns) if name in found.columns[:n]]
        if twice:
            raise InvalidArgument(
                f"the query gives two columns called {twice[0]!r:.100}; name them apart with AS"
            )
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]

    def rebuild_graph(self) -> GraphUsage:
        """
        Build the graph anew from the ledger, as when its file is in doubt: some 10,000 messages a
        second. Raises as `cypher`.
        """
        with self._agents.use(self.name, create=False) as agent:
            if agent is None:
                return GraphUsage()
            self._link_first()
            self._agents.upkeep.graphs.rebuild(self.name, agent.ledger, because="asked to")
        return self._agents.upkeep.graphs.usage(self.name)

    def _ask(
        self,
        statement: "Statement",
        *,
        timeout_s: float | None = None,
        rows_max: int | None = None,
    ) -> "Rows | None":
        """Ask the graph; None if there is no such memory."""
        with self._agents.use(self.name, create=False) as agent:
            if agent is None:
                return None
            self._link_first()
            return self._agents.upkeep.graphs.ask(
                self.name, agent.ledger, statement, timeout_s=timeout_s, rows_max=rows_max
            )

    def _ask_widely(self, statement: "Statement") -> "Rows | None":
        """One step of a question of ours: what lies between is more than what is shown."""
        from elytron.graph.questions import ROWS_MAX

        return self._ask(statement, rows_max=ROWS_MAX)

    def _learned_from(self, relations: Sequence[int]) -> dict[int, str]:
        return self._read(lambda db, _: feeds.learned_from(db, relations), default={})


def _check_query(query: object) -> None:
    from elytron.graph.readonly import QUERY_MAX_CHARS

    if not isinstance(query, str):
        raise InvalidArgument(f"a query must be a string; got {type(query).__name__}")
    if not query.strip():
        raise InvalidArgument("the query is empty; docs/graph.md has examples")
    check_whole("the query", query)
    if len(query) > QUERY_MAX_CHARS:
        raise InvalidArgument(
            f"the query has {len(query):,} characters, at most {QUERY_MAX_CHARS:,}; put what varies"
            " into params"
        )


def _check_timeout(timeout_s: object) -> None:
    number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not number or not 0 < timeout_s <= _TIMEOUT_MAX_S:  # type: ignore[operator]
        raise InvalidArgument(
            f"timeout_s must be a number above 0 and up to {_TIMEOUT_MAX_S}; got {timeout_s!r:.50}"
        )
