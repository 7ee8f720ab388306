"""How the dashboard sits in the server: its paths, its bounds, and several in one process."""

from collections.abc import Callable
from pathlib import Path

_START = """
    import asyncio, logging, sys
    import httpx
    from fastapi import FastAPI
    import elytron.aio
    from elytron.faces.dashboard import Bounds, attach
    logging.disable()  # what NiceGUI and we tell of what is asked for here

    def client_of(app):
        transport = httpx.ASGITransport(app=app)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    def app_of(store, **bounds):
        app = FastAPI()
        app.get("/v1/thing")(lambda: "thing")
        attach(app, store, tokens=None, bounds=Bounds(**bounds))
        return app

    async def get(app, path):
        async with client_of(app) as client:
            return (await client.get(path)).status_code
"""


def test_other_paths_stay_the_servers(run_script: Callable[..., str], folder: Path) -> None:
    printed = run_script(
        _START
        + """
    async def main():
        async with elytron.aio.open(sys.argv[1]) as store:
            app = app_of(store)
            async with app.router.lifespan_context(app), client_of(app) as client:
                assert (await client.get("/v1/thing")).json() == "thing"
                missing = await client.get("/v1/nothing")
                assert missing.status_code == 404
                assert missing.headers["content-type"] == "application/json"
                assert (await client.get("/agents/..%2f")).status_code == 404
                assert (await client.get("/_nicegui/nothing")).status_code == 404
                assert (await client.get("/login")).headers["location"] == "/"
                assert (await client.get("/")).status_code == 200
    asyncio.run(main())
    print("done")
    """,
        folder,
    )
    assert printed == "done\n"


def test_what_goes_over_a_network_is_compressed(
    run_script: Callable[..., str], folder: Path
) -> None:
    printed = run_script(
        _START
        + """
    async def main():
        async with elytron.aio.open(sys.argv[1]) as store:
            app = app_of(store)
            async with app.router.lifespan_context(app):
                for host in ("127.0.0.1", "192.0.2.7"):
                    transport = httpx.ASGITransport(app=app, client=(host, 1))
                    client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
                    async with client:
                        answer = await client.get("/")
                        print(answer.status_code, answer.headers.get("content-encoding"))
    asyncio.run(main())
    """,
        folder,
    )
    assert printed == "200 None\n200 gzip\n"


def test_more_pages_than_may_be_are_refused_and_say_so(
    run_script: Callable[..., str], folder: Path
) -> None:
    printed = run_script(
        _START
        + """
    async def main():
        async with elytron.aio.open(sys.argv[1]) as store:
            app = app_of(store, pages_max=3)
            async with app.router.lifespan_context(app), client_of(app) as client:
                codes = [(await client.get("/")).status_code for _ in range(4)]
                assert codes == [200, 200, 200, 503], codes
                refused = await client.get("/")
                assert "3 pages are open" in refused.text
                assert refused.headers["retry-after"]
    asyncio.run(main())
    print("done")
    """,
        folder,
    )
    assert printed == "done\n"


def test_one_after_the_other_run_in_one_process_and_of_two_at_once_the_first(
    run_script: Callable[..., str], folder: Path
) -> None:
    """Each event loop in turn, as servers in tests or a restart have them."""
    printed = run_script(
        _START
        + """
    async def main():
        async with elytron.aio.open(sys.argv[1]) as store:
            first, second = app_of(store), app_of(store)
            async with first.router.lifespan_context(first):
                assert await get(first, "/") == 200
                async with second.router.lifespan_context(second):
                    assert await get(second, "/") == 503
                    assert await get(second, "/v1/thing") == 200
                assert await get(first, "/") == 200
            assert await get(first, "/") == 503
            async with second.router.lifespan_context(second):
                assert await get(second, "/") == 200
    for _ in range(3):
        asyncio.run(main())
    print("done")
    """,
        folder,
    )
    assert printed == "done\n"
