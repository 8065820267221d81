"""Fixtures for all tests."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.virtual_time import virtual

# How long an example takes says nothing on a machine that is busy with other tests.
settings.register_profile("busy", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# A shell has its background jobs ignore Ctrl-C and Ctrl-\, and `nohup` the end of a terminal. So would all that a test
# starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Thousands of tests live until the end. Those that collect garbage need not look through all others each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def event_loops_of_asyncio() -> None:
    """An old uvicorn that a test runs makes uvloop's the event loops of the whole process, and of all later tests."""
    if sys.version_info < (3, 14) and type(asyncio.get_event_loop_policy()).__module__.startswith("uvloop"):
        asyncio.set_event_loop_policy(None)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str | tuple[str, dict[str, Any]]:
    """Async tests run on both event loops, unless a test needs a particular server's."""
    if request.node.get_closest_marker("virtual_time") is not None:
        return virtual(request.param)
    return str(request.param)
