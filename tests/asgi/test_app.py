"""`SSEBridge`: the HTTP contract of `design.md` §6, driven without a server, on both event loops."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sse_bridge import Block, ConfigurationError, EventStream, SandboxExec, SSEBridge
from sse_bridge.errors import UpstreamLost, UpstreamMisbehaved, UpstreamRefused, UpstreamTimeout, UpstreamUnreachable
from sse_bridge.wire.events import Event
from tests.support.asgi import Page
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def visiting(work: ScriptedWork, page: Page | None = None, **options: Any) -> AsyncGenerator[Page]:
    """A page that visits a bridge; the request must end by itself."""
    page = page or Page()
    bridge = SSEBridge(None, lambda request: work, **{"grace": 0, **options})
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            yield page


async def visit(bridge: SSEBridge, page: Page | None = None) -> Page:
    """The same for a request that is answered at once."""
    page = page or Page()
    with anyio.fail_after(10):
        await bridge(page.scope, page.receive, page.send)
    return page


def never(request: Request) -> ScriptedWork:
    raise AssertionError("this request must not start anything")


# -- the stream -----------------------------------------------------------------------------------------------------


async def test_a_run_from_start_to_exit(anyio_backend: str) -> None:
    """Each line goes out as it is printed, numbered; the exit ends the response."""
    work = ScriptedWork()
    async with visiting(work) as page:
        for number, line in enumerate(("Starting data pipeline...", "batch 1"), 1):
            work.feed(stdout(line))
            await page.until(lambda: len(page.events) == number)  # noqa: B023
        work.feed(exit_frame())
        work.finish()

    run = page.headers["sse-bridge-run"]
    assert page.status == 200
    assert page.content.decode() == (
        f"retry: 2000\nid: {run}.0\n\n"
        f'id: {run}.1\ndata: {{"type":"stdout","line":"Starting data pipeline..."}}\n\n'
        f'id: {run}.2\ndata: {{"type":"stdout","line":"batch 1"}}\n\n'
        f'id: {run}.3\ndata: {{"type":"exit","code":0}}\n\n'
    )
    assert page.ended
    assert work.cancels == 0


async def test_the_headers_of_the_stream(anyio_backend: str) -> None:
    """What proxies, caches and pages need; the run's name is short and cannot be guessed."""
    runs = []
    for _ in range(2):
        work = ScriptedWork()
        work.feed(exit_frame())
        work.finish()
        async with visiting(work) as page:
            pass
        runs.append(page.headers.pop("sse-bridge-run"))
        assert {name: value for name, value in page.headers.items() if name != "sse-bridge-run"} == {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store, no-transform",
            "x-accel-buffering": "no",
        }

    assert runs[0] != runs[1]
    assert all(len(run) == 16 for run in runs)


async def test_the_status_waits_for_the_upstreams_yes_and_then_for_nothing(anyio_backend: str) -> None:
    """Nothing goes out before the answer; the head goes out before the first line."""
    work = ScriptedWork(answers=False)
    async with visiting(work) as page:
        await wait_all_tasks_blocked()
        assert page.sent == []
        work.answer()
        await page.until(lambda: page.content)
        assert page.events == []
        work.feed(exit_frame())
        work.finish()


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("typed", [Event("message", '{"type":"stdout","line":"a"}'), Event("message", '{"type":"exit","code":0}')]),
        ("named", [Event("stdout", '{"line":"a"}'), Event("exit", '{"code":0}')]),
        ("verbatim", [Event("stdout", '{"line":"a"}'), Event("exit", '{"exit_code":0}')]),
    ],
)
@pytest.mark.parametrize("ids", [None, True, False])
async def test_dialects_and_ids(anyio_backend: str, dialect: str, expected: list[Event], ids: bool | None) -> None:
    """Ids are on by themselves except in `verbatim`, and go where they are asked to go."""
    work = ScriptedWork()
    work.feed(stdout("a"), exit_frame())
    work.finish()
    async with visiting(work, dialect=dialect, ids=ids) as page:
        pass

    with_ids = ids if ids is not None else dialect != "verbatim"
    run = page.headers["sse-bridge-run"]
    assert page.events == [
        Event(event.type, event.data, f"{run}.{number}" if with_ids else None)
        for number, event in enumerate(expected, 1)
    ]
    assert (b"retry:" in page.content) == (dialect != "verbatim")


async def test_verbatim_adds_nothing_that_would_be_dispatched(anyio_backend: str) -> None:
    """Its first bytes are a comment, so that no server waits for a body before it sends the head."""
    work = ScriptedWork()
    work.feed(b"retry: 5\nid: 7\ndata: x\r\n\r\n")
    work.finish()
    async with visiting(work, dialect="verbatim") as page:
        pass

    assert page.content == b": heartbeat\n\nretry: 5\nid: 7\ndata: x\n\n"


async def test_heartbeats_in_silence(anyio_backend: str) -> None:
    """They begin with the response and never stand inside a frame."""
    work = ScriptedWork()
    async with visiting(work, heartbeat=0.02) as page:
        await page.until(lambda: page.content.count(b": heartbeat\n\n") >= 3)
        work.feed(stdout("a"))
        await page.until(lambda: page.events)
        await page.until(lambda: page.sent[-1]["body"] == b": heartbeat\n\n")
        page.leave()

    assert work.cancels == 1


@pytest.mark.parametrize("retry_ms", [None, 500])
async def test_the_reconnection_time(anyio_backend: str, retry_ms: int | None) -> None:
    """`None` leaves it to the browser."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with visiting(work, retry_ms=retry_ms) as page:
        pass

    assert page.content.startswith(b"retry: 500\nid: " if retry_ms else b"id: ")


# -- leaving --------------------------------------------------------------------------------------------------------


async def test_a_viewer_that_leaves_a_silent_script_ends_it_on_the_very_event(anyio_backend: str) -> None:
    """Not at the next line, and not at the next heartbeat."""
    work = ScriptedWork()
    async with visiting(work, heartbeat=None) as page:
        work.feed(stdout("a"))
        await page.until(lambda: page.events)
        page.leave()
        await work.closed.wait()

    assert work.cancels == 1
    assert not page.ended


async def test_a_viewer_that_leaves_before_the_upstream_has_answered_ends_it_too(anyio_backend: str) -> None:
    """Half of what is left running elsewhere is left running here."""
    work = ScriptedWork(answers=False)
    async with visiting(work) as page:
        await work.started.wait()
        page.leave()

    assert work.closed.is_set()
    assert work.cancels == 1
    assert page.sent == []


async def test_a_viewer_that_left_while_we_resolved_starts_nothing(anyio_backend: str) -> None:
    """`resolve` may take its time."""
    work, page = ScriptedWork(), Page()

    async def resolve(request: Request) -> ScriptedWork:
        page.leave()
        return work

    await visit(SSEBridge(None, resolve), page)

    assert not work.started.is_set()
    assert page.sent == []


@pytest.mark.parametrize("at", ["start", "body"])
async def test_a_send_that_raises_is_a_viewer_that_left(anyio_backend: str, at: str) -> None:
    """Servers of ASGI HTTP 2.4 say it that way, and not always through `receive`."""
    work = ScriptedWork()
    async with visiting(work) as page:
        if at == "start":
            page.broken = OSError("gone")
        else:
            await page.until(lambda: page.content)
            page.broken = OSError("gone")
            work.feed(stdout("a"))

    assert work.cancels == 1


async def test_a_send_that_hangs_is_a_viewer_that_left(anyio_backend: str) -> None:
    """After `send_timeout`; a script that prints on is ended all the same."""
    work = ScriptedWork()
    async with visiting(work, send_timeout=0.05) as page:
        await page.until(lambda: page.content)
        page.stall()
        work.feed(*[stdout("a")] * 100)

    assert work.cancels == 1


async def test_a_slow_viewer_loses_nothing(anyio_backend: str) -> None:
    """`Block`: the run waits at the mark; once the viewer reads on, every line arrives."""
    lines = [f"line {number}" for number in range(500)]
    work = ScriptedWork()
    async with visiting(work, policy=Block(1000)) as page:
        await page.until(lambda: page.content)
        page.stall()
        work.feed(*map(stdout, lines))
        await wait_all_tasks_blocked()
        assert work.unread > 450
        page.resume()
        await page.until(lambda: len(page.events) == 500)
        work.feed(exit_frame())
        work.finish()

    assert [said.get("line") for said in page.objects] == [*lines, None]


async def test_a_server_that_cancels_the_request_still_gets_the_work_cancelled(anyio_backend: str) -> None:
    """hypercorn does this when it stops."""
    work, page = ScriptedWork(), Page()
    bridge = SSEBridge(None, lambda request: work)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bridge, page.scope, page.receive, page.send)
        await page.until(lambda: page.content)
        tasks.cancel_scope.cancel()

    assert work.cancels == 1
    assert work.closed.is_set()


async def test_our_own_bug_gets_out_alone(anyio_backend: str) -> None:
    """No group around it: the host's handlers see what happened. The work is ended on the way."""
    work = ScriptedWork()
    work.fail(ZeroDivisionError("a bug"))

    with pytest.raises(ZeroDivisionError, match="a bug"):
        await visit(SSEBridge(None, lambda request: work))

    assert work.cancels == 1


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code", "wait"),
    [
        (UpstreamRefused("No.", code="not_found", status=404, request_id="req_1"), 404, "not_found", None),
        (UpstreamRefused("Busy.", code="not_ready", status=503, retry_after=2.2), 503, "not_ready", "3"),
        (UpstreamUnreachable("Down."), 502, "upstream_unreachable", None),
        (UpstreamMisbehaved("HTML."), 502, "upstream_not_event_stream", None),
        (UpstreamTimeout("Slow."), 504, "upstream_timeout", None),
    ],
)
async def test_a_refusal_before_the_first_frame_is_an_http_error(
    anyio_backend: str, error: Any, status: int, code: str, wait: str | None
) -> None:
    """An ordinary status with a JSON body, which an `EventSource` does not retry."""
    async with visiting(ScriptedWork(refusal=error)) as page:
        pass

    assert page.status == status
    assert page.headers["content-type"] == "application/json"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers.get("retry-after") == wait
    assert page.error == {"code": code, "message": error.message, "request_id": error.request_id}
    assert page.ended


async def test_an_upstream_with_nothing_to_follow_gives_204(anyio_backend: str) -> None:
    """What an upstream says to stop reconnecting is handed on."""
    error = UpstreamRefused("Nothing.", code="upstream_finished", status=204)
    async with visiting(ScriptedWork(refusal=error)) as page:
        pass

    assert page.status == 204
    assert page.content == b""


async def test_a_late_refusal_is_an_error_frame(anyio_backend: str) -> None:
    """After `commit_after` the response has begun, with heartbeats, and the refusal is its terminal frame."""
    work = ScriptedWork(answers=False, refusal=UpstreamRefused("No.", code="not_found", status=404))
    async with visiting(work, commit_after=0, heartbeat=0.02) as page:
        await page.until(lambda: b": heartbeat" in page.content)
        assert page.status == 200
        work.answer()

    assert page.objects == [{"type": "error", "code": "not_found", "message": "No."}]
    assert page.ended


async def test_without_a_limit_the_response_waits_for_the_answer(anyio_backend: str) -> None:
    """`commit_after=None`."""
    work = ScriptedWork(answers=False, refusal=UpstreamRefused("No.", code="not_found", status=404))
    async with visiting(work, commit_after=None) as page:
        await wait_all_tasks_blocked()
        work.answer()

    assert page.status == 404


async def test_a_stream_that_breaks_ends_with_an_error_frame(anyio_backend: str) -> None:
    """The response is complete, and says that the run is not."""
    work = ScriptedWork()
    work.feed(stdout("a"))
    work.fail(UpstreamLost("It broke."))
    async with visiting(work) as page:
        pass

    assert [said["type"] for said in page.objects] == ["stdout", "error"]
    assert page.ended


# -- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("path", "root_path"), [("/", ""), ("/run-sse", "/run-sse"), ("/run-sse/", "/run-sse")])
async def test_get_and_post_start_a_run_wherever_it_is_mounted(
    anyio_backend: str, method: str, path: str, root_path: str
) -> None:
    """With or without a trailing slash."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with visiting(work, Page(method, path, root_path=root_path)) as page:
        pass

    assert page.objects == [{"type": "exit", "code": 0}]


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_start_nothing(anyio_backend: str, method: str) -> None:
    """405 with what would be allowed."""
    page = await visit(SSEBridge(None, never), Page(method))

    assert page.status == 405
    assert page.headers["allow"] == "GET, POST"
    assert page.error["code"] == "method_not_allowed"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_foreign_page_starts_nothing(anyio_backend: str, method: str) -> None:
    """A link there must not start work with a visitor's cookies."""
    page = await visit(SSEBridge(None, never), Page(method, headers={"Sec-Fetch-Site": "cross-site"}))

    assert page.status == 403
    assert page.error["code"] == "forbidden"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin", "none"])
async def test_foreign_pages_may_be_let_in(anyio_backend: str, site: str) -> None:
    """`allow_cross_site=True`; everybody else comes in anyway."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with visiting(work, Page(headers={"Sec-Fetch-Site": site}), allow_cross_site=site == "cross-site") as page:
        pass

    assert page.status == 200


@pytest.mark.parametrize(
    ("headers", "expected"), [({}, None), ({"Last-Event-ID": "ü7"}, "ü7"), ({"Last-Event-ID": ""}, None)]
)
async def test_without_ids_of_ours_the_upstream_resumes(
    anyio_backend: str, headers: dict[str, str], expected: str | None
) -> None:
    """`verbatim` hands the viewer's `Last-Event-ID` on."""
    work = ScriptedWork()
    work.finish()
    async with visiting(work, Page(headers=headers), dialect="verbatim") as page:
        pass

    assert work.last_event_id == expected
    assert page.status == 200


async def test_resolve_sees_the_request_and_its_body(anyio_backend: str) -> None:
    """The page's wishes are the application's to judge."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    seen = []

    async def resolve(request: Request) -> ScriptedWork:
        seen.append((request.method, request.headers["x-user"], await request.json()))
        return work

    page = Page("POST", headers={"X-User": "ada"}, body=json.dumps({"script": 1}).encode())
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
    """A function, a method, a partial; sync or async."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()

    page = await visit(SSEBridge(None, _callables(work)[kind]))

    assert page.objects == [{"type": "exit", "code": 0}]


async def test_resolve_refuses_by_raising(anyio_backend: str) -> None:
    """Starlette's `HTTPException`, with its headers, in the shape of all our errors."""

    def resolve(request: Request) -> ScriptedWork:
        raise HTTPException(401, "Log in first.", headers={"WWW-Authenticate": "Cookie"})

    page = await visit(SSEBridge(None, resolve))

    assert page.status == 401
    assert page.headers["www-authenticate"] == "Cookie"
    assert page.error == {"code": "unauthorized", "message": "Log in first.", "request_id": None}


async def test_an_odd_status_is_still_answered(anyio_backend: str) -> None:
    """Applications use statuses that no table knows."""

    def resolve(request: Request) -> ScriptedWork:
        raise HTTPException(499, "Closed.")

    page = await visit(SSEBridge(None, resolve))

    assert (page.status, page.error["code"]) == (499, "http_499")


async def test_a_resolve_that_returns_no_exec_is_told_so(anyio_backend: str) -> None:
    """The most likely mistake has the clearest message."""
    with pytest.raises(ConfigurationError, match=r"resolve must return a source, such as SandboxExec\(...\), not str"):
        await visit(SSEBridge(None, lambda request: "ls"))  # type: ignore[arg-type, return-value]


async def test_an_exec_on_the_wrong_upstream_is_told_so(anyio_backend: str) -> None:
    """A sandbox needs its platform."""
    with pytest.raises(ConfigurationError, match="SSEBridge\\(Miosa"):
        await visit(SSEBridge(None, lambda request: SandboxExec("sbx", "ls")))


# -- the rest of ASGI -----------------------------------------------------------------------------------------------


async def test_lifespan_is_answered(anyio_backend: str) -> None:
    """Where it comes at all: nothing depends on it."""
    sent = []
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await SSEBridge(None, never)({"type": "lifespan"}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_websocket_is_turned_away(anyio_backend: str) -> None:
    """It is not what is served here."""
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
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    """When the application starts, not at the first visit."""
    with pytest.raises(ConfigurationError, match=message):
        SSEBridge(None, never, **options)


def test_resolve_must_be_callable() -> None:
    """An exec is no resolve: it is decided per request."""
    with pytest.raises(ConfigurationError, match="resolve must be a function"):
        SSEBridge(None, EventStream("http://127.0.0.1/"))  # type: ignore[arg-type]
