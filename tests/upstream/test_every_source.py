"""Every source through the bridge, by one table: its output, its end, a viewer that leaves, a refusal, a cut, a resume.

The platform is a stub that answers by route. The same on a real sandbox, with real processes: `tests/integration`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from sse_bridge import (
    EventStream,
    Exit,
    HostJob,
    Lines,
    Miosa,
    MiosaStream,
    SandboxExec,
    SandboxProcess,
    SSEBridge,
)
from sse_bridge.errors import UpstreamLost
from sse_bridge.upstream.base import Source
from tests.support.asgi import Page
from tests.support.upstreams import Connection, Handler, RawUpstream, serve_raw
from tests.upstream.platform import KEY, going_on, lost, shorten_waits, streaming

pytestmark = pytest.mark.anyio

API = "/api/v1"


@dataclass(frozen=True)
class Case:
    """One source, and what is known of it."""

    name: str
    #: Makes the source; gets the platform's URL.
    source: Callable[[str], Source]
    #: The route of its stream, and frames of it.
    stream: tuple[str, str] | None
    first: bytes = b""
    second: bytes = b""
    end: bytes = b""
    #: What starts it, if that is another request, and the answer.
    start: tuple[str, str] | None = None
    started: object = None
    #: What a page gets of `first` and of the end.
    shown: tuple[Any, Any] = ("one", {"type": "exit", "code": 3})
    #: The requests that end it, with their answers.
    stopped_by: tuple[tuple[str, str, int, object], ...] = ()
    #: What a page gets after a cut behind `first`, if the next stream has `second` and the end; `None` for an error.
    after_cut: list[Any] | None = None
    dialect: str | None = None
    more: dict[str, Any] = field(default_factory=dict)


ONE = b'event: stdout\ndata: {"line":"one"}\n\n'
TWO = b'event: stdout\ndata: {"line":"two"}\n\n'
EXIT = b'event: exit\ndata: {"exit_code":3}\n\n'
SANDBOX = f"{API}/sandboxes/sbx_1"
HOST = f"{API}/opencomputers/hosts/host_1"
GONE = {"data": {"stdout": "sse-bridge:gone\n", "stderr": "", "exit_code": 0}}

CASES = [
    Case(
        "SandboxExec",
        lambda url: SandboxExec("sbx_1", "ls"),
        ("POST", f"{SANDBOX}/exec/stream"),
        ONE,
        TWO,
        EXIT,
        stopped_by=(("POST", f"{SANDBOX}/exec", 200, GONE),),
    ),
    Case(
        "SandboxProcess",
        lambda url: SandboxProcess("sbx_1", "ls"),
        ("GET", f"{SANDBOX}/processes/12/stream"),
        ONE,
        ONE + TWO,
        EXIT,
        start=("POST", f"{SANDBOX}/processes"),
        started={"data": {"pid": 12}},
        stopped_by=(
            ("DELETE", f"{SANDBOX}/processes/12", 204, None),
            ("GET", f"{SANDBOX}/processes/12", 200, {"data": {"pid": 12, "status": "exited", "exit_code": 143}}),
        ),
        after_cut=["one", "gap", "two", {"type": "exit", "code": 3}],
    ),
    Case(
        "SandboxProcess by its pid",
        lambda url: SandboxProcess("sbx_1", pid=12),
        ("GET", f"{SANDBOX}/processes/12/stream"),
        ONE,
        TWO,
        EXIT,
        stopped_by=(
            ("DELETE", f"{SANDBOX}/processes/12", 204, None),
            ("GET", f"{SANDBOX}/processes/12", 404, {}),
        ),
        after_cut=["one", "gap", "two", {"type": "exit", "code": 3}],
    ),
    Case(
        "HostJob",
        lambda url: HostJob("host_1", "ls"),
        ("GET", f"{HOST}/exec/job_1/stream"),
        b'event: exec_chunk\ndata: {"stream":"stdout","data":"one\\n"}\n\n',
        b'event: exec_chunk\ndata: {"stream":"stdout","data":"two\\n"}\n\n',
        b'event: exec_result\ndata: {"exit_code":3}\n\n',
        start=("POST", f"{HOST}/jobs"),
        started={"job": {"id": "job_1"}},
        stopped_by=(
            ("DELETE", f"{HOST}/exec/job_1", 204, None),
            ("GET", f"{HOST}/exec/job_1", 200, {"job": {"state": "canceled"}}),
        ),
        after_cut=["one", "gap", "two", {"type": "exit", "code": 3}],
    ),
    Case(
        "MiosaStream of events",
        lambda url: MiosaStream("/sandboxes/sbx_1/events"),
        ("GET", f"{SANDBOX}/events"),
        b"id: 1\ndata: one\n\n",
        b"id: 2\ndata: two\n\n",
        shown=("one", None),
        after_cut=["one", "two"],
    ),
    Case(
        "MiosaStream of logs",
        lambda url: MiosaStream("/sandboxes/sbx_1/logs/stream"),
        ("GET", f"{SANDBOX}/logs/stream"),
        b"data: one\n\n",
        b"data: two\n\n",
        shown=("one", None),
        after_cut=["one", "gap", "two"],
    ),
    Case(
        "EventStream",
        lambda url: EventStream(f"{url}/feed"),
        ("GET", "/feed"),
        b"data: one\n\n",
        shown=("one", None),
    ),
    Case(
        "EventStream that reconnects",
        lambda url: EventStream(f"{url}/feed", reconnect=10),
        ("GET", "/feed"),
        b"id: 1\ndata: one\n\n",
        b"id: 2\ndata: two\n\n",
        shown=("one", None),
        after_cut=["one", "two"],
    ),
]
BY_NAME = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
COMMANDS = pytest.mark.parametrize("case", [case for case in CASES if case.end], ids=lambda case: case.name)


class Platform:
    """Answers by route, and says what it was asked."""

    def __init__(self, case: Case, *streams: Handler, refusal: int = 0) -> None:
        self._case = case
        self._streams = list(streams)
        self._refusal = refusal

    def __call__(self, connection: Connection) -> None:
        case, request = self._case, connection.request
        asked = (request.method, request.path)
        if self._refusal:
            return connection.answer(self._refusal, b'{"error":{"code":"X","message":"secret words"}}')
        if asked == case.start:
            return connection.answer(201, json.dumps(case.started).encode())
        if asked == case.stream:
            handler = self._streams.pop(0) if self._streams else empty
            return handler(connection)
        for method, path, status, body in case.stopped_by:
            if asked == (method, path):
                content = b"" if body is None else json.dumps(body).encode()
                return connection.answer(status, content) if status != 204 else connection.head(204)
        raise AssertionError(f"no source asks for {asked}")


def empty(connection: Connection) -> None:
    connection.stream()
    connection.end()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_waits(monkeypatch)


@contextmanager
def served(case: Case, *streams: Handler, **options: Any) -> Iterator[tuple[RawUpstream, SSEBridge]]:
    refusal = options.pop("refusal", 0)
    with serve_raw(Platform(case, *streams, refusal=refusal)) as upstream:
        source = case.source(upstream.url)
        yield upstream, SSEBridge(Miosa(upstream.url, KEY), lambda request: source, **options)


async def get(bridge: SSEBridge, **headers: str) -> Page:
    page = Page(headers={name.replace("_", "-"): value for name, value in headers.items()})
    with anyio.fail_after(20):
        await bridge(page.scope, page.receive, page.send)
    return page


def seen(page: Page) -> list[Any]:
    """Lines, or the data of events; `gap`; the objects of endings."""
    found: list[Any] = []
    for frame in page.content.decode().split("\n\n"):
        if ": gap dropped=unknown" in frame:
            found.append("gap")
        data = next((line[6:] for line in frame.split("\n") if line.startswith("data: ")), None)
        said = json.loads(data) if data and data.startswith("{") else {"line": data}
        if data is not None and said.get("type") != "start":
            found.append("gap" if said.get("type") == "gap" else said.get("line", said))
    return found


def asked(upstream: RawUpstream) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in upstream.requests]


@BY_NAME
async def test_output_and_end(anyio_backend: str, case: Case) -> None:
    """A command ends with its exit code, a stream with its response. Nothing is left to stop."""
    with served(case, streaming(case.first, case.end)) as (upstream, bridge):
        page = await get(bridge)
        await bridge.shutdown()

    line, end = case.shown
    assert seen(page) == ([line, end] if end else [line])
    expected = [case.start, case.stream] if case.start else [case.stream]
    assert asked(upstream)[: len(expected)] == expected
    assert not {path for method, path, *_ in case.stopped_by if method == "DELETE"} & {
        path for _, path in asked(upstream)
    }
    assert all(
        request.headers.get("authorization", "").endswith(KEY) == (API in request.path) for request in upstream.requests
    )


@BY_NAME
async def test_the_last_viewer_leaves(anyio_backend: str, case: Case) -> None:
    """What runs is stopped, and seen to be gone; a stream is left."""
    with served(case, going_on(case.first), grace=0) as (upstream, bridge):
        page = Page()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bridge, page.scope, page.receive, page.send)
                await page.until(lambda: page.events)
                before = len(upstream.requests)
                page.leave()
            await bridge.shutdown()
        await upstream.until_left(before)

    assert asked(upstream)[before:] == [(method, path) for method, path, *_ in case.stopped_by]
    assert bridge.statistics().cancels.confirmed == bool(case.stopped_by)


@BY_NAME
@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (401, 502, "upstream_unauthorized"),
        (404, 404, "not_found"),
        (422, 502, "upstream_rejected"),
    ],
)
async def test_a_refusal_before_the_first_frame(
    anyio_backend: str, case: Case, refusal: int, status: int, code: str
) -> None:
    """It is a status with our words, one request, and nothing to stop. A process that runs already is asked about."""
    with served(case, refusal=refusal) as (upstream, bridge):
        page = await get(bridge)
        await bridge.shutdown()

    assert (page.status, page.error["code"]) == (status, code)
    assert b"secret" not in page.content
    assert asked(upstream)[0] == (case.start or case.stream)
    if case.name != "SandboxProcess by its pid":
        assert len(upstream.requests) == 1


@BY_NAME
async def test_a_cut_in_the_middle(anyio_backend: str, case: Case) -> None:
    """The work is never started twice. What can be followed further is, the rest ends in an error and is stopped."""
    half = (case.second or case.first)[:9]
    with served(case, lost(case.first + half), streaming(case.second, case.end)) as (upstream, bridge):
        page = await get(bridge)
        await bridge.shutdown()

    if case.after_cut is not None:
        assert seen(page) == case.after_cut
    elif case.end:
        assert [said if isinstance(said, str) else said["code"] for said in seen(page)] == ["one", "upstream_lost"]
        assert asked(upstream)[1:] == [(method, path) for method, path, *_ in case.stopped_by]
    else:
        assert seen(page) == ["one"]
    assert asked(upstream).count(case.start or ("POST", "")) == bool(case.start)


@BY_NAME
async def test_a_viewer_that_comes_back(anyio_backend: str, case: Case) -> None:
    """It goes on behind the last frame that it has, and the upstream hears nothing of it."""
    with served(case, going_on(case.first, case.second or case.first), grace=5) as (upstream, bridge):
        first = second = Page()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bridge, first.scope, first.receive, first.send)
                await first.until(lambda: first.events)
                place = str(first.events[0].id)
                first.leave()
                second = Page(headers={"last-event-id": place})
                tasks.start_soon(bridge, second.scope, second.receive, second.send)
                await second.until(lambda: second.events)
                count = len(upstream.requests)
                second.leave()
                await bridge.shutdown()

    assert second.headers["sse-bridge-run"] == first.headers["sse-bridge-run"]
    assert second.events[0].id == place.replace(".1", ".2")
    assert count == (2 if case.start else 1)


# -- an iterable has no platform


async def printed(ends: list[str], *, error: Exception | None = None) -> AsyncGenerator[Any]:
    try:
        yield "one"
        if error is not None:
            raise error
        if ends:
            await anyio.sleep_forever()
        yield Exit(3)
    finally:
        ends.append("closed")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, ["one", {"type": "exit", "code": 3}]),
        (UpstreamLost("It is gone."), ["one", {"type": "error", "code": "upstream_lost", "message": "It is gone."}]),
    ],
)
async def test_lines(anyio_backend: str, error: Exception | None, expected: list[Any]) -> None:
    """Output and end, or an error of the application's choice. The iterable is closed."""
    ends: list[str] = []
    page = await get(SSEBridge(resolve=lambda request: Lines(printed(ends, error=error))))

    assert seen(page) == expected
    assert ends == ["closed"]


async def test_the_last_viewer_of_lines_leaves(anyio_backend: str) -> None:
    """The iterable is cancelled where it waits."""
    ends = ["waits"]
    bridge = SSEBridge(resolve=lambda request: Lines(printed(ends)), grace=0)
    page = Page()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bridge, page.scope, page.receive, page.send)
        await page.until(lambda: page.events)
        page.leave()
    await bridge.shutdown()

    assert ends == ["waits", "closed"]
