"""What a request may ask for, and what the application answers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sse_bridge import ConfigurationError, SandboxExec, SSEBridge
from sse_bridge.upstream.base import Upstream, Work
from sse_bridge.upstream.client import HTTPUpstream
from tests.support.asgi import Page
from tests.support.site import never, site, visit, visiting
from tests.support.work import ScriptedWork, exit_frame

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("path", "root_path"), [("/", ""), ("/run-sse", "/run-sse"), ("/run-sse/", "/run-sse")])
async def test_get_and_post_start_a_run_wherever_the_bridge_is_mounted(
    anyio_backend: str, method: str, path: str, root_path: str
) -> None:
    """The path may end in a slash."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with visiting(work, Page(method, path, root_path=root_path)) as page:
        pass

    assert page.objects == [{"type": "exit", "code": 0}]


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(anyio_backend: str, method: str) -> None:
    """The answer is 405 with the methods that are allowed."""
    page = await visit(SSEBridge(None, never), Page(method))

    assert page.status == 405
    assert page.headers["allow"] == "GET, POST"
    assert page.error["code"] == "method_not_allowed"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_pages_of_other_sites_may_not_start_a_run(anyio_backend: str, method: str) -> None:
    """A link there would start work with a visitor's cookies."""
    page = await visit(SSEBridge(None, never), Page(method, headers={"Sec-Fetch-Site": "cross-site"}))

    assert page.status == 403
    assert page.error["code"] == "forbidden"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin", "none"])
async def test_pages_of_other_sites_may_be_allowed(anyio_backend: str, site: str) -> None:
    """`allow_cross_site` is about `cross-site` alone: other pages are always let in."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with visiting(work, Page(headers={"Sec-Fetch-Site": site}), allow_cross_site=site == "cross-site") as page:
        pass

    assert page.status == 200


@pytest.mark.parametrize(
    ("headers", "expected"), [({}, None), ({"Last-Event-ID": "ü7"}, "ü7"), ({"Last-Event-ID": ""}, None)]
)
async def test_without_ids_the_upstream_resumes(
    anyio_backend: str, headers: dict[str, str], expected: str | None
) -> None:
    """`verbatim` hands the viewer's `Last-Event-ID` to the upstream."""
    work = ScriptedWork()
    work.finish()
    async with visiting(work, Page(headers=headers), dialect="verbatim") as page:
        pass

    assert work.last_event_id == expected
    assert page.status == 200


async def test_resolve_sees_the_request_and_its_body(anyio_backend: str) -> None:
    """The application reads what the page asks for."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    seen = []

    async def resolve(request: Request) -> ScriptedWork:
        seen.append((request.method, request.headers["x-user"], await request.json()))
        return work

    page = Page("POST", headers={"X-User": "ada"}, pieces=[b'{"scr', b'ipt": 1}'])
    await visit(SSEBridge(None, resolve), page)

    assert seen == [("POST", "ada", {"script": 1})]
    assert page.status == 200


def _callables(work: ScriptedWork) -> dict[str, Callable[..., Any]]:
    async def coroutine(request: Request) -> ScriptedWork:
        return work

    class Object:
        async def __call__(self, request: Request) -> ScriptedWork:
            return work

    return {
        "sync": lambda request: work,
        "async": coroutine,
        "async object": Object(),
        "partial": functools.partial(coroutine),
        "sync that returns an awaitable": lambda request: coroutine(request),
    }


@pytest.mark.parametrize("kind", list(_callables(None)))  # type: ignore[arg-type]
async def test_resolve_may_be_any_callable(anyio_backend: str, kind: str) -> None:
    """It may be a function, an object or a partial, sync or async."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()

    page = await visit(SSEBridge(None, _callables(work)[kind]))

    assert page.objects == [{"type": "exit", "code": 0}]


async def test_resolve_refuses_by_raising(anyio_backend: str) -> None:
    """An `HTTPException` of Starlette's becomes an error of the bridge's shape, with the exception's headers."""

    def resolve(request: Request) -> ScriptedWork:
        raise HTTPException(401, "Log in first.", headers={"WWW-Authenticate": "Cookie"})

    page = await visit(SSEBridge(None, resolve))

    assert page.status == 401
    assert page.headers["www-authenticate"] == "Cookie"
    assert page.error == {"code": "unauthorized", "message": "Log in first.", "request_id": None}


async def test_a_status_without_a_name_gets_a_code_of_its_number(anyio_backend: str) -> None:
    """Applications use statuses that are missing from Python's table."""

    def resolve(request: Request) -> ScriptedWork:
        raise HTTPException(499, "Closed.")

    page = await visit(SSEBridge(None, resolve))

    assert (page.status, page.error["code"]) == (499, "http_499")


async def test_resolve_must_return_a_source(anyio_backend: str) -> None:
    """The message shows what to return."""
    with pytest.raises(
        ConfigurationError, match=r"resolve must return a source, such as SandboxExec\(...\), not a str"
    ):
        await visit(SSEBridge(None, lambda request: "ls"))  # type: ignore[arg-type, return-value]


async def test_a_sandbox_exec_needs_its_platform(anyio_backend: str) -> None:
    """The message shows how to make the bridge."""
    with pytest.raises(ConfigurationError, match="SSEBridge\\(Miosa"):
        await visit(SSEBridge(None, lambda request: SandboxExec("sbx", "ls")))


@pytest.mark.parametrize(("method", "path"), [("POST", "/xxxxxxxxxxxxxxxx"), ("PUT", "/xxxxxxxxxxxxxxxx")])
async def test_other_methods_on_a_run_are_refused(anyio_backend: str, method: str, path: str) -> None:
    """The answer is 405 with the methods that are allowed on a run."""
    async with site() as it:
        page = await it.answer(method, path)

    assert (page.status, page.headers["allow"]) == (405, "GET, DELETE")


async def test_a_path_that_cannot_name_a_run_is_not_found(anyio_backend: str) -> None:
    """The answer is 404. It would be 204 for an expired run: its viewers may still reconnect."""
    async with site() as it:
        assert (await it.answer(path="/favicon.ico")).status == 404
        assert (await it.answer("DELETE", "/favicon.ico")).status == 404


async def test_a_source_gets_the_bridges_upstream(anyio_backend: str) -> None:
    """It opens its streams there."""
    seen = []

    class Source(ScriptedWork):
        def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
            seen.append(upstream)
            return super().work(upstream, last_event_id)

    source, upstream = Source(), HTTPUpstream()
    source.finish()
    await visit(SSEBridge(upstream, lambda request: source))

    assert seen == [upstream]
