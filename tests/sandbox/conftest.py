"""One server for most tests of this folder; each test has its own sandbox in it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import miosa
import pytest
from miosa.resources.sandboxes import Sandbox

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


@pytest.fixture
def client(server: Served) -> Iterator[miosa.Miosa]:
    """The synchronous client of MIOSA's SDK."""
    client = miosa.Miosa(api_key=KEY, base_url=server.url)
    yield client
    client.close()


@pytest.fixture
def sandbox(client: miosa.Miosa) -> Iterator[Sandbox]:
    """A ready sandbox of MIOSA's SDK; the SDK's context manager destroys it."""
    with client.sandboxes.create(name="sdk") as sandbox:
        states = [sandbox.state]
        assert sandbox.wait_until_ready(timeout=5)
        assert [*states, sandbox.state] == ["provisioning", "running"]
        yield sandbox
