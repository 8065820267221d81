"""`sse-bridge follow`: a run of any bridge, by its URL."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from sse_bridge import SSEBridge, UpstreamLost
from sse_bridge.testing import Script
from tests.cli.conftest import Piped, Terminal
from tests.client.scripted import RUN, event, run_of
from tests.support.cutting_proxy import cutting_proxy
from tests.support.servers import serve
from tests.support.waiting import eventually


def bridge_of(script: Script, **options: object) -> SSEBridge:
    async def resolve(request: Request) -> Script:
        return script

    return SSEBridge(None, resolve, **options)  # type: ignore[arg-type]


def test_a_run_is_followed_to_its_exit_through_cuts(piped: Piped) -> None:
    script = Script([f"line {number}" for number in range(500)] + [("stderr", "oh")], exit=3)
    with serve(bridge_of(script, retry_ms=10)) as served, cutting_proxy(served.port, cuts=3, most=5000) as (url, _):
        done = piped("follow", url)
    assert done.stdout.decode().splitlines() == [f"line {number}" for number in range(500)]
    assert (done.stderr, done.returncode, script.starts) == (b"oh\n", 3, 1)


def test_a_command_whose_time_was_up_is_124(piped: Piped) -> None:
    async def bridge(scope: Any, receive: Any, send: Any) -> None:
        headers = {"Content-Type": "text/event-stream", "SSE-Bridge-Run": RUN}
        end = event(2, "exit", code=-1, timed_out=True)
        await Response(run_of("a")[0] + event(1, "stdout", line="a") + end, headers=headers)(scope, receive, send)

    with serve(bridge, lifespan="off") as served:
        done = piped("follow", served.url)
    assert (done.stdout, done.returncode) == (b"a\n", 124)
    assert done.stderr == b"sse-bridge: the platform ended the command because its time was up\n"


@pytest.mark.slow
def test_json(piped: Piped) -> None:
    with serve(bridge_of(Script(["a"]))) as served:
        done = piped("follow", "--json", served.url)
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["start", "stdout", "exit"]


@pytest.mark.slow
def test_an_end_without_an_exit_code_is_125(piped: Piped) -> None:
    with serve(bridge_of(Script(["a"], error=UpstreamLost("It broke off.")))) as served:
        done = piped("follow", served.url)
    assert (done.stdout, done.returncode) == (b"a\n", 125)
    assert done.stderr == b"sse-bridge: It broke off. (upstream_lost)\n"


@pytest.mark.slow
@pytest.mark.parametrize("ends", [False, True])
def test_ctrl_c_leaves_the_run(ends: bool, terminal: Terminal) -> None:
    script = Script(["a"], waits=True)
    with serve(bridge_of(script, grace=None)) as served:
        child = terminal("follow", served.url, *(["--cancel-on-exit"] if ends else []))
        child.expect_exact("a\r\n")
        child.sendintr()
        child.expect_exact("the command is gone (confirmed)" if ends else "left the run")
        child.wait()
        assert child.exitstatus == 130
        if ends:
            eventually(lambda: script.stops == 1)
        assert script.stops == int(ends)
