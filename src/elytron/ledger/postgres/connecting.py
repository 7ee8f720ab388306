"""Connecting: a new connection within a deadline, name server and all."""

import ipaddress
import math
import queue
import re
import threading
import time
import uuid
from collections.abc import Mapping

import psycopg
from psycopg import errors, generators, waiting
from psycopg.abc import ConnDict
from psycopg.conninfo import conninfo_attempts, make_conninfo

from elytron.ledger.postgres.faults import NoAnswer
from elytron.ledger.postgres.wire import INTERVAL_S, SESSION, Request, Wire

OLDEST_SERVER = 14
_LOOKUPS_MAX = 8  # threads that wait for a name server, which may take its time
_lookups = threading.BoundedSemaphore(_LOOKUPS_MAX)

# A commit that was told is on the disk, whatever the role's settings say; no time limit of the
# server's own strikes within a transaction (older than 17 it has no such one); and a statement
# whose asker has gone ends (a server that is no Linux cannot tell). What is set already is set
# again, so that it is the session's own, and stays when the server's settings are loaded anew.
_DURABLE = (
    "SELECT set_config('synchronous_commit', CASE setting WHEN 'off' THEN 'on' ELSE setting END,"
    " false) FROM current_setting('synchronous_commit') s(setting)"
)
_UNLIMITED = (
    "SELECT set_config('transaction_timeout', '0', false)"
    " WHERE current_setting('transaction_timeout', true) IS NOT NULL"
)
_NOTICE_LEFT = (
    "SELECT set_config('client_connection_check_interval', '2s', false)"
    " WHERE current_setting('client_connection_check_interval') = '0'"
    " AND version() LIKE '%%linux%%'"
)
_ALWAYS = (Request(_DURABLE), Request(_UNLIMITED), Request(_NOTICE_LEFT))
_SET = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) s(name, value)"
_ASK = "SELECT pg_backend_pid(), pg_is_in_recovery()"
_OPTION = re.compile(r"-(?:c\s*|-)([\w.]+)=((?:\\.|[^\\\s])*)", re.DOTALL)


def connect(parameters: Mapping[str, str], deadline: float) -> Wire:
    """
    A connection to the first server of *parameters* that takes us.

    Args:
        deadline: on the monotonic clock. Of several servers each gets its share of the time.

    Raises:
        psycopg.Error: no server took us, or not in time.
    """
    attempts = _attempts(parameters, deadline)
    most_s = float(parameters.get("connect_timeout") or 0) or math.inf
    problem: psycopg.Error = NoAnswer("the server did not answer in time")
    for number, attempt in enumerate(attempts):
        timeout_s = min(most_s, _left(deadline) / (len(attempts) - number))
        try:
            pgconn = waiting.wait_conn(
                generators.connect(make_conninfo("", **attempt)),
                interval=INTERVAL_S,
                timeout=None if timeout_s == math.inf else timeout_s,
            )
        except errors._WaitTimeout:
            problem = NoAnswer("the server did not answer in time")
        except psycopg.Error as error:
            problem = error
        else:
            return _set_up(Wire(pgconn), deadline, parameters.get("options", ""))
    raise problem


def _set_up(wire: Wire, deadline: float, options: str) -> Wire:
    try:
        version = wire.pgconn.server_version // 10_000
        if version < OLDEST_SERVER:
            raise psycopg.NotSupportedError(
                f"the server is PostgreSQL {version}; it has to be {OLDEST_SERVER} or newer"
            )
        encoding = (wire.pgconn.parameter_status(b"server_encoding") or b"UTF8").decode()
        if encoding != "UTF8":
            raise psycopg.NotSupportedError(
                f"the database's encoding is {encoding}, which cannot hold every text; it has to be"
                " UTF8"
            )
        wire.deadline = deadline
        asked = [*_ALWAYS, Request(_ASK)]
        ((pid, wire.standby),) = wire.rows(wire.trip(wire.commands(asked))[-1])
        if pid != wire.pgconn.backend_pid:
            _set_up_pooled(wire, options)
        wire.deadline = math.inf
    except BaseException:
        wire.abandon()
        raise
    return wire


def _set_up_pooled(wire: Wire, options: str) -> None:
    """
    Where a pooler answered in the server's place: what it does not pass on is said again, and the
    session is given a mark, so that it is noticed if other clients have it too. What always holds
    comes last, since a DSN may say otherwise.
    """
    mark = uuid.uuid4().hex
    names, said = zip(*_OPTION.findall(options), (SESSION, mark), strict=True)
    values = [re.sub(r"\\(.)", r"\1", value) for value in said]
    wire.trip(wire.commands([Request(_SET, (list(names), values)), *_ALWAYS]))
    wire.mark = mark


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _attempts(parameters: Mapping[str, str], deadline: float) -> list[ConnDict]:
    """The addresses to try. Asking a name server cannot be given a deadline, but a thread can."""
    hosts = parameters.get("host", "").split(",")
    if "hostaddr" in parameters or all(_is_address(host) for host in hosts):
        return conninfo_attempts(parameters)
    wait_s = min(_left(deadline), threading.TIMEOUT_MAX)
    if not _lookups.acquire(timeout=wait_s):
        raise NoAnswer(f"{_LOOKUPS_MAX} threads wait for the name server already")
    found: queue.SimpleQueue[list[ConnDict] | psycopg.Error] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put(conninfo_attempts(parameters))
        except psycopg.Error as error:
            found.put(error)
        finally:
            _lookups.release()

    threading.Thread(target=look_up, name="elytron-lookup", daemon=True).start()
    try:
        answer = found.get(timeout=min(_left(deadline), threading.TIMEOUT_MAX))
    except queue.Empty:
        raise NoAnswer("the name server did not answer in time") from None
    if isinstance(answer, psycopg.Error):
        raise answer
    return answer


def _is_address(host: str) -> bool:
    if not host or host.startswith(("/", "@")):  # a socket of this machine
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
