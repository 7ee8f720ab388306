"""Links are lent to one at a time, and a DSN says where the server is, but not the password."""

import threading
import time
import uuid
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytron.errors import Busy, Closed, InvalidArgument, Unavailable
from elytron.ledger.postgres.dsn import parse
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.links import Links
from postgres_server import Server

A, B = uuid.UUID(int=1), uuid.UUID(int=2)
SOON_S = 30.0


# -- many


def pool(server: Server, *, size: int = 2, timeout_s: float = SOON_S) -> Links:
    return Links(parse(server.dsn()), "public", size=size, timeout_s=timeout_s)


def test_the_link_that_was_about_an_agent_is_lent_for_it_again(postgres: Server):
    links = pool(postgres)
    of_a, of_b = links.borrow(A), links.borrow(B)
    links.give_back(of_a)
    links.give_back(of_b)
    assert links.borrow(A) is of_a
    assert links.borrow(A) is of_b
    assert of_b.agent == A
    links.give_back(of_a)
    links.give_back(of_b)
    links.close()


def test_no_more_are_lent_than_there_are_places(postgres: Server):
    links = pool(postgres, size=1)
    link = links.borrow()
    with pytest.raises(Busy, match="all 1 connections"):
        links.borrow(deadline=time.monotonic())
    got: list[Link] = []
    thread = threading.Thread(target=lambda: got.append(links.borrow()))
    thread.start()
    links.give_back(link)
    thread.join(SOON_S)
    assert got == [link]
    links.give_back(link)
    links.close()


def test_a_link_in_the_midst_of_something_is_not_lent_again(postgres: Server):
    links = pool(postgres, size=1)
    for number in range(4):
        link = links.borrow()
        if number == 0:
            link.execute("BEGIN")
            link.native("SELECT 1")
        elif number == 1:
            link.close()
        elif number == 2:
            link.later("SELECT 1 / 0")
        links.give_back(link, broken=number == 3)
        assert link.closed
    link = links.borrow()
    assert link.native("SELECT 1") == [(1,)]
    links.give_back(link)
    links.close()
    assert link.closed


def test_an_idle_link_that_the_server_closed_is_not_lent(postgres: Server):
    links = pool(postgres, size=1)
    link = links.borrow()
    ((backend,),) = link.native("SELECT pg_backend_pid()")
    links.give_back(link)
    postgres.execute("SELECT pg_terminate_backend(%s, 30000)", (backend,))
    other = links.borrow()
    assert other is not link
    assert other.native("SELECT 1") == [(1,)]
    links.give_back(other)
    links.close()


def test_a_link_that_comes_back_after_the_end_is_closed(postgres: Server):
    links = pool(postgres)
    link = links.borrow()
    links.close()
    links.give_back(link)
    assert link.closed
    with pytest.raises(Closed):
        links.borrow()


def test_a_place_is_free_again_after_no_connection_could_be_made():
    links = Links(parse("postgresql://x@127.0.0.1:1/x"), "public", size=1, timeout_s=SOON_S)
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            links.borrow(A)
        assert caught.value.retryable


# -- where


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://h", "postgresql://h/"),
        ("postgresql://u:secret@h:5433/d", "postgresql://u@h:5433/d"),
        ("postgresql://u@h/d?password=secret&sslmode=disable", "postgresql://u@h/d"),
        ("postgresql://h1:1,h2:2/d", "postgresql://h1:1,h2:2/d"),
        ("postgresql://[::1]:5/d", "postgresql://[::1]:5/d"),
        ("postgresql:///d?host=/run/x&sslpassword=secret", "postgresql:///run/x/d"),
        ("postgresql://u%20v:%3A@h/d%2Fe", "postgresql://u%20v@h/d%2Fe"),
    ],
)
def test_a_dsn_is_shown_without_what_is_secret(text: str, shown: str):
    dsn = parse(text)
    assert dsn.shown == str(dsn) == shown
    assert "secret" not in repr(dsn)


@pytest.mark.parametrize(
    "text",
    ["", "folder", "mysql://u:secret@h", "postgresql://u:secret@[::1/d", "postgres://h?secret=1",
     "postgresql://u:secret%zz@h/d", "postgresql://u:secret@h/d?connect_timeout=x",
     "postgresql://u:secret@h/d?\ud800"],
)  # fmt: skip
def test_what_is_no_dsn_is_refused_without_repeating_it(text: str):
    with pytest.raises(InvalidArgument) as caught:
        parse(text)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text(alphabet="abc:@/?%#&= ", min_size=4, max_size=12))
def test_no_password_is_ever_shown(password: str):
    marked = f"pw{password}pw"
    dsn = parse(f"postgresql://u:{quote(marked, safe='')}@h:1/d")
    assert dsn.parameters("s")["password"] == marked
    assert marked not in dsn.shown + repr(dsn)
    assert quote(marked, safe="") not in dsn.shown + repr(dsn)


@pytest.mark.parametrize("name", ["plain", 'o"d\\d na\tme', "Ünï", "x, public"])
def test_the_schema_is_what_was_said(postgres: Server, name: str):
    found = parse(postgres.dsn() + "&options=-c%20work_mem%3D5MB").parameters(name)
    link = Link.connect(found, time.monotonic() + SOON_S)
    (path,) = link.native("SELECT parse_ident(current_setting('search_path'))")[0]
    assert path == [name]
    assert link.native("SHOW work_mem") == [("5MB",)]
    link.close()
