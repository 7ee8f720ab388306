"""
Link: a connection to PostgreSQL that answers the few calls which the ledger makes of SQLite's.

The ledger's modules keep their SQL; `dialect` makes PostgreSQL of it, about one agent. What needs
no answer of its own (whose rows are meant, BEGIN, savepoints) goes with the next statement, in
its round trip.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import errors, pq
from psycopg.pq.abc import PGresult

from elytron.ledger import forks
from elytron.ledger.postgres import connecting, dialect, values
from elytron.ledger.postgres.faults import STORAGE_ERRORS, NotReplicated
from elytron.ledger.postgres.wire import Request, Wire

LATER_MAX = 100  # statements that wait for the next one
BATCH_MAX = 500  # statements of an `executemany` in one round trip
_CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "END")
_LATER = ("BEGIN", "SAVEPOINT", "RELEASE")
_SQLITES = ("IMMEDIATE", "DEFERRED", "EXCLUSIVE")
_CHANGING = (b"INSERT", b"UPDATE", b"DELETE", b"MERGE")
_OUTSIDE = (int(pq.TransactionStatus.IDLE), int(pq.TransactionStatus.UNKNOWN))
_TUPLES = int(pq.ExecStatus.TUPLES_OK)
_SET_AGENT = "SELECT set_config('app.agent_id', %s, false)"
_SET_AGENT_WITHIN = "SELECT set_config('app.agent_id', %s, true)"  # until the transaction ends
# What a server says when somebody ends a commit's waiting for the standby, and then that all is
# well: a plain warning, or the one of shutting down.
_NOT_REPLICATED = ("01000", "57P01")


class Cursor:
    """The rows of one statement, read whole."""

    __slots__ = ("_at", "_rows")

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows
        self._at = 0

    @property
    def get(self) -> Any:
        """The next row, or its value if it has one column; None if there is none."""
        row = next(self, None)
        return row[0] if row is not None and len(row) == 1 else row

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows that were not taken yet."""
        rows = self._rows[self._at :] if self._at else self._rows
        self._at = len(self._rows)
        return rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self, None)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self

    def __next__(self) -> tuple[Any, ...]:
        if self._at >= len(self._rows):
            raise StopIteration
        self._at += 1
        return self._rows[self._at - 1]

    def close(self, force: bool = False, /) -> None:  # noqa: ARG002 - as SQLite's cursor has it
        self._rows, self._at = [], 0


class Link:
    """One connection, for one thread at a time. Errors are psycopg's; see `faults.translate`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._agent: uuid.UUID | None = None
        self._agent_set: uuid.UUID | None = None  # which the session is known to be about
        self._set_within = False  # in this transaction, so that a rollback takes it back
        self._later: list[Request] = []
        self._opening = False  # a BEGIN waits for the next statement
        self._snapshot = False  # what is read in this transaction does not change
        self._at_hand: list[tuple[Request, list[tuple[Any, ...]]]] = []
        self._warned = ""
        self._changes = 0
        self._total_changes = 0
        self.rowcount = 0
        self.weighed_bytes = 0
        self._weighed_at: dict[str, int] = {}  # what it was at each savepoint, and at BEGIN
        self.committing = False
        wire.add_notice_handler(self._noticed)
        forks.guard_lock(self)

    @classmethod
    def connect(cls, parameters: Mapping[str, str], deadline: float) -> "Link":
        """
        A new connection; *parameters* as `Dsn.parameters` gives them.

        Raises:
            psycopg.Error: see `connecting.connect`.
        """
        return cls(connecting.connect(parameters, deadline))

    # -- what SQLite's connections have

    def execute(self, statements: str, bindings: Any = None, /) -> Cursor:
        """Run one statement of SQLite's SQL, about the agent that is bound."""
        bound = () if bindings is None else bindings
        if statements.startswith(_CONTROL):
            self._control(statements)
            return Cursor([])
        statement = dialect.translate(statements, values.kinds(bound))
        request = Request(statement.sql, self._named(bound))
        if statement.weigh is None:
            return Cursor(self._answer(request))
        requests = [request]
        if statement.before is not None:
            requests.insert(0, Request(statement.before, request.values))
        return Cursor(self._weighed(statement, self._run(requests)))

    def executemany(self, statements: str, sequenceofbindings: Iterable[Any], /) -> Cursor:
        """Run one statement for each row of values, in few round trips."""
        batch: list[tuple[dialect.Statement, list[Request]]] = []
        changed = 0
        rows: list[tuple[Any, ...]] = []

        def send() -> None:
            nonlocal changed
            results = self._run([request for _, requests in batch for request in requests])
            for statement, requests in batch:
                of_one, results = results[: len(requests)], results[len(requests) :]
                changed += of_one[-1].command_tuples or 0
                if statement.weigh is None:
                    rows.extend(self._rows(of_one[-1]))
                else:
                    rows.extend(self._weighed(statement, of_one))
            batch.clear()

        for bound in sequenceofbindings:
            statement = dialect.translate(statements, values.kinds(bound))
            named = self._named(bound)
            before = [] if statement.before is None else [Request(statement.before, named)]
            batch.append((statement, [*before, Request(statement.sql, named)]))
            if len(batch) >= BATCH_MAX:
                send()
        if batch:
            send()
        self._changes = changed
        return Cursor(rows)

    def changes(self) -> int:
        """How many rows the last INSERT, UPDATE or DELETE touched."""
        return self._changes

    def total_changes(self) -> int:
        """How many rows were touched since the connection was made."""
        return self._total_changes

    def get_autocommit(self) -> bool:
        """Whether no transaction is open."""
        if self._opening:
            return False
        return self._wire.pgconn.transaction_status in _OUTSIDE

    # -- what is PostgreSQL's

    def native(
        self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] = (), /
    ) -> list[tuple[Any, ...]]:
        """
        Run a statement of PostgreSQL's own SQL; its rows. `%(agent)s` is the agent that is bound.

        A literal % is doubled if there are places for values. Without any, several statements may
        be given, and the rows are those of the last.
        """
        if not parameters and "%(agent)s" not in sql:
            return self._script(sql)
        if isinstance(parameters, Mapping) or not parameters:
            parameters = {"agent": self._agent, **dict(parameters)}
        return self._answer(Request(sql, parameters))

    def ahead(self, requests: Sequence[Request]) -> None:
        """
        Ask what will be asked in this snapshot, in one round trip: the answers are at hand then.

        Without a snapshot each is asked when it is.
        """
        if self._snapshot and requests:
            results = self._run([*requests])
            self._at_hand += zip(requests, map(self._rows, results), strict=True)

    def later(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] = (), /) -> None:
        """
        Have a statement of PostgreSQL's own, whose rows nobody needs, go before the next one.

        It is forgotten if the transaction ends before there is a next one.
        """
        if isinstance(parameters, Mapping):
            parameters = {"agent": self._agent, **parameters}
        self._later.append(Request(sql, parameters))
        if len(self._later) >= LATER_MAX:
            self._run([])

    def about_each(
        self, statements: Iterable[tuple[uuid.UUID, str, Mapping[str, Any]]]
    ) -> list[int]:
        """
        Run a statement of PostgreSQL's own about each of several agents, as one transaction in one
        round trip.

        Returns:
            How many rows each touched, once all of it is committed.

        Raises:
            psycopg.Error: as `committing` says then; what a statement failed with, of which
                nothing is kept, leaves the transaction to be rolled back.
        """
        self._run([])
        asked = [Request("BEGIN")]
        for agent, sql, parameters in statements:
            asked.append(Request(_SET_AGENT_WITHIN, (str(agent),)))
            asked.append(Request(sql, {"agent": agent, **parameters}))
        asked.append(Request("COMMIT"))
        self.committing = True
        results = self._run(asked, control=True)
        self._check_committed(results[-1])
        return [result.command_tuples or 0 for result in results[2:-1:2]]

    def bind(self, agent_id: uuid.UUID) -> None:
        """From the next statement on they are about this agent."""
        if self._later and agent_id != self._agent:
            self._run([])  # what waits is about the one before
        self._agent = agent_id

    @property
    def agent(self) -> uuid.UUID | None:
        """Which agent the statements are about."""
        return self._agent

    @property
    def deadline(self) -> float:
        """When a statement without an answer gives up, on the monotonic clock."""
        return self._wire.deadline

    @deadline.setter
    def deadline(self, at: float) -> None:
        self._wire.deadline = at

    @property
    def closed(self) -> bool:
        return self._wire.closed

    @property
    def standby(self) -> bool:
        """Whether the server said that it is a standby, and so may be behind."""
        said = self._wire.pgconn.parameter_status(b"in_hot_standby") == b"on"
        return said or (bool(self._wire.mark) and self._wire.standby)

    def is_idle(self) -> bool:
        """Whether nothing is open, and nothing waits for the next statement."""
        return not self.closed and not self._later and self.get_autocommit()

    def is_alive(self) -> bool:
        """Whether the server has not closed the connection, which must be idle."""
        return self._wire.is_alive()

    def close(self) -> None:
        """Close the connection, waiting for nobody. A transaction that is open is undone."""
        self._wire.abandon()

    # -- transactions

    def _control(self, sql: str) -> None:
        """Begin or end a transaction or a savepoint."""
        word, _, rest = sql.partition(" ")
        if word == "BEGIN":
            self.committing, self._opening = False, True
            self._snapshot = "REPEATABLE READ READ ONLY" in rest
            self._weighed_at = {"": self.weighed_bytes}
            sql = "BEGIN" if rest in _SQLITES else sql
        if word in _LATER:
            if word == "SAVEPOINT":
                self._weighed_at[rest] = self.weighed_bytes
            self.later(sql)
        elif word == "ROLLBACK":
            savepoint = rest.removeprefix("TO ")
            self.weighed_bytes = self._weighed_at.get(savepoint, self.weighed_bytes)
            self._roll_back(sql, to_savepoint=bool(savepoint))
        else:
            self._commit()

    def _commit(self) -> None:
        self._snapshot, self._at_hand = False, []
        if self._opening:
            self._later, self._opening = [], False  # nothing was asked in between
            return
        self.committing = True
        (result,) = self._run([Request("COMMIT")], control=True)
        self._check_committed(result)

    def _check_committed(self, result: PGresult) -> None:
        if result.command_status == b"ROLLBACK":
            raise errors.InFailedSqlTransaction(
                "a statement of the transaction had failed, so nothing of it was kept"
            )
        self.committing = False

    def _roll_back(self, sql: str, *, to_savepoint: bool) -> None:
        if not to_savepoint:
            self._snapshot, self._at_hand = False, []
        if self.closed:
            self._later, self._opening = [], False
            return  # the server undoes what it hears nothing of any more
        if not to_savepoint:
            opening, self._later, self._opening = self._opening, [], False
            if opening:
                return
        undoes_agent = self._set_within
        self._run([Request(sql)], control=True)
        if undoes_agent:
            self._agent_set = None

    def undo(self) -> None:
        """Give an open transaction up; a link that cannot even do that closes itself."""
        if self.closed or self.get_autocommit():
            return
        try:
            self.execute("ROLLBACK")
        except STORAGE_ERRORS:
            self.close()

    # -- one round trip

    def _answer(self, request: Request) -> list[tuple[Any, ...]]:
        """The rows of a statement, which may be at hand."""
        for asked, rows in self._at_hand:
            if asked == request:
                return [*rows]
        return self._rows(self._run([request])[-1])

    def _run(self, requests: list[Request], *, control: bool = False) -> list[PGresult]:
        """Send what waits and *requests*; the results of these."""
        ahead = self._later
        sets = not control and self._agent is not None and self._agent != self._agent_set
        if sets:
            # Behind a BEGIN, whose isolation no query may come before.
            first = 1 if self._opening else 0
            ahead = [*ahead[:first], Request(_SET_AGENT, (str(self._agent),)), *ahead[first:]]
        commands = self._wire.commands([*ahead, *requests]) if ahead or requests else []
        self._later, self._opening, self._warned = [], False, ""
        try:
            results = self._wire.trip(commands) if commands else []
        except BaseException:
            self._agent_set = None  # if it was set, that may have been undone
            raise
        if sets:
            self._agent_set = self._agent
        self._set_within = not self.get_autocommit() and (sets or self._set_within)
        return self._seen(results[len(ahead) :])

    def _script(self, sql: str) -> list[tuple[Any, ...]]:
        self._run([])
        try:
            results = self._wire.script(sql)
        except BaseException:
            self._agent_set = None
            raise
        self._seen(results)
        return self._rows(results[-1])

    def _seen(self, results: list[PGresult]) -> list[PGresult]:
        """Count what *results* say was done."""
        if self._warned:
            raise NotReplicated(f"the waiting for the standby was ended ({self._warned})")
        for result in results:
            self.rowcount = (
                result.ntuples if result.status == _TUPLES else result.command_tuples or 0
            )
            if (result.command_status or b"").startswith(_CHANGING):
                self._changes = result.command_tuples or 0
                self._total_changes += self._changes
        return results

    def _rows(self, result: PGresult) -> list[tuple[Any, ...]]:
        return self._wire.rows(result)

    def _weighed(
        self, statement: dialect.Statement, results: list[PGresult]
    ) -> list[tuple[Any, ...]]:
        """Count what the rows weigh that were touched; the rows without that."""
        rows = self._rows(results[-1])
        bytes_now = sum(row[-1] or 0 for row in rows)
        if statement.weigh == "delete":
            self.weighed_bytes -= bytes_now
        else:
            self.weighed_bytes += bytes_now
        if statement.before is not None:
            self.weighed_bytes -= sum(row[0] or 0 for row in self._rows(results[0]))
        return [row[:-1] for row in rows if len(row) > 1]

    def _named(self, bound: Sequence[Any]) -> dict[str, Any]:
        """Values by the names that `dialect` gives their places."""
        if self._agent is None:
            raise psycopg.ProgrammingError("no agent is bound to the connection")
        named: dict[str, Any] = {f"p{number}": value for number, value in enumerate(bound, 1)}
        named["agent"] = self._agent
        return named

    def _noticed(self, notice: errors.Diagnostic) -> None:
        if self.committing and notice.sqlstate in _NOT_REPLICATED:
            self._warned = notice.sqlstate
