"""Who may do what: tokens for all agents or for named ones, to read or to write."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

import elytron
from elytron.errors import AccessDenied, InvalidSetting, Unavailable
from elytron.faces.http import serving, tokens
from elytron.faces.http.tokens import Access, Tokens
from elytron.remote.calls import AGENT_CALLS, STORE_CALLS
from serving import WAIT_MAX_S, Served, bearer, head, read_all, served, status

CALLS = [*AGENT_CALLS.values(), *STORE_CALLS.values()]
# What stands beside the verbs: (method, path, whether it writes, whether it is of one agent).
OTHERS = [
    ("GET", "/v1/export", False, True),
    ("POST", "/v1/messages", False, True),
    ("POST", "/v1/import_", True, True),
    ("GET", "/metrics", False, False),
]
ROUTES = [
    ("POST", call.path, call.writes, not call.of_store or call.named is not None) for call in CALLS
] + OTHERS
NDJSON = {"Content-Type": "application/x-ndjson"}


@dataclass
class Guarded:
    """A server with tokens, and the secrets of each by name."""

    served: Served
    file: Path
    secrets: Mapping[str, str]

    def status(self, method: str, path: str, *, by: str, agent: str | None = None) -> int:
        fields = {} if agent is None else {"agent": agent}
        headers = bearer(self.secrets[by]) | (NDJSON if path == "/v1/import_" else {})
        return self.served.request(method, path, fields=fields, headers=headers).status


def save_own(server: Served, name: str) -> None:
    """Harmless if it is there."""
    server.call("save", name, role="user", content=f"{name}'s own", id=f"{name}-1")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("access")
    file = folder / "tokens.json"
    secrets = {
        "all": tokens.add(file, "all"),
        "reader": tokens.add(file, "reader", writes=False),
        "bob": tokens.add(file, "bob", agents=["bob"]),
        "bob reader": tokens.add(file, "bob reader", agents=["bob"], writes=False),
    }
    with served(folder / "store", tokens=file, token=secrets["all"]) as one:
        for name in ("bob", "eve"):
            save_own(one, name)
        yield Guarded(one, file, secrets)


def test_the_table_has_every_route(guarded: Guarded) -> None:
    document = guarded.served.request("GET", "/openapi.json").json()
    known = {path for _, path, _, _ in ROUTES} | {"/v1/hello", "/v1/events"}
    assert known | {"/healthz", "/readyz"} == set(document["paths"])
    for path in known:
        (operation,) = document["paths"][path].values()
        assert operation["security"] == [{"token": []}]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[0]} {route[1]}")
def test_each_route_asks_for_a_token_that_is_for_it(
    guarded: Guarded, route: tuple[str, str, bool, bool]
) -> None:
    """An empty request is enough: who may not ask is told so before what was sent is looked at."""
    method, path, writes, of_agent = route
    agent = "eve" if of_agent else None
    query = "?agent=eve" if of_agent else ""
    for headers in (
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {guarded.secrets['all']}"},
        {"Authorization": guarded.secrets["all"]},
        {"Authorization": f"Bearer {guarded.secrets['all']}x"},
        {"Cookie": f"token={guarded.secrets['all']}"},
    ):
        answer = guarded.served.request(
            method, path + query, headers={"Authorization": "", **headers}
        )
        assert answer.status == 401, headers
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["error"] == "access-denied"
    if writes:
        assert guarded.status(method, path, by="reader", agent=agent) == 403
    names_only = path == "/v1/store/agents"
    for who in ("bob", "bob reader"):
        assert guarded.status(method, path, by=who, agent=agent) == (200 if names_only else 403)
    if of_agent and writes:
        assert guarded.status(method, path, by="bob reader", agent="bob") == 403
    if of_agent:
        # Allowed; whether such a call can be made without arguments is another thing.
        assert guarded.status(method, path, by="bob", agent="bob") not in (401, 403)
        save_own(guarded.served, "bob")  # where what was allowed was to delete it
    assert guarded.served.call("get", "eve", id="eve-1") is not None or writes


def test_a_token_in_the_address_is_none(guarded: Guarded) -> None:
    secret = guarded.secrets["all"]
    for name in ("token", "access_token", "Authorization"):
        answer = guarded.served.request(
            "POST", f"/v1/exists?agent=bob&{name}={secret}", {}, headers={"Authorization": ""}
        )
        assert answer.status == 401


def test_two_tokens_in_one_request_are_none(guarded: Guarded) -> None:
    import urllib3

    headers = urllib3.HTTPHeaderDict()
    headers.add("Authorization", f"Bearer {guarded.secrets['bob']}")
    headers.add("Authorization", f"Bearer {guarded.secrets['all']}")
    with urllib3.PoolManager(retries=False) as pool:
        answer = pool.request("GET", f"{guarded.served.url}/v1/hello", headers=headers)
    assert answer.status == 401


def test_a_token_for_some_agents_sees_their_names_only(guarded: Guarded) -> None:
    def names(by: str) -> Any:
        return guarded.served.request(
            "POST", "/v1/store/agents", {}, token=guarded.secrets[by]
        ).json()

    assert set(names("all")) >= {"bob", "eve"}
    assert names("bob") == ["bob"]


def test_whoever_asks_is_told_what_the_token_may_do(guarded: Guarded) -> None:
    def hello(by: str) -> Any:
        return guarded.served.request("GET", "/v1/hello", token=guarded.secrets[by]).json()

    assert hello("all")["writes"] is True
    assert hello("all")["agents"] is None
    assert hello("bob reader")["writes"] is False
    assert hello("bob reader")["agents"] == ["bob"]


def test_names_of_agents_are_compared_exactly(guarded: Guarded) -> None:
    for name in ("Bob", "bob ", " bob", "BOB", "bob\u200b", "bo\u0062\u0301"):
        answer = guarded.served.request(
            "POST", "/v1/exists", {}, fields={"agent": name}, token=guarded.secrets["bob"]
        )
        assert answer.status == 403, name


def test_a_token_works_from_the_moment_it_is_made_until_it_is_removed(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    late = tokens.add(guarded.file, "late", agents=["bob"], writes=False)
    asked = guarded.served.request("GET", "/v1/hello", token=late)
    assert asked.status == 200
    tokens.remove(guarded.file, "late")
    assert guarded.served.request("GET", "/v1/hello", token=late).status == 401
    # A file that is no file of tokens any more lets nobody in, and the log says so.
    held = guarded.file.read_bytes()
    for broken in (b"", b"{}", b"[1]", b'{"tokens": [{}]}', b"\x00" * 50, held[:-10]):
        guarded.file.write_bytes(broken)
        assert guarded.served.request("GET", "/v1/hello").status == 401
    guarded.file.unlink()
    assert guarded.served.request("GET", "/v1/hello").status == 401
    assert "nobody is let in" in caplog.text
    assert guarded.secrets["all"] not in caplog.text
    guarded.file.write_bytes(held)
    assert guarded.served.request("GET", "/v1/hello").status == 200


def test_health_needs_no_token_and_says_nothing_of_what_is_held(guarded: Guarded) -> None:
    for path in ("/healthz", "/readyz"):
        answer = guarded.served.request("GET", path, headers={"Authorization": ""})
        assert answer.status == 200
        assert set(answer.json()) == {"status"}


def test_metrics_are_for_tokens_of_the_whole_store(guarded: Guarded) -> None:
    answer = guarded.served.request("GET", "/metrics", token=guarded.secrets["reader"])
    assert answer.status == 200
    assert 'agent="eve"' in answer.data.decode()


# The file.


def test_the_file_holds_hashes_and_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "new" / "tokens.json"
    secret = tokens.add(file, "web", agents=["Bob"], writes=False)
    assert secret.startswith("elytron_")
    assert secret not in file.read_text()
    assert secret.removeprefix("elytron_") not in file.read_text()
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600
    assert Tokens(file).access(secret) == Access("web", frozenset({"Bob"}), writes=False)
    assert tokens.listed(file) == [Access("web", frozenset({"Bob"}), writes=False)]
    left = {path.name for path in file.parent.iterdir()}
    assert left == {"tokens.json", "tokens.json.lock"}


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101, "\u202e"])
def test_a_name_that_would_confuse_a_log_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidSetting):
        tokens.add(tmp_path / "tokens.json", name)


def test_the_commands_make_list_and_remove_tokens(tmp_path: Path) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "elytron", "token", *arguments,
             "--token-file", "t.json"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    made = run("add", "web", "--agent", "Bob", "--agent", "Eve", "--read-only")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert Tokens(tmp_path / "t.json").access(secret) == Access(
        "web", frozenset({"Bob", "Eve"}), writes=False
    )
    assert secret not in made.stderr
    other = json.loads(run("add", "all", "--json").stdout)
    assert other | {"token": ""} == {"name": "all", "token": "", "agents": None, "writes": True}
    assert run("add", "web").returncode == 4
    listed = run("list")
    assert listed.stdout == "web: Bob, Eve, to read\nall: all agents, to read and write\n"
    assert json.loads(run("list", "--json").stdout)[0]["agents"] == ["Bob", "Eve"]
    assert run("remove", "web").returncode == 0
    assert run("remove", "web").returncode == 3
    assert Tokens(tmp_path / "t.json").access(secret) is None


# Where it may be listened.


def test_other_machines_are_let_in_only_with_tokens() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(InvalidSetting, match="--token-file") as refused:
            serving.listen(host, 0, guarded=False)
        assert "127.0.0.1" in str(refused.value)


@pytest.mark.parametrize("host", ["", "no such host", "a\x00b", "x" * 300, "[::1]", "127.0.0.1:80"])
def test_what_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(InvalidSetting, match="address of this machine"):
        serving.listen(host, 0, guarded=True)


def test_a_port_that_is_taken_is_said_so() -> None:
    with (
        serving.listen("127.0.0.1", 0, guarded=False).socket as held,
        pytest.raises(Unavailable, match="cannot be bound"),
    ):
        serving.listen("127.0.0.1", held.getsockname()[1], guarded=False)


def test_an_address_of_another_machine_is_said_so() -> None:
    with pytest.raises(Unavailable, match="cannot be bound"):
        serving.listen("192.0.2.1", 0, guarded=True)


def test_on_every_address_it_goes_by_addresses_and_by_the_names_that_were_given(
    tmp_path: Path,
) -> None:
    """A page that was rebound has a name of its own, so no address is one."""
    file = tmp_path / "tokens.json"
    token = tokens.add(file, "all")
    with served(
        tmp_path / "store", host="0.0.0.0", tokens=file, token=token, hosts=["Memory.Example"]
    ) as where:
        where.url = where.url.replace("0.0.0.0", "127.0.0.1")
        for host in ("127.0.0.1", "192.0.2.7:7700", "[2001:db8::1]", "localhost", "memory.example"):
            assert where.request("GET", "/v1/hello", headers={"Host": host}).status == 200, host
        for host in ("evil.example", "memory.example.evil.example"):
            assert where.request("GET", "/v1/hello", headers={"Host": host}).status == 403, host


def test_tokens_that_are_made_at_the_same_moment_are_all_kept(tmp_path):
    file = tmp_path / "tokens.json"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: tokens.add(file, f"token {number}"), range(24)))
    known = Tokens(file)
    assert {access.name for token in made if (access := known.access(token))} == {
        f"token {number}" for number in range(24)
    }


# What flows while its token is removed.


@pytest.fixture
def removed_at_the_second_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Served, str]]:
    """A server, and a token that is removed once more than one page of bob is asked for."""
    file = tmp_path / "tokens.json"
    whole, late = tokens.add(file, "whole"), tokens.add(file, "late")
    page: Callable[..., Any] = elytron.Agent._page
    held = ["late"]

    def removing(agent: elytron.Agent, after: int) -> Any:
        if after and held:
            tokens.remove(file, held.pop())
        return page(agent, after)

    with served(tmp_path / "store", tokens=file, token=whole) as where:
        messages = [{"role": "user", "content": f"message {n}"} for n in range(700)]
        where.call("save_many", messages=messages)
        monkeypatch.setattr("elytron.agent.Agent._page", removing)
        yield where, late


def test_a_removed_token_ends_an_export(removed_at_the_second_page: tuple[Served, str]) -> None:
    where, late = removed_at_the_second_page
    with pytest.raises(urllib3.exceptions.ProtocolError):
        where.request("GET", "/v1/export?agent=bob", token=late)


def test_a_removed_token_ends_messages_and_says_why(
    removed_at_the_second_page: tuple[Served, str],
) -> None:
    where, late = removed_at_the_second_page
    with elytron.connect(where.url, token=late) as store:
        bob = store.agent("bob")
        with pytest.raises(AccessDenied, match="the token was removed"):
            list(bob.messages())


def test_a_removed_token_ends_an_import(tmp_path: Path) -> None:
    """What was committed until then is kept."""
    file = tmp_path / "tokens.json"
    whole, late = tokens.add(file, "whole"), tokens.add(file, "late")

    def chunk(start: int) -> bytes:
        said = [{"role": "user", "content": f"message {n}"} for n in range(start, start + 600)]
        data = b"".join(json.dumps(message).encode() + b"\n" for message in said)
        return b"%x\r\n" % len(data) + data + b"\r\n"

    with served(tmp_path / "store", tokens=file, token=whole) as where:
        assert where.store is not None
        bob = where.store.agent("bob")
        kinds = ("Content-Type: application/x-ndjson", "Transfer-Encoding: chunked")
        own = (f"Authorization: Bearer {late}", "Connection: close")
        sent = head("POST", "/v1/import_?agent=bob", *kinds, *own)
        with socket.create_connection(("127.0.0.1", where.port), timeout=WAIT_MAX_S) as client:
            client.sendall(sent + chunk(0))
            while not bob.usage().messages:
                pass
            tokens.remove(file, "late")
            client.sendall(chunk(600) + b"0\r\n\r\n")
            answer = read_all(client)
        assert status(answer) == 401
        assert b"the token was removed" in answer
        assert bob.usage().messages in (500, 600)


def test_only_the_command_that_makes_a_file_of_tokens_says_so() -> None:
    told = {}
    for command in ("add", "remove", "list"):
        words = [sys.executable, "-m", "elytron", "token", command, "--help"]
        told[command] = subprocess.run(
            words, capture_output=True, text=True, timeout=WAIT_MAX_S, check=True
        ).stdout
    assert [command for command, text in told.items() if "made if" in text] == ["add"]
