"""Fixtures for all tests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.virtual_time import virtual


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str | tuple[str, dict[str, Any]]:
    """Async tests run on both event loops, unless a test needs a particular server's."""
    if request.node.get_closest_marker("virtual_time") is not None:
        return virtual(request.param)
    return str(request.param)
