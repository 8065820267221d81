"""`SSEBridge` as an object: its options, and scopes other than HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from sse_bridge import Block, ConfigurationError, EventStream, SSEBridge
from tests.support.asgi import Page
from tests.support.site import never
from tests.support.work import ScriptedWork

pytestmark = pytest.mark.anyio


async def test_lifespan_is_answered(anyio_backend: str) -> None:
    """A bridge that is mounted may be spared lifespan events; one that is served alone gets them."""
    sent = []
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await SSEBridge(None, never)({"type": "lifespan"}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_websocket_is_closed(anyio_backend: str) -> None:
    """The bridge serves HTTP."""
    page = Page()
    await SSEBridge(None, never)({"type": "websocket", "path": "/"}, page.receive, page.send)

    assert page.sent == [{"type": "websocket.close"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dialect": "yaml"}, "dialect must be one of typed, named, verbatim, not 'yaml'"),
        ({"heartbeat": 0}, "heartbeat must be above zero, or None"),
        ({"send_timeout": -1}, "send_timeout"),
        ({"max_frame_size": 0}, "max_frame_size"),
        ({"retry_ms": 0}, "retry_ms"),
        ({"cancel_timeout": 0}, "cancel_timeout"),
        ({"cancel_timeout": None}, "cancel_timeout and replay must be numbers"),
        ({"replay": None}, "cancel_timeout and replay must be numbers"),
        ({"replay": -1}, "replay"),
        ({"grace": -1}, "grace must be zero or more"),
        ({"commit_after": -0.1}, "commit_after"),
        ({"heartbeat": float("nan")}, "heartbeat"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    """The application fails when it starts, before its first visit."""
    with pytest.raises(ConfigurationError, match=message):
        SSEBridge(None, never, **options)


def test_resolve_must_be_callable() -> None:
    """A source in place of `resolve` is the likely mistake."""
    with pytest.raises(ConfigurationError, match="resolve must be a function"):
        SSEBridge(None, EventStream("http://127.0.0.1/"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"max_viewers": 0},
        {"max_viewers": 1.5},
        {"max_runs": 0},
        {"max_runs": -1},
        {"max_frame_size": 0.5},
        {"retry_ms": 1.5},
        {"replay": 1.5},
    ],
)
def test_limits_are_whole_and_positive(options: dict[str, Any]) -> None:
    """A fraction of a viewer or a byte is refused when the bridge is made."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SSEBridge(None, lambda request: ScriptedWork(), **options)


@pytest.mark.parametrize("options", [{"policy": "drop"}, {"policy": None}, {"rate": 5}, {"rate": Block()}])
async def test_policies_and_rates_are_checked(anyio_backend: str, options: dict[str, Any]) -> None:
    """The message shows what to pass, when the bridge is made or when a function has chosen."""
    with pytest.raises(ConfigurationError, match=r"Block\(\)|TokenBucket"):
        SSEBridge(None, lambda request: ScriptedWork(), **options)

    name, wrong = next(iter(options.items()))
    chooses: dict[str, Any] = {name: lambda request: wrong}
    bridge = SSEBridge(None, lambda request: ScriptedWork(), **chooses)
    page = Page()
    with pytest.raises(ConfigurationError, match=r"Block\(\)|TokenBucket"):
        await bridge(page.scope, page.receive, page.send)
