"""`SandboxExec`: the request is the documented one, goes out once, and tells whether something may run."""

from __future__ import annotations

import traceback
from typing import Any

import anyio
import pytest

from sse_bridge import Miosa, SandboxExec
from sse_bridge.errors import UpstreamError, UpstreamLost
from sse_bridge.upstream.base import Cancelled
from sse_bridge.upstream.miosa import sandbox_exec as sandbox_exec_module
from sse_bridge.upstream.miosa.cancel import MARKER, Evidence
from sse_bridge.upstream.retrying import Backoff
from tests.support.upstreams import Connection, Reader, dead_url, serve_raw
from tests.upstream.helpers import mute
from tests.upstream.platform import KEY, breaks, output, read, recorded_waits, refusing, result, work_on

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that gets ready is asked again soon, and for half a second at most."""
    monkeypatch.setattr(sandbox_exec_module, "READY_BACKOFF", Backoff(0.01, 4.0))
    monkeypatch.setattr(sandbox_exec_module, "READY_TIMEOUT", 0.5)


async def test_the_request_is_the_documented_one(anyio_backend: str) -> None:
    """It has four keys, the dual `Accept`, the API key and the tenant (`docs/miosa.md` §1, §2, §4)."""
    with serve_raw(output) as upstream:
        source = SandboxExec("a/b c", "python3 x.py", cwd="/workspace", env={"A": "1"}, timeout=1.2)
        work = source.work(Miosa(upstream.url, KEY, tenant="t"), None)
        assert not work.may_run
        assert await read(work) == b"data: 1\n\n"
        assert work.may_run

    request = upstream.requests[0]
    body = request.json
    token = body["env"].pop(MARKER)
    assert (request.method, request.path) == ("POST", "/api/v1/sandboxes/a%2Fb%20c/exec/stream")
    assert body == {"command": "python3 x.py", "cwd": "/workspace", "env": {"A": "1"}, "timeout": 2}
    assert request.headers["accept"] == "text/event-stream, application/json;q=0.9"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-miosa-tenant"] == "t"
    assert len(token) == 24


@pytest.mark.parametrize(
    ("sandbox_id", "path"),
    [("sbx_1", "sbx_1"), ("a?b#c", "a%3Fb%23c"), ("../x", "..%2Fx"), ("...", "..."), ("ü%", "%C3%BC%25")],
)
async def test_a_sandbox_id_stays_one_part_of_the_path(anyio_backend: str, sandbox_id: str, path: str) -> None:
    """`resolve` may have taken it from a URL."""
    with serve_raw(output) as upstream:
        await read(SandboxExec(sandbox_id, "ls").work(Miosa(upstream.url, KEY), None))

    assert upstream.requests[0].path == f"/api/v1/sandboxes/{path}/exec/stream"


async def test_the_marker_replaces_a_variable_of_that_name(anyio_backend: str) -> None:
    """Otherwise every run would end every other. The caller's mapping stays as it is."""
    env = {MARKER: "theirs", "A": "ü"}
    with serve_raw(output) as upstream:
        await read(work_on(upstream.url, env=env))

    sent = upstream.requests[0].json["env"]
    assert sent["A"] == "ü"
    assert sent[MARKER] != "theirs"
    assert env == {MARKER: "theirs", "A": "ü"}


async def test_arguments_that_are_left_out_are_not_sent(anyio_backend: str) -> None:
    """The platform has its own defaults. Every run has its own marker."""
    source = SandboxExec("sbx", "ls")
    with serve_raw(output) as upstream:
        for _ in range(2):
            await read(source.work(Miosa(upstream.url, KEY), None))

    assert [sorted(request.json) for request in upstream.requests] == [["command", "env"]] * 2
    assert upstream.requests[0].json["env"] != upstream.requests[1].json["env"]


@pytest.mark.parametrize(
    "answer",
    [
        refusing(409, "SANDBOX_NOT_COMMAND_READY"),
        refusing(409, "sandbox_starting"),
        refusing(429, "rate_limit_exceeded"),
    ],
)
async def test_a_sandbox_that_gets_ready_is_waited_for(anyio_backend: str, answer: Any) -> None:
    """The platform says that it has started nothing, so we ask again, and the command runs once."""
    with serve_raw(answer, answer, output) as upstream:
        assert await read(work_on(upstream.url)) == b"data: 1\n\n"
    assert len(upstream.requests) == 3
    assert len({request.body for request in upstream.requests}) == 1


async def test_the_waiting_is_bounded(anyio_backend: str) -> None:
    """It ends early if the platform asks us to wait for too long."""
    with serve_raw(refusing(409, "SANDBOX_STARTING")) as upstream:
        with anyio.fail_after(5), pytest.raises(UpstreamError, match="not ready"):
            await read(work_on(upstream.url))
        assert len(upstream.requests) > 3

    with serve_raw(refusing(429, retry_after="60")) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await read(work_on(upstream.url))
        assert caught.value.retry_after == 60
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, [0.25, 0.5, 1, 2, 4, 4, 4, 4, 4, 4]),
        ({"retry_after": "3"}, [3, 3, 3, 3, 4, 4, 4, 4]),
        ({"retry_after": "29"}, [29]),
        ({"retry_after": "31"}, []),
        ({"retry_after": "1e300"}, []),
    ],
)
async def test_the_waits_grow_and_are_never_shorter_than_asked(
    anyio_backend: str, headers: Any, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They begin with a quarter of a second, end at four, and take half a minute in all."""
    monkeypatch.undo()  # of short delays
    waits = recorded_waits(monkeypatch)
    with serve_raw(refusing(429, **headers)) as upstream, pytest.raises(UpstreamError):
        await read(work_on(upstream.url))

    assert waits == expected
    assert len(upstream.requests) == len(expected) + 1


async def test_leaving_while_the_sandbox_gets_ready_has_started_nothing(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is not repeated."""
    monkeypatch.setattr(sandbox_exec_module, "READY_BACKOFF", Backoff(100, 100))
    monkeypatch.setattr(sandbox_exec_module, "READY_TIMEOUT", 1000)
    with serve_raw(refusing(409, "SANDBOX_STARTING")) as upstream:
        work = work_on(upstream.url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, work)
            await upstream.until_left()
            while work.may_run:  # noqa: ASYNC110 (it has no event for the answer)
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        assert not work.may_run
    assert len(upstream.requests) == 1


def html(connection: Connection) -> None:
    connection.answer(200, b"<html>", content_type="text/html")


def json_answer(connection: Connection) -> None:
    connection.answer(200, b'{"data":{"exit_code":0}}', content_type="application/json")


def comments_only(connection: Connection) -> None:
    connection.stream()
    connection.chunk(b": keepalive\n\n")
    connection.wait_until_left()


def goes_on(connection: Connection) -> None:
    connection.stream()
    connection.chunk(b"data: 1\n\n")
    connection.wait_until_left()


def stops(connection: Connection) -> None:
    connection.stream()
    connection.chunk(b"data: 1\n\n")


@pytest.mark.parametrize(
    ("answer", "may_run"),
    [
        (refusing(400), False),
        (refusing(401), False),
        (refusing(402), False),
        (refusing(403), False),
        (refusing(404), False),
        (refusing(406), False),
        (refusing(408), True),
        (refusing(409, "COMPUTER_NOT_RUNNING"), False),
        (refusing(422), False),
        (refusing(499), True),
        (refusing(500), True),
        (refusing(502), True),
        (refusing(503, "NO_READY_MACHINE"), True),
        (refusing(504), True),
        (refusing(202), True),
        (refusing(302, location="/elsewhere"), True),
        (lambda connection: connection.head(204), True),
        (lambda connection: None, True),
        (breaks, True),
        (html, True),
        (json_answer, True),
        (mute, True),
    ],
)
async def test_work_that_may_have_started_is_never_tried_again(
    anyio_backend: str, answer: Any, may_run: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one request, whatever the answer, and `may_run` says whether work has to be ended."""
    if answer is mute:  # the others answer, however long this machine takes
        monkeypatch.setattr("sse_bridge.upstream.client.ANSWER_TIMEOUT", 0.2)
    with serve_raw(answer) as upstream:
        work = work_on(upstream.url)
        with pytest.raises(UpstreamError) as caught:
            await read(work)
    assert len(upstream.requests) == 1
    assert work.may_run is may_run
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in told
    assert "words" not in told


async def test_a_closed_port_has_started_nothing(anyio_backend: str) -> None:
    """`may_run` is cleared."""
    work = work_on(dead_url())
    with pytest.raises(UpstreamError) as caught:
        await read(work)
    assert not work.may_run
    assert KEY not in "".join(traceback.format_exception(caught.value))


async def test_a_stream_that_breaks_may_leave_something_running(anyio_backend: str) -> None:
    """The stream is opened only once."""
    with serve_raw(stops) as upstream:
        work = work_on(upstream.url)
        with pytest.raises(UpstreamLost):
            await read(work)
    assert work.may_run
    assert len(upstream.requests) == 1


async def test_leaving_before_the_answer_may_have_started_something(anyio_backend: str) -> None:
    """The request has gone out."""
    with serve_raw(mute) as upstream:
        work = work_on(upstream.url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, work)
            await upstream.until_asked()
            tasks.cancel_scope.cancel()
        await upstream.until_left()
    assert work.may_run


@pytest.mark.parametrize(
    ("handler", "evidence"),
    [(mute, Evidence.NONE), (comments_only, Evidence.ANSWERED), (goes_on, Evidence.OUTPUT)],
)
async def test_the_less_we_know_of_the_start_the_longer_we_look(
    anyio_backend: str, handler: Any, evidence: Evidence
) -> None:
    """A comment may arrive before the command has started, so only output proves the start."""
    with serve_raw(handler, result("sse-bridge:gone\n")) as upstream:
        work = work_on(upstream.url)
        reader = Reader()

        async def follow() -> None:
            async with work.stream() as stream:
                await stream.push(reader.take, reader.room)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await (upstream.until_asked() if handler is mute else reader.began.wait())
            tasks.cancel_scope.cancel()
        await upstream.until_left()
        assert await work.cancel(5) is Cancelled.CONFIRMED

    assert f"looks='{int(evidence)}'" in upstream.requests[1].json["command"]
