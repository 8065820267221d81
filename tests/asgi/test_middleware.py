"""`SSEBridgeMiddleware`: one path for the bridge, everything else untouched."""

from __future__ import annotations

import pytest

from sse_bridge import ConfigurationError, SSEBridgeMiddleware
from sse_bridge.asgi.messages import Receive, Scope, Send
from sse_bridge.asgi.paths import below_root

pytestmark = pytest.mark.anyio


async def unused(*args: object) -> object:
    raise AssertionError("the recording applications neither read nor send")


class Recorder:
    def __init__(self) -> None:
        self.scope: Scope | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope


@pytest.mark.parametrize(
    ("path", "root_path", "below"),
    [
        ("/run-sse", "", ""),
        ("/run-sse/", "", ""),
        ("/run-sse/abc", "", "abc"),
        ("/api/run-sse/abc", "/api", "abc"),
        ("/run-sse", "/api", ""),
    ],
)
async def test_requests_at_the_path_and_below_go_to_the_bridge(
    anyio_backend: str, path: str, root_path: str, below: str
) -> None:
    """The bridge gets the scope that a mount would make: `path` keeps the mount, `root_path` names it."""
    app, bridge = Recorder(), Recorder()
    middleware = SSEBridgeMiddleware(app, "/run-sse", bridge)

    await middleware({"type": "http", "path": path, "root_path": root_path}, unused, unused)

    assert app.scope is None
    assert bridge.scope is not None
    assert below_root(bridge.scope) == below
    assert bridge.scope["root_path"] == f"{root_path}/run-sse"


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "http", "path": "/", "root_path": ""},
        {"type": "http", "path": "/run-sse-other", "root_path": ""},
        {"type": "http", "path": "/x/run-sse", "root_path": ""},
        {"type": "websocket", "path": "/run-sse", "root_path": ""},
        {"type": "lifespan"},
    ],
)
async def test_other_requests_go_to_the_application(anyio_backend: str, scope: Scope) -> None:
    """The application gets the very same scope, as if the middleware were absent."""
    app, bridge = Recorder(), Recorder()
    middleware = SSEBridgeMiddleware(app, "run-sse/", bridge)

    await middleware(scope, unused, unused)

    assert app.scope is scope
    assert bridge.scope is None


def test_an_empty_path_is_a_configuration_error() -> None:
    """The bridge would take every request of the application."""
    with pytest.raises(ConfigurationError, match="path"):
        SSEBridgeMiddleware(Recorder(), "/", Recorder())
