"""Health: for whoever looks after the process: alive, ready, metrics."""

import asyncio
from collections.abc import Iterator

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.responses import Response

from elytron.aio import AsyncStore
from elytron.errors import Busy
from elytron.faces import metrics
from elytron.faces.http.asked import JSON, Asked, encoded
from elytron.faces.http.descriptions import operation
from elytron.faces.http.routes import Route

_READY_TIMEOUT_S = 2
_SCRAPES_WAITING_MAX = 4  # behind the one that is under way
_PROBE = "is it there?"  # an agent that nobody has; to look for it reads the store's folder
_METRICS = "text/plain"
_STATUS = {JSON: {"schema": {"type": "object", "properties": {"status": {"type": "string"}}}}}


def routes(store: AsyncStore) -> Iterator[Route]:
    """`/healthz`, `/readyz` and `/metrics`."""
    scraping = CapacityLimiter(1)  # a thread of its own, so that answers to others are made on time

    async def healthz(_asked: Asked) -> Response:
        return Response(encoded({"status": "alive"}), media_type=JSON)

    async def readyz(_asked: Asked) -> Response:
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await store.agent(_PROBE).exists()
        except TimeoutError as error:
            raise Busy(f"the store did not answer within {_READY_TIMEOUT_S} s") from error
        return Response(encoded({"status": "ready"}), media_type=JSON)

    async def prometheus(asked: Asked) -> Response:
        asked.check(None, writes=False)
        if scraping.statistics().tasks_waiting >= _SCRAPES_WAITING_MAX:
            raise Busy(
                f"{_SCRAPES_WAITING_MAX} wait for the metrics already, the most that may; ask less"
                " often"
            )
        text = await run_sync(metrics.render, store._store, limiter=scraping)
        return Response(text, media_type=f"{_METRICS}; version=0.0.4")

    for path, answer, doc, answers in (
        ("/healthz", healthz, "The process answers.", _STATUS),
        ("/readyz", readyz, "The store can be read.", _STATUS),
        (
            "/metrics",
            prometheus,
            "All limits and costs, for Prometheus. Needs a token for the whole store.",
            {_METRICS: {"schema": {"type": "string"}}},
        ),
    ):
        described = operation(doc, id=path[1:], tag="health", answers=answers)
        yield Route(path, answer, "GET", described, head=True)
