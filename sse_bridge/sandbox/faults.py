"""A connection that breaks in the middle of a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.types import Message, Send

__all__ = ["breaking"]

_END: Final = b"\n\n"


def breaking(send: Send, after: int | None, inside: bool, break_off: Callable[[], None]) -> Send:
    """An ASGI `send` that breaks off behind a number of frames.

    Args:
        send: the server's.
        after: the number of frames; `None` for a sound connection.
        inside: half of the next frame is sent, too.
        break_off: has the application return. Servers close a connection whose response is incomplete.
    """
    if after is None:
        return send
    left = after

    async def send_some(message: Message) -> None:
        nonlocal left
        frames = message.get("body", b"").split(_END)[:-1]
        if len(frames) < left + inside:
            left -= len(frames)
            await send(message)
            return
        body = b"".join(frame + _END for frame in frames[:left])
        if inside:
            body += frames[left][: len(frames[left]) // 2]
        await send({"type": "http.response.body", "body": body, "more_body": True})
        break_off()

    return send_some
