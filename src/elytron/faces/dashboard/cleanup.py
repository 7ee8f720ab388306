"""
Clean-up: what the next one would take and why, and a button that takes it.

The plan is the store's own dry run. Between the plan and the press of the button messages may
come and go, so what was really done is told afterwards.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from nicegui import ui
from nicegui.element import Element

from elytron.faces.dashboard.frame import Shown, page
from elytron.faces.dashboard.parts import box, button, empty, facts, notice, table, words
from elytron.faces.tables import moment
from elytron.faces.visible import clip_name, counted, human_bytes, one_line
from elytron.reports import AGE, BYTES, COUNT, EMERGENCY, Cleanup

PATH = "/cleanup"
_NAME_SHOWN = 40  # characters
_REASONS = {
    AGE: "for their age",
    COUNT: "for their number",
    BYTES: "for their bytes",
    EMERGENCY: "in an emergency",
}

Run = Callable[[bool], Awaitable[Cleanup]]  # given whether only to plan


@page(PATH, "Clean-up", of_agent=True)
async def cleanup(shown: Shown) -> None:
    config = shown.dashboard.store.config
    with box("section", "card"):
        words("h2", "The next clean-up")
        when = (
            f"It runs each {config.cleanup_interval_hours:g} hours, and when a limit is near."
            if config.auto_cleanup
            else "It runs only when it is asked for: auto_cleanup is off."
        )
        words(
            "p", f"{when} What leaves goes into the archive, from which it can be restored.", "soft"
        )
        first = _Plan(shown, box("div", "stack"), lambda: _enforce(shown))
    await first.look()
    with box("section", "card"):
        words("h2", "Archive more")
        with box("div", "ask"):
            days = _number("Older than (days)", config.archive_after_days)
            keep = _number("Keep the newest", config.keep_messages)
            button("Show what would leave", lambda: shown.act(second.look))
        second = _Plan(shown, box("div", "stack"), lambda: _archive(shown, days.value, keep.value))


def _number(label: str, value: float) -> ui.number:
    # Without `min`: on leaving the field NiceGUI would make 0 of -1, and 0 days is everything.
    field = ui.number(label, value=value)
    field.props("outlined dense")
    return field


def _enforce(shown: Shown) -> Run:
    return lambda dry: shown.agent.enforce_limits(dry_run=dry)


def _archive(shown: Shown, days: float | None, keep: float | None) -> Run:
    kept = None if keep is None else int(keep)
    return lambda dry: shown.agent.archive(older_than_days=days, keep=kept, dry_run=dry)


class _Plan:
    """A dry run, shown, with a button that runs it."""

    def __init__(self, shown: Shown, place: Element, prepare: Callable[[], Run]) -> None:
        """*prepare* reads what is asked for now: what runs is what the plan was made of."""
        self._shown = shown
        self._place = place
        self._prepare = prepare
        self._newest: Run | None = None

    async def look(self) -> None:
        """Show what would leave now."""
        self._newest = run = self._prepare()
        plan = await run(True)
        if self._newest is not run:
            return  # something else was asked for meanwhile
        self._place.clear()
        with self._place:
            self._show(plan, run)

    def _show(self, plan: Cleanup, run: Run) -> None:
        if not plan.leaving:
            empty(
                "Nothing would leave.", f"{counted(plan.held, 'message is', 'messages are')} held."
            )
            return
        leaving = counted(len(plan.leaving), "message", "messages")
        whys = ", ".join(
            f"{count:,} {_REASONS.get(why, why)}" for why, count in plan.reasons.items()
        )
        facts(
            [
                ("Would leave", f"{leaving} of {plan.held:,}"),
                ("Why", whys),
                ("Frees about", human_bytes(plan.freed_bytes)),
            ]
        )
        if plan.short_messages or plan.short_bytes:
            words("p", "Even then a limit is passed: the rest is pinned.", "bad-text")
        if self._shown.viewer.may(self._shown.name, writes=True):
            button(
                f"Archive {leaving} now",
                partial(self._shown.act, self._confirm, leaving, run, writes=True),
                "strong",
            )
        else:
            words("p", "This token may only read, so it cannot start it.", "soft")
        most = self._shown.bounds.leaving_max
        with box("details"):
            words(
                "summary",
                f"Which ({min(most, len(plan.leaving)):,} listed, the first to leave first)",
            )
            rows = [
                [
                    moment(message.at),
                    message.role,
                    clip_name(message.session, _NAME_SHOWN),
                    _REASONS.get(message.reason, message.reason),
                    human_bytes(message.bytes),
                    one_line(message.id),
                ]
                for message in plan.leaving[:most]
            ]
            heads = ["Said", "Role", "Conversation", "Why", "Frees", "Id"]
            table("Messages that would leave", heads, rows, numbers={4})

    async def _confirm(self, leaving: str, run: Run) -> None:
        """Ask once more, then do it: asked for on the server, not only hidden in the page."""
        with ui.dialog() as dialog, box("div", "card dialog"):
            dialog.props["aria-label"] = "Confirm the clean-up"
            words("h2", f"Archive {leaving}?")
            words(
                "p",
                "They leave the memory for the archive. Recall finds them there only when"
                " it is asked to search it; elytron restore brings them back.",
            )
            with box("div", "actions"):
                button("Cancel", lambda: dialog.submit(False))
                button("Archive them", lambda: dialog.submit(True), "strong")
        agreed = await dialog
        dialog.delete()
        if agreed is not True:
            return
        self._shown.viewer.require(self._shown.name, writes=True)
        done = await run(False)
        told = f"{counted(done.archived, 'message', 'messages')} archived"
        notice(f"{told}; {human_bytes(done.given_back_bytes)} given back to the disk.")
        await self.look()
