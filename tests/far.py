"""A store as a program elsewhere has it: served by a thread of this process, and connected to."""

import contextlib
from pathlib import Path
from typing import Any

from elytron.remote.store import RemoteStore
from serving import served


class FarStore(RemoteStore):
    """A connection whose close ends the server too, as the only user of a store would."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        with contextlib.ExitStack() as stack:
            where = stack.enter_context(served(folder, **settings))
            super().__init__(where.url, token=None, timeout_s=60, connections_max=10)
            self._server = stack.pop_all()

    def close(self) -> None:
        super().close()
        self._server.close()
