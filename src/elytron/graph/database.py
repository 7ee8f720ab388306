"""
Database: one file that a native engine has open, and the connections to it.

Made in the worker alone, which hands in the engine's module. Nothing of the engine leaves: a
result is fetched whole, within its bounds, and closed before its connection is given back. Who
may use the file, and when it is closed, is decided in `held.py`.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from elytron.errors import Busy, InvalidArgument
from elytron.graph.engines import Fault, Limits, database_settings, fault_of
from elytron.graph.wire import RowsPacker, Statement

_USES_MAX = 500  # of one connection: Kuzu's leak some 10 KB each time
_ROWS_BETWEEN_LOOKS = 256
# What the engines' Python sides raise; their C++ sides raise RuntimeError.
_NATIVE = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
_MB = 1 << 20


class EngineFault(Exception):
    """What an engine raised, and what that means."""

    def __init__(self, fault: Fault, said: str, statement: str) -> None:
        super().__init__(fault, said, statement)
        self.fault = fault
        self.said = said
        self.statement = statement


class Database:
    """One open file. Safe for many threads; closed once nobody uses it."""

    def __init__(self, module: ModuleType, path: Path, limits: Limits) -> None:
        """
        Open the file, or make it.

        Raises:
            EngineFault: it cannot be opened.
        """
        self._module = module
        self._limits = limits
        settings = database_settings(module.__name__, limits)
        with _native("open"):
            self._native = module.Database(str(path), **settings)
            first = module.Connection(self._native)
            # Or closing writes to the file, and counts towards the checkpoints that it stands.
            first.execute("CALL force_checkpoint_on_close=false").close()
            first.close()
        self._free = threading.Condition()
        self._idle: list[_Connection] = []
        self._used: set[_Connection] = set()

    def read(self, statement: Statement, *, rows_max: int, bytes_max: int, deadline: float) -> Any:
        """
        What a question gives, packed.

        Raises:
            EngineFault, Busy: no connection came free.
            InvalidArgument: more than *rows_max* rows or *bytes_max* bytes.
        """
        try:
            return self._read(statement, rows_max, bytes_max, deadline)
        except EngineFault as error:
            if error.fault is not Fault.MEMORY:
                raise
        # LadybugDB's connections keep what their earlier statements joined, and this one is closed
        # by now. A new one has the whole pool.
        self._forget_idle()
        return self._read(statement, rows_max, bytes_max, deadline)

    def _forget_idle(self) -> None:
        """Close the connections that nobody uses."""
        with self._free:
            idle, self._idle[:] = list(self._idle), []
        for connection in idle:
            connection.close()

    def _read(self, statement: Statement, rows_max: int, bytes_max: int, deadline: float) -> Any:
        with self._connection(deadline) as connection:
            connection.run("BEGIN TRANSACTION READ ONLY", {}, deadline)
            result = connection.run(statement.text, statement.params, deadline)
            try:
                value = self._fetched(result, rows_max, bytes_max, deadline)
            finally:
                result.close()
            connection.run("ROLLBACK", {}, deadline)
            return value

    def write(self, statements: Sequence[Statement], deadline: float) -> None:
        """
        Run all in one transaction.

        Raises:
            EngineFault: one failed, and nothing was written; or the commit did.
        """
        with self._connection(deadline) as connection:
            connection.run("BEGIN TRANSACTION", {}, deadline)
            for statement in statements:
                connection.run(statement.text, statement.params, deadline).close()
            connection.run("COMMIT", {}, deadline)

    def run(self, statements: Sequence[Statement], deadline: float) -> None:
        """Run each by itself, as it has to be for a schema and for a checkpoint; uninterrupted."""
        with self._connection(deadline) as connection:
            connection.may_be_interrupted = False
            for statement in statements:
                connection.run(statement.text, statement.params, deadline).close()
            connection.may_be_interrupted = True

    def values(self, statement: Statement, deadline: float) -> list[list[Any]]:
        """The few rows of one of our own questions, as the engine gives them."""
        with self._connection(deadline) as connection:
            result = connection.run(statement.text, statement.params, deadline)
            try:
                with _native(statement.text):
                    rows: list[list[Any]] = result.get_all()
            finally:
                result.close()
            return rows

    def interrupt(self) -> None:
        """Have the questions and writes that run now end early."""
        with self._free:
            for connection in self._used:
                if connection.may_be_interrupted:
                    connection.interrupt()

    def close(self) -> None:
        """Close connections, then the file. Only while nobody uses it. Raises EngineFault."""
        assert not self._used, "closed in use"
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        with _native("close"):
            self._native.close()

    def _fetched(self, result: Any, rows_max: int, bytes_max: int, deadline: float) -> Any:
        with _native("fetch"):
            packer = RowsPacker(result.get_column_names(), rename=self._module.__name__ == "kuzu")
        rows = 0
        while result.has_next():
            rows += 1
            if rows > rows_max:
                raise InvalidArgument(
                    f"the query gave more than {rows_max:,} rows: add LIMIT, or raise"
                    " `max_query_rows`"
                )
            with _native("fetch"):
                size_bytes = packer.add(result.get_next())
            if size_bytes > bytes_max:
                raise InvalidArgument(
                    f"the query gave more than {bytes_max / _MB:.3g} MB in {rows:,} rows: ask for"
                    " less, or raise `max_result_mb`"
                )
            if not rows % _ROWS_BETWEEN_LOOKS and time.monotonic() > deadline:
                raise EngineFault(Fault.SLOW, "Interrupted.", "fetch")
        return packer.value()

    @contextlib.contextmanager
    def _connection(self, deadline: float) -> Iterator["_Connection"]:
        """One of at most `max_connections`; a new one takes its place after an error."""
        connection = self._taken(deadline)
        try:
            yield connection
        except BaseException:
            # It may be within a transaction, or within one that the engine ended by itself.
            connection.close()
            raise
        else:
            if connection.uses < _USES_MAX:
                self._idle.append(connection)
            else:
                connection.close()
        finally:
            with self._free:
                self._used.discard(connection)
                self._free.notify()

    def _taken(self, deadline: float) -> "_Connection":
        with self._free:
            limit = self._limits.connections
            left_s = max(0.0, deadline - time.monotonic())
            if not self._free.wait_for(lambda: len(self._used) < limit, left_s):
                raise Busy(
                    f"all {limit} connections to the graph stayed in use; try again, or raise"
                    " `max_connections`"
                )
            if self._idle:
                connection = self._idle.pop()
            else:
                with _native("connect"):
                    connection = _Connection(self._module.Connection(self._native))
            self._used.add(connection)
            return connection


class _Connection:
    """A native connection, for one thread at a time."""

    def __init__(self, native: Any) -> None:
        self._native = native
        self.uses = 0
        self.may_be_interrupted = True

    def run(self, text: str, params: Mapping[str, Any], deadline: float) -> Any:
        """The result of one statement, to be closed. Raises EngineFault."""
        self.uses += 1
        left_ms = int((deadline - time.monotonic()) * 1000)
        if left_ms <= 0:
            raise EngineFault(Fault.SLOW, "Interrupted.", text)
        with _native(text):
            self._native.set_query_timeout(left_ms)
            result = self._native.execute(text, dict(params))
        assert not isinstance(result, list), "one statement at a time"
        return result

    def interrupt(self) -> None:
        with _native("interrupt"):
            self._native.interrupt()

    def close(self) -> None:
        with _native("close"):
            self._native.close()


class _native(contextlib.AbstractContextManager[None]):  # noqa: N801
    """Turn what the engine raises into an `EngineFault`."""

    def __init__(self, statement: str) -> None:
        self._statement = statement

    def __exit__(self, _type: object, error: object, _traceback: object) -> None:
        if isinstance(error, MemoryError):
            raise EngineFault(Fault.MEMORY, "out of memory", self._statement) from error
        if isinstance(error, _NATIVE):
            said = str(error)
            python_side = not isinstance(error, RuntimeError)
            fault = Fault.QUERY if python_side else fault_of(said)
            raise EngineFault(fault, said, self._statement) from error
