"""Servers that are not to be trusted, for what a client makes of them."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

HELLO = json.dumps({"protocol": 1, "limits": {}}).encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Impostor:
    """
    A server that is not to be trusted. `answer(verb, body)` gives the body of what it answers, a
    status and that (and of which kind it is), or None to break off; it is given the connection for
    anything else.
    """

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.asked: list[str] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                near, _ = self._listener.accept()
                self._open.append(near)
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near, near.makefile("rb") as requests:
            while line := requests.readline():
                verb = line.split()[1].decode().removeprefix("/v1/").partition("?")[0]
                length = 0
                while (header := requests.readline()) != b"\r\n":
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                body = requests.read(length)
                if verb == "hello":
                    self._send(near, (200, HELLO))
                    continue
                self.asked.append(verb)
                told = self._answer(verb, body, near)
                if told is None:
                    near.shutdown(socket.SHUT_RDWR)
                    return
                self._send(near, told if isinstance(told, tuple) else (200, told))

    def _send(self, near: socket.socket, told: tuple[Any, ...]) -> None:
        status, body, kind = (*told, "application/json")[:3]
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n"
        near.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def vanish(self) -> None:
        """Nobody is answered any more."""
        self._listener.close()

    def close(self) -> None:
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def impostor() -> Iterator[Callable[..., Impostor]]:
    made: list[Impostor] = []

    def make(answer: Callable[..., Any]) -> Impostor:
        made.append(Impostor(answer))
        return made[-1]

    yield make
    for one in made:
        one.close()
