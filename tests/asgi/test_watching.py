"""What an operator sees of a bridge: its statistics as JSON, and the cause of a failure in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import httpx
import pytest
from anyio import wait_all_tasks_blocked
from fastapi import FastAPI

from sse_bridge import BridgeStatistics, EventStream, HTTPUpstream, SSEBridge
from tests.support.asgi import Page
from tests.support.site import site
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio

#: Stays out of the log.
SECRET = "hush-hush"


async def test_statistics_are_json_while_runs_go_on(anyio_backend: str) -> None:
    """Through `json` and through FastAPI, whether the route declares its type or leaves it open."""
    work = ScriptedWork()
    async with site(work) as it:
        page = it.open()
        work.feed(stdout("a", "b"))
        await page.until(lambda: len(page.events) == 2)
        await wait_all_tasks_blocked()

        app = FastAPI()

        @app.get("/modelled")
        async def modelled() -> BridgeStatistics:
            return it.bridge.statistics()

        @app.get("/plain")
        async def plain() -> Any:
            return it.bridge.statistics()

        expected = json.loads(json.dumps(asdict(it.bridge.statistics())))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            answers = [(await client.get(path)).json() for path in ("/modelled", "/plain")]
        work.feed(exit_frame())
        work.finish()

    assert answers == [expected, expected]
    assert expected["runs"][0]["viewers"][0]["frames_out"] == 2
    assert expected["cancels"] == {"requested": 0, "acknowledged": 0, "confirmed": 0}


def read_already(request: httpx.Request) -> httpx.Response:
    """A response that was read when it was made. Tests write `text=...` where a stream is needed."""
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text="data: 1\n\n")


def unreachable(request: httpx.Request) -> httpx.Response:
    """A failure that quotes the URL and its credentials."""
    raise httpx.ConnectError(f"no route to http://user:{SECRET}@h.example{request.url.raw_path.decode()}")


def broken(request: httpx.Request) -> httpx.Response:
    """A failure that quotes a header."""
    raise httpx.RemoteProtocolError(f"illegal header line: bytearray(b'X-Key: {SECRET}')")


@pytest.mark.parametrize(
    ("handler", "cause"),
    [
        (read_already, "StreamConsumed"),
        (unreachable, "ConnectError: no route to http://h.example/..."),
        (broken, "RemoteProtocolError: illegal header line: <bytes>"),
    ],
)
async def test_the_cause_of_a_failure_is_in_the_log(
    anyio_backend: str, caplog: pytest.LogCaptureFixture, handler: Callable[..., httpx.Response], cause: str
) -> None:
    """At DEBUG, as an exception, cleared of secrets. The viewer is told less."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        source = EventStream(f"http://h.example/events?ticket={SECRET}", headers={"X-Key": SECRET})
        bridge = SSEBridge(HTTPUpstream(client), lambda request: source)
        page = Page()
        with caplog.at_level(logging.DEBUG, "sse_bridge"):
            await bridge(page.scope, page.receive, page.send)

    records = [record for record in caplog.records if record.name == "sse_bridge" and record.exc_info]
    assert [record.levelno for record in records] == [logging.DEBUG]
    assert cause in caplog.text
    assert SECRET not in caplog.text
    assert b"StreamConsumed" not in page.content
    assert b"h.example" not in page.content
