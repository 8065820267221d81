"""Makes `send` wait for a client of hypercorn's HTTP/2 whose window is closed.

hypercorn's own waiting fails there (0.18): each look at the closed window lets `send` through, so everything is kept in
memory, and no policy sees that the viewer is slow. The buffer of the stream is reached from the task that serves it,
since middleware hides hypercorn's own `send`. Waiting for the buffer is hypercorn's own method.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from typing import Any, Final

import anyio

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
        kind = getattr(sys.modules.get("hypercorn.protocol.http_stream"), "HTTPStream", None)
        if kind is None or _FINGERPRINT not in scope.get("extensions", ()):
            return send
        buffers, number = _buffers(scope, kind)
        if buffers is None:
            self._warn()
            return send

        async def send_and_wait(message: Message) -> None:
            await send(message)
            buffer = buffers.get(number)
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


def _buffers(scope: Scope, kind: type) -> tuple[Any, int]:
    """The buffers of the connection's streams, by their numbers, and the number of the request's stream."""
    for coroutine in _coroutines():
        frame = getattr(coroutine, "cr_frame", None)
        stream: Any = None if frame is None else getattr(frame.f_locals.get("send"), "__self__", None)
        # Middleware may copy the scope, but the state in it stays the request's own.
        if isinstance(stream, kind) and _state(stream.scope) is _state(scope):  # type: ignore[attr-defined]
            protocol = getattr(stream.send, "__self__", None)  # type: ignore[attr-defined]
            return getattr(protocol, "stream_buffers", None), stream.stream_id  # type: ignore[attr-defined]
    return None, 0


def _state(scope: Scope) -> object:
    return scope.get("state", scope)


def _coroutines() -> Iterator[Any]:
    """The coroutines of all tasks of this event loop."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        import trio

        waiting = [trio.lowlevel.current_root_task()]
        while waiting:
            task = waiting.pop()
            if task is not None:
                yield task.coro
                waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    else:
        for one in tasks:
            yield one.get_coro()
