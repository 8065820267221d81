"""One server for most tests of this folder; each test has its own sandbox in it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from sse_bridge.sandbox import create_app
from tests.sandbox.helpers import KEY, Box
from tests.support.servers import Served, serve


@pytest.fixture(scope="session")
def server() -> Iterator[Served]:
    """A served sandbox application."""
    with serve(create_app(key=KEY)) as served:
        yield served


@pytest.fixture(scope="session")
def http(server: Served) -> Iterator[httpx.Client]:
    """A client of the API, with the key."""
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, timeout=20) as client:
        yield client


@pytest.fixture
def box(http: httpx.Client) -> Iterator[Box]:
    """A new sandbox, ready for commands."""
    box = Box(http)
    yield box
    box.destroy()


@pytest.fixture(scope="session")
def shared_box(http: httpx.Client) -> Iterator[Box]:
    """A sandbox shared by tests that leave it as it is."""
    box = Box(http)
    yield box
    box.destroy()
