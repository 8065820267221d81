"""`HostJob`: started once, followed from then on, and ended by a call whose effect is looked for."""

from __future__ import annotations

import logging
import re
import traceback
from pathlib import Path
from typing import Any

import anyio
import pytest

from sse_bridge import ConfigurationError, HostJob, HTTPUpstream, Miosa, SSEBridge
from sse_bridge.errors import UpstreamError, UpstreamLost
from sse_bridge.upstream import reopening
from sse_bridge.upstream.base import Cancelled, Traceable, Work
from sse_bridge.upstream.miosa import background
from tests.support.asgi import Page
from tests.support.upstreams import Connection, Handler, RawUpstream, dead_url, serve_raw
from tests.upstream.helpers import mute
from tests.upstream.platform import KEY, answer, breaks, no_content, read, refusing, shorten_waits, streaming

pytestmark = pytest.mark.anyio

HOST = "/api/v1/opencomputers/hosts/host_1"
CHUNK = b'event: exec_chunk\ndata: {"stream":"stdout","data":"one\\n"}\n\n'
RESULT = b'event: exec_result\ndata: {"exit_code":0,"elapsed_ms":42}\n\n'


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_waits(monkeypatch)


def job(state: str, exit_code: object = None, wrapped: bool = True) -> Handler:
    """The record of the job."""
    record = {"id": "job_1", "host_id": "host_1", "state": state, "exit_code": exit_code}
    return answer(200, {"job": record} if wrapped else record)


def not_connected(connection: Connection) -> None:
    connection.answer(409, b'{"error":"host_not_connected","job_id":"job_1"}')


def not_ready(connection: Connection) -> None:
    """For longer than anybody asks."""
    body = b'{"error":{"code":"HOST_STARTING","message":"starting","retryable":true}}'
    connection.answer(409, body, retry_after="60")


started = answer(202, {"job": {"id": "job_1", "state": "running"}, "links": {"job": "/x", "stream": "/y"}})


def work_on(url: str, *arguments: Any, **options: Any) -> Work:
    return HostJob("host_1", *(arguments or ("ls",)), **options).work(Miosa(url, KEY, tenant="t"), None)


def asked(upstream: RawUpstream) -> list[tuple[str, str]]:
    return [(request.method, request.path.removeprefix(HOST)) for request in upstream.requests]


async def running(url: str) -> Work:
    """A job whose stream has broken off."""
    work = work_on(url)
    with pytest.raises(UpstreamLost):
        await read(work)
    return work


# -- starting and following


async def test_the_requests_are_the_documented_ones(anyio_backend: str) -> None:
    """The job is started, then its stream is opened (`docs/miosa.md` §7)."""
    with serve_raw(started, streaming(CHUNK, RESULT)) as upstream:
        work = work_on(upstream.url, "make", ["-j4", "test"], cwd="~/app", env={"CI": "1"}, timeout=1.2)
        assert not work.may_run
        assert await read(work) == CHUNK + RESULT
        assert work.may_run

    assert asked(upstream) == [("POST", "/jobs"), ("GET", "/exec/job_1/stream")]
    start, stream = upstream.requests
    env = [{"name": "CI", "value": "1"}]
    assert start.json == {"command": "make", "args": ["-j4", "test"], "cwd": "~/app", "env": env, "timeout": 2}
    assert start.headers["accept"] == "application/json"
    assert stream.headers["accept"] == "text/event-stream, application/json;q=0.9"
    assert "last-event-id" not in stream.headers
    for request in upstream.requests:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["x-miosa-tenant"] == "t"


async def test_arguments_that_are_left_out_are_not_sent(anyio_backend: str) -> None:
    """The platform has its own defaults."""
    with serve_raw(started, streaming(RESULT)) as upstream:
        await read(work_on(upstream.url))

    assert upstream.requests[0].json == {"command": "ls", "args": []}


async def test_a_host_id_stays_one_part_of_the_path(anyio_backend: str) -> None:
    """`resolve` may have taken it from a URL."""
    with serve_raw(started, streaming(RESULT)) as upstream:
        await read(HostJob("../a?b", "ls").work(Miosa(upstream.url, KEY), None))

    assert upstream.requests[1].path == "/api/v1/opencomputers/hosts/..%2Fa%3Fb/exec/job_1/stream"


async def test_a_job_reaches_the_viewer_as_lines_and_an_exit(anyio_backend: str, caplog: Any) -> None:
    """After the exit there is nothing to cancel. The log has host and job from the start."""
    page = Page()
    with caplog.at_level(logging.INFO, "sse_bridge"), serve_raw(started, streaming(CHUNK, RESULT)) as upstream:
        bridge = SSEBridge(Miosa(upstream.url, KEY), lambda request: HostJob("host_1", "secret"))
        await bridge(page.scope, page.receive, page.send)

    assert page.objects == [
        {"type": "stdout", "line": "one", "stream": "stdout"},
        {"type": "exit", "code": 0, "elapsed_ms": 42},
    ]
    assert asked(upstream) == [("POST", "/jobs"), ("GET", "/exec/job_1/stream")]
    assert "started, host host_1, job job_1 [" in caplog.text
    assert "secret" not in caplog.text


async def test_a_host_that_is_busy_is_asked_again(anyio_backend: str) -> None:
    """A 429 started nothing. To open the stream starts nothing, so that is repeated after a 503, too."""
    busy = refusing(503, retry_after="0")
    with serve_raw(refusing(429), started, busy, streaming(RESULT)) as upstream:
        assert await read(work_on(upstream.url)) == RESULT

    assert [method for method, _ in asked(upstream)] == ["POST", "POST", "GET", "GET"]


@pytest.mark.parametrize(
    ("response", "may_run"),
    [
        (refusing(401), False),
        (refusing(404), False),
        (refusing(422), False),
        (not_connected, False),
        (refusing(408), True),
        (refusing(500), True),
        (refusing(502), True),
        (refusing(503, retry_after="0"), True),
        (no_content, True),
        (breaks, True),
        (mute, True),
        (answer(202, {}), True),
        (answer(202, {"job": {"id": None}}), True),
        (answer(202, {"job": {"id": ".."}}), True),
        (answer(202, {"job": {"id": "a/../b"}}), True),
        (answer(202, ["job"]), True),
        (answer(202, {"job": 7}), True),
        (lambda connection: connection.answer(202, b"<html>"), True),
    ],
)
async def test_a_job_that_may_have_started_is_never_started_again(
    anyio_backend: str, response: Any, may_run: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one request. Without the id of the job there is no way to end it, which the log says."""
    monkeypatch.setattr(background, "ANSWER_TIMEOUT", 0.2 if response is mute else 10)
    with serve_raw(response) as upstream:
        work = work_on(upstream.url)
        with pytest.raises(UpstreamError) as caught:
            await read(work)
        assert await work.cancel(1) is Cancelled.REQUESTED

    assert asked(upstream) == [("POST", "/jobs")]
    assert work.may_run is may_run
    assert KEY not in "".join(traceback.format_exception(caught.value)) + str(caught.value)
    assert isinstance(work, Traceable)
    assert work.trace() == (
        "host host_1, job unknown: the platform did not say what it started, so it could not be asked to end it. "
        "To look for it: GET /opencomputers/hosts/host_1/jobs"
    )


async def test_a_request_that_cannot_be_built_starts_nothing(anyio_backend: str) -> None:
    """The caller may change the environment after the check."""
    env: Any = {"A": "1"}
    with serve_raw(started) as upstream:
        work = work_on(upstream.url, env=env)
        env["A"] = object()
        with pytest.raises(TypeError):
            await read(work)

    assert not work.may_run
    assert upstream.requests == []


async def test_a_closed_port_has_started_nothing(anyio_backend: str) -> None:
    """`may_run` is cleared."""
    work = work_on(dead_url())
    with pytest.raises(UpstreamError):
        await read(work)

    assert not work.may_run


async def test_a_stream_that_is_refused_leaves_a_job_to_end(anyio_backend: str) -> None:
    """The job runs, and its id is known."""
    with serve_raw(started, refusing(500), no_content, job("canceled")) as upstream:
        work = work_on(upstream.url)
        with pytest.raises(UpstreamError):
            await read(work)
        assert work.may_run
        assert await work.cancel(5) is Cancelled.CONFIRMED


async def test_a_stream_that_breaks_off_is_opened_again(anyio_backend: str) -> None:
    """What the job printed meanwhile is lost, since the platform keeps none of it: a gap says so."""
    page = Page()
    broken = streaming(CHUNK + CHUNK[:20], ends=False)
    with serve_raw(started, broken, refusing(503), breaks, streaming(CHUNK, RESULT)) as upstream:
        bridge = SSEBridge(Miosa(upstream.url, KEY), lambda request: HostJob("host_1", "ls"))
        await bridge(page.scope, page.receive, page.send)

    line = {"type": "stdout", "line": "one", "stream": "stdout"}
    assert page.objects == [
        line,
        {"type": "gap", "dropped": None},
        line,
        {"type": "exit", "code": 0, "elapsed_ms": 42},
    ]
    assert asked(upstream) == [("POST", "/jobs"), *[("GET", "/exec/job_1/stream")] * 4]


@pytest.mark.parametrize(
    ("broken", "then", "is_found_over"),
    [
        (streaming(CHUNK, ends=False), (no_content, job("succeeded", 3)), True),
        (streaming(CHUNK, ends=False), (refusing(404), job("succeeded", 3)), True),
        (streaming(CHUNK), (job("succeeded", 3),), True),
        (streaming(CHUNK), (job("running"), streaming(RESULT.replace(b"0", b"3", 1))), False),
    ],
)
async def test_a_job_that_ended_meanwhile_ends_as_its_record_says(
    anyio_backend: str, broken: Handler, then: tuple[Handler, ...], is_found_over: bool
) -> None:
    """The stream is lost or ends, and no event has told of an end: the platform is asked. Output may be missing in all
    of these cases."""
    page = Page()
    with serve_raw(started, broken, *then) as upstream:
        bridge = SSEBridge(Miosa(upstream.url, KEY), lambda request: HostJob("host_1", "ls"))
        await bridge(page.scope, page.receive, page.send)
        await bridge.shutdown()

    assert [event["type"] for event in page.objects] == ["stdout", "gap", "exit"]
    assert page.objects[-1]["code"] == 3
    assert (asked(upstream)[-1] == ("GET", "/exec/job_1")) is is_found_over
    assert "DELETE" not in {method for method, _ in asked(upstream)}


async def test_a_stream_that_stays_broken_is_given_up(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform that opens the stream and breaks it off again makes no progress. The page is told, and the job is
    ended."""
    monkeypatch.setattr(reopening, "REOPEN_TIMEOUT", 0.3)
    monkeypatch.setattr(background, "REOPEN_TIMEOUT", 0.3)
    page = Page()

    def no_news(connection: Connection) -> None:
        if connection.request.path.endswith("/stream"):
            connection.stream()
        else:
            (no_content if connection.request.method == "DELETE" else job("canceled"))(connection)

    with serve_raw(started, streaming(CHUNK, ends=False), no_news) as upstream:
        bridge = SSEBridge(Miosa(upstream.url, KEY), lambda request: HostJob("host_1", "ls"))
        await bridge(page.scope, page.receive, page.send)
        await bridge.shutdown()

    assert [event["type"] for event in page.objects] == ["stdout", "gap", "error"]
    assert page.objects[-1]["code"] == "upstream_lost"
    assert asked(upstream)[-2:] == [("DELETE", "/exec/job_1"), ("GET", "/exec/job_1")]
    assert bridge.statistics().cancels.confirmed == 1


# -- a job that is over before its stream is open


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (job("completed", 0), {"type": "exit", "code": 0}),
        (job("succeeded", 0, wrapped=False), {"type": "exit", "code": 0}),
        (job("failed", 3), {"type": "exit", "code": 3}),
        (job("completed"), {"type": "exit", "code": None, "exit_code": None}),
        (job("timeout", -1), {"type": "exit", "code": -1, "timed_out": True, "reason": "timeout"}),
        (job("failed"), {"type": "error", "code": "upstream_error", "message": "failed", "reason": "failed"}),
        (
            job("canceled", 143),
            {"type": "error", "code": "upstream_error", "message": "canceled", "reason": "canceled"},
        ),
    ],
)
async def test_a_job_that_is_over_ends_as_its_record_says(anyio_backend: str, record: Any, expected: Any) -> None:
    """The stream is answered 204, and the output is lost. A state that is not final yet is asked for again. A job that
    was seen to be over is not cancelled.
    """
    page = Page()
    with serve_raw(started, no_content, job("running"), refusing(502), record) as upstream:
        bridge = SSEBridge(Miosa(upstream.url, KEY), lambda request: HostJob("host_1", "ls"))
        await bridge(page.scope, page.receive, page.send)
        await bridge.shutdown()

    assert page.objects == [expected]
    assert asked(upstream)[2:] == [("GET", "/exec/job_1")] * 3


@pytest.mark.parametrize("record", [job("running"), answer(200, {"job": {"state": ["completed"]}}), answer(200, [])])
async def test_a_job_that_is_said_to_be_over_and_is_not_is_an_error(
    anyio_backend: str, record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We ask for as long as for a stream."""
    monkeypatch.setattr(background, "READY_TIMEOUT", 0.5)
    with serve_raw(started, no_content, record) as upstream:
        work = work_on(upstream.url)
        with anyio.fail_after(5), pytest.raises(UpstreamError, match="without an exit"):
            await read(work)

    assert work.may_run
    assert set(asked(upstream)[2:]) == {("GET", "/exec/job_1")}


async def test_an_ending_waits_for_room(anyio_backend: str) -> None:
    """As every other chunk does."""
    seen: list[Any] = []

    def take(chunk: bytes) -> bool:
        seen.append(chunk)
        return False

    async def room() -> None:
        seen.append("room")

    with serve_raw(started, no_content, job("completed", 0)) as upstream:
        async with work_on(upstream.url).stream() as stream:
            await stream.push(take, room)

    assert seen == [b'event: exec_result\ndata: {"exit_code":0}\n\n', "room"]


# -- ending


BROKEN = (started, streaming(CHUNK, ends=False))


@pytest.mark.parametrize(
    ("handlers", "outcome", "words"),
    [
        ((no_content, job("canceled")), Cancelled.CONFIRMED, "it is over"),
        ((no_content, job("running"), job("running"), job("cancelled")), Cancelled.CONFIRMED, "it is over"),
        ((no_content, refusing(503), job("completed", 0)), Cancelled.CONFIRMED, "it is over"),
        ((answer(200, {}), job("failed", 1)), Cancelled.CONFIRMED, "it is over"),
        ((refusing(502), refusing(429), no_content, job("timeout")), Cancelled.CONFIRMED, "it is over"),
        ((answer(409, {"error": "already_terminal"}),), Cancelled.CONFIRMED, "it is over"),
        ((no_content, job("running")), Cancelled.ACKNOWLEDGED, "was not seen to have done so"),
        ((no_content, refusing(404)), Cancelled.ACKNOWLEDGED, "was not seen to have done so"),
        ((no_content, mute), Cancelled.ACKNOWLEDGED, "was not seen to have done so"),
        ((not_connected,), Cancelled.REQUESTED, "the platform refused to end it"),
        ((not_ready,), Cancelled.REQUESTED, "the platform refused to end it"),
        ((refusing(401),), Cancelled.REQUESTED, "the platform refused to end it"),
        ((refusing(404),), Cancelled.REQUESTED, "the platform refused to end it"),
        ((refusing(503),), Cancelled.REQUESTED, "(refused to end it|did not answer in time whether it ends it)"),
        ((breaks,), Cancelled.REQUESTED, "did not answer in time whether it ends it"),
        ((mute,), Cancelled.REQUESTED, "did not answer in time whether it ends it"),
    ],
)
async def test_a_cancellation_claims_only_what_it_saw(
    anyio_backend: str, handlers: tuple[Handler, ...], outcome: Cancelled, words: str
) -> None:
    """The platform is asked to end the job, and then for its state until that is final."""
    with serve_raw(*BROKEN, *handlers) as upstream:
        work = await running(upstream.url)
        patience = 10 if outcome is Cancelled.CONFIRMED else 1  # the others are decided by its end
        with anyio.fail_after(patience + 10):
            assert await work.cancel(patience) is outcome

    assert isinstance(work, Traceable)
    assert work.mark == "host host_1, job job_1"
    assert re.fullmatch(
        rf"host host_1, job job_1: .*{words}\. To look for it: GET /opencomputers/hosts/host_1/exec/job_1", work.trace()
    )
    assert asked(upstream)[2] == ("DELETE", "/exec/job_1")


async def test_the_reason_why_a_job_was_not_ended_is_in_the_log(anyio_backend: str, caplog: Any) -> None:
    """At DEBUG, without the key and the platform's words."""
    with serve_raw(*BROKEN, breaks) as upstream, caplog.at_level(logging.DEBUG, "sse_bridge"):
        work = await running(upstream.url)
        await work.cancel(0.5)

    assert "could not be asked to end" in caplog.text
    assert KEY not in caplog.text


async def test_a_viewer_that_leaves_ends_the_job(anyio_backend: str) -> None:
    """Through the bridge, after the time of grace."""
    page = Page()

    def goes_on(connection: Connection) -> None:
        connection.stream()
        connection.chunk(CHUNK)
        connection.wait_until_left()

    with serve_raw(started, goes_on, no_content, job("canceled")) as upstream:
        bridge = SSEBridge(Miosa(upstream.url, KEY), lambda request: HostJob("host_1", "ls"), grace=0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            await page.until(lambda: page.objects)
            page.leave()
        await bridge.shutdown()

    assert asked(upstream)[2:] == [("DELETE", "/exec/job_1"), ("GET", "/exec/job_1")]
    assert bridge.statistics().cancels.confirmed == 1


# -- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host_id": None}, "the id of a host as a string, such as host.id, not None"),
        ({"host_id": " "}, "the id of a host, and this one is blank"),
        ({"host_id": ".."}, "the id of a host, not a path"),
        ({"host_id": "secret\udcff"}, "host_id holds a lone surrogate"),
        ({"command": ["secret", "x"]}, "not a list. Pass what follows the program as args."),
        ({"command": " "}, "a command, and this one is blank"),
        ({"args": "secret"}, r"args=\.\.\.\) takes a list or tuple of strings, not a str"),
        ({"args": {"secret"}}, "not a set"),
        ({"args": None}, "not None"),
        ({"args": [Path("/secret")]}, r"takes strings, and holds a PosixPath. Write str\(\.\.\.\) around it"),
        ({"args": ["secret\0"]}, "args holds a NUL"),
        ({"args": ["secret\udcff"]}, "args holds a lone surrogate"),
        ({"cwd": Path("/secret")}, "not a PosixPath"),
        ({"cwd": "secret\0"}, "cwd holds a NUL"),
        ({"env": ["A=secret"]}, "a list does not"),
        ({"env": {"A=B": "secret"}}, "empty or has a '='"),
        ({"timeout": 0}, "takes 1 to 86400 seconds"),
    ],
)
def test_an_argument_that_is_unfit_is_refused_without_quoting_it(options: Any, message: str) -> None:
    """The message says what to write instead."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        HostJob(**{"host_id": "host_1", "command": "ls", **options})

    assert str(caught.value).startswith("HostJob")
    assert "secret" not in str(caught.value)


def test_jobs_compare_by_value() -> None:
    """Whether their arguments came as a list or a tuple."""
    assert HostJob("h", "ls", ["-l"]) == HostJob("h", "ls", ("-l",))
    assert HostJob("h", "ls", ["-l"]) != HostJob("h", "ls")


def test_it_needs_the_platform() -> None:
    """The message says how to get it."""
    with pytest.raises(ConfigurationError, match=r"HostJob runs on MIOSA.*SSEBridge\(Miosa"):
        HostJob("h", "ls").work(HTTPUpstream(), None)


def test_it_does_not_show_its_command_arguments_or_environment() -> None:
    """They may hold secrets."""
    shown = repr(HostJob("host_1", "secret", ["secret"], cwd="/w", env={"A": "secret"}, timeout=5))
    assert shown == "HostJob(host_id='host_1', cwd='/w', timeout=5)"
