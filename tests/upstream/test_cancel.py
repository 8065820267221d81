"""The call that ends a command: made again while the platform is busy, and honest about what it saw."""

from __future__ import annotations

import json
import logging
import math
import re
from typing import Any

import anyio
import pytest

from sse_bridge import SandboxExec
from sse_bridge.relay.clock import Clock
from sse_bridge.relay.ending import Ending
from sse_bridge.relay.info import RunFacts
from sse_bridge.relay.options import RunOptions
from sse_bridge.relay.run import Run
from sse_bridge.relay.statistics import Totals
from sse_bridge.upstream.base import Cancelled
from sse_bridge.upstream.miosa import cancel as cancel_module
from sse_bridge.upstream.miosa.cancel import MARKER, Evidence, look_for
from sse_bridge.upstream.retrying import Backoff
from sse_bridge.wire.dialects import DIALECTS
from tests.support.upstreams import Connection, dead_url, serve_raw
from tests.upstream.helpers import mute
from tests.upstream.platform import KEY, breaks, output, read, recorded_waits, refusing, result, work_on

pytestmark = pytest.mark.anyio


def never_ends(connection: Connection) -> None:
    """A head, and then silence."""
    connection.head(200, content_length="100")
    connection.wait_until_left()


def busy(connection: Connection) -> None:
    """The answer of a sandbox that runs one command at a time, and still does. It is marked as temporary."""
    error = {"code": "SANDBOX_BUSY", "message": "busy", "retryable": True}
    connection.answer(409, json.dumps({"ok": False, "error": error}).encode())


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (result("sse-bridge:gone\n"), Cancelled.CONFIRMED),
        (result("sse-bridge:gone\n", wrapped=False), Cancelled.CONFIRMED),
        (result("Welcome\nsse-bridge:gone\n"), Cancelled.CONFIRMED),  # login shells may say more
        (result("sse-bridge:left\n"), Cancelled.ACKNOWLEDGED),
        (result("sse-bridge:unseen\n"), Cancelled.ACKNOWLEDGED),
        (result("sse-bridge:blind\n"), Cancelled.ACKNOWLEDGED),
        (result("sse-bridge:gone-ish\nsse-bridge:else\n"), Cancelled.ACKNOWLEDGED),
        (result(""), Cancelled.ACKNOWLEDGED),
        (result("sh: grep: not found\n"), Cancelled.ACKNOWLEDGED),
        (lambda connection: connection.answer(200, b"[1]"), Cancelled.ACKNOWLEDGED),
        (lambda connection: connection.answer(200, b"<html>"), Cancelled.ACKNOWLEDGED),
        (result("", 404), Cancelled.CONFIRMED),
        (result("", 410), Cancelled.CONFIRMED),
        (result("sse-bridge:gone\n", 201), Cancelled.REQUESTED),
        (refusing(401), Cancelled.REQUESTED),
        (refusing(409, "COMPUTER_NOT_RUNNING"), Cancelled.REQUESTED),
        (busy, Cancelled.REQUESTED),
        (refusing(429, retry_after="1"), Cancelled.REQUESTED),
        (breaks, Cancelled.REQUESTED),
        (mute, Cancelled.REQUESTED),
        (never_ends, Cancelled.REQUESTED),
    ],
)
async def test_a_cancellation_is_one_call_and_claims_only_what_it_saw(
    anyio_backend: str, answer: Any, outcome: Cancelled
) -> None:
    """A sandbox that is gone has no processes; otherwise the loop has to see them gone. The time is bounded.

    A sandbox that runs one command at a time is asked once, too: the fault was to ask it until the time was over.
    """
    with serve_raw(output, answer) as upstream:
        work = work_on(upstream.url)
        await read(work)
        patience = 0.3 if outcome is Cancelled.REQUESTED else 10  # some of the former wait for its end
        with anyio.fail_after(patience + 10):
            assert await work.cancel(patience) is outcome

    stream, cancel = upstream.requests
    assert sorted(cancel.json) == ["command", "timeout"]
    assert cancel.json["timeout"] == math.ceil(patience)
    assert cancel.path == "/api/v1/sandboxes/sbx_1/exec"
    assert cancel.headers["accept"] == "application/json"
    assert f"{MARKER}={stream.json['env'][MARKER]}" in cancel.json["command"]
    assert MARKER not in cancel.json.get("env", {})
    assert f"looks='{int(Evidence.OUTPUT)}'" in cancel.json["command"]


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
    """The loop may run twice, unlike the command. The last answer counts."""
    monkeypatch.setattr(cancel_module, "BACKOFF", Backoff(0.01, 2.0))
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
    """They begin with a quarter of a second, end at two, and are as long as the platform asks, or end the attempts.

    The loop in the sandbox gets the time that is left.
    """
    waits = recorded_waits(monkeypatch)
    with serve_raw(refusing(503, **headers)) as upstream:
        assert await work_on(upstream.url).cancel(5) is Cancelled.REQUESTED

    assert waits == expected
    assert [request.json["timeout"] for request in upstream.requests] == timeouts


async def test_a_platform_that_stays_busy_does_not_prolong_a_cancellation(anyio_backend: str) -> None:
    """All calls share the time."""
    with serve_raw(refusing(503)) as upstream:
        started = anyio.current_time()
        assert await work_on(upstream.url).cancel(0.5) is Cancelled.REQUESTED
        assert anyio.current_time() - started < 1


async def test_cancelling_at_a_closed_port_raises_no_error(anyio_backend: str) -> None:
    """The relay has other things to finish."""
    assert await work_on(dead_url()).cancel(1) is Cancelled.REQUESTED


def state(word: str) -> Any:
    """A sandbox, as `GET` shows it."""
    return lambda connection: connection.answer(200, json.dumps({"data": {"id": "sbx_1", "state": word}}).encode())


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (state("destroyed"), Cancelled.CONFIRMED),
        (result("", 404), Cancelled.CONFIRMED),
        (state("stopped"), Cancelled.REQUESTED),
        (state("paused"), Cancelled.REQUESTED),
        (refusing(500), Cancelled.REQUESTED),
        (lambda connection: connection.answer(200, b"[]"), Cancelled.REQUESTED),
    ],
)
async def test_a_sandbox_that_does_not_run_is_asked_whether_it_is_gone(
    anyio_backend: str, answer: Any, outcome: Cancelled
) -> None:
    """A destroyed sandbox has no processes; one that is stopped or paused may go on where it was."""
    with serve_raw(refusing(409, "SANDBOX_NOT_RUNNING"), answer) as upstream:
        assert await work_on(upstream.url).cancel(5) is outcome

    assert [(request.method, request.path) for request in upstream.requests] == [
        ("POST", "/api/v1/sandboxes/sbx_1/exec"),
        ("GET", "/api/v1/sandboxes/sbx_1"),
    ]


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        (result("sse-bridge:left\n"), "acknowledged", "were left"),
        (result("sse-bridge:unseen\n"), "acknowledged", "no process with its marker"),
        (result("sse-bridge:blind\n"), "acknowledged", "could not see all processes"),
        (result("sh: syntax error\n"), "acknowledged", "said nothing"),
        (busy, "requested", "one command at a time"),
        (refusing(401), "requested", "refused"),
        (mute, "requested", "did not answer"),
    ],
)
async def test_a_command_that_may_run_on_is_logged_with_all_it_takes_to_find_it(
    anyio_backend: str, answer: Any, outcome: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The fault: the warning named neither sandbox nor marker. One line, and no secret: the marker is not the run's
    token, which would let its reader follow and cancel the run.
    """
    with serve_raw(output, answer) as upstream:
        work = work_on(upstream.url, command="run --password=x")
        await read(work)
        timeout = 30.0 if outcome == "acknowledged" else 1.0  # a busy machine answers late; the others use all of it
        await Ending(work, timeout, "tokent", Totals(), Clock()).end()

    marker = f"{MARKER}={upstream.requests[0].json['env'][MARKER]}"
    (line,) = [record.getMessage() for record in caplog.records if "may run on" in record.getMessage()]
    assert [record.levelno for record in caplog.records if record.getMessage() == line] == [logging.WARNING]
    assert line.startswith(f"run tokent...: its work was not seen to end ({outcome}); it may run on: sandbox sbx_1")
    assert words in line
    assert line.count(marker) == 2
    assert line.endswith(look_for(marker.partition("=")[2]))
    assert "\n" not in line
    assert "password" not in line
    assert KEY not in line


def ends_with(*chunks: bytes) -> Any:
    """A stream that ends by itself, without an exit."""

    def handler(connection: Connection) -> None:
        connection.stream()
        for chunk in chunks:
            connection.chunk(chunk)
        connection.end()

    return handler


LINE = b'event: stdout\ndata: {"line":"a"}\n\n'


@pytest.mark.parametrize(
    ("chunks", "unseen"),
    [
        ([LINE], "gone"),
        ([b": running\n\n"], "gone"),
        ([], "gone"),
        ([LINE * 1000, LINE], "gone"),
        ([LINE, b'event: error\ndata: {"error":{"code":"AGENT_UNAVAILABLE","message":"m"}}\n\n'], "unseen"),
        ([LINE, b'event: error\ndata: {"error":{"code":"AGENT_UNAVAILABLE"}}\n', b"\n"], "unseen"),
        ([LINE, b'event: error\ndata: {"error":{"code":"AGENT_UNAVAILABLE"}}\n\n', b": heartbeat\n\n"], "unseen"),
        ([LINE, b'event: error\ndata: {"message":"%b"}\n\n' % (b"m" * 5000)], "unseen"),
        ([LINE, b'data: {"code":502,"message":"bad gateway"}\n\n'], "unseen"),
        ([LINE, b'data: {"title":"Bad Gateway","status":502}\n\n'], "unseen"),
        ([LINE, b'event: error\ndata: {"message":"m"}\n'], "unseen"),
        ([b'event: stdout\ndata: {"line":"error"}\n\n'], "gone"),
        ([LINE, b'event: exit\ndata: {"exit_code":-2,"error":{"code":"X","message":"m"}}\n\n'], "unseen"),
        ([LINE * 1000 + b'data: {"error":{"message":"m","code":502}}\n\n'], "unseen"),
    ],
)
@pytest.mark.parametrize("dialect", ["typed", "verbatim"])
async def test_a_stream_that_the_platform_ends_proves_the_commands_end(
    anyio_backend: str, chunks: list[bytes], unseen: str, dialect: str
) -> None:
    """Unless it tells of a failure: then the stream has failed rather than the command.

    The run decides what a failure is. The fault was a second opinion: the word "error" in the last kilobyte of the last
    chunk. Failures without that word, longer ones, those cut into chunks and those with a comment behind them passed
    for an end, and output with that word for a failure.
    """
    with serve_raw(ends_with(*chunks), result("sse-bridge:gone\n")) as upstream:
        options = RunOptions(
            dialect=DIALECTS[dialect], ids=False, max_frame_size=None, replay=0, grace=None, cancel_timeout=5.0
        )
        work = work_on(upstream.url)
        run = Run(RunFacts("tokentokentokent", None, SandboxExec("sbx_1", "ls")), work, options, Totals(), Clock())
        await run.read()

    assert f"unseen='{unseen}'\n" in upstream.requests[1].json["command"]


async def test_the_loop_knows_how_old_the_command_can_be(anyio_backend: str) -> None:
    """Counted from the request; the ending call may be on its way for as long as it may take."""
    with serve_raw(output, result("sse-bridge:gone\n")) as upstream:
        work = work_on(upstream.url)
        await read(work)
        started = anyio.current_time()
        await work.cancel(5)

    found = re.search(r"^age='(\d+)'$", upstream.requests[1].json["command"], re.MULTILINE)
    assert found
    assert 500 <= int(found[1]) <= 100 * (anyio.current_time() - started + 65)
