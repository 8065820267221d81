"""A connection that breaks in the middle of a stream. The command behind it does not notice, and runs on."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from starlette.types import Message, Scope, Send

__all__ = ["breaking"]

_END: Final = b"\n\n"

#: Folders that list the descriptors of this process; the first that exists is used.
_DESCRIPTOR_FOLDERS: Final = (Path("/proc/self/fd"), Path("/dev/fd"))


def breaking(send: Send, scope: Scope, after: int | None, inside: bool) -> Send:
    """An ASGI `send` that breaks the connection behind a number of frames, and then fails as a server's does.

    Args:
        send: the server's.
        scope: the request's.
        after: the number of frames; `None` for a sound connection.
        inside: half of the next frame is sent, too.
    """
    if after is None:
        return send
    left = after
    is_broken = False

    async def send_some(message: Message) -> None:
        nonlocal left, is_broken
        if is_broken:
            raise ConnectionResetError("this connection was broken on purpose")  # an OSError, as in ASGI HTTP 2.4
        frames = message.get("body", b"").split(_END)[:-1]
        if "body" not in message or len(frames) < left + inside:
            left -= len(frames)
            await send(message)
            return
        body = b"".join(frame + _END for frame in frames[:left])
        if inside:
            body += frames[left][: len(frames[left]) // 2]
        await send({"type": "http.response.body", "body": body, "more_body": True})
        is_broken = True
        _shut_down(scope)

    return send_some


def _shut_down(scope: Scope) -> None:
    """Shuts the connection of a request down. What was sent before still arrives.

    ASGI has no message for it: a server closes an incomplete response once the application returns, and ours returns
    with its command. So the socket is found among those of this process, by the two ends that the request names. The
    server then believes that the client has left.

    Raises:
        RuntimeError: there is no such socket, as behind a proxy or without a network.
    """
    folder = next(folder for folder in _DESCRIPTOR_FOLDERS if folder.exists())
    wanted = [_host_and_port(scope.get(end)) for end in ("client", "server")]
    for descriptor in os.listdir(folder):
        with suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as copy:
            if [_host_and_port(end) for end in (copy.getpeername(), copy.getsockname())] == wanted:
                copy.shutdown(socket.SHUT_RDWR)
                return
    raise RuntimeError(f"found no connection between {wanted[0]} and {wanted[1]} to break")


def _host_and_port(end: object) -> object:
    """The first two parts of an address; those of IPv6 have four."""
    return tuple(end[:2]) if isinstance(end, tuple | list) else end
