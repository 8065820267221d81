"""ASGI, spelled once: the types, the messages that we send, and the path of a request below its mount."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "ASGIApp",
    "AnyASGIApp",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "body",
    "href",
    "route_path",
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


def href(scope: Scope, name: str) -> str:
    """The path, as clients see it, of `name` below the mount. The request is one for the mount itself.

    `root_path` is the mount, with the prefix that a proxy has stripped. A host that takes the mount out of `path`
    without naming it there, as Litestar does, leaves it in `raw_path`.
    """
    root: str = scope.get("root_path", "").rstrip("/")
    if not scope["path"].strip("/"):
        asked = unquote((scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")).rstrip("/")
        if not root.endswith(asked):
            root = asked if asked.startswith(root + "/") else root + asked
    return quote(root) + "/" + name


def route_path(scope: Scope) -> str:
    """The path below the mount, without a slash at its ends; empty for the mount itself.

    Starlette, FastAPI and hypercorn's dispatcher leave the mount's path in `path` and name it in `root_path`;
    Litestar takes it out of both.
    """
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    # Behind a proxy that strips a prefix, `path` holds the mount alone and `root_path` holds prefix and mount.
    for prefix in (root, root.removeprefix(scope.get("app_root_path", "").rstrip("/"))):
        if prefix and (path == prefix or path.startswith(prefix + "/")):
            return _trimmed(path[len(prefix) :])
    return _trimmed(path)


def _trimmed(path: str) -> str:
    """Without one slash at each end. A second one belongs to another path: guards in front of us compare paths, too."""
    path = path.removeprefix("/")
    return path if path == "/" else path.removesuffix("/")
