"""Origins: by which names a server is asked, and how the origin of a page looks. Pure."""

import ipaddress

from elytron.errors import InvalidSetting

ADDRESSES = "<addresses>"  # among the names of a server: whatever is an IP address


def host_name(value: bytes) -> str | None:
    """The name in a Host header, without its port; None for what is no such thing."""
    text = value.decode("latin-1").lower()
    if text.startswith("["):
        name, bracket, rest = text.partition("]")
        name += bracket
    else:
        name, colon, rest = text.partition(":")
        rest = colon + rest
    if rest and not (rest.startswith(":") and rest[1:].isascii() and rest[1:].isdigit()):
        return None
    return name or None


def is_address(name: str) -> bool:
    """Whether a name in a Host header is an IP address; what was rebound is a name."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def checked_origin(origin: str) -> str:
    """
    An origin as browsers send it.

    Raises:
        InvalidSetting: it is none.
    """
    found = origin.lower().rstrip("/")
    scheme, colon, host = found.partition("://")
    if not (colon and scheme.isalnum() and host.isascii() and host_name(host.encode("ascii"))):
        raise InvalidSetting(
            f"--allow-origin takes a page's origin, as https://example.org; got {origin!r:.100}"
        )
    if not set("/?#@* ").isdisjoint(host):
        raise InvalidSetting(
            f"--allow-origin takes one origin whole, without a path or `*`; got {origin!r:.100}"
        )
    return found


def checked_host(host: str) -> str:
    """
    A name under which a server is asked, without a port.

    Raises:
        InvalidSetting: it is none.
    """
    found = host.lower()
    name = host_name(found.encode("ascii")) if found.isascii() and found.isprintable() else None
    if name != found or not set("/?#@ ").isdisjoint(found):
        raise InvalidSetting(
            f"--allow-host takes a name without a port, as memory.example.org; got {host!r:.100}"
        )
    return found
