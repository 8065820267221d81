"""Fixtures for all tests. Async tests run on asyncio and on trio."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test that does not need a server's own event loop runs on both."""
    return str(request.param)
