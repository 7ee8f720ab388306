"""Reading: a session as far as it is held, page by page."""

from elytron.agent import Agent
from elytron.errors import Busy
from elytron.records import Message

PAGE = 500  # messages read at once
_TRIES_MAX = 10  # others that take a message away just where a page ended


def newest(agent: Agent, session: str, *, limit: int | None = None) -> list[Message]:
    """
    The newest *limit* messages of a session, oldest first; all that are held if None.

    Raises:
        Busy: again and again the message where a page ended left before the next was read.
    """
    for _ in range(_TRIES_MAX):
        found = _pages(agent, session, limit)
        if found is not None:
            return found
    raise Busy(f"messages of {session!r:.50} left {_TRIES_MAX} times while they were read; retry")


def _pages(agent: Agent, session: str, limit: int | None) -> list[Message] | None:
    """The same; None if a message left from which the pages before it were to be read."""
    pages: list[list[Message]] = []
    left, before = limit, None
    while left is None or left > 0:
        wanted = PAGE if left is None else min(PAGE, left)
        page = agent.history(session, limit=wanted, before=before)
        if not page and before is not None and agent.get(before) is None:
            return None
        pages.append(page)
        if len(page) < wanted:
            break
        before = page[0].id
        left = None if left is None else left - len(page)
    return [message for page in reversed(pages) for message in page]
