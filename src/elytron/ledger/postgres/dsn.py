"""DSN: where a PostgreSQL server is, as somebody typed it, and what of that may be shown."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from elytron.errors import InvalidArgument

SCHEMES = ("postgresql://", "postgres://")

# After so long without an answer the system itself takes a connection for lost.
_KEEPALIVE = {"keepalives": "1", "keepalives_idle": "10", "keepalives_interval": "5"}
_KEEPALIVE |= {"keepalives_count": "3", "tcp_user_timeout": "20000"}
# A program that is stopped in the midst of a transaction may hold its agents up for so long.
_IDLE_TRANSACTION_MAX_S = 120
# No time limit of the server's own: one that strikes while a commit waits for the standby would
# have the server say that all is well.
_OPTIONS = (
    "-c statement_timeout=0",
    "-c jit=off",  # a plan that was misjudged would be compiled for longer than it runs
    f"-c idle_in_transaction_session_timeout={_IDLE_TRANSACTION_MAX_S}s",
    "-c DateStyle=ISO",
    # Who had to wait for another writer sees what that wrote.
    "-c default_transaction_isolation=read\\ committed",
    "-c standard_conforming_strings=on",
    # By a warning alone the server says that a commit is not on the standby.
    "-c client_min_messages=warning",
)


@dataclass(frozen=True, slots=True)
class Dsn:
    """A server and a database on it. `text` may hold a password; `shown` does not."""

    text: str = field(repr=False)
    shown: str

    def parameters(self, schema: str) -> dict[str, str]:
        """What libpq is given, with what we want where the DSN does not say otherwise."""
        from psycopg.conninfo import conninfo_to_dict

        given = {key: str(value) for key, value in conninfo_to_dict(self.text).items()}
        ours = {"application_name": "elytron", "gssencmode": "disable", **_KEEPALIVE}
        if "," in given.get("host", given.get("hostaddr", "")):
            ours["target_session_attrs"] = "read-write"  # of several servers, the primary
        options = [given.get("options", ""), *_OPTIONS, f"-c search_path={_quoted(schema)}"]
        always = {"client_encoding": "UTF8", "options": " ".join(filter(None, options))}
        return ours | given | always

    def __str__(self) -> str:
        return self.shown


def is_dsn(text: str) -> bool:
    """Whether *text* is meant to name a server, and no folder."""
    return text.startswith(SCHEMES)


def parse(text: str) -> Dsn:
    """
    What *text* says.

    Raises:
        InvalidArgument: it is no DSN of PostgreSQL. The message does not repeat it, since it may
            hold a password.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    if not is_dsn(text):
        raise InvalidArgument("a server is named by postgresql://USER@HOST:PORT/DATABASE")
    try:
        found = conninfo_to_dict(text)
        float(found.get("connect_timeout") or 0)
        _check_password_ended(text, found)
    except (ProgrammingError, ValueError):
        raise InvalidArgument(
            "this is no DSN that PostgreSQL's library understands; it has the form"
            " postgresql://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE, with special characters"
            " written as %XX"
        ) from None
    return Dsn(text, _shown({key: str(value) for key, value in found.items()}))


def _check_password_ended(text: str, found: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError: a password with an @ or a / as it is, so that a part of it would be shown.
    """
    database = text.partition("://")[2].partition("?")[0].partition("/")[2]
    # The first of the host may be that of an abstract socket.
    if "@" in (found.get("host") or "")[1:] or "@" in database:
        raise ValueError
    for port in (found.get("port") or "").split(","):
        int(port or 0)


def _shown(found: dict[str, str]) -> str:
    hosts = (found.get("host") or found.get("hostaddr") or "").split(",")
    ports = (found.get("port") or "").split(",")
    places = []
    for number, host in enumerate(hosts):
        port = ports[number] if len(ports) == len(hosts) else ports[0]
        host = f"[{host}]" if ":" in host else quote(host, safe="/.-_@")
        places.append(f"{host}:{port}" if port else host)
    user = f"{quote(found['user'], safe='')}@" if found.get("user") else ""
    return f"postgresql://{user}{','.join(places)}/{quote(found.get('dbname', ''), safe='')}"


def _quoted(schema: str) -> str:
    """*schema* as an identifier within `options`, where a blank or a backslash is escaped."""
    identifier = '"' + schema.replace('"', '""') + '"'
    return re.sub(r"([\\\s])", r"\\\1", identifier)
