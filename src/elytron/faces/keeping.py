"""
Keeping: the commands of limits: what leaves, what comes back, what is pinned, given back, checked.

Rich is imported by those that print for people, once it is known that they do.
"""

from datetime import datetime
from pathlib import Path

import click

from elytron.agent import Agent
from elytron.errors import Corrupt, InvalidArgument, NotFound
from elytron.faces import backing_up, costs, documents
from elytron.faces.costs import Unreadable
from elytron.faces.each import of_each
from elytron.faces.options import Command, Place, common, held_agent, quoted, time_option
from elytron.faces.output import note, say
from elytron.faces.progress import counting, stepping
from elytron.faces.visible import counted
from elytron.ledger import strays
from elytron.reports import Checked, Cleanup, Finding, Restored

_IDS_TOLD = 3  # missing ids in an error


def dry_run_option(command: Command) -> Command:
    """Only say what would be done."""
    return click.option("--dry-run", is_flag=True, help="Only show what would be done.")(command)


@click.command()
@common
@click.argument("agent")
@click.option(
    "--older-than-days", type=float, metavar="N",
    help="Those so old; `archive_after_days` if not given.",
)  # fmt: skip
@click.option(
    "--keep", type=int, metavar="N", help="The newest so many stay; `keep_messages` if not given."
)
@dry_run_option
def archive(
    place: Place, agent: str, older_than_days: float | None, keep: int | None, dry_run: bool
) -> None:
    """Move old messages to the archive.

    They leave the memory, and `restore` brings them back; `recall --archived` finds them. Pinned
    messages never leave. With --dry-run nothing is changed, and the first that would go are shown.

    JSON: agent, dry_run, leaving (each with id, session, role, at, reason and bytes), reasons
    (counts), held, freed_bytes, short_bytes and short_messages (over a limit, but pinned),
    archived and given_back_bytes.
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        with stepping(memory, "archiving", silent=place.as_json or dry_run) as on_progress:
            report = memory.archive(
                older_than_days=older_than_days,
                keep=keep,
                dry_run=dry_run,
                on_progress=on_progress,
            )
    _show_cleanup(place, report)


@click.command()
@common
@click.argument("agent")
@dry_run_option
def emergency(place: Place, agent: str, dry_run: bool) -> None:
    """Archive the oldest half at once, and give space back.

    If at least `emergency_messages` are held. For when the disk is full or memory is short.

    JSON: as `archive`.
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        with stepping(memory, "archiving", silent=place.as_json or dry_run):
            report = memory.emergency_cleanup(dry_run=dry_run)
        least = store.config.emergency_messages
    _show_cleanup(place, report)
    if report.held < least:
        note(
            f"{report.held:,} messages are fewer than `emergency_messages`, {least:,}: none leaves"
        )


def _show_cleanup(place: Place, report: Cleanup) -> None:
    if place.as_json:
        documents.write(report)
        return
    from elytron.faces import report_tables
    from elytron.faces.terminal import show

    show(*report_tables.cleanup(report))


@click.command()
@common
@click.argument("agent", required=False)
@dry_run_option
def cleanup(place: Place, agent: str | None, dry_run: bool) -> None:
    """Enforce the limits now, of one agent or of all.

    What else is done periodically: archive what the settings say, mend what a crash left half
    done, drop what the archive has too much, and give space back.

    JSON: a list, each as `archive`; or, for an agent that cannot be read, with agent and cause.
    """
    with place.open() as store:

        def enforce(memory: Agent) -> Cleanup:
            with stepping(memory, "cleaning up", silent=place.as_json or dry_run):
                return memory.enforce_limits(dry_run=dry_run)

        reports = of_each(store, agent, enforce)
    if place.as_json:
        documents.write(reports)
    elif not reports:
        note(f"{store.shown} holds no agents")
    else:
        from elytron.faces import report_tables
        from elytron.faces.terminal import show

        show(*report_tables.cleanups(reports, dry_run=dry_run))
    costs.raise_first_error(reports)


@click.command()
@common
@click.argument("agent", required=False)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--session", metavar="SESSION", help="Those of this session.")
@time_option("--since", zone_needed=False, help="Those said from this time on.")
@time_option("--until", zone_needed=False, help="Those said before this time.")
@click.option(
    "--from", "source", metavar="BACKUP", type=click.Path(path_type=Path),
    help="A folder made by `backup`; what is named then are agents.",
)  # fmt: skip
@click.option("--replace", is_flag=True, help="With --from: also in the place of whole memories.")
@click.option("--dry-run", is_flag=True, help="With --from: only verify, and say what would be.")
def restore(
    place: Place,
    agent: str | None,
    ids: tuple[str, ...],
    session: str | None,
    since: datetime | None,
    until: datetime | None,
    source: Path | None,
    replace: bool,
    dry_run: bool,
) -> None:
    """Bring messages back from the archive, or agents from a backup.

    From the archive of AGENT by their IDs, or by session and time; all conditions hold together,
    and there has to be one. What comes back counts as new, so that it is not archived again at
    once.

    With --from, whole agents from a BACKUP, as `restore --from BACKUP [AGENT]...`; all of them if
    none is named. One that the store has not is put there. One that is damaged keeps what is whole,
    and gets the rest from the backup. One that is whole is refused, but for --replace. What was
    there is set aside, never deleted.

    JSON: agent, restored, already_held, missing (ids that are not in the archive) and damaged
    (files of the archive that cannot be read, each with why). With --from: path, backup, dry_run,
    agents (each with agent, how, messages, archived, at, aside, salvaged and again, how many that
    were nowhere any more are in its archive again), failed (each with agent and cause), kept
    (folders with copies that were kept, since something in them may be nowhere else any more: after
    a repair, a listing made again, a renaming) and ok.
    """
    if source is not None:
        if (session, since, until) != (None, None, None):
            raise InvalidArgument("--session, --since and --until go without --from")
        backing_up.restore(place, source, _all(agent, ids), replace=replace, dry_run=dry_run)
        return
    if agent is None:
        raise click.MissingParameter(param_type="argument", param_hint="AGENT")
    if replace or dry_run:
        raise InvalidArgument("--replace and --dry-run go with --from")
    with place.open() as store:
        memory = held_agent(store, agent)
        with stepping(memory, "restoring", silent=place.as_json) as on_progress:
            report = memory.restore(
                ids or None,
                session=session,
                since=since,
                until=until,
                on_progress=on_progress and (lambda done: on_progress(done, len(ids) or None)),
            )
    if place.as_json:
        documents.write(report)
    else:
        from elytron.faces import report_tables
        from elytron.faces.terminal import show

        show(*report_tables.restored(report))
    _raise_what_did_not_come(report)


def _all(agent: str | None, more: tuple[str, ...]) -> tuple[str, ...] | None:
    return None if agent is None else (agent, *more)


def _raise_what_did_not_come(report: Restored) -> None:
    """
    Raises:
        Corrupt: some files of the archive are damaged.
        NotFound: some ids are not in the archive.
    """
    if report.damaged:
        files = counted(len(report.damaged), "damaged file", "damaged files")
        raise Corrupt(
            f"{files} of the archive could not be read;"
            f" {counted(report.restored, 'message', 'messages')} came back from the others"
        )
    if report.missing:
        first = ", ".join(map(quoted, report.missing[:_IDS_TOLD]))
        more = len(report.missing) - _IDS_TOLD
        raise NotFound(
            f"not in the archive: {first}{f' and {more} more' if more > 0 else ''};"
            f" {counted(report.restored, 'message', 'messages')} came back"
        )


@click.command()
@common
@click.argument("agent")
@click.argument("id")
def pin(place: Place, agent: str, id: str) -> None:
    """Keep a message: it never leaves for the archive.

    JSON: id and pinned.
    """
    with place.open() as store:
        held_agent(store, agent).pin(id)
    _say_pinned(place, id, pinned=True)


@click.command()
@common
@click.argument("agent")
@click.argument("id")
def unpin(place: Place, agent: str, id: str) -> None:
    """Let a pinned message leave again when a limit asks for it.

    JSON: id and pinned.
    """
    with place.open() as store:
        held_agent(store, agent).unpin(id)
    _say_pinned(place, id, pinned=False)


def _say_pinned(place: Place, id: str, *, pinned: bool) -> None:
    if place.as_json:
        documents.write({"id": id, "pinned": pinned})
    else:
        say(f"pinned {id}" if pinned else f"unpinned {id}")


@click.command()
@common
@click.argument("agent")
@click.option("--full", is_flag=True, help="Rebuild the whole file; saves wait for it.")
def reclaim(place: Place, agent: str, full: bool) -> None:
    """Give unused space back to the disk.

    JSON: agent, before_bytes, after_bytes, given_back_bytes, rebuilt and put_off (why not all
    was given back).
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        with stepping(memory, "reclaiming", silent=place.as_json):
            report = memory.reclaim(full=full)
    if place.as_json:
        documents.write(report)
        return
    from elytron.faces import report_tables
    from elytron.faces.terminal import show

    show(*report_tables.reclaimed(report))


@click.command()
@common
@click.argument("agent", required=False)
@click.option("--repair", is_flag=True, help="Put right what can be made anew from what is whole.")
def check(place: Place, agent: str | None, repair: bool) -> None:
    """Look at everything that is stored, and say what is wrong.

    Of one agent or of all: each row, each word, each file of the archive. Ends with 8 if
    something is wrong and was not repaired. With --repair a ledger whose file is damaged is made
    anew of all that is whole; the damaged files are kept, and what is lost is named.

    JSON: a list, each with agent, ok, messages, archived and findings (each with part, what,
    repairable and repaired); or, for an agent that cannot be read, with agent and cause.
    """
    with place.open() as store:

        def look(memory: Agent) -> Checked:
            with counting(memory, "checking", silent=place.as_json) as on_progress:
                return memory.check(repair=repair, on_progress=on_progress)

        reports = of_each(store, agent, look)
        if agent is None:
            reports += [_stray(path) for path in strays.strays(store.path, store.agents())]
    if place.as_json:
        documents.write(reports)
    elif not reports:
        note(f"{store.shown} holds no agents")
    else:
        from elytron.faces import report_tables
        from elytron.faces.terminal import show

        show(*report_tables.checks(reports))
    costs.raise_first_error(reports)
    _raise_what_is_wrong(reports, repair=repair)


def _stray(path: Path) -> Checked:
    """What is said of a folder, or a file, that no agent's name leads to."""
    what = f"{path} is of no agent, as far as it says: name the agent to have it repaired"
    if strays.is_unfinished(path):
        what = (
            f"{path} has no memory, only what a restore has left that was stopped, or is writing"
            " now: restore the agent again, or delete it"
        )
    return Checked(path.name, 0, 0, (Finding("folder", what),))


def _raise_what_is_wrong(reports: list[Checked | Unreadable], *, repair: bool) -> None:
    """
    Raises:
        Corrupt: something is wrong and was not repaired.
    """
    checked = [report for report in reports if isinstance(report, Checked)]
    open_ = [found for report in checked for found in report.findings if not found.repaired]
    if not open_:
        return
    repairable = sum(found.repairable for found in open_)
    if repair:
        way_out = "restore the rest from a backup, or export what can still be read"
    elif repairable:
        way_out = f"--repair puts {repairable} of them right"
    else:
        way_out = "none can be repaired: restore a backup, or export what can still be read"
    agents = sum(not report.ok for report in checked)
    found = f"{len(open_):,} wrong in {counted(agents, 'agent', 'agents')}"
    raise Corrupt(f"{found} of {len(reports):,} that were checked; {way_out}")
