"""
Wire: one connection to PostgreSQL on which nothing waits longer than its deadline.

A server that hangs keeps its connections open, and none of its own time limits strikes; so the
waiting is done here. Statements are sent together, in one round trip, and their answers are read
whole. What was in flight when the waiting ended, for whatever reason, is unknown: the connection
is closed then, at once.
"""

import math
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import adapt, errors, generators, pq, waiting
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn, PGresult

from elytron.ledger.postgres import values
from elytron.ledger.postgres.faults import NoAnswer, NotSent, SharedSession, TooLate, plain

T = TypeVar("T")

INTERVAL_S = 0.1  # at most so long between two looks at the clock, and at Ctrl-C
PREPARED_MAX = 200  # statements that the server keeps for one connection
PREPARE_AFTER = 3  # uses
_UNREAD_MAX = 8  # packets that a server may have sent unasked
SESSION = "app.session"  # the setting that has a session's mark
_PLACE = re.compile(r"%(?:\((\w+)\)s|s|%)")
_BINARY = pq.Format.BINARY
_FINE = (int(pq.ExecStatus.COMMAND_OK), int(pq.ExecStatus.TUPLES_OK))
_EMPTY = int(pq.ExecStatus.EMPTY_QUERY)
_BAD = int(pq.ConnStatus.BAD)
# The server has forgotten a prepared statement, or it has another result since a migration.
_STALE = ("0A000", "26000")

_Key = tuple[bytes, tuple[int, ...]]
# A query for what is not there, if the mark is not ours.
_OURS = (
    "SELECT current_setting(CASE current_setting('app.session', true) WHEN '{mark}'"
    " THEN 'app.session' ELSE 'app.session_of_another' END)"
)
_NOT_OURS = ("42704", "42P05")  # or what we prepare is prepared
_NO_BEGIN = "statement pooling mode"  # what pgbouncer says to a BEGIN then


class Request(NamedTuple):
    """One statement, with places named `%(name)s` or `%s`, and their values."""

    sql: str
    values: Mapping[str, Any] | Sequence[Any] = ()


class _Numbered(NamedTuple):
    """A statement as PostgreSQL wants it, and which values go to its places."""

    sql: bytes
    names: tuple[str, ...]
    formats: tuple[adapt.PyFormat, ...]


@lru_cache(maxsize=2048)
def _numbered(sql: str) -> _Numbered:
    """*sql* with `$1`, `$2` for its places."""
    names: dict[str, int] = {}
    count = 0

    def place(found: re.Match[str]) -> str:
        nonlocal count
        if found[0] == "%%":
            return "%"
        if found[1] is not None:
            return f"${names.setdefault(found[1], len(names) + 1)}"
        count += 1
        return f"${count}"

    text = _PLACE.sub(place, sql).encode()
    return _Numbered(text, tuple(names), (adapt.PyFormat.AUTO,) * (len(names) or count))


class Command(NamedTuple):
    """One message to the server. `prepares` or `closes` what it is about, if it is no statement."""

    send: Callable[[], None]
    prepares: _Key | None = None
    closes: bytes | None = None
    begins: bool = False


def _readable() -> PQGen[int]:
    """Whether there is something to read; not waited for."""
    return (yield waiting.Wait.R)


class Wire(psycopg.Connection[tuple[Any, ...]]):
    """psycopg's connection, waited for with a deadline, and with prepared statements of our own."""

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self.deadline = math.inf
        self.standby = False  # when it was made
        self.mark = ""  # of the session, where a pooler may give it to others
        self._pid = os.getpid()
        values.register(self)
        self._transformer = adapt.Transformer(self)
        self._prepared_as: OrderedDict[_Key, bytes] = OrderedDict()
        self._uses: OrderedDict[_Key, int] = OrderedDict()
        self._to_close: list[bytes] = []
        self._made = 0

    def __del__(self, *_: Any) -> None:
        if os.getpid() == self._pid:  # else the parent's, and its to close
            super().__del__()

    @property
    def closed(self) -> bool:
        return self._closed or super().closed

    def wait(self, gen: PQGen[T], interval: float = INTERVAL_S, timeout: float | None = None) -> T:
        """
        Drive *gen* until it is done, or until the deadline.

        Raises:
            NoAnswer: the deadline passed. The connection is closed.
        """
        if timeout is None and self.deadline != math.inf:
            timeout = max(0.0, self.deadline - time.monotonic())
        try:
            return waiting.wait(
                gen, self.pgconn.socket, interval=min(interval, INTERVAL_S), timeout=timeout
            )
        except BaseException as error:
            # Ctrl-C too: the answer would be taken for the next statement's.
            self.abandon()
            if isinstance(error, errors._WaitTimeout):
                raise NoAnswer("the server did not answer in time") from None
            raise

    def is_alive(self) -> bool:
        """Whether the server has not closed the connection, on which nothing is going on."""
        if self.closed:
            return False
        try:
            for _ in range(_UNREAD_MAX):
                if not waiting.wait(_readable(), self.pgconn.socket, interval=0.0):
                    return True
                self.pgconn.consume_input()
        except psycopg.OperationalError:
            return False
        return False

    def abandon(self) -> None:
        """
        Close the connection without waiting for anything.

        In a forked child only its copy of the socket: a goodbye would end the parent's session.
        """
        if os.getpid() == self._pid:
            self.close()
        elif not self.closed:
            self._closed = True
            os.close(self.pgconn.socket)

    def script(self, sql: str) -> list[PGresult]:
        """Run one or more statements that have no values; their results."""
        self._check_time()
        if self.mark and self._is_outside():
            sql = f"{_OURS.format(mark=self.mark)};\n{sql}"
        self.pgconn.send_query(sql.encode())
        results: list[PGresult] = self.wait(generators.execute(self.pgconn))
        self._check(results)
        return results

    def commands(self, requests: Sequence[Request]) -> list[Command]:
        """
        What is to be sent for *requests*, by `trip`.

        Raises:
            psycopg.Error, ValueError, OverflowError: a value cannot be sent. Nothing was changed.
        """
        commands = [
            Command(partial(self.pgconn.send_close_prepared, name), closes=name)
            for name in self._to_close
        ]
        try:
            for request in requests:
                self._add(request, commands)
        except BaseException:
            for command in commands:
                if command.prepares is not None:
                    self._prepared_as.pop(command.prepares, None)
            raise
        return commands

    def trip(self, commands: Sequence[Command]) -> list[PGresult]:
        """
        Send *commands* together; the results of those that are statements.

        If one fails the server skips those behind it.

        Raises:
            psycopg.Error: what the first to fail failed with.
        """
        self._check_time()
        results: list[PGresult]
        if self.mark and self._is_outside():
            return self._guarded(commands)
        if len(commands) == 1 and commands[0].closes is None:
            commands[0].send()
            results = self.wait(generators.execute(self.pgconn))
        else:
            results = self._piped(commands)
        self._check(results)
        return results

    def _is_outside(self) -> bool:
        return self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    def _guarded(self, commands: Sequence[Command]) -> list[PGresult]:
        """As `trip`, if the session is still ours, and so what was prepared and set in it."""
        ours = _OURS.format(mark=self.mark).encode()
        ask = Command(partial(self.pgconn.send_query_params, ours, None, result_format=_BINARY))
        # Behind what is closed, and a BEGIN, whose isolation no query may come before.
        closing = sum(command.closes is not None for command in commands)
        begins = int(commands[closing].begins) if closing < len(commands) else 0
        at = closing + begins
        results = self._piped([*commands[:at], ask, *commands[at:]])
        self._check(results)
        return [*results[:begins], *results[begins + 1 :]]

    def rows(self, result: PGresult) -> list[tuple[Any, ...]]:
        """The rows of *result*."""
        if not result.ntuples:
            return []
        self._transformer.set_pgresult(result)
        found = self._transformer.load_rows(0, result.ntuples, tuple)
        return values.plain_rows(found, [result.ftype(at) for at in range(result.nfields)])

    def _check_time(self) -> None:
        if self.closed:
            raise NotSent("the connection is closed")
        if time.monotonic() >= self.deadline:
            self.abandon()
            raise TooLate("the time was over before the statement was sent")

    def _add(self, request: Request, commands: list[Command]) -> None:
        numbered = _numbered(request.sql)
        pgconn = self.pgconn
        if not numbered.formats:
            commands.append(
                Command(
                    partial(pgconn.send_query_params, numbered.sql, None, result_format=_BINARY),
                    begins=numbered.sql.startswith(b"BEGIN"),
                )
            )
            return
        bound: Sequence[Any]
        if isinstance(request.values, Mapping):
            bound = [request.values[name] for name in numbered.names]
        else:
            bound = request.values
        if len(bound) != len(numbered.formats):
            raise psycopg.ProgrammingError(
                f"a statement has {len(numbered.formats)} places, and was given {len(bound)} values"
            )
        transformer = self._transformer
        parameters = transformer.dump_sequence(bound, numbered.formats)
        types, formats = transformer.types or (), transformer.formats
        name = self._name((numbered.sql, types), commands)
        if name is None:
            send = partial(
                pgconn.send_query_params, numbered.sql, parameters, types, formats, _BINARY
            )
        else:
            send = partial(pgconn.send_query_prepared, name, parameters, formats, _BINARY)
        commands.append(Command(send))

    def _name(self, key: _Key, commands: list[Command]) -> bytes | None:
        """What the statement is prepared as; adds the command that prepares it, if it is time."""
        name = self._prepared_as.get(key)
        if name is not None:
            self._prepared_as.move_to_end(key)
            return name
        uses = self._uses.pop(key, 0) + 1
        if uses < PREPARE_AFTER:
            self._uses[key] = uses
            if len(self._uses) > PREPARED_MAX:
                self._uses.popitem(last=False)
            return None
        self._made += 1
        name = b"e%d" % self._made
        send = partial(self.pgconn.send_prepare, name, *key)
        commands.append(Command(send, prepares=key))
        self._prepared_as[key] = name
        if len(self._prepared_as) > PREPARED_MAX:
            self._to_close.append(self._prepared_as.popitem(last=False)[1])
        return name

    def _piped(self, commands: Sequence[Command]) -> list[PGresult]:
        """Send all *commands* at once; the results of those that are statements."""
        pgconn = self.pgconn
        try:
            pgconn.enter_pipeline_mode()
            for command in commands:
                command.send()
            pgconn.pipeline_sync()
            answers = self.wait(self._exchange(len(commands)))
            if pgconn.status != _BAD:
                pgconn.exit_pipeline_mode()
        except BaseException:
            self.abandon()
            raise
        results = []
        for command, answer in zip(commands, answers, strict=False):
            fine = answer.status in _FINE
            if command.prepares is not None:
                if not fine:
                    self._prepared_as.pop(command.prepares, None)
                    results.append(answer)
            elif command.closes is not None:
                if fine:
                    self._to_close.remove(command.closes)
            else:
                results.append(answer)
        return results

    def _exchange(self, count: int) -> PQGen[list[PGresult]]:
        """Send what is buffered, and read *count* answers and that of the sync behind them."""
        answers: list[PGresult] = []
        yield from generators.send(self.pgconn)
        for _ in range(count + 1):
            try:
                found = yield from generators.fetch_many(self.pgconn)
            except psycopg.Error:
                # Before the connection broke, the server may have said why.
                if any(answer.status not in _FINE for answer in answers):
                    break
                raise
            answers += found[:1]
        if len(answers) <= count and all(answer.status in _FINE for answer in answers):
            raise psycopg.OperationalError("the connection was lost")
        return answers[:count]

    def _check(self, results: list[PGresult]) -> None:
        for result in results:
            if result.status in _FINE or result.status == _EMPTY:
                continue
            error = plain(errors.error_from_result(result, encoding="utf-8"))
            if self.mark and (error.sqlstate in _NOT_OURS or _NO_BEGIN in str(error)):
                self.abandon()
                raise SharedSession(
                    "a pooler in between gives one session to several clients; it has to keep each"
                    " for one: set `pool_mode = session`, or name the server itself"
                )
            if error.sqlstate in _STALE:
                self.abandon()
            raise error
