"""Streams that are opened again behind their last event id, as a browser's `EventSource` does: feeds of the platform's,
and `EventStream(reconnect=...)`.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sse_bridge import ConfigurationError, EventStream, Miosa, MiosaStream, SSEBridge
from sse_bridge.upstream import reopening
from sse_bridge.upstream.base import Source
from sse_bridge.upstream.miosa import stream as stream_module
from tests.support.asgi import Page
from tests.support.upstreams import Connection, Handler, RawUpstream, serve_raw
from tests.upstream.platform import KEY, breaks, lost, no_content, refusing, shorten_waits, streaming

pytestmark = pytest.mark.anyio

#: Its ids are Mercure's.
ONE = b"id: urn:uuid:1\ndata: one\n\n"
TWO = b"id: urn:uuid:2\ndata: two\n\n"
THREE = b"id: urn:uuid:3\ndata: three\n\n"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_waits(monkeypatch)


def feed(url: str) -> Source:
    return EventStream(url + "/feed", reconnect=20)


def events_of_a_sandbox(url: str) -> Source:
    return MiosaStream("/sandboxes/sbx_1/events?x=1")


def logs_of_a_sandbox(url: str) -> Source:
    return MiosaStream("/sandboxes/sbx_1/logs/stream")


async def shown(source: Any, *handlers: Handler, seen: str = "") -> tuple[list[str], RawUpstream]:
    """The data of the events that a page gets, with gaps as `gap`, and the upstream."""
    page = Page(headers={"last-event-id": seen} if seen else {})
    with serve_raw(*handlers) as upstream:
        bridge = SSEBridge(Miosa(upstream.url, KEY), lambda request: source(upstream.url))
        with anyio.fail_after(20):
            await bridge(page.scope, page.receive, page.send)
    assert page.ended
    data = page.content.decode().replace(": gap dropped=unknown\n", "data: gap\n")
    return [line.removeprefix("data: ") for line in data.splitlines() if line.startswith("data: ")], upstream


def resumed_at(upstream: RawUpstream) -> list[str | None]:
    return [request.headers.get("last-event-id") for request in upstream.requests]


@pytest.mark.parametrize("source", [feed, events_of_a_sandbox])
@pytest.mark.parametrize("half", [b"", TWO[:3], TWO[:-1]])
async def test_a_stream_goes_on_behind_its_last_id(anyio_backend: str, source: Any, half: bytes) -> None:
    """Each event comes once, whatever was left of a frame, and there is no gap."""
    later = (refusing(503), breaks, lost(), lost(TWO), streaming(THREE), no_content)
    data, upstream = await shown(source, lost(ONE + half), *later)

    assert data == ["one", "two", "three"]
    first, second = "urn:uuid:1", "urn:uuid:2"
    assert resumed_at(upstream)[:6] == [None, first, first, first, first, second]


async def test_a_stream_that_may_not_go_on_behind_an_id_has_a_gap(anyio_backend: str) -> None:
    """The platform promises it for the events of a sandbox only. It is asked all the same."""
    data, upstream = await shown(logs_of_a_sandbox, lost(ONE), streaming(TWO))

    assert data == ["one", "gap", "two"]
    assert resumed_at(upstream) == [None, "urn:uuid:1"]


@pytest.mark.parametrize("source", [feed, events_of_a_sandbox, logs_of_a_sandbox])
@pytest.mark.parametrize("frame", [b"data: one\n\n", ONE + b"id\ndata: one\n\n"])
async def test_a_stream_without_an_id_has_a_gap(anyio_backend: str, source: Any, frame: bytes) -> None:
    """It never gave one, or has reset it. It begins where the upstream begins."""
    data, upstream = await shown(source, lost(frame), streaming(b"data: two\n\n"))

    assert data[-3:] == ["one", "gap", "two"]
    assert resumed_at(upstream) == [None, None]


async def test_white_space_around_an_id_is_left_out(anyio_backend: str) -> None:
    """As by browsers. A header cannot hold it, and the request would fail."""
    later = (streaming(b"id: 8 \ndata: two\n\n"), no_content)
    data, upstream = await shown(feed, lost(b"id:  7\t\ndata: one\n\n"), *later)

    assert data == ["one", "two"]
    assert resumed_at(upstream) == [None, "7", "8"]


async def test_the_viewers_own_id_stands_until_the_upstream_gives_another(anyio_backend: str) -> None:
    """A stream that broke off before its first event is opened where the viewer was."""
    data, upstream = await shown(feed, lost(), streaming(TWO), no_content, seen="urn:uuid:1")

    assert data == ["two"]
    assert resumed_at(upstream) == ["urn:uuid:1", "urn:uuid:1", "urn:uuid:2"]


# -- the end


@pytest.mark.parametrize(
    "end",
    [no_content, streaming(), streaming(b": nothing new\n\nretry: 20\n\n"), refusing(404), refusing(401)],
    ids=["204", "empty", "comment", "404", "401"],
)
async def test_a_feed_that_ends_its_stream_is_asked_for_more(anyio_backend: str, end: Handler) -> None:
    """As a browser asks it: hubs end their responses from time to time. An answer without an event is the end."""
    data, upstream = await shown(feed, streaming(ONE), streaming(TWO), end)

    assert data == ["one", "two"]
    assert resumed_at(upstream) == [None, "urn:uuid:1", "urn:uuid:2"]


@pytest.mark.parametrize(
    ("source", "frames"),
    [
        (feed, b"data: one\n\n"),
        (feed, ONE + b"data: [DONE]\n\n"),
        (events_of_a_sandbox, ONE),
        (logs_of_a_sandbox, ONE),
        (lambda url: EventStream(url), ONE),
    ],
)
async def test_other_streams_end_with_their_response(anyio_backend: str, source: Any, frames: bytes) -> None:
    """Without ids the upstream would begin again; `[DONE]` says it; and the platform's streams end so."""
    _, upstream = await shown(source, streaming(frames), streaming(TWO))

    assert len(upstream.requests) == 1


async def test_a_stream_that_is_lost_behind_its_last_word_is_not_opened_again(anyio_backend: str) -> None:
    """A model's answer is whole with `[DONE]`. To ask again would make another one."""
    data, upstream = await shown(feed, lost(ONE + b"data: [DONE]\n\n"), streaming(TWO))

    assert data == ["one", "[DONE]"]
    assert len(upstream.requests) == 1


async def test_a_stream_that_stays_broken_is_given_up(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the upstream accepts each time. In `typed` the page is told why."""
    page = Page()
    with serve_raw(lost(ONE), lost()) as upstream:
        source = EventStream(upstream.url, reconnect=1)
        bridge = SSEBridge(resolve=lambda request: source, dialect="typed")
        with anyio.fail_after(20):
            await bridge(page.scope, page.receive, page.send)

    assert [event["type"] for event in page.objects] == ["stdout", "error"]
    assert page.objects[-1]["code"] == "upstream_lost"
    assert 1 < len(upstream.requests) < 200  # in a second or more: it does wait in between


async def test_a_platform_stream_that_stays_broken_is_given_up(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute of it."""
    monkeypatch.setattr(stream_module, "REOPEN_TIMEOUT", 0.2)
    data, upstream = await shown(events_of_a_sandbox, lost(ONE), breaks)

    assert data == ["one"]
    assert len(upstream.requests) > 1


async def test_a_refusal_that_stays_ends_the_run_at_once(anyio_backend: str) -> None:
    """A key that was withdrawn comes back no sooner for being asked for."""
    _, upstream = await shown(feed, lost(ONE), refusing(401))

    assert len(upstream.requests) == 2


async def test_the_upstream_says_how_long_to_wait(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `retry`, as for a browser. It bounds the first wait from below."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(reopening, "sleep", sleep)
    await shown(feed, lost(b"retry: 300\n" + ONE), streaming(TWO), no_content)

    assert waits[0] == 0.3


@pytest.mark.parametrize("source", [feed, lambda url: EventStream(url, reconnect=60)])
async def test_a_viewer_that_leaves_ends_the_attempts(anyio_backend: str, source: Any) -> None:
    """Its run has no reader for what would come."""
    page = Page()

    def silent(connection: Connection) -> None:
        connection.wait_until_left()

    with serve_raw(lost(ONE), silent) as upstream:
        bridge = SSEBridge(resolve=lambda request: source(upstream.url), grace=0)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bridge, page.scope, page.receive, page.send)
                await upstream.until_asked(2)
                page.leave()
            await upstream.until_left(2)


# -- arguments


@pytest.mark.parametrize("reconnect", [0, -1, True, "60", float("nan")])
def test_reconnect_takes_seconds(reconnect: Any) -> None:
    """The message says what to write."""
    with pytest.raises(ConfigurationError, match=r"EventStream\(reconnect=...\) takes the seconds .* such as 60"):
        EventStream("http://h", reconnect=reconnect)


@pytest.mark.parametrize("method", ["POST", "post", "PUT", "DELETE", "PATCH"])
def test_a_request_that_does_work_is_never_sent_again(method: str) -> None:
    """A model would be paid twice."""
    with pytest.raises(ConfigurationError, match="only safe with GET"):
        EventStream("http://h", method=method, reconnect=60)


@pytest.mark.parametrize("key", ["", 7, b"k"])
def test_a_key_is_a_text(key: Any) -> None:
    """`None` is for none."""
    with pytest.raises(ConfigurationError, match=r"EventStream\(key=...\) takes a string that is not empty"):
        EventStream("http://h", key=key)
