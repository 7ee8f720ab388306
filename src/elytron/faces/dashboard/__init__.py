"""
Dashboard: a store in the browser, at `/`.

Attached to the program that serves the store; it is made of NiceGUI, which brings its own scripts
and styles, so nothing is asked of any other host. What may be seen and done is asked of the
session's token each time, see `sessions.py`.
"""

from typing import TYPE_CHECKING

from elytron.faces.dashboard.bounds import Bounds

if TYPE_CHECKING:  # a second's worth of imports, for those who attach one
    from fastapi import FastAPI

    from elytron.aio import AsyncStore
    from elytron.faces.http.tokens import Tokens


def attach(
    app: "FastAPI",
    store: "AsyncStore",
    *,
    tokens: "Tokens | None",
    bounds: Bounds | None = None,
) -> None:
    """
    Serve the dashboard of *store* from *app*, which is not started yet.

    Args:
        tokens: who may look, by a token typed into a form; None to let everybody look and act
            who reaches the port, as on loopback.
        bounds: pages, sessions, looks; see `Bounds`.

    It takes the paths in `mount.PATHS` and those under `/_nicegui`. Checks neither Host nor Origin:
    what stands around *app* does. One at a time in a process; of two, the one that starts
    second answers that its pages are not available.
    """
    from elytron.faces.dashboard.mount import mount

    mount(app, store, tokens=tokens, bounds=bounds or Bounds())
