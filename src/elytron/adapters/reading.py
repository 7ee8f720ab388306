"""Reading: a session as far as it is held, page by page."""

from elytron.agent import Agent
from elytron.records import Message

PAGE = 500  # messages read at once


def newest(agent: Agent, session: str, *, limit: int | None = None) -> list[Message]:
    """The newest *limit* messages of a session, oldest first; all that are held if None."""
    pages: list[list[Message]] = []
    left, before = limit, None
    while left is None or left > 0:
        wanted = PAGE if left is None else min(PAGE, left)
        page = agent.history(session, limit=wanted, before=before)
        pages.append(page)
        if len(page) < wanted:
            break
        before = page[0].id
        left = None if left is None else left - len(page)
    return [message for page in reversed(pages) for message in page]
