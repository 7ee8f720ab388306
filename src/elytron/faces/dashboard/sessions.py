"""
Sessions: who is logged in.

A token is typed once into a form and exchanged for a random id in a cookie that no script can
read. Here, in memory only, the id leads to the token's hash, of which the file is asked again
at each action: a token that is taken out of it opens nothing any more.
"""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from elytron.errors import AccessDenied, ElytronError
from elytron.faces.dashboard.bounds import Bounds
from elytron.faces.http.tokens import ANYONE, Access, Tokens, hash_of

_ID_BYTES = 32


class SignedOut(AccessDenied):
    """Whoever asks is not logged in, or not any more."""

    def __str__(self) -> str:
        return "you are logged out; log in again"


class NotAllowed(AccessDenied):
    """The token does not allow it. Nothing was done."""

    def __init__(self, agent: str | None, *, writes: bool) -> None:
        super().__init__(agent, writes)
        self.agent = agent
        self.writes = writes

    def __str__(self) -> str:
        if self.writes:
            return "this token may only read; nothing was changed"
        what = "the whole store" if self.agent is None else "this agent"
        return f"this token is not for {what}"


@dataclass(slots=True)
class _Session:
    token_sha256: str
    begun_s: float
    used_s: float


class Sessions:
    """Those of one dashboard. Safe for many threads."""

    def __init__(
        self, tokens: Tokens | None, bounds: Bounds, *, clock: Callable[[], float]
    ) -> None:
        """*clock* gives seconds that never go back."""
        self.tokens = tokens
        self._bounds = bounds
        self._clock = clock
        self._mutex = threading.Lock()
        self._held: OrderedDict[str, _Session] = OrderedDict()  # the one used last is last
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def begin(self, token: str) -> str | None:
        """The id of a new session; None if the token is not in the file."""
        if self.tokens is None or self.tokens.access(token) is None:
            return None
        session = secrets.token_urlsafe(_ID_BYTES)
        now_s = self._clock()
        with self._mutex:
            self._held[session] = _Session(hash_of(token), now_s, now_s)
            while len(self._held) > self._bounds.sessions_max:
                self._held.popitem(last=False)
        return session

    def end(self, id: str | None) -> None:
        """Log out; harmless if there is no such session."""
        with self._mutex:
            self._held.pop(id or "", None)

    def access(self, id: str | None) -> Access:
        """
        What a session may do now. Where no token is asked for, everything. Does not count as use.

        Raises:
            SignedOut: there is no such session, it is too old, or its token stands no longer.
        """
        if self.tokens is None:
            return ANYONE
        with self._mutex:
            token_sha256 = self._standing(id or "").token_sha256
        try:
            found = self.tokens.access_by_hash(token_sha256)
        except ElytronError as error:  # the file cannot be read, so it lets nobody in
            raise SignedOut from error
        if found is None:
            self.end(id)
            raise SignedOut
        return found

    def use(self, id: str | None) -> None:
        """Note that somebody uses a session, so that it does not end yet. Raises as `access`."""
        if self.tokens is not None:
            with self._mutex:
                self._standing(id or "").used_s = self._clock()
                self._held.move_to_end(id or "")

    def _standing(self, id: str) -> _Session:
        """A session that has not ended. With `_mutex` held."""
        now_s = self._clock()
        session = self._held.get(id)
        if session is None:
            raise SignedOut
        old = now_s - session.begun_s > self._bounds.session_max_s
        if old or now_s - session.used_s > self._bounds.session_idle_s:
            del self._held[id]
            raise SignedOut
        return session

    # -- wrong tokens

    def wait_s(self, address: str) -> float:
        """How long this address has to wait before it may try a token again; 0 if not at all."""
        with self._mutex:
            times = self._recent(address)
            if len(times) < self._bounds.failures_max:
                return 0.0
            return times[0] + self._bounds.failures_window_s - self._clock()

    def note_failure(self, address: str) -> None:
        """Count a wrong token."""
        with self._mutex:
            self._failures[address] = [*self._recent(address), self._clock()]
            self._failures.move_to_end(address)
            while len(self._failures) > self._bounds.addresses_max:
                self._failures.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        since_s = self._clock() - self._bounds.failures_window_s
        return [at_s for at_s in self._failures.get(address, ()) if at_s > since_s]


class Viewer:
    """Who looks at one page. What he may do is asked anew each time."""

    def __init__(self, sessions: Sessions, id: str | None) -> None:
        self._sessions = sessions
        self._id = id
        self.logs_in = sessions.tokens is not None

    def access(self) -> Access:
        """Raises `SignedOut`."""
        return self._sessions.access(self._id)

    def use(self) -> None:
        """Note that somebody did something. Raises `SignedOut`."""
        self._sessions.use(self._id)

    def may(self, agent: str | None, *, writes: bool = False) -> bool:
        """Whether it is allowed, on one agent, or for None on the whole store."""
        return self.access().allows(agent, writes=writes)

    def require(self, agent: str | None, *, writes: bool = False) -> None:
        """Raises `NotAllowed`, `SignedOut`."""
        if not self.may(agent, writes=writes):
            raise NotAllowed(agent, writes=writes and self.may(agent))
