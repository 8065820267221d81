"""Happy eyeballs: bad addresses of a host hardly delay the good one."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

from sse_bridge.upstream import connecting
from sse_bridge.upstream.transport import FastTransport
from tests.upstream.raw import WHOLE, connected_to, outcome, says, server

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.mark.parametrize("refuse", [0, 1, 2])
async def test_the_first_address_that_answers_wins(anyio_backend: str, refuse: int, monkeypatch: Any) -> None:
    """Addresses that refuse are skipped, and the sockets of the losers are closed."""
    async with server(says(WHOLE)) as url:
        port = httpx.URL(url).port
        here, closed = ("127.0.0.1", port), ("127.0.0.1", 1)
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", at) for at in [closed] * refuse + [here, here]]

        async def found(*args: object, **options: object) -> Any:
            return addresses

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
        _, body, error = await outcome(FastTransport(httpx.create_ssl_context()), "http://many.example/")
        assert (body, error) == (b"hello world", None)
        assert connected_to(url) == 0


async def test_a_silent_address_does_not_block_the_next(anyio_backend: str, monkeypatch: Any) -> None:
    """The next address is tried beside it, after a short delay."""
    monkeypatch.setattr(connecting, "ATTEMPT_DELAY", 0.01)
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def sock_connect(one: socket.socket, address: Any) -> None:
        if one.family == socket.AF_INET6:
            await asyncio.sleep(60)
        await connect(one, address)

    async with server(says(WHOLE)) as url:
        port = httpx.URL(url).port
        addresses = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

        async def found(*args: object, **options: object) -> Any:
            return addresses

        monkeypatch.setattr(loop, "sock_connect", sock_connect)
        monkeypatch.setattr(loop, "getaddrinfo", found)
        _, body, error = await outcome(FastTransport(httpx.create_ssl_context()), "http://many.example/")
        assert (body, error) == (b"hello world", None)
