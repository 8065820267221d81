"""Upstreams with different manners, streams opened at them, and a check for abandoned generators."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sse_bridge.upstream.base import Stream
from sse_bridge.upstream.client import HTTPUpstream
from tests.support.upstreams import Connection, RawUpstream, read_all

EVENT = b"data: 1\n\n"


def two_chunks(connection: Connection) -> None:
    """Sends two events, and ends."""
    connection.stream()
    connection.chunk(EVENT)
    connection.chunk(b"data: 2\n\n")
    connection.end()


def silent(connection: Connection) -> None:
    """Opens the stream, and sends only the head."""
    connection.stream()
    connection.wait_until_left()


def chatty(connection: Connection) -> None:
    """Sends events until the client leaves."""
    connection.stream()
    while True:
        connection.chunk(EVENT * 100)


def mute(connection: Connection) -> None:
    """Leaves the request unanswered."""
    connection.wait_until_left()


def cut_off(connection: Connection) -> None:
    """Sends one event, and breaks off in the middle of the next chunk."""
    connection.stream()
    connection.chunk(EVENT)
    connection.send(b"5\r\nda")


@asynccontextmanager
async def opened(upstream: RawUpstream, client: HTTPUpstream | None = None) -> AsyncGenerator[Stream]:
    """A stream of the upstream."""
    async with (client or HTTPUpstream()).open("GET", upstream.url, headers={"X-Test": "1"}) as stream:
        yield stream


async def read(upstream: RawUpstream) -> bytes:
    """Everything that a stream of the upstream brings."""
    async with opened(upstream) as stream:
        return await read_all(stream)


@contextmanager
def nothing_left_to_the_collector() -> Iterator[None]:
    """Fails if the garbage collector finishes a generator: trio complains about that, asyncio starts a task for it."""
    hooks = sys.get_asyncgen_hooks()
    abandoned: list[str] = []

    def finalizer(generator: AsyncGenerator[Any, Any]) -> None:
        abandoned.append(repr(generator))
        if hooks.finalizer is not None:
            hooks.finalizer(generator)

    gc.collect()
    gc.freeze()  # the collection below need not look at older objects again
    gc.disable()
    sys.set_asyncgen_hooks(hooks.firstiter, finalizer)
    try:
        yield
        before = len(abandoned)  # generators that lost their last reference
        gc.collect()  # generators in reference cycles
        assert (before, abandoned) == (0, [])
    finally:
        sys.set_asyncgen_hooks(*hooks)
        gc.enable()
        gc.unfreeze()
