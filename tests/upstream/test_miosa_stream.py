"""`MiosaStream`: the platform's streams by their path, with its key, and without a way to another host or route."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sse_bridge import ConfigurationError, HTTPUpstream, Miosa, MiosaStream, SSEBridge
from sse_bridge.errors import UpstreamRefused
from sse_bridge.upstream.base import Cancelled
from tests.support.asgi import Page
from tests.support.upstreams import Connection, serve_raw
from tests.upstream.platform import KEY, output, read, recorded_waits, refusing

pytestmark = pytest.mark.anyio

LOGS = "/sandboxes/sbx_1/logs/stream"


async def test_the_request_has_the_platforms_address_key_and_accept(anyio_backend: str) -> None:
    """As the SDK sends it (`docs/miosa.md` §1, §2)."""
    with serve_raw(output) as upstream:
        work = MiosaStream(LOGS + "?tail=20&since=a b").work(Miosa(upstream.url, KEY, tenant="t"), None)
        assert await read(work) == b"data: 1\n\n"

    request = upstream.requests[0]
    assert (request.method, request.path) == ("GET", f"/api/v1{LOGS}?tail=20&since=a%20b")
    assert request.headers["accept"] == "text/event-stream, application/json;q=0.9"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-miosa-tenant"] == "t"
    assert request.headers["cache-control"] == "no-store"
    assert "last-event-id" not in request.headers


async def test_a_stream_that_can_resume_gets_the_viewers_id(anyio_backend: str) -> None:
    """The platform promises that for the events of a sandbox (`docs/miosa.md` §2)."""
    with serve_raw(output) as upstream:
        await read(MiosaStream("/sandboxes/sbx_1/events").work(Miosa(upstream.url, KEY), "ü7"))

    assert upstream.requests[0].headers["last-event-id"] == "ü7"


async def test_a_platform_that_is_busy_or_gets_ready_is_asked_again(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Following a stream starts nothing, so that is safe after a 503, too."""
    waits = recorded_waits(monkeypatch)
    busy = (refusing(429), refusing(503, retry_after="3"), refusing(409, "COMPUTER_STARTING"))
    with serve_raw(*busy, output) as upstream:
        assert await read(MiosaStream(LOGS).work(Miosa(upstream.url, KEY), None)) == b"data: 1\n\n"

    assert waits == [0.25, 3.0, 1.0]


async def test_a_refusal_is_an_error_without_the_platforms_words(anyio_backend: str) -> None:
    """It is asked once."""
    with serve_raw(refusing(404)) as upstream, pytest.raises(UpstreamRefused) as caught:
        await read(MiosaStream(LOGS).work(Miosa(upstream.url, KEY), None))

    assert caught.value.code == "not_found"
    assert KEY not in str(caught.value)
    assert len(upstream.requests) == 1


async def test_the_end_of_the_stream_ends_the_run_without_an_error(anyio_backend: str) -> None:
    """Its events reach the viewer as they are, with ids. Nothing is left to cancel."""

    def logs(connection: Connection) -> None:
        connection.stream()
        connection.chunk(b'event: log\ndata: {"line":"up"}\n\n')
        connection.end()

    page = Page()
    with serve_raw(logs) as upstream:
        bridge = SSEBridge(Miosa(upstream.url, KEY), lambda request: MiosaStream(LOGS))
        await bridge(page.scope, page.receive, page.send)

    (event,) = page.events
    assert (event.type, event.data) == ("log", '{"line":"up"}')
    assert event.id == f"{page.headers['sse-bridge-run']}.1"
    assert bridge.statistics().cancels.requested == 0


async def test_cancelling_is_confirmed_at_once(anyio_backend: str) -> None:
    """The connection is all there is to end."""
    work = MiosaStream(LOGS).work(Miosa("http://127.0.0.1", KEY), None)

    assert not work.may_run
    assert await work.cancel(1) is Cancelled.CONFIRMED


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "a path as a string, not None"),
        (b"/secret", "not a bytes object. Decode it first"),
        (Path("/secret"), r"not a PosixPath. Write str\(...\) around it"),
        ("", "begins with one slash"),
        ("secret/logs", "begins with one slash"),
        ("//secret/logs", "begins with one slash"),
        ("https://secret.example/logs", "begins with one slash"),
        ("@secret.example/logs", "begins with one slash"),
        (":80/secret", "begins with one slash"),
        (" /secret", "begins with one slash"),
        ("/secret#part", r"a '#'.* quote\(name, safe=''\)"),
        ("/secret\\..\\x", "a backslash"),
        ("/secret\r\nX-More: 1", "a control character"),
        ("/secret?x=\0", "a control character"),
        ("/secret\udcff", "a lone surrogate"),
        ("/secret/../x", "lead to another route"),
        ("/secret/..", "lead to another route"),
        ("/secret/./x", "lead to another route"),
        ("/secret/%2E%2e/x", "lead to another route"),
        ("/secret/%2e./x?y", "lead to another route"),
        ("/secret/..%2fx", "lead to another route"),
        ("/secret/x%5c..", "lead to another route"),
        ("/" + "secret" * 20_000, "too long"),
    ],
)
def test_a_path_that_could_lead_elsewhere_is_refused_without_quoting_it(path: Any, message: str) -> None:
    """`resolve` may have made it from a request, and the key goes where it leads."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        MiosaStream(path)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["/", LOGS, "/runs/1/events?after=../x&y=%2e%2e", "/a/...", "/a..b/.c", "/x@y:1/é", "/databases/a%2Fb"]
)
def test_a_path_below_the_base_url_is_taken_as_it_is(path: str) -> None:
    """Sources of the same path are equal, which is how requests find a run by its key."""
    assert MiosaStream(path).path == path
    assert MiosaStream(path) == MiosaStream(path)


def test_it_needs_the_platform_and_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages say how to get them."""
    for name in ("MIOSA_ACCESS_TOKEN", "MIOSA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match=r"MiosaStream runs on MIOSA.*SSEBridge\(Miosa"):
        MiosaStream(LOGS).work(HTTPUpstream(), None)
    with pytest.raises(ConfigurationError, match="No API key for MIOSA"):
        MiosaStream(LOGS).work(Miosa("http://127.0.0.1"), None)


def test_repr_leaves_out_the_query() -> None:
    """It may hold a ticket."""
    assert repr(MiosaStream(LOGS + "?ticket=secret")) == f"MiosaStream('{LOGS}')"
