"""`SandboxExec`: the request as the platform wants it, sent once, and what is known afterwards."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from sse_bridge import ConfigurationError, Miosa, SandboxExec
from sse_bridge.errors import UpstreamError, UpstreamLost
from sse_bridge.upstream.base import Cancelled, Work
from sse_bridge.upstream.client import HTTPUpstream
from sse_bridge.upstream.miosa import cancel as cancel_module
from sse_bridge.upstream.miosa import execs as execs_module
from sse_bridge.upstream.miosa.cancel import MARKER, Evidence
from tests.support.upstreams import Connection, dead_url, serve_raw

pytestmark = pytest.mark.anyio

KEY = "msk_test_secret"


def output(connection: Connection) -> None:
    connection.stream()
    connection.chunk(b"data: 1\n\n")
    connection.end()


def refusing(status: int, code: str = "X", **headers: str) -> Any:
    body = json.dumps({"error": {"code": code, "message": f"words {KEY}"}}).encode()
    return lambda connection: connection.answer(status, body, **headers)


def work_on(url: str, **options: Any) -> Work:
    return SandboxExec("sbx_1", "ls", **options).work(Miosa(url, KEY, tenant="t"), None)


async def read(work: Work) -> bytes:
    async with work.stream() as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execs_module, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(execs_module, "READY_TIMEOUT", 0.5)


async def test_the_request_is_the_documented_one(anyio_backend: str) -> None:
    """`miosa-wire.md` §1.1, §1.2, §4: four keys, the dual `Accept`, the key, the tenant."""
    with serve_raw(output) as upstream:
        source = SandboxExec("a/b c", "python3 x.py", cwd="/workspace", env={"A": "1"}, timeout=0.2)
        work = source.work(Miosa(upstream.url, KEY, tenant="t"), None)
        assert not work.may_run
        assert await read(work) == b"data: 1\n\n"
        assert work.may_run

    request = upstream.requests[0]
    body = request.json
    token = body["env"].pop(MARKER)
    assert (request.method, request.path) == ("POST", "/api/v1/sandboxes/a%2Fb%20c/exec/stream")
    assert body == {"command": "python3 x.py", "cwd": "/workspace", "env": {"A": "1"}, "timeout": 1}
    assert request.headers["accept"] == "text/event-stream, application/json;q=0.9"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-miosa-tenant"] == "t"
    assert len(token) == 24


@pytest.mark.parametrize(
    ("sandbox_id", "path"),
    [("sbx_1", "sbx_1"), ("a?b#c", "a%3Fb%23c"), ("../x", "..%2Fx"), ("...", "..."), ("ü%", "%C3%BC%25")],
)
async def test_a_sandbox_id_stays_one_part_of_the_path(anyio_backend: str, sandbox_id: str, path: str) -> None:
    """Whatever `resolve` took it from."""
    with serve_raw(output) as upstream:
        await read(SandboxExec(sandbox_id, "ls").work(Miosa(upstream.url, KEY), None))

    assert upstream.requests[0].path == f"/api/v1/sandboxes/{path}/exec/stream"


async def test_the_marker_is_ours_and_the_environment_stays_the_callers(anyio_backend: str) -> None:
    """A variable of that name would have every run end every other."""
    env = {MARKER: "theirs", "A": "ü"}
    with serve_raw(output) as upstream:
        await read(work_on(upstream.url, env=env))

    sent = upstream.requests[0].json["env"]
    assert sent["A"] == "ü"
    assert sent[MARKER] != "theirs"
    assert env == {MARKER: "theirs", "A": "ü"}


async def test_what_is_not_given_is_not_sent(anyio_backend: str) -> None:
    """The platform has defaults of its own. Each exec has a marker of its own."""
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
    """The platform said that nothing was started, so it is asked again; the command runs once."""
    with serve_raw(answer, answer, output) as upstream:
        assert await read(work_on(upstream.url)) == b"data: 1\n\n"
    assert len(upstream.requests) == 3
    assert len({request.body for request in upstream.requests}) == 1


async def test_the_waiting_is_bounded(anyio_backend: str) -> None:
    """And ends early where the platform names a time that would be too late."""
    with serve_raw(refusing(409, "SANDBOX_STARTING")) as upstream:
        started = anyio.current_time()
        with pytest.raises(UpstreamError, match="not ready"):
            await read(work_on(upstream.url))
        assert anyio.current_time() - started < 2
        assert 3 < len(upstream.requests) < 20

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
    """A quarter of a second at first, four at most, half a minute in all."""
    monkeypatch.undo()  # of short delays
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    clock = SimpleNamespace(sleep=sleep, current_time=lambda: sum(waits))
    monkeypatch.setattr(execs_module, "anyio", clock)
    with serve_raw(refusing(429, **headers)) as upstream, pytest.raises(UpstreamError):
        await read(work_on(upstream.url))

    assert waits == expected
    assert len(upstream.requests) == len(expected) + 1


async def test_who_leaves_while_it_gets_ready_has_started_nothing(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to end, and nobody asks again."""
    monkeypatch.setattr(execs_module, "_FIRST_DELAY", 100)
    monkeypatch.setattr(execs_module, "READY_TIMEOUT", 1000)
    with serve_raw(refusing(409, "SANDBOX_STARTING")) as upstream:
        work = work_on(upstream.url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, work)
            await upstream.until_left()
            while work.may_run:  # noqa: ASYNC110 (it has not read the answer yet, and tells nobody)
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        assert not work.may_run
    assert len(upstream.requests) == 1


def breaks(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 2")


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


def mute(connection: Connection) -> None:
    connection.wait_until_left()


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
async def test_nothing_that_may_have_started_is_tried_again(
    anyio_backend: str, answer: Any, may_run: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request, whatever the answer; and what may run is known to have to be ended."""
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


async def test_where_nobody_listens_nothing_was_started(anyio_backend: str) -> None:
    """There is nothing to end."""
    work = work_on(dead_url())
    with pytest.raises(UpstreamError) as caught:
        await read(work)
    assert not work.may_run
    assert KEY not in "".join(traceback.format_exception(caught.value))


async def test_a_stream_that_broke_may_have_left_something_running(anyio_backend: str) -> None:
    """It is not opened a second time."""
    with serve_raw(stops) as upstream:
        work = work_on(upstream.url)
        with pytest.raises(UpstreamLost):
            await read(work)
    assert work.may_run
    assert len(upstream.requests) == 1


async def test_who_leaves_before_the_answer_may_have_started_something(anyio_backend: str) -> None:
    """The request is out."""
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
async def test_the_less_is_known_of_its_start_the_longer_it_is_looked_for(
    anyio_backend: str, handler: Any, evidence: Evidence
) -> None:
    """A comment says nothing of the command: it may be there before that has started."""
    with serve_raw(handler, result("sse-bridge:gone\n")) as upstream:
        work = work_on(upstream.url)
        first = anyio.Event()

        async def follow() -> None:
            async with work.stream() as chunks:
                await anext(chunks)
                first.set()
                await anext(chunks)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await (upstream.until_asked() if handler is mute else first.wait())
            tasks.cancel_scope.cancel()
        await upstream.until_left()
        assert await work.cancel(5) is Cancelled.CONFIRMED

    assert f"-ge {int(evidence)} ]" in upstream.requests[1].json["command"]


def never_ends(connection: Connection) -> None:
    connection.head(200, content_length="100")
    connection.wait_until_left()


def result(stdout: str, status: int = 200, wrapped: bool = True) -> Any:
    body = {"stdout": stdout, "stderr": "", "exit_code": 0}
    answer = json.dumps({"data": body} if wrapped else body).encode()
    return lambda connection: connection.answer(status, answer)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (result("sse-bridge:gone\n"), Cancelled.CONFIRMED),
        (result("sse-bridge:gone\n", wrapped=False), Cancelled.CONFIRMED),
        (result("sse-bridge:left\n"), Cancelled.ACKNOWLEDGED),
        (result("sh: grep: not found\n"), Cancelled.ACKNOWLEDGED),
        (lambda connection: connection.answer(200, b"[1]"), Cancelled.ACKNOWLEDGED),
        (lambda connection: connection.answer(200, b"<html>"), Cancelled.ACKNOWLEDGED),
        (result("", 404), Cancelled.CONFIRMED),
        (result("sse-bridge:gone\n", 201), Cancelled.REQUESTED),
        (refusing(401), Cancelled.REQUESTED),
        (refusing(409, "COMPUTER_NOT_RUNNING"), Cancelled.REQUESTED),
        (refusing(429, retry_after="1"), Cancelled.REQUESTED),
        (breaks, Cancelled.REQUESTED),
        (mute, Cancelled.REQUESTED),
        (never_ends, Cancelled.REQUESTED),
    ],
)
async def test_cancelling_is_one_call_and_claims_no_more_than_it_saw(
    anyio_backend: str, answer: Any, outcome: Cancelled
) -> None:
    """A sandbox that is gone has no processes; everything else has to be seen. It takes no longer than it may."""
    with serve_raw(output, answer) as upstream:
        work = work_on(upstream.url)
        await read(work)
        started = anyio.current_time()
        assert await work.cancel(0.3) is outcome
        assert anyio.current_time() - started < 1

    stream, cancel = upstream.requests
    assert sorted(cancel.json) == ["command", "timeout"]
    assert cancel.json["timeout"] == 1
    assert cancel.path == "/api/v1/sandboxes/sbx_1/exec"
    assert cancel.headers["accept"] == "application/json"
    assert f"{MARKER}={stream.json['env'][MARKER]}" in cancel.json["command"]
    assert MARKER not in cancel.json.get("env", {})
    assert f"-ge {int(Evidence.OUTPUT)} ]" in cancel.json["command"]


@pytest.mark.parametrize(
    "answer",
    [
        refusing(408),
        refusing(409, "SANDBOX_STARTING"),
        refusing(429),
        refusing(429, retry_after="0"),
        refusing(500),
        refusing(503, "NO_READY_MACHINE", retry_after="0.01"),
        result("sse-bridge:gone\n", 504),
    ],
)
async def test_a_platform_that_is_busy_is_asked_to_cancel_again(
    anyio_backend: str, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other than the command, the loop may run twice; what the last answer says counts."""
    monkeypatch.setattr(cancel_module, "_FIRST_DELAY", 0.01)
    with serve_raw(answer, answer, result("sse-bridge:gone\n")) as upstream:
        assert await work_on(upstream.url).cancel(5) is Cancelled.CONFIRMED

    assert [request.path for request in upstream.requests] == ["/api/v1/sandboxes/sbx_1/exec"] * 3


@pytest.mark.parametrize(
    ("headers", "expected", "timeouts"),
    [
        ({}, [0.25, 0.5, 1, 2], [5, 5, 5, 4, 2]),
        ({"retry_after": "2"}, [2, 2], [5, 3, 1]),
        ({"retry_after": "6"}, [], [5]),
    ],
)
async def test_the_waits_for_a_busy_platform_grow_and_keep_to_the_time(
    anyio_backend: str, headers: Any, expected: list[float], timeouts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of a second at first, two at most, never shorter than asked; a wait that is too long is no wait.

    The loop in the sandbox gets what is left of the time.
    """
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(cancel_module, "anyio", SimpleNamespace(sleep=sleep, current_time=lambda: sum(waits)))
    with serve_raw(refusing(503, **headers)) as upstream:
        assert await work_on(upstream.url).cancel(5) is Cancelled.REQUESTED

    assert waits == expected
    assert [request.json["timeout"] for request in upstream.requests] == timeouts


async def test_a_platform_that_stays_busy_does_not_make_it_longer(anyio_backend: str) -> None:
    """The time is for all calls together."""
    with serve_raw(refusing(503)) as upstream:
        started = anyio.current_time()
        assert await work_on(upstream.url).cancel(0.5) is Cancelled.REQUESTED
        assert anyio.current_time() - started < 1


async def test_cancelling_where_nobody_listens_is_a_request(anyio_backend: str) -> None:
    """No exception: whoever cancels has other things to finish."""
    assert await work_on(dead_url()).cancel(1) is Cancelled.REQUESTED


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("", "ls"), {}, "id of a sandbox"),
        ((None, "ls"), {}, "id of a sandbox"),
        (("..", "ls"), {}, "not a path"),
        ((".", "ls"), {}, "not a path"),
        (("sbx", " "), {}, "needs a command"),
        (("sbx", ["ls"]), {}, "needs a command"),
        (("sbx", "ls"), {"timeout": 0}, "above zero"),
        (("sbx", "ls"), {"timeout": -1}, "above zero"),
        (("sbx", "ls"), {"timeout": float("nan")}, "above zero"),
        (("sbx", "ls"), {"timeout": float("inf")}, "above zero"),
        (("sbx", "ls"), {"cwd": Path("/workspace")}, "takes a string"),
        (("sbx", "ls"), {"env": {"A": 1}}, "strings to strings"),
        (("sbx", "ls"), {"env": {1: "A"}}, "strings to strings"),
    ],
)
def test_what_the_platform_would_refuse_is_refused_here(arguments: Any, options: Any, message: str) -> None:
    """With what to do instead."""
    with pytest.raises(ConfigurationError, match=message):
        SandboxExec(*arguments, **options)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("sandbox_id", {"sandbox_id": "secret\ud800"}),
        ("command", {"command": "echo secret\udcff"}),
        ("cwd", {"cwd": "/secret\udcff"}),
        ("env", {"env": {"A": "secret\udcff"}}),
        ("env", {"env": {"secret\udcff": "A"}}),
    ],
)
def test_text_that_cannot_be_sent_is_refused_without_telling_it(argument: str, options: Any) -> None:
    """When it is made: half a surrogate pair, which file names from elsewhere hold, has no UTF-8."""
    with pytest.raises(ConfigurationError, match=f"{argument} holds a lone surrogate") as caught:
        SandboxExec(**{"sandbox_id": "sbx", "command": "ls", **options})

    assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_a_request_that_cannot_be_built_starts_nothing(anyio_backend: str) -> None:
    """An environment may be changed after it was looked at; there is nothing to end then."""
    env: Any = {"A": "1"}
    with serve_raw(output) as upstream:
        work = work_on(upstream.url, env=env)
        env["A"] = object()
        with pytest.raises(TypeError):
            await read(work)

    assert not work.may_run
    assert upstream.requests == []


def test_it_needs_the_platform() -> None:
    """And says how to get it."""
    with pytest.raises(ConfigurationError, match="SSEBridge\\(Miosa"):
        SandboxExec("sbx", "ls").work(HTTPUpstream(), None)


def test_it_does_not_show_its_command_or_environment() -> None:
    """Both hold secrets now and then."""
    assert "secret" not in repr(SandboxExec("sbx", "login --key secret", env={"KEY": "secret"}))
