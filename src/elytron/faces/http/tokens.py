"""
Tokens: who may do what over HTTP.

A token is 256 bits of chance, shown once; the file holds its SHA-256, which for a secret of that
size is as good as a slow hash. Each is for all agents or for named ones, to read or to write too.
The file is read again when it changes, so a token that is removed stops to work at once.
"""

import contextlib
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elytron.errors import Conflict, InvalidSetting, NotFound, Unavailable
from elytron.ledger.files import check_name
from elytron.ledger.lock import FileLock

TOKENS_MAX = 10_000
_FILE_MAX_BYTES = 64 << 20
_NAME_MAX = 100  # characters of a token's own name
_PREFIX = "elytron_"  # so that a scanner for secrets knows one
_BYTES = 32
_LOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Access:
    """
    What whoever asks may do: `agents` are the only ones, None for all of them; `writes` says
    whether anything may be changed. `name` is the token's own, for the log.
    """

    name: str
    agents: frozenset[str] | None = None
    writes: bool = True

    def allows(self, agent: str | None, *, writes: bool) -> bool:
        """Whether a call on *agent*, or for None on the whole store, is allowed."""
        if writes and not self.writes:
            return False
        return self.agents is None or (agent is not None and agent in self.agents)


# Where no token is asked for: on loopback, whoever can reach the port.
ANYONE = Access("anyone")


class Tokens:
    """The tokens of one file. Safe for many threads."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Read the file.

        Raises:
            Unavailable: it cannot be read.
            InvalidSetting: it is not a file of tokens.
        """
        self.path = Path(path)
        self._mutex = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._by_hash: dict[str, Access] = {}
        self._refresh()

    def __len__(self) -> int:
        return len(self._by_hash)

    def access(self, token: str) -> Access | None:
        """
        What *token* allows; None for one that is not in the file.

        Looks at the file's stamp each time. One that has become unreadable lets nobody in.

        Raises:
            Unavailable, InvalidSetting: as on opening.
        """
        return self.access_by_hash(hash_of(token))

    def access_by_hash(self, sha256: str) -> Access | None:
        """The same, for who keeps a token's hash alone. Raises as `access`."""
        self._refresh()
        # By the hash: how long it takes says nothing of a token.
        return self._by_hash.get(sha256)

    def _refresh(self) -> None:
        with self._mutex:
            stamp = _stamp(self.path)
            if stamp == self._stamp:
                return
            self._by_hash, self._stamp = {}, None
            entries = _read(self.path)
            self._by_hash = {entry["sha256"]: _access(entry) for entry in entries}
            self._stamp = stamp


def add(
    path: str | os.PathLike[str],
    name: str,
    *,
    agents: Iterable[str] | None = None,
    writes: bool = True,
) -> str:
    """
    Make a token, note its hash in the file, and return it. It is nowhere else.

    Args:
        name: to know it by, 1 to 100 characters, none of them a control character.
        agents: the only ones that it is for; None for all.
        writes: whether it may change anything.

    Raises:
        Conflict: the file has a token of that name.
        InvalidSetting, Unavailable: as `Tokens`; or a name is not acceptable.
    """
    path = Path(path)
    name = _check_own_name(name)
    token = _PREFIX + secrets.token_urlsafe(_BYTES)
    named = None if agents is None else sorted({check_name(agent) for agent in agents})
    if named == []:
        raise InvalidSetting("a token for no agent opens nothing; name one, or none for all")
    with _alone(path):
        entries = _read(path) if path.exists() else []
        if any(entry["name"] == name for entry in entries):
            raise Conflict(f"{path} has a token called {name!r}; remove that, or take another name")
        if len(entries) >= TOKENS_MAX:
            raise InvalidSetting(f"{path} has {len(entries)} tokens, the most there may be")
        entry = {"name": name, "sha256": hash_of(token), "agents": named, "writes": bool(writes)}
        _write(path, [*entries, entry])
    return token


def remove(path: str | os.PathLike[str], name: str) -> None:
    """
    Take a token out of the file.

    Raises:
        NotFound: there is none of that name.
        Unavailable, InvalidSetting: as `Tokens`.
    """
    path = Path(path)
    _stamp(path)  # that it is there at all
    with _alone(path):
        entries = _read(path)
        rest = [entry for entry in entries if entry["name"] != name]
        if len(rest) == len(entries):
            raise NotFound(f"{path} has no token called {name!r:.110}")
        _write(path, rest)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process changes the file, so that of two changes none is lost."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
    except OSError as error:
        raise Unavailable(f"the token file {path} cannot be written: {error.strerror}") from error
    with contextlib.closing(lock):
        lock.acquire(time.monotonic() + _LOCK_TIMEOUT_S, _LOCK_TIMEOUT_S)
        yield


def listed(path: str | os.PathLike[str]) -> list[Access]:
    """What the tokens of a file allow, in the order in which they were made."""
    return [_access(entry) for entry in _read(Path(path))]


def hash_of(token: str) -> str:
    """What the file holds of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _access(entry: dict[str, Any]) -> Access:
    agents = entry["agents"]
    return Access(entry["name"], None if agents is None else frozenset(agents), entry["writes"])


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise Unavailable(f"the token file {path} cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise Unavailable(f"the token file {path} cannot be read: {error.strerror}") from error
    wrong = InvalidSetting(f"{path} is not a file of tokens; make one with `elytron token add`")
    if len(data) > _FILE_MAX_BYTES:
        raise wrong
    try:
        entries = json.loads(data)["tokens"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise wrong from error
    if not isinstance(entries, list) or len(entries) > TOKENS_MAX:
        raise wrong
    if not all(map(_is_entry, entries)):
        raise wrong
    return entries


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or entry.keys() != {"name", "sha256", "agents", "writes"}:
        return False
    agents = entry["agents"]
    texts = agents is None or (
        isinstance(agents, list) and all(isinstance(agent, str) for agent in agents)
    )
    named = isinstance(entry["name"], str) and isinstance(entry["sha256"], str)
    return texts and named and isinstance(entry["writes"], bool)


def _write(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Replace the file, readable by its owner alone, by a whole new one."""
    temporary = path.with_name(path.name + ".part")
    text = json.dumps({"tokens": list(entries)}, indent=2, ensure_ascii=True) + "\n"
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise Unavailable(f"the token file {path} cannot be written: {error.strerror}") from error


def _check_own_name(name: object) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= _NAME_MAX or not name.isprintable():
        raise InvalidSetting(
            f"a token's name has 1 to {_NAME_MAX} printable characters; got {name!r:.110}"
        )
    return name
