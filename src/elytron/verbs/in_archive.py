"""
In archive: which messages that are to be saved are in the archive already, so that none is there
twice.
"""

from collections.abc import Sequence

from elytron.archive import Archive, Archived
from elytron.archive.entries import Manifest
from elytron.errors import Conflict, ElytronError
from elytron.ledger import surveys
from elytron.ledger.database import Database
from elytron.records import Draft, Receipt
from elytron.write.admission import is_same


class InArchive:
    """
    What the archive has of some messages, see `ledger.ops.Beside`.

    Looked up when it is made, and again within the commit if the listing is another by then: so a
    segment is seldom read while others wait for the ledger.
    """

    def __init__(self, archive: Archive, drafts: Sequence[Draft]) -> None:
        self._archive = archive
        self._ids = [draft.id for draft in drafts]
        self._listing: Manifest | None = None
        self._found: dict[str, Archived] = {}
        self._error: ElytronError | None = None
        self._look()

    def _look(self) -> None:
        if not self._archive.exists():
            self._found = {}
            return
        listing = self._archive.manifest()  # before: what changes while we look is looked at again
        if listing is not self._listing:
            self._found, _ = self._archive.find(self._ids)
            self._listing = listing

    def is_clear(self) -> bool:
        self._error = None
        try:
            self._look()
        except ElytronError as error:
            self._error = error  # for whoever asks of one of them
            return False
        return not self._found

    def receipt(self, db: Database, draft: Draft) -> Receipt | None:
        if self._error is not None:
            raise self._error
        archived = self._found.get(draft.id)
        if archived is None:
            return None
        session, key = archived.message.session, archived.key
        if surveys.is_gone(db, id=draft.id, session=session, key=key):
            return None  # whoever moves it takes it out
        _check_same(draft, archived)
        return Receipt(draft.id, False, archived.embedding)

    def check(self, drafts: Sequence[Draft]) -> None:
        """
        Raises:
            Conflict: it has another message under the id of one of these.
        """
        for draft in drafts:
            if (archived := self._found.get(draft.id)) is not None:
                _check_same(draft, archived)


def _check_same(draft: Draft, archived: Archived) -> None:
    if not is_same(draft, archived.message):
        raise Conflict(
            f"id {draft.id!r} is archived with other content; use a new id, or restore that"
            " message and `Agent.edit()` it"
        )
