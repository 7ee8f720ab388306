"""
Erasing: a user, a session or everything, out of the ledger and out of the archive.

First what was learned, then the archive, then the messages, then what deletion leaves behind: index
entries, unused pages, the WAL. Cut short anywhere, it has forgotten a part; run again, it forgets
the rest.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from elytron.archive import Archived
from elytron.archive.durable import PART
from elytron.archive.listing import PART_MAX_AGE_S
from elytron.concepts.names import folded_name
from elytron.errors import Busy, Corrupt, DiskFull
from elytron.ledger import frames, ops, rows, surveys, swapping
from elytron.ledger.database import Database
from elytron.ledger.learned import ClearLearned, ForgetHeard, ForgetLearned
from elytron.ledger.schema import EXTRACTED, PROPOSED
from elytron.reports import Erased
from elytron.upkeep import reclaiming
from elytron.upkeep.archiving import heal, sweep
from elytron.upkeep.desk import Desk

_ROUNDS_MAX = 4  # what is saved or moved while we erase is found by another round
_LOOKS_MAX = 5  # while others move messages between the ledger and the archive
_PAGE = 500  # messages in memory at once
_PAGE_OF = f"SELECT {rows.STORED} FROM messages m WHERE m.key > ? ORDER BY m.key LIMIT ?"
_NAMED_MAX = 100
_UNFINISHED_S = 60  # nobody writes to a file any more that has stood still for so long
_BACKUPS = "backups and exports that were made before: erase them where they are"
_MORE = "what others saved or moved meanwhile, since each round found more: run it again"
_READER = "the WAL, which a reader kept; it is emptied when that has ended: run `reclaim` then"


class Said(NamedTuple):
    """One message, held or archived, as far as it matters who answered whom."""

    key: int
    session: str
    position: int
    assistant: bool
    theirs: bool  # said by the user who is to be forgotten
    responds_to: int | None


def reach(said: Iterable[Said], *, replies: bool) -> set[int]:
    """
    The keys of a user's messages, and with *replies* of what the assistant answered them.

    A reply is an assistant's message that responds to one of theirs, and those that it went on
    to say before anybody else spoke. Pure.
    """
    ordered = sorted(said, key=lambda one: (one.session, one.position, one.key))
    gone = {one.key for one in ordered if one.theirs}
    before: Said | None = None
    for one in ordered:
        if replies and one.assistant and not one.theirs:
            goes_on = (
                before is not None
                and before.session == one.session
                and before.assistant
                and before.key in gone
                and one.responds_to is None
            )
            if goes_on or one.responds_to in gone:
                gone.add(one.key)
        before = one
    return gone


def forget(desk: Desk, *, user: str | None, session: str | None, replies: bool) -> Erased:
    """Erase a user's or a session's messages; see `Agent.forget`."""

    def chosen(said: Sequence[Said]) -> tuple[set[int], Collection[str]]:
        if session is not None:
            return {one.key for one in said if one.session == session}, {session}
        gone = reach(said, replies=replies)
        return gone, _emptied(said, gone)

    report = _in_rounds(desk, user, chosen)
    if user is None:
        return report
    return replace(report, remaining=(*_about(desk, user), *report.remaining))


def _about(desk: Desk, user: str) -> list[str]:
    """What others told of a user is not the user's, and stays: for whoever erases to look at."""
    memories, facts = desk.read(lambda db: surveys.about(db, folded_name(user)))
    if not memories + facts:
        return []
    return [
        f"what was told of {user!r} elsewhere (memories: {memories}, facts: {facts}): see"
        " `memories(about=...)` and `concept(...)`, and delete them"
    ]


def clear(desk: Desk) -> Erased:
    """Erase all that the agent holds."""
    return _in_rounds(desk, None, lambda said: ({one.key for one in said}, ()), everything=True)


def _in_rounds(
    desk: Desk,
    user: str | None,
    chosen: Callable[[Sequence[Said]], tuple[set[int], Collection[str]]],
    *,
    everything: bool = False,
) -> Erased:
    """
    Erase the messages that *chosen* names, until a look at all that is there finds none: what
    another process moves meanwhile may be in the archive once that was written anew, or be back
    in the ledger once that was read.
    """
    total: Erased | None = None
    for _ in range(_ROUNDS_MAX):
        said, damaged, stood_still = _said(desk, user)
        gone, emptied = chosen(said)
        if gone or total is None:
            before = total or Erased(desk.name, 0, 0, 0, 0, 0, 0)
            total = _erase(
                desk, gone, emptied, before=before, damaged=damaged, everything=everything
            )
        if not gone and stood_still:
            return total
    assert total is not None
    return replace(total, remaining=(_MORE, *total.remaining))


def _said(desk: Desk, user: str | None) -> tuple[list[Said], list[str], bool]:
    """
    Who said what, in the ledger and in the archive; what is damaged and cannot tell; and whether
    nothing moved meanwhile. A message that comes back between the two may be seen in neither.
    """
    heal(desk)
    for _ in range(_LOOKS_MAX):
        before = _places(desk)
        said, damaged = _look(desk, user)
        if _places(desk) == before:
            return said, damaged, True
    return said, damaged, False


def _places(desk: Desk) -> tuple[frozenset[tuple[str, str]], frozenset[str]]:
    """What is moving, and where the archive has its messages."""
    names = desk.archive.manifest().names if desk.archive.exists() else frozenset[str]()
    return frozenset(desk.read(surveys.moving)), names


def _look(desk: Desk, user: str | None) -> tuple[list[Said], list[str]]:
    with desk.ledger.reading(snapshot=True) as db:
        said, damaged = _held_said(db, user)
    if desk.archive.exists():
        # What is unlisted or unfinished would not be written anew; nothing of it left the ledger.
        sweep(desk)
        hurry_s = PART_MAX_AGE_S - _UNFINISHED_S if not desk.run.others() else 0
        desk.archive.adopt(names=(), now_s=desk.clock.now_us() / 1e6 + hurry_s)
        damaged += [
            f"unfinished archive file {path.name}: a clean-up removes it once it is an hour old"
            for path in sorted(desk.archive.folder.glob(f"*{PART}"))
        ]
        for entry in desk.archive.manifest().entries:
            try:
                said += [_archived(archived, user) for archived in desk.archive.read(entry)]
            except Corrupt as error:
                damaged.append(f"damaged archive segment {entry.name}: {error}")
    return said, damaged


def _held_said(db: Database, user: str | None) -> tuple[list[Said], list[str]]:
    """The same for the ledger alone. A damaged row says nothing of its speaker."""
    sessions, damaged = _ids(db, "sessions", "key, id, created_us, checksum")
    users, more = _ids(db, "users", "key, id, folded, created_us, checksum")
    damaged += more
    said = list[Said]()
    after = 0
    while found := rows.fetch(db, _PAGE_OF, (after, _PAGE)):
        for *row, checksum in found:
            if rows.checksum(tuple(row)) != checksum:
                damaged.append(f"damaged message row {row[0]}")
                said.append(Said(row[0], "", 0, False, False, None))
                continue
            key, _, session, position, speaker, responds_to, role = row[:7]
            theirs = user is not None and users.get(speaker) == user
            said.append(
                Said(
                    key, sessions.get(session, ""), position, role == "assistant", theirs,
                    responds_to,
                )
            )  # fmt: skip
        after = found[-1][0]
    return said, damaged


def _ids(db: Database, table: str, columns: str) -> tuple[dict[int, str], list[str]]:
    """The ids of sessions or users by key, and which of their rows are damaged."""
    whole, damaged = {}, []
    for *row, checksum in rows.fetch(db, f"SELECT {columns} FROM {table}"):
        if rows.checksum(tuple(row)) == checksum:
            whole[row[0]] = row[1]
        else:
            damaged.append(f"damaged row {row[0]} of {table}")
    return whole, damaged


def _archived(archived: Archived, user: str | None) -> Said:
    message = archived.message
    return Said(
        archived.key,
        message.session,
        message.position,
        message.role == "assistant",
        user is not None and message.user == user,
        archived.responds_to,
    )


def _erase(
    desk: Desk,
    gone: Collection[int],
    emptied: Collection[str],
    *,
    before: Erased,
    damaged: list[str],
    everything: bool = False,
) -> Erased:
    forget = _forget_op(desk, gone, emptied, everything=everything)
    # While the messages are there it is known what they were and which sessions they leave empty.
    learned = [desk.repeat(forget)]
    archived = _erase_archived(desk, gone)
    _note_gone(desk, gone)
    counted = desk.read(lambda db: surveys.counts(db, ("sessions", "users")))
    held = [key for key in _held(desk) if key in gone]
    sizes = {worth.key: worth.bytes for worth in desk.read(surveys.worths)}
    messages = desk.remove([(key, None) for key in held], sizes=sizes)
    # Once more: until now more may have been read in them, and written down.
    learned.append(desk.repeat(forget))
    learned.append(desk.sweep((EXTRACTED, PROPOSED), unlooked=True))
    desk.commit(ForgetHeard())
    desk.tidy()  # the memories of emptied sessions are gone, so those go too
    left = desk.read(lambda db: surveys.counts(db, ("sessions", "users")))
    # Deleted bytes are overwritten, but what moved between pages may have left a copy in a
    # page's unused part; a file written anew has none.
    remaining = _rebuild(desk)
    kept = [*swapping.aside_folders(desk.ledger.folder), *frames.aside(desk.ledger.path)]
    remaining += [f"{path}, set aside by a repair: delete it" for path in kept[:_NAMED_MAX]]
    remaining += [
        f"{path}, of a repair or restore that was stopped: delete it, if none is at work"
        for path in swapping.unfinished(desk.ledger.folder)
    ]
    if desk.archive.exists():  # where a reader has it open, Windows does not remove a file
        remaining += [
            f"archive segment {name}, which could not be removed: run `check` later"
            for name in desk.archive.manifest().removed
            if (desk.archive.folder / name).exists()
        ]
    if not everything:  # else no row of the ledger is left that could be damaged
        remaining += damaged[:_NAMED_MAX]
    else:
        remaining += [what for what in damaged if "archive" in what]
    return Erased(
        desk.name,
        before.messages + messages,
        before.archived + archived,
        before.memories + sum([one.memories for one in learned]),
        before.concepts + sum([one.concepts for one in learned]),
        before.sessions + counted["sessions"] - left["sessions"],
        before.users + counted["users"] - left["users"],
        (*remaining, *desk.ledger.remains, _BACKUPS),
    )


def _forget_op(
    desk: Desk, gone: Collection[int], emptied: Collection[str], *, everything: bool
) -> ops.Op:
    """One step of forgetting what was learned from messages, and in sessions."""
    if everything:
        return ClearLearned(desk.config.wal_limit_bytes // 2)
    sessions = tuple([key for key, name in _sessions(desk) if name in emptied])
    return ForgetLearned(tuple(sorted(gone)), sessions, desk.config.wal_limit_bytes // 2)


def _erase_archived(desk: Desk, gone: Collection[int]) -> int:
    if not desk.archive.exists():
        return 0
    return desk.archive.rewrite(lambda archived: archived.key in gone).removed


def _note_gone(desk: Desk, gone: Collection[int]) -> None:
    """Keep copies that another process is moving just now from coming back."""
    keys = sorted(gone)
    for start in range(0, len(keys), _PAGE):
        desk.commit(ops.NoteGone(tuple(keys[start : start + _PAGE])))


def _rebuild(desk: Desk) -> list[str]:
    """Merge the index, write the file anew and empty the WAL; what could not be done, in words."""
    try:
        done = reclaiming.reclaim(desk, full=True)
    except (Busy, DiskFull) as error:
        left = [] if reclaiming.empty_wal(desk) else [_READER]
        return [f"unused parts of the file's pages: {error}", *left]
    if done.put_off is None:
        return []
    return [_READER if reclaiming.READER in done.put_off else done.put_off]


def _held(desk: Desk) -> list[int]:
    return desk.read(lambda db: surveys.keys(db, "SELECT key FROM messages ORDER BY key"))


def _sessions(desk: Desk) -> list[tuple[int, str]]:
    return desk.read(lambda db: surveys.pairs(db, "SELECT key, id FROM sessions"))


def _emptied(said: Iterable[Said], gone: Collection[int]) -> set[str]:
    """The sessions of which nothing is left, so that what was learned in them goes too."""
    touched, left = set[str](), set[str]()
    for one in said:
        (touched if one.key in gone else left).add(one.session)
    return touched - left
