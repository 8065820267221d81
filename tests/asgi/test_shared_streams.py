"""Event streams that say themselves which requests share them: `EventStream(key=...)`."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from starlette.requests import Request

from sse_bridge import EventStream, SSEBridge
from tests.support.asgi import Page
from tests.support.upstreams import Connection, RawUpstream, serve_raw

pytestmark = pytest.mark.anyio


def goes_on(connection: Connection) -> None:
    connection.stream()
    connection.chunk(b"data: price\n\n")
    connection.wait_until_left()


def ends(connection: Connection) -> None:
    connection.stream()
    connection.chunk(b"data: price\n\n")
    connection.end()


def bridge_on(upstream: RawUpstream, **options: Any) -> SSEBridge:
    def resolve(request: Request) -> EventStream:
        return EventStream(f"{upstream.url}/{request.headers.get('x-feed', 'btc')}", key="prices")

    return SSEBridge(resolve=resolve, grace=0, **options)


async def opened(bridge: SSEBridge, *pages: Page) -> None:
    """Opens all of them until each has an event; then they leave."""
    async with anyio.create_task_group() as tasks:
        for page in pages:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
        for page in pages:
            await page.until(lambda: page.events or page.ended)  # noqa: B023
        for page in pages:
            page.leave()


async def test_all_requests_share_one_connection_to_the_upstream(anyio_backend: str) -> None:
    """However many there are, and whatever key they bring along: the source's counts."""
    with serve_raw(goes_on) as upstream:
        bridge = bridge_on(upstream)
        pages = [Page() for _ in range(20)] + [Page("POST", headers={"idempotency-key": f"k{n}"}) for n in range(5)]
        await opened(bridge, *pages)
        await upstream.until_left()

    assert len(upstream.requests) == 1
    assert len({page.headers["sse-bridge-run"] for page in pages}) == 1
    assert {event.data for page in pages for event in page.events} == {"price"}


async def test_no_client_says_where_a_shared_stream_begins(anyio_backend: str) -> None:
    """The first one would leave out events for all others, with an id of another day, or one that it made up."""
    with serve_raw(goes_on) as upstream:
        await opened(bridge_on(upstream), Page(headers={"last-event-id": "urn:uuid:1"}))
        await upstream.until_left()

    assert [request.headers.get("last-event-id") for request in upstream.requests] == [None]


async def test_a_stream_that_has_ended_starts_anew(anyio_backend: str) -> None:
    """A feed is no command that may only run once."""
    with serve_raw(ends) as upstream:
        bridge = bridge_on(upstream)
        await opened(bridge, Page())
        await opened(bridge, Page())

    assert len(upstream.requests) == 2


async def test_only_one_identity_shares(anyio_backend: str) -> None:
    """Its headers may be the user's own."""
    with serve_raw(goes_on) as upstream:
        bridge = bridge_on(upstream, identify=lambda request: request.headers.get("x-user"))
        pages = [Page(headers={"x-user": name}) for name in ("ann", "ann", "bob")]
        await opened(bridge, *pages)

    assert len(upstream.requests) == 2
    assert pages[0].headers["sse-bridge-run"] == pages[1].headers["sse-bridge-run"]


async def test_another_stream_under_the_same_key_is_refused(anyio_backend: str) -> None:
    """It would get the wrong prices."""
    with serve_raw(goes_on) as upstream:
        bridge = bridge_on(upstream)
        first, second = Page(), Page(headers={"x-feed": "eth"})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, first.scope, first.receive, first.send)
            await first.until(lambda: first.events)
            await bridge(second.scope, second.receive, second.send)
            first.leave()

    assert (second.status, second.error["code"]) == (422, "key_conflict")


async def test_no_client_can_take_the_streams_place(anyio_backend: str) -> None:
    """A key that a client sends is never the source's, even if the words are the same."""
    with serve_raw(goes_on) as upstream:

        def resolve(request: Request) -> EventStream:
            if request.method == "POST":
                return EventStream(f"{upstream.url}/other")
            return EventStream(f"{upstream.url}/btc", key="prices")

        bridge = SSEBridge(resolve=resolve, grace=0)
        squatter, page = Page("POST", headers={"idempotency-key": "prices"}), Page()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, squatter.scope, squatter.receive, squatter.send)
            await squatter.until(lambda: squatter.events)
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            await page.until(lambda: page.events)
            squatter.leave()
            page.leave()

    assert [request.path for request in upstream.requests] == ["/other", "/btc"]


async def test_the_application_can_start_it_before_the_first_page(anyio_backend: str) -> None:
    """`start` and requests share it. A key of the call's own is another one."""
    with serve_raw(goes_on) as upstream:
        bridge = bridge_on(upstream)
        source = EventStream(f"{upstream.url}/btc", key="prices")
        run = await bridge.start(source)
        page = Page()
        await opened(bridge, page)
        assert page.headers["sse-bridge-run"] == run.token
        assert (await bridge.start(source, key="mine")).token != run.token
        await bridge.shutdown()

    assert len(upstream.requests) == 2
