"""`hypercorn`: the end of the task that waits for hypercorn's stop is heard, and nothing else is."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from hypercorn.utils import ShutdownError, raise_shutdown

from sse_bridge.asgi.hypercorn import watch

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_stop_is_heard_at_once(anyio_backend: str) -> None:
    """As hypercorn's worker waits for it."""
    told, stop = anyio.Event(), anyio.Event()
    trigger = asyncio.create_task(raise_shutdown(stop.wait))
    watch(told.set)
    await wait_all_tasks_blocked()
    assert not told.is_set()
    stop.set()
    with anyio.fail_after(5):
        await told.wait()

    assert isinstance(trigger.exception(), ShutdownError)


async def test_other_servers_have_no_such_task(anyio_backend: str, monkeypatch: Any) -> None:
    """Whether hypercorn was ever imported or not."""
    watch(pytest.fail)
    monkeypatch.delitem(sys.modules, "hypercorn.utils")
    watch(pytest.fail)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_its_trio_worker_says_nothing(anyio_backend: str) -> None:
    """Requests are cancelled there."""
    watch(pytest.fail)
