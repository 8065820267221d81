"""ASGI, spelled once: the types, and the messages that we send and get."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..relay.signal import Signal

__all__ = [
    "ASGIApp",
    "AnyASGIApp",
    "Inbox",
    "Message",
    "Outbox",
    "Receive",
    "Scope",
    "Send",
    "body",
    "send_all",
    "send_json",
    "start",
]

#: The status of a response that has no reader: nginx's, for its log. No RFC has one.
_CLIENT_LEFT: Final = 499
#: Seconds that a server or middleware may take to drop that response. None of them waits.
_DROPPED_WITHIN: Final = 1.0

Headers = Iterable[tuple[bytes, bytes]]

#: An ASGI application of any framework. Starlette types ASGI's dictionaries as mappings, Quart and hypercorn as unions
#: of typed dictionaries, and type checkers accept neither for the other.
AnyASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


def start(status: int, headers: Headers) -> Message:
    """The head of a response. Header names are lower case (ASGI HTTP 2.3)."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content: bytes, more: bool) -> Message:
    """A piece of a response's body. Always `bytes`: servers may refuse views."""
    return {"type": "http.response.body", "body": content, "more_body": more}


async def send_json(send: Send, status: int, content: Any, headers: Headers = ()) -> None:
    """A whole response. `content` is left out for statuses without a body (204, 304)."""
    payload = b"" if status in (204, 304) else json.dumps(content).encode()
    own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(payload))] if payload else []
    await send_all(send, start(status, [*own, (b"cache-control", b"no-store"), *headers]), payload)


async def send_all(send: Send, head: Message, content: bytes) -> None:
    """Sends a whole response. Ignores the `OSError` by which servers say that the client has left (ASGI HTTP 2.4)."""
    with suppress(OSError):
        await send(head)
        await send(body(content, more=False))


class Inbox:
    """A request's `receive` that remembers `http.disconnect`.

    Some servers say it once (hypercorn, daphne), and `request.is_disconnected()` of the application or a body that it
    reads may take it. All callers hear of it: those that come later, and those that wait at the same time.

    Args:
        receive: of the server, or of a middleware.
        has_left: whether the server knows by now that the client has left. A middleware in front may have taken the
            message.
    """

    __slots__ = ("__wrapped__", "_has_left", "_is_read", "_read", "is_over")

    def __init__(self, receive: Receive, has_left: Callable[[], bool]) -> None:
        self.__wrapped__ = receive  # as `functools.wraps` calls it
        #: Whether the message has come.
        self.is_over = False
        self._has_left = has_left
        self._is_read = False  # by one of the callers; the others wait for `_read`
        self._read: Signal | None = None

    async def __call__(self) -> Message:
        while not self.is_over and not self._has_left():
            if self._is_read:
                self._read = self._read or Signal()
                await self._read.wait()
                continue
            self._is_read = True
            try:
                message = await self.__wrapped__()
                self.is_over = message["type"] == "http.disconnect"
                return message
            finally:
                self._is_read = False
                if self._read is not None:
                    self._read.notify()
        self.is_over = True
        return {"type": "http.disconnect"}


class Outbox:
    """A request's `send` that remembers whether a response has begun.

    Args:
        send: of the server, or of a middleware.
    """

    __slots__ = ("_send", "has_begun")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    def send(self, message: Message) -> Awaitable[None]:  # `__call__` would take four times as long, for every line
        """Sends a message, as the server's `send` does."""
        self.has_begun = True
        return self._send(message)

    @staticmethod
    def behind(send: Send) -> Send:
        """The server's own `send` once a response has begun, if `send` is an outbox's: saves a call for each line."""
        outbox = getattr(send, "__self__", None)
        return outbox._send if isinstance(outbox, Outbox) and outbox.has_begun else send

    async def close_unread(self) -> None:
        """Sends an empty response to a client that has left, unless a response has begun.

        The server drops it. Middleware needs it: Starlette's `BaseHTTPMiddleware` raises `RuntimeError` without one.
        """
        if not self.has_begun:
            with anyio.move_on_after(_DROPPED_WITHIN):
                await send_all(self.send, start(_CLIENT_LEFT, [(b"content-length", b"0")]), b"")
