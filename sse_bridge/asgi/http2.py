"""Makes `send` wait for a client of hypercorn's HTTP/2 whose window is closed.

hypercorn's own waiting fails there (0.18): each look at the closed window lets `send` through, so everything is kept in
memory, and no policy sees that the viewer is slow. The buffer of the stream is reached from the task that serves it,
since middleware hides hypercorn's own `send`. Waiting for the buffer is hypercorn's own method.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

import anyio

from . import hypercorn
from .messages import Message, Scope, Send

__all__ = ["Windows"]

logger: Final = logging.getLogger("sse_bridge")

#: What hypercorn offers on HTTP/2 and HTTP/3 only.
_FINGERPRINT: Final = "http.response.push"
#: Bytes that a stream may hold beyond what its client has asked for: hypercorn's own mark.
HIGH_WATER: Final = 32 * 1024
#: Seconds between two looks. On trio, hypercorn forgets a waiting task if another one writes, as behind middleware.
INTERVAL: Final = 0.1


class Windows:
    """The windows of one bridge's HTTP/2 clients."""

    def __init__(self) -> None:
        self._has_warned = False

    def waiting(self, scope: Scope, send: Send) -> Send:
        """A `send` that waits while the client's window is closed. Returns `send` itself for other servers."""
        if "hypercorn" not in sys.modules or _FINGERPRINT not in scope.get("extensions", ()):
            return send
        stream = hypercorn.stream_of(scope)
        buffers = getattr(getattr(getattr(stream, "send", None), "__self__", None), "stream_buffers", None)
        if buffers is None:
            self._warn()
            return send

        async def send_and_wait(message: Message) -> None:
            await send(message)
            buffer = buffers.get(stream.stream_id)
            while buffer is not None and message.get("more_body") and len(buffer.buffer) > HIGH_WATER:
                with anyio.move_on_after(INTERVAL):
                    await buffer.drain()

        return send_and_wait

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "hypercorn holds in memory whatever an HTTP/2 client does not read, and the bridge cannot reach its "
                "buffers here: the policies of viewers have no effect. Let a proxy in front speak HTTP/2, and serve it "
                "HTTP/1.1. This is said once."
            )
