"""
Room: how large a ledger's file may be, and what is said when it is full.

SQLite itself holds the bound, as `max_page_count`: it costs nothing per commit and no path goes
around it.
"""

from collections.abc import Iterable, Sequence

import apsw

from elytron.config import Config
from elytron.errors import OverBudget
from elytron.ledger.connection import PAGE_BYTES
from elytron.ledger.ops import REMOVING, Edit, Mark, Op, Save, SaveOne

# Pages that only ops which make room may use: a deletion has to write before it frees.
_SPARE_MIN_PAGES = 8
_SPARE_SHARE = 50
_SLACK_PAGES = 64
_NEAR = 0.95  # of the file's limit, where whoever looks after it is told


def needed_file_bytes(live_bytes: int) -> int:
    """How large a file may have to be, for so many bytes of it to be live after a save."""
    pages = live_bytes // PAGE_BYTES + 1
    return (pages + max(_SPARE_MIN_PAGES, pages // (_SPARE_SHARE - 1)) + 1) * PAGE_BYTES


class NoRoom(OverBudget):
    """
    A limit of this agent is reached. Nothing was written.

    Whoever can make room is told for how much: `bytes`, or new `messages`; and the `ids` of what
    was to be written, which may be held already; and which setting is the `limit`. A caller sees
    an `OverBudget`.
    """

    def __init__(
        self,
        message: str,
        *,
        bytes: int = 0,
        messages: int = 0,
        ids: frozenset[str] = frozenset(),
        limit: str = "max_db_size_mb",
    ) -> None:
        super().__init__(message)
        self.bytes = bytes
        self.messages = messages
        self.ids = ids
        self.limit = limit

    def asked(self, ops: Iterable[Op], *, times: int) -> "NoRoom":
        """The same for what *ops* write, and so many times the bytes."""
        drafts = [draft for op in ops for draft in (op.drafts if isinstance(op, Save) else ())]
        drafts += [op.draft for op in ops if isinstance(op, SaveOne)]
        ids = frozenset([draft.id for draft in drafts])
        ids |= {op.id for op in ops if isinstance(op, Edit | Mark)}
        size_bytes = self.bytes * times
        return NoRoom(
            str(self), bytes=size_bytes, messages=self.messages, ids=ids, limit=self.limit
        )


class Room:
    """The bounds of one ledger."""

    def __init__(self, name: str, config: Config, *, upkeep: bool) -> None:
        """
        Args:
            upkeep: the spare pages may be used, by all ops.
        """
        self._name = name
        self._config = config
        self._upkeep = upkeep
        self.graph_bytes = 0  # what the graph may take of the limit, set before each `bind`
        self.forget()

    def forget(self) -> None:
        """To be called for a new connection, which has no bound yet."""
        self._pages = 0
        self._over = False  # the file is larger than what may be saved into

    def bind(
        self,
        db: apsw.Connection,
        ops: Sequence[Op],
        *,
        granted_bytes: int | None,
        need_bytes: int,
    ) -> None:
        """
        Let the file have as many pages as it may for *ops*; to be called in their transaction.

        Raises:
            NoRoom: removing took spare pages, and saving would fill them: then nothing could be
                removed any more.
        """
        pages = self.pages(ops, granted_bytes=granted_bytes)
        if pages != self._pages:
            # SQLite never makes the bound less than what the file has.
            self._over = db.pragma("max_page_count", pages) > pages
            self._pages = pages
        if self._over and not all(isinstance(op, REMOVING) for op in ops):
            live = db.pragma("page_count") - db.pragma("freelist_count")
            self._over = db.pragma("max_page_count", pages) > pages
            if live + need_bytes // PAGE_BYTES + 1 > pages:
                raise self.no_bytes(
                    held_bytes=live * PAGE_BYTES,
                    need_bytes=need_bytes,
                    granted_bytes=granted_bytes,
                )

    def is_near(self, db: apsw.Connection) -> bool:
        """Whether nearly all the pages that the file may have are in use."""
        full = _NEAR * self._pages
        pages = db.pragma("page_count")
        return bool(pages >= full and pages - db.pragma("freelist_count") >= full)

    def check_full(
        self,
        db: apsw.Connection,
        *,
        need_bytes: int,
        granted_bytes: int | None,
        free_bytes: int,
    ) -> None:
        """
        Tell the size limit from a full disk, of which *free_bytes* are free: only one of them has
        no room left. To be called once the transaction is undone.

        Raises:
            NoRoom: it is the limit.
        """
        pages = db.pragma("page_count")
        # Merging the index takes more than what the ops announce.
        slack = max(_SLACK_PAGES, self._pages // 20)
        at_limit = pages + need_bytes // PAGE_BYTES + slack >= self._pages
        if at_limit and free_bytes > self._config.wal_limit_bytes:
            raise self.no_bytes(
                held_bytes=pages * PAGE_BYTES, need_bytes=need_bytes, granted_bytes=granted_bytes
            )

    def file_bytes(self, granted_bytes: int | None) -> int:
        """
        How large the file may be: the agent's limit without its WAL and its graph, or the store's
        grant.
        """
        own = self._config.max_db_size_bytes - self._config.wal_limit_bytes - self.graph_bytes
        if self._config.max_total_bytes is None:
            return own
        return min(own, granted_bytes or 0)

    @property
    def own_bytes(self) -> int:
        """How large the file may get by saving, by the agent's own limit alone."""
        pages = (self._config.max_db_size_bytes - self._config.wal_limit_bytes) // PAGE_BYTES
        return (pages - max(_SPARE_MIN_PAGES, pages // _SPARE_SHARE)) * PAGE_BYTES

    def pages(self, ops: Sequence[Op], *, granted_bytes: int | None) -> int:
        """How many pages the file may have for a transaction of *ops*."""
        pages = self.file_bytes(granted_bytes) // PAGE_BYTES
        spare = max(_SPARE_MIN_PAGES, pages // _SPARE_SHARE)
        removing = self._upkeep or all(isinstance(op, REMOVING) for op in ops)
        return max(1, pages if removing else pages - spare)

    def no_bytes(self, *, held_bytes: int, need_bytes: int, granted_bytes: int | None) -> NoRoom:
        """What to say when the pages are used up."""
        own = self._config.max_db_size_bytes - self._config.wal_limit_bytes - self.graph_bytes
        setting = "max_db_size_mb"
        if self.file_bytes(granted_bytes) < own:
            setting = "max_total_mb"
            limit = (
                f"{granted_bytes or 0} bytes of the store's `max_total_mb`; nothing was written:"
                " delete something, or raise it"
            )
        else:
            limit = (
                f"{self._config.max_db_size_bytes} bytes, of which"
                f" {self._config.wal_limit_bytes} are kept for its WAL; nothing was written:"
                " archive or delete messages, delete memories, or raise `max_db_size_mb`"
            )
        return NoRoom(
            f"the memory of {self._name!r} is at its limit: it has {held_bytes} of {limit}",
            bytes=need_bytes,
            limit=setting,
        )

    def no_messages(self, *, held: int, new: int) -> NoRoom:
        """What to say when there would be too many messages."""
        limit = self._config.max_messages_per_agent
        return NoRoom(
            f"the memory of {self._name!r} is at its limit: it holds {held} messages of at most"
            f" {limit}, and {new} are new; nothing was written: archive, unpin or delete some, or"
            " raise `max_messages_per_agent`",
            messages=new,
            limit="max_messages_per_agent",
        )
