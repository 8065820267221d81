"""`SandboxProcess`: started once or followed by its id, opened again after a cut, asked for its exit, and stopped."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import anyio
import pytest

from sse_bridge import ConfigurationError, HTTPUpstream, Miosa, SandboxProcess, SSEBridge
from sse_bridge.errors import UpstreamError
from sse_bridge.upstream.base import Cancelled, Traceable, Work
from sse_bridge.upstream.miosa import background
from sse_bridge.upstream.miosa import cancel as cancel_module
from sse_bridge.upstream.retrying import Backoff
from tests.support.asgi import Page, lines
from tests.support.upstreams import Connection, Handler, RawUpstream, serve_raw
from tests.upstream.helpers import mute
from tests.upstream.platform import (
    KEY,
    answer,
    breaks,
    lost,
    no_content,
    read,
    refusing,
    result,
    shorten_waits,
    streaming,
)

pytestmark = pytest.mark.anyio

HOME = "/api/v1/sandboxes/sbx_1"
ONE = b'event: stdout\ndata: {"line":"one"}\n\n'
TWO = b'event: stdout\ndata: {"line":"two"}\n\n'
EXIT = b'event: exit\ndata: {"exit_code":3}\n\n'


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_waits(monkeypatch)


def record(status: str, exit_code: object = None, **more: object) -> Handler:
    return answer(200, {"data": {"pid": 12, "status": status, "exit_code": exit_code, **more}})


started = answer(201, {"data": {"pid": 12, "status": "running"}})


def work_on(url: str, **options: Any) -> Work:
    arguments = {"command": "ls"} if "pid" not in options else {}
    return SandboxProcess("sbx_1", **{**arguments, **options}).work(Miosa(url, KEY, tenant="t"), None)


def asked(upstream: RawUpstream) -> list[tuple[str, str]]:
    return [(request.method, request.path.removeprefix(HOME)) for request in upstream.requests]


async def shown(*handlers: Handler, **options: Any) -> tuple[Page, list[tuple[str, str]]]:
    """What a page gets of a process, and what the platform was asked."""
    page = Page()
    options = options or {"command": "ls"}
    with serve_raw(*handlers) as upstream:
        bridge = SSEBridge(Miosa(upstream.url, KEY), lambda request: SandboxProcess("sbx_1", **options))
        with anyio.fail_after(20):
            await bridge(page.scope, page.receive, page.send)
            await bridge.shutdown()
    return page, asked(upstream)


# -- starting and following


async def test_the_requests_are_the_documented_ones(anyio_backend: str) -> None:
    """The process is started, then its stream is opened (`docs/miosa.md` §7). One more variable marks it."""
    with serve_raw(started, streaming(ONE, EXIT)) as upstream:
        work = work_on(upstream.url, command="make", cwd="/app", env={"CI": "1"}, name="build")
        assert not work.may_run
        assert await read(work) == ONE + EXIT
        assert work.may_run

    assert asked(upstream) == [("POST", "/processes"), ("GET", "/processes/12/stream")]
    start, stream = upstream.requests
    body = start.json
    assert re.fullmatch("[0-9a-f]{24}", body["env"].pop("SSE_BRIDGE_EXEC"))
    assert body == {"command": "make", "cwd": "/app", "env": {"CI": "1"}, "name": "build"}
    assert stream.headers["accept"] == "text/event-stream, application/json;q=0.9"
    for request in upstream.requests:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["x-miosa-tenant"] == "t"


@pytest.mark.parametrize("pid", [12, "12", "p/../x"])
async def test_a_process_that_runs_already_is_followed(anyio_backend: str, pid: Any) -> None:
    """It is not started, and its id stays one part of the path."""
    with serve_raw(streaming(ONE, EXIT)) as upstream:
        work = work_on(upstream.url, pid=pid)
        assert await read(work) == ONE + EXIT

    part = "p%2F..%2Fx" if pid == "p/../x" else "12"
    assert asked(upstream) == [("GET", f"/processes/{part}/stream")]


async def test_a_process_reaches_the_viewer_as_lines_and_an_exit(anyio_backend: str, caplog: Any) -> None:
    """After the exit there is nothing to stop. The log has the process from its start, and not its command."""
    with caplog.at_level(logging.INFO, "sse_bridge"):
        page, calls = await shown(started, streaming(ONE, EXIT), command="secret")

    assert page.objects == [{"type": "stdout", "line": "one"}, {"type": "exit", "code": 3}]
    assert calls == [("POST", "/processes"), ("GET", "/processes/12/stream")]
    assert re.search(r"started, sandbox sbx_1, process 12, marker SSE_BRIDGE_EXEC=[0-9a-f]{24} \[", caplog.text)
    assert "secret" not in caplog.text


@pytest.mark.parametrize("id", [12, "12", "proc_1"])
@pytest.mark.parametrize("key", ["pid", "id"])
@pytest.mark.parametrize("wrapped", [True, False])
async def test_the_id_may_be_a_number_or_a_text(anyio_backend: str, id: object, key: str, wrapped: bool) -> None:
    """The Python SDK takes a number, those for Go and Elixir a text; an envelope may be missing."""
    with serve_raw(answer(200, {"data": {key: id}} if wrapped else {key: id}), streaming(EXIT)) as upstream:
        await read(work_on(upstream.url))

    assert upstream.requests[1].path == f"{HOME}/processes/{id}/stream"


# -- a stream that ends or breaks off


@pytest.mark.parametrize("half", [b"", TWO[:9], TWO[:-1]])
async def test_a_stream_that_breaks_off_is_opened_again(anyio_backend: str, half: bytes) -> None:
    """What the platform repeats is left out. It may have kept less than it was given, so there is a gap."""
    page, calls = await shown(
        started, lost(ONE + half), refusing(503), breaks, lost(ONE, TWO), streaming(ONE, TWO, EXIT)
    )

    assert lines(page) == ["one", "gap", "two", "gap", "exit"]
    assert page.objects[1] == {"type": "gap", "dropped": None}
    assert calls == [("POST", "/processes"), *[("GET", "/processes/12/stream")] * 5]


async def test_a_platform_that_repeats_nothing_loses_nothing_more(anyio_backend: str) -> None:
    """All that it sends is shown, half a second later at most."""
    page, _ = await shown(started, lost(ONE), streaming(TWO, EXIT))

    assert lines(page) == ["one", "gap", "two", "exit"]


@pytest.mark.parametrize(
    ("said", "exit"),
    [
        (record("exited", 3), {"type": "exit", "code": 3}),
        (record("running", 3), {"type": "exit", "code": 3}),
        (record("exited", "3"), {"type": "exit", "code": 3}),
        (record("exited", -1, timed_out=True), {"type": "exit", "code": -1, "timed_out": True}),
        (record("Stopped"), {"type": "exit", "code": None}),
        (answer(200, {"pid": 12, "state": "killed"}), {"type": "exit", "code": None}),
    ],
)
async def test_a_stream_without_an_exit_is_explained_by_the_process(anyio_backend: str, said: Any, exit: Any) -> None:
    """The stream has brought all output, so there is no gap. A platform that is busy is asked again."""
    page, calls = await shown(started, streaming(ONE), refusing(502), said)

    assert page.objects == [{"type": "stdout", "line": "one"}, exit]
    assert calls[2:] == [("GET", "/processes/12")] * 2


@pytest.mark.parametrize("half", [TWO[:9], TWO[:-1]])
async def test_a_stream_that_ends_within_a_frame_has_lost_it(anyio_backend: str, half: bytes) -> None:
    """Without a length, a response that breaks off looks like one that ends. The page is told."""
    page, _ = await shown(started, streaming(ONE + half), record("exited", 3))

    assert lines(page) == ["one", "gap", "exit"]


@pytest.mark.parametrize("said", [record("running"), record("starting"), answer(200, []), answer(200, {"data": 7})])
async def test_a_stream_that_ends_too_early_is_opened_again(anyio_backend: str, said: Any) -> None:
    """The process runs on, so its output may be missing."""
    page, calls = await shown(started, streaming(ONE), said, streaming(ONE, TWO, EXIT))

    assert lines(page) == ["one", "gap", "two", "exit"]
    assert calls[2:] == [("GET", "/processes/12"), ("GET", "/processes/12/stream")]


@pytest.mark.parametrize("status", [204, 404, 409, 410])
async def test_a_process_that_is_over_meanwhile_is_asked_how_it_ended(anyio_backend: str, status: int) -> None:
    """There is no stream any more. What it printed last is missing."""
    page, calls = await shown(started, lost(ONE), refusing(status), record("exited", 3))

    assert lines(page) == ["one", "gap", "exit"]
    assert calls[2:] == [("GET", "/processes/12/stream"), ("GET", "/processes/12")]


@pytest.mark.parametrize(
    ("first", "code"), [(lost(ONE), "upstream_lost"), (streaming(ONE), "upstream_ended")], ids=["lost", "ended"]
)
async def test_a_process_that_the_platform_has_forgotten_is_an_error(anyio_backend: str, first: Any, code: str) -> None:
    """How it ended is unknown. The platform is asked to stop it, says that there is none, and that is its end."""
    page, calls = await shown(started, first, refusing(404))

    assert lines(page) == ["one", "error"]
    assert page.objects[-1]["code"] == code
    assert calls[-1] == ("DELETE", "/processes/12")


@pytest.mark.parametrize(("ends", "code"), [(False, "upstream_lost"), (True, "upstream_ended")])
async def test_a_stream_that_stays_broken_is_given_up(
    anyio_backend: str, ends: bool, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform that opens streams, and breaks them off or ends them at once, makes no progress."""
    monkeypatch.setattr(background, "REOPEN_TIMEOUT", 0.2)

    was_stopped = False

    def no_news(connection: Connection) -> None:
        nonlocal was_stopped
        if connection.request.path.endswith("/stream"):
            streaming(ends=ends)(connection)
        elif connection.request.method == "DELETE":
            was_stopped = True
            connection.head(204)
        else:
            record("exited" if was_stopped else "running")(connection)

    page, calls = await shown(started, lost(ONE), no_news)

    assert lines(page) == ["one", "gap", "error"]
    assert page.objects[-1]["code"] == code
    assert calls[-2:] == [("DELETE", "/processes/12"), ("GET", "/processes/12")]


async def test_a_viewer_that_leaves_ends_the_attempts(anyio_backend: str) -> None:
    """The process is stopped while its stream is being opened again."""
    page = Page()
    with serve_raw(started, lost(ONE), mute) as upstream:
        source = SandboxProcess("sbx_1", "ls")
        bridge = SSEBridge(Miosa(upstream.url, KEY), lambda request: source, grace=0, cancel_timeout=0.5)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            await upstream.until_asked(3)
            page.leave()
            await upstream.until_asked(1)
        await bridge.shutdown()

    assert asked(upstream)[3] == ("DELETE", "/processes/12")


# -- stopping


@pytest.mark.parametrize(
    ("handlers", "outcome", "words"),
    [
        ((no_content, record("exited", 143)), Cancelled.CONFIRMED, "it is over"),
        ((no_content, record("running"), record("running"), record("killed")), Cancelled.CONFIRMED, "it is over"),
        ((no_content, refusing(404)), Cancelled.CONFIRMED, "it is over"),
        ((answer(200, {}), refusing(410)), Cancelled.CONFIRMED, "it is over"),
        ((refusing(502), refusing(429), no_content, record("exited", 0)), Cancelled.CONFIRMED, "it is over"),
        ((refusing(404),), Cancelled.CONFIRMED, "it is over"),
        ((no_content, record("running")), Cancelled.ACKNOWLEDGED, "was not seen to have done so"),
        ((no_content, mute), Cancelled.ACKNOWLEDGED, "was not seen to have done so"),
        ((no_content, refusing(401)), Cancelled.ACKNOWLEDGED, "was not seen to have done so"),
        ((refusing(401),), Cancelled.REQUESTED, "the platform refused to end it"),
        ((refusing(409),), Cancelled.REQUESTED, "the platform refused to end it"),
        ((breaks,), Cancelled.REQUESTED, "did not answer in time whether it ends it"),
        ((mute,), Cancelled.REQUESTED, "did not answer in time whether it ends it"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"pid": 12}])
async def test_stopping_claims_only_what_it_saw(
    anyio_backend: str, handlers: tuple[Handler, ...], outcome: Cancelled, words: str, options: dict[str, Any]
) -> None:
    """The platform is asked to stop the process, and then for its state until it is final, or the process unknown."""
    before = (streaming(ONE),) if options else (started, streaming(ONE))
    with serve_raw(*before, *handlers) as upstream:
        work = work_on(upstream.url, **options)
        await read(work)
        assert work.may_run
        patience = 10 if outcome is Cancelled.CONFIRMED else 1  # the others are decided by its end
        with anyio.fail_after(patience + 10):
            assert await work.cancel(patience) is outcome

    assert isinstance(work, Traceable)
    assert re.fullmatch(
        rf"sandbox sbx_1, process 12.*: .*{words}\. To look for it: GET /sandboxes/sbx_1/processes/12", work.trace()
    )
    assert asked(upstream)[len(before)] == ("DELETE", "/processes/12")


@pytest.mark.parametrize("start", [breaks, answer(201, {"data": {}}), answer(201, []), refusing(502)])
async def test_a_process_whose_id_never_came_is_found_by_its_marker(
    anyio_backend: str, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to its start was lost, so it may run. It is searched for as a command is (`docs/miosa.md` §7)."""
    monkeypatch.setattr(cancel_module, "BACKOFF", Backoff(0.01, 0.02))
    with serve_raw(start, result("sse-bridge:gone\n")) as upstream:
        work = work_on(upstream.url)
        with pytest.raises(UpstreamError):
            await read(work)
        assert work.may_run
        assert await work.cancel(2) is Cancelled.CONFIRMED

    assert asked(upstream) == [("POST", "/processes"), ("POST", "/exec")]
    assert upstream.requests[0].json["env"]["SSE_BRIDGE_EXEC"] in upstream.requests[1].json["command"]
    assert isinstance(work, Traceable)
    assert "process unknown, marker SSE_BRIDGE_EXEC=" in work.trace()
    assert "To look for it there: for p in" in work.trace()


@pytest.mark.parametrize("response", [refusing(401), refusing(404), refusing(422)])
async def test_a_refusal_has_started_nothing(anyio_backend: str, response: Any) -> None:
    """`may_run` is cleared, and the viewer gets the status."""
    with serve_raw(response) as upstream:
        work = work_on(upstream.url)
        with pytest.raises(UpstreamError):
            await read(work)

    assert not work.may_run
    assert asked(upstream) == [("POST", "/processes")]


@pytest.mark.parametrize("options", [{"pid": 12}, {"command": "ls"}])
async def test_a_process_that_is_to_run_on_is_left_alone(anyio_backend: str, options: dict[str, Any]) -> None:
    """The connection is closed, and that is all."""
    page = Page()

    def goes_on(connection: Connection) -> None:
        connection.stream()
        connection.chunk(ONE)
        connection.wait_until_left()

    start = () if "pid" in options else (started,)
    with serve_raw(*start, goes_on) as upstream:
        source = SandboxProcess("sbx_1", **options, stop=False)
        bridge = SSEBridge(Miosa(upstream.url, KEY), lambda request: source, grace=0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            await page.until(lambda: page.objects)
            page.leave()
        await bridge.shutdown()

    assert asked(upstream)[-1] == ("GET", "/processes/12/stream")
    assert bridge.statistics().cancels.confirmed == 0


# -- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sandbox_id": None}, "the id of a sandbox as a string"),
        ({"sandbox_id": ".."}, "the id of a sandbox, not a path"),
        ({"command": None}, r"SandboxProcess\(sandbox, 'npm run dev'\) or SandboxProcess\(sandbox, pid=12\)"),
        ({"pid": 12}, "takes a command to start, or the pid of a process to follow"),
        ({"command": ["secret"]}, r"not a list. Write shlex.join"),
        ({"command": " "}, "a command, and this one is blank"),
        ({"command": "secret\0"}, "command holds a NUL"),
        ({"command": None, "pid": ""}, "the id of a process, and this one is blank"),
        ({"command": None, "pid": "."}, "the id of a process, not a path"),
        ({"command": None, "pid": True}, "the id of a process as a string"),
        ({"command": None, "pid": 1.5}, "the id of a process as a string"),
        ({"command": None, "pid": 12, "env": {"A": "secret"}}, "follows a process that runs already, so env= has no"),
        ({"command": None, "pid": 12, "name": "x"}, "so name= has no effect"),
        ({"cwd": Path("/secret")}, "not a PosixPath"),
        ({"cwd": "secret"}, "an absolute path"),
        ({"env": {"A=B": "secret"}}, "empty or has a '='"),
        ({"name": ""}, r"name=\.\.\.\) takes a name as a string, or None"),
        ({"name": 7}, r"not an int"),
        ({"name": "secret\udcff"}, r"takes a name as a string"),
        ({"stop": None}, r"stop=\.\.\.\) must be True or False, not None"),
    ],
)
def test_an_argument_that_is_unfit_is_refused_without_quoting_it(options: Any, message: str) -> None:
    """The message says what to write instead."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        SandboxProcess(**{"sandbox_id": "sbx_1", "command": "ls", **options})

    assert str(caught.value).startswith("SandboxProcess")
    assert "secret" not in str(caught.value)


def test_processes_compare_by_value_and_keep_secrets_to_themselves() -> None:
    """Whether their id came as a number or a text, and with the sandbox or its id."""

    class Sandbox:
        id = "sbx_1"

    assert SandboxProcess(Sandbox(), pid=12) == SandboxProcess("sbx_1", pid="12")
    assert SandboxProcess("sbx_1", "ls") != SandboxProcess("sbx_1", "ls", stop=False)
    assert "secret" not in repr(SandboxProcess("sbx_1", "secret", env={"A": "secret"}))


def test_it_runs_on_miosa() -> None:
    """Any other upstream is refused when the run is to start."""
    with pytest.raises(ConfigurationError, match="SandboxProcess runs on MIOSA"):
        SandboxProcess("sbx_1", "ls").work(HTTPUpstream(), None)
