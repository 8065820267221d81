"""A `POST` that asks for the address of its run instead of the stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Mount

from sse_bridge import SSEBridge, SSEBridgeMiddleware
from sse_bridge.errors import UpstreamRefused
from tests.support.asgi import Page, lines
from tests.support.site import site
from tests.support.work import ScriptedWork, finished

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


Mounted = Callable[[SSEBridge], Any]


def in_a_mount(bridge: SSEBridge) -> Any:
    return Starlette(routes=[Mount("/a b", bridge)])


def in_two_mounts(bridge: SSEBridge) -> Any:
    return Starlette(routes=[Mount("/a b", routes=[Mount("/run-sse", bridge)])])


def in_middleware(bridge: SSEBridge) -> Any:
    async def other(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError(scope["path"])

    return SSEBridgeMiddleware(other, "/run-sse", bridge)


def alone(bridge: SSEBridge) -> Any:
    return bridge


def stripped(bridge: SSEBridge) -> Any:
    """As a dispatcher that takes its prefix out of `path`, and keeps it in `raw_path` alone."""

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        await bridge({**scope, "path": scope["path"].removeprefix("/run-sse") or "/"}, receive, send)

    return dispatch


#: How the bridge is mounted, and what path and root path the server gives, and the mount as clients see it.
HOSTS: dict[str, tuple[Mounted, str, str, str]] = {
    "alone": (alone, "", "", ""),
    "mount": (in_a_mount, "/a b", "", "/a%20b"),
    "mount behind a proxy that strips": (in_a_mount, "/a b", "/api", "/api/a%20b"),
    "mount in a mount below a root path": (in_two_mounts, "/api/a b/run-sse", "/api", "/api/a%20b/run-sse"),
    "middleware": (in_middleware, "/run-sse", "", "/run-sse"),
    "middleware below a root path": (in_middleware, "/api/run-sse", "/api", "/api/run-sse"),
    "middleware behind a proxy that strips": (in_middleware, "/run-sse", "/api", "/api/run-sse"),
    "path stripped": (stripped, "/run-sse", "", "/run-sse"),
    "path stripped below a root path": (stripped, "/run-sse", "/api", "/api/run-sse"),
    "only a root path": (alone, "", "/run-sse", "/run-sse"),
}


@pytest.mark.parametrize("host", list(HOSTS))
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("headers", [{"Accept": "application/json"}, {"Prefer": "respond-async, wait=5"}])
async def test_the_location_can_be_followed(host: str, slash: str, headers: dict[str, str]) -> None:
    """It is the mount as clients see it, and the run's token. A client sends it back as it is."""
    mounted, path, root_path, expected = HOSTS[host]
    if mounted in (in_a_mount, in_two_mounts):
        slash = "/"  # Starlette redirects the path without one
    async with site(finished("a")) as it:
        app = mounted(it.bridge)

        async def answer(page: Page) -> Page:
            page.scope["raw_path"] = page.scope["path"].replace(" ", "%20").encode()
            with anyio.fail_after(5):
                await app(page.scope, page.receive, page.send)
            return page

        made = await answer(Page("POST", (path + slash) or "/", root_path=root_path, headers=headers))
        body = json.loads(made.content)
        token = made.headers["sse-bridge-run"]
        assert made.status == 201
        assert made.headers["location"] == body["href"] == f"{expected}/{token}"
        assert body["run"] == token
        page = await answer(Page("GET", f"{path}/{token}", root_path=root_path))
        assert lines(page) == ["a", "exit"]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Accept": "application/json"}, 200),
        ("GET", {"Prefer": "respond-async"}, 200),
        ("POST", {}, 200),
        ("POST", {"Accept": "*/*"}, 200),
        ("POST", {"Accept": "text/event-stream"}, 200),
        ("POST", {"Accept": "application/json, text/event-stream"}, 200),
        ("POST", {"Accept": "Application/JSON"}, 201),
        ("POST", {"Accept": "*/*", "Prefer": "Respond-Async"}, 201),
        ("POST", {"Prefer": "return=minimal; x=1, respond-async"}, 201),
    ],
)
async def test_the_clients_that_get_an_address(method: str, headers: dict[str, str], status: int) -> None:
    """A `POST` that accepts JSON or says `respond-async`, unless it accepts a stream."""
    async with site(finished()) as it:
        page = await it.answer(method, **headers)

    assert page.status == status


async def test_prefer_may_be_sent_in_several_headers() -> None:
    """RFC 7240 2 allows it."""
    async with site(finished()) as it:
        page = Page("POST")
        page.scope["headers"] += [(b"prefer", b"wait=5"), (b"prefer", b"respond-async")]
        it.visit(page)
        await page.until(lambda: page.ended)

    assert page.status == 201


async def refuses(request: Request) -> ScriptedWork:
    raise HTTPException(403, "No.")


@pytest.mark.parametrize(
    ("options", "refusal", "status", "code"),
    [
        ({}, UpstreamRefused("No.", code="not_found", status=404), 404, "not_found"),
        ({}, UpstreamRefused("No.", code="busy", status=503, retry_after=7), 503, "busy"),
        ({"resolve": refuses}, None, 403, "forbidden"),
        ({"max_runs": 1}, None, 503, "busy"),
    ],
)
@pytest.mark.parametrize("refusals", ["status", "frame"])
async def test_refusals_keep_their_status(
    options: dict[str, Any], refusal: UpstreamRefused | None, status: int, code: str, refusals: Any
) -> None:
    """A program asked, so each is a status with a JSON body."""
    async with site(ScriptedWork(refusal=refusal), refusals=refusals, **options) as it:
        if "max_runs" in options:
            await it.bridge.start(ScriptedWork())
        page = await it.answer("POST", accept="application/json")
        await it.bridge.shutdown()

    assert (page.status, page.error["code"]) == (status, code)
    assert page.headers.get("retry-after") == {503: "7" if refusal else "5"}.get(status)


async def test_a_repeated_key_gives_the_same_address() -> None:
    """Whether the first request asked for the stream or for the address; another source is a conflict."""
    async with site(*(finished("a") for _ in range(3)), ScriptedWork(command="rm")) as it:
        stream = it.open("POST", idempotency_key="k")
        await stream.until(lambda: stream.content)
        made = [await it.answer("POST", idempotency_key="k", prefer="respond-async") for _ in range(2)]
        conflict = await it.answer("POST", idempotency_key="k", prefer="respond-async")

    assert [page.status for page in made] == [201, 201]
    assert {page.headers["sse-bridge-run"] for page in (stream, *made)} == {stream.headers["sse-bridge-run"]}
    assert (conflict.status, conflict.error["code"]) == (422, "key_conflict")
    assert it.bridge.statistics().runs_started == 1
