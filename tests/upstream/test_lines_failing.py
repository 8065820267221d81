"""`Lines` whose iterable fails in ways that look like something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio.lowlevel
import pytest
from starlette.requests import Request

from sse_bridge import Exit, Lines, SSEBridge
from sse_bridge.testing import Page, PageError

pytestmark = pytest.mark.anyio

FAILED = {"type": "error", "code": "source_failed", "message": "The source of the output failed."}


def bridged(source: Lines) -> SSEBridge:
    async def resolve(request: Request) -> Lines:
        return source

    return SSEBridge(resolve=resolve, grace=0)


async def shown(source: Lines) -> list[Any]:
    """What a page gets behind the `start`."""
    async with Page(bridged(source)) as page:
        return [event.json() async for event in page][1:]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_task_of_the_application_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is the one that ends the bridge's own tasks."""

    async def failing() -> AsyncIterator[str]:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        yield "a"
        await task

    assert await shown(Lines(failing(), name="build")) == [{"type": "stdout", "line": "a"}, FAILED]
    assert "the iterable of Lines(chunks=False, name='build') failed\n" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_task_in_a_finally_is_a_failure_to_close(caplog: pytest.LogCaptureFixture) -> None:
    """The exit code stays."""

    async def failing() -> AsyncIterator[str | Exit]:
        task = asyncio.create_task(asyncio.Event().wait())
        try:
            yield Exit(3)
        finally:
            task.cancel()
            await task

    assert await shown(Lines(failing(), name="build")) == [{"type": "exit", "code": 3}]
    assert "the iterable of Lines(chunks=False, name='build') failed while it was closed\n" in caplog.text


async def test_a_generator_of_two_runs_goes_to_the_first(caplog: pytest.LogCaptureFixture) -> None:
    """Each would get a part of the lines, and closing it for one would end it for the other."""

    async def counting() -> AsyncIterator[str]:
        for number in range(50):
            await anyio.lowlevel.checkpoint()
            yield str(number)

    bridge = bridged(Lines(counting(), name="build"))
    async with Page(bridge) as first, Page(bridge) as second:
        started = await anext(first)
        with pytest.raises(PageError, match="source_failed"):
            await anext(second)
        lines = [event.json().get("line") async for event in first]

    assert started.json()["type"] == "start"
    assert lines == [str(number) for number in range(50)]
    assert "is being read by another run" in caplog.text
