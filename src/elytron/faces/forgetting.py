"""
Forgetting: the commands that erase for good. They ask first.
"""

import contextlib
import sys

import click

from elytron.errors import Corrupt, InvalidArgument, NotFound
from elytron.faces import documents
from elytron.faces.options import Command, Place, common, held_agent, quoted
from elytron.faces.output import say
from elytron.faces.progress import stepping
from elytron.faces.visible import counted, human_bytes
from elytron.ledger import files, strays
from elytron.reports import Erased
from elytron.store import Store


def yes_option(command: Command) -> Command:
    """Do not ask."""
    return click.option("--yes", is_flag=True, help="Do not ask; needed without a terminal.")(
        command
    )


@click.command()
@common
@click.argument("agent")
@click.option("--user", metavar="USER", help="All messages of this user, and direct replies.")
@click.option("--session", metavar="SESSION", help="All messages of this session instead.")
@click.option("--keep-replies", is_flag=True, help="Not what the assistant answered the user.")
@yes_option
def forget(
    place: Place,
    agent: str,
    user: str | None,
    session: str | None,
    keep_replies: bool,
    yes: bool,
) -> None:
    """Erase a user or a session for good.

    In the memory and in its archive, with all that was learned only from them. Their bytes are
    overwritten. Asks first. The receipt says where erased text may still be.

    JSON: agent, messages, archived, memories, concepts, sessions, users (counts of what was
    erased) and remaining (where some of it may still be, in words).
    """
    if (user is None) == (session is None):
        raise InvalidArgument("name either a --user or a --session to forget")
    what = f"user {quoted(user)}" if user is not None else f"session {quoted(session or '')}"
    with place.open() as store:
        memory = held_agent(store, agent)
        _confirm(f"Erase {what} from the memory of {quoted(agent)} for good?", yes=yes)
        with stepping(memory, "forgetting", silent=place.as_json):
            report = memory.forget(user=user, session=session, replies=not keep_replies)
    found = report.messages or report.archived or report.sessions or report.users
    # Of one who is not there nothing is told but what may still hold him: backups are always named.
    if found or report.memories or report.concepts or len(report.remaining) > 1:
        _show(place, report)
    if not found:
        raise NotFound(f"no {what} in the memory of {quoted(agent)}; nothing was erased")


@click.command()
@common
@click.argument("agent")
@yes_option
def clear(place: Place, agent: str, yes: bool) -> None:
    """Erase all that an agent holds, for good.

    In the memory and in its archive. Asks first.

    JSON: as `forget`.
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        _confirm(f"Erase the whole memory of {quoted(agent)} for good?", yes=yes)
        with stepping(memory, "clearing", silent=place.as_json):
            report = memory.clear()
    _show(place, report)


def delete_all(place: Place, agent: str, *, yes: bool) -> None:
    """The command `delete --all`."""
    with place.open() as store:
        with contextlib.suppress(Corrupt):  # one that is damaged can go, too
            _check_there(store, agent)
        _confirm(f"Delete {quoted(agent)} with all its files for good?", yes=yes)
        report = store.delete(agent)
    if place.as_json:
        documents.write(report)
        return
    held = "a memory that could not be counted"
    if report.messages is not None and report.archived is not None:
        messages = counted(report.messages, "message", "messages")
        held = f"{messages} and {report.archived:,} archived"
    say(f"deleted {quoted(agent)} with {held}: {human_bytes(report.bytes)}")


def _check_there(store: Store, name: str) -> None:
    """
    Raises:
        NotFound: there is neither an agent called so, nor what a stopped restore left of one.
    """
    try:
        held_agent(store, name)
    except NotFound:
        if not strays.is_unfinished(files.agent_folder(store.path, files.check_name(name))):
            raise


def _confirm(question: str, *, yes: bool) -> None:
    """
    Raises:
        InvalidArgument: there is nobody to ask, or the answer was no.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidArgument("nobody is there to be asked; nothing was erased: add --yes to do it")
    if not click.confirm(question, err=True):
        raise InvalidArgument("not confirmed; nothing was erased")


def _show(place: Place, report: Erased) -> None:
    if place.as_json:
        documents.write(report)
        return
    from elytron.faces import report_tables
    from elytron.faces.terminal import show

    show(*report_tables.erased(report))
