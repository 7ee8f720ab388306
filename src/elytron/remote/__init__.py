"""Remote: the verbs of a store over HTTP, from another process or machine."""

from typing import TYPE_CHECKING

from elytron.errors import InvalidArgument

if TYPE_CHECKING:
    from elytron.remote.store import RemoteStore


def connect(
    url: str, *, token: str | None = None, timeout_s: float = 60, connections_max: int = 10
) -> "RemoteStore":
    """
    Use a store that `elytron serve` serves: the same verbs as on `elytron.open`'s.

    Args:
        url: where it is served, as `http://127.0.0.1:7700`; `https` to another machine.
        token: one of the server's, where it asks for any.
        timeout_s: how long to wait for an answer, 0.05 to 3600; for verbs that take long, for the
            next sign that it is still at work, and then at least 30.
        connections_max: calls at the same time, 1 to 1000; more wait. `on_alarm` takes one more.

    Raises:
        InvalidArgument: no such URL, or the extra `client` is not installed.
        AccessDenied: the token is missing or unknown.
        Unavailable: no server answers there, or one of another version.

    A call whose answer is lost is asked again where that cannot do anything twice: reads, and
    writes with an id, which is made on this side. Else it raises `OutcomeUnknown`; so it does for
    a write that a proxy answers in the server's place, with a status of 500 and more.
    `InvalidArgument` may come from either side; settings are the server's.
    """
    try:
        from elytron.remote.store import RemoteStore
    except ModuleNotFoundError as error:
        if error.name not in ("urllib3", "pydantic"):
            raise
        raise InvalidArgument(
            "connecting needs urllib3 and pydantic; run: pip install 'elytron[client]'"
        ) from error
    return RemoteStore(url, token=token, timeout_s=timeout_s, connections_max=connections_max)
