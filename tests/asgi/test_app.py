"""`SSEBridge` and scopes other than HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from sse_bridge import SSEBridge
from tests.support.asgi import Page
from tests.support.site import never

pytestmark = pytest.mark.anyio


async def test_lifespan_is_answered(anyio_backend: str) -> None:
    """A bridge that is mounted may be spared lifespan events; one that is served alone gets them."""
    sent = []
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await SSEBridge(None, never)({"type": "lifespan"}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_websocket_is_closed(anyio_backend: str) -> None:
    """The bridge serves HTTP."""
    page = Page()
    await SSEBridge(None, never)({"type": "websocket", "path": "/"}, page.receive, page.send)

    assert page.sent == [{"type": "websocket.close"}]
