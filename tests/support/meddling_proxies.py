"""Proxies that get in the way of event streams, each in one way, as real ones do by default or by mistake."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.cutting_proxy import LOOK, accepting, hands_on

__all__ = ["cuts_silence", "deaf", "flushes", "holds", "with_headers"]

_STREAM: Final = b"text/event-stream; charset"


@contextmanager
def cuts_silence(port: int, seconds: float) -> Iterator[str]:
    """Cuts a connection on which the server says nothing for so long; yields the URL."""

    def to_client(client: socket.socket, chunk: bytes, now: float) -> None:
        client.sendall(chunk)

    with _forwarding(port, to_client, lambda since: since > seconds) as url:
        yield url


@contextmanager
def flushes(port: int, every: float) -> Iterator[str]:
    """Collects what event streams bring, and sends it on at the ticks of a clock; yields the URL."""
    collected: dict[socket.socket, bytes] = {}
    ticks: dict[socket.socket, float] = {}

    def to_client(client: socket.socket, chunk: bytes, now: float) -> None:
        if _STREAM not in chunk and client not in collected:
            return client.sendall(chunk)
        collected[client] = collected.get(client, b"") + chunk
        if (tick := now // every) != ticks.setdefault(client, tick):
            ticks[client] = tick
            client.sendall(collected[client])
            collected[client] = b""
        return None

    with _forwarding(port, to_client) as url:
        yield url


@contextmanager
def holds(port: int, beyond: bytes) -> Iterator[str]:
    """Sends an event stream on up to some bytes, and holds back what comes behind them; yields the URL."""
    seen: dict[socket.socket, bytes] = {}

    def to_client(client: socket.socket, chunk: bytes, now: float) -> None:
        if beyond not in seen.get(client, b""):
            client.sendall(chunk)
        seen[client] = seen.get(client, b"") + chunk

    with _forwarding(port, to_client) as url:
        yield url


@contextmanager
def deaf(port: int) -> Iterator[str]:
    """Keeps its connection to the server when the client has left; yields the URL."""

    def handle(client: socket.socket) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server, client:
            clients = [client]
            while True:
                readable, _, _ = select.select([*clients, server], [], [])
                if server in readable:
                    chunk = server.recv(65536)
                    if not chunk:
                        return
                    with suppress(OSError):
                        client.sendall(chunk)
                elif not hands_on(client, server):
                    clients = []

    with accepting(handle) as own:
        yield f"http://127.0.0.1:{own}"


@contextmanager
def _forwarding(
    port: int,
    to_client: Callable[[socket.socket, bytes, float], None],
    is_late: Callable[[float], bool] = lambda since: False,
) -> Iterator[str]:
    """Hands each chunk of the server's to `to_client`, and an empty one now and then, until `is_late`."""

    def handle(client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", port)) as server:
            heard_at = time.monotonic()
            while not is_late(time.monotonic() - heard_at):
                readable, _, _ = select.select([client, server], [], [], LOOK)
                if client in readable and not hands_on(client, server):
                    return
                chunk = b""
                if server in readable:
                    chunk, heard_at = server.recv(65536), time.monotonic()
                    if not chunk:
                        return
                to_client(client, chunk, time.monotonic())

    with accepting(handle) as own:
        yield f"http://127.0.0.1:{own}"


def with_headers(app: ASGIApp, change: Callable[[dict[bytes, bytes]], object]) -> ASGIApp:
    """The application behind a proxy that changes the headers of requests."""

    async def changed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            change(headers)
            scope = {**scope, "headers": list(headers.items())}
        await app(scope, receive, send)

    return changed
