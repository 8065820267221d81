"""`identity_encoding`: for layers in front that compress event streams although `no-transform` forbids it.

The kind of fault: such a layer holds the stream back, to its end even. It compresses what has no content coding yet.
"""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sse_bridge.asgi.messages import Message, Receive, Scope, Send
from tests.support.asgi import Page, lines
from tests.support.site import site
from tests.support.work import ScriptedWork, finished, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class Compress:
    """A middleware that compresses whatever has no content coding, and holds it to its end."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head: Message = {}
        held = b""

        async def hold(message: Message) -> None:
            nonlocal head, held
            if message["type"] == "http.response.start":
                head = message
                if any(name == b"content-encoding" for name, _ in message["headers"]):
                    await send(message)
            elif any(name == b"content-encoding" for name, _ in head["headers"]):
                await send(message)
            else:
                held += message["body"]
                if not message["more_body"]:
                    await send({**head, "headers": [*head["headers"], (b"content-encoding", b"gzip")]})
                    await send({**message, "body": gzip.compress(held)})

        await self.app(scope, receive, hold)


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("how", ["starts", "follows", "resumes"])
async def test_it_keeps_a_compressing_layer_away(on: bool, how: str) -> None:
    """Each line goes out when it is printed; without the option, the layer has them all."""
    work = ScriptedWork()
    async with site(work, identity_encoding=on) as it:
        path, headers = "/", {}
        if how != "starts":
            _, token = await it.started()
            path = f"/{token}" if how == "follows" else "/"
            headers = {"Last-Event-ID": f"{token}.0"} if how == "resumes" else {}
        page = Page("GET", path, headers=headers)
        it.tasks.start_soon(Compress(it.bridge), page.scope, page.receive, page.send)
        await wait_all_tasks_blocked()
        work.feed(stdout("a"))
        await wait_all_tasks_blocked()
        assert lines(page) == ["a"] if on else not page.sent
        await it.bridge.shutdown()

    if on:
        assert page.headers["content-encoding"] == "identity"
        assert page.headers["cache-control"] == "no-store, no-transform"


async def refuses(request: Request) -> ScriptedWork:
    raise HTTPException(403, "No.")


@pytest.mark.parametrize(
    ("method", "path", "headers", "options", "named"),
    [
        ("GET", "/", {}, {}, True),
        ("POST", "/", {}, {}, True),
        ("GET", "/", {"Accept": "text/event-stream"}, {"resolve": refuses, "refusals": "frame"}, True),
        ("GET", "/abcdefghijklmnop", {"Accept": "text/event-stream"}, {}, True),
        ("POST", "/", {"Accept": "application/json"}, {}, False),
        ("GET", "/", {}, {"resolve": refuses}, False),
        ("GET", "/abcdefghijklmnop", {}, {}, False),
        ("PUT", "/", {}, {}, False),
    ],
)
@pytest.mark.parametrize("on", [True, False])
async def test_it_is_sent_with_event_streams_only(
    method: str, path: str, headers: dict[str, str], options: Any, named: bool, on: bool
) -> None:
    """Other responses may be compressed. It is off by default."""
    async with site(finished("a"), **options, **({"identity_encoding": True} if on else {})) as it:
        page = it.visit(Page(method, path, headers=headers))
        await page.until(lambda: page.ended)

    assert (page.headers["content-type"] == "text/event-stream; charset=utf-8") is named
    assert page.headers.get("content-encoding") == ("identity" if named and on else None)
    assert len(page.headers) == len(page.sent[0]["headers"])
