"""Writing a viewer's response as the bridge does."""

from __future__ import annotations

from contextvars import copy_context

from starlette.types import Send

from sse_bridge.relay.standin import StandIn
from sse_bridge.relay.viewer import Viewer


async def write(viewer: Viewer, send: Send, first: bytes = b"first") -> None:
    """Writes the response, with a stand-in for the running task on asyncio."""
    try:
        stand_in = StandIn(copy_context())
    except RuntimeError:
        stand_in = None  # on trio
    await viewer.write(send, first, stand_in)
