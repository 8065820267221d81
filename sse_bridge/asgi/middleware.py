"""`SSEBridgeMiddleware`: a bridge at one path of an application of any framework, even one without mounts."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigurationError
from .messages import AnyASGIApp
from .paths import below_root

__all__ = ["SSEBridgeMiddleware"]


class SSEBridgeMiddleware:
    """Serves `bridge` at `path` and below, and hands everything else to `app` untouched.

    Args:
        app: the application to wrap, of any framework.
        path: such as `/run-sse`, relative to where the application itself is mounted.
        bridge: the `SSEBridge`.

    Raises:
        ConfigurationError: `path` is empty.
    """

    def __init__(self, app: AnyASGIApp, path: str, bridge: AnyASGIApp) -> None:
        if not path.strip("/"):
            raise ConfigurationError("SSEBridgeMiddleware needs a path, such as '/run-sse'.")
        self._app = app
        self._path = path.strip("/")
        self._bridge = bridge

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request, or whatever else the server sends."""
        if scope["type"] == "http":
            below = below_root(scope)
            if below == self._path or below.startswith(self._path + "/"):
                root = scope.get("root_path", "").rstrip("/")
                ending = "/" if scope["path"].endswith("/") else ""  # what `below_root` cut off
                inner = {**scope, "path": f"{root}/{below}{ending}", "root_path": f"{root}/{self._path}"}
                return await self._bridge(inner, receive, send)
        return await self._app(scope, receive, send)
