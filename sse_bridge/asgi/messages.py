"""ASGI, spelled once: the types, and the messages that we send and get."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "ASGIApp",
    "AnyASGIApp",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "body",
    "send_json",
    "start",
]

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
    await send(start(status, [*own, (b"cache-control", b"no-store"), *headers]))
    await send(body(payload, more=False))
