"""Where the output of `run` and `follow` leads: a full disk, a reader that has left, nowhere, a closed terminal."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import anyio
import psutil
import pytest
from starlette.responses import Response

from sse_bridge import SSEBridge
from sse_bridge.cli.following import Following
from sse_bridge.cli.saying import End
from sse_bridge.client.options import settings
from sse_bridge.client.reading import Item
from sse_bridge.testing import Script
from tests.cli.conftest import PROGRAM, Background
from tests.client.scripted import RUN, run_of
from tests.support.sandboxes import LocalSandbox, new_mark, running
from tests.support.servers import serve
from tests.support.waiting import eventually

FULL = b"sse-bridge: the output cannot be written: No space left on device"


def in_a_shell(
    arguments: Iterable[str], redirections: str, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    line = f"{shlex.join([*PROGRAM, *arguments])} {redirections}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ([], "echo x"),
        pytest.param([], "seq 1 100000", marks=pytest.mark.slow),
        pytest.param(["--json"], "exit 7", marks=pytest.mark.slow),
    ],
)
def test_output_that_is_lost_is_no_success(
    options: list[str], command: str, sandbox: LocalSandbox, environment: dict[str, str]
) -> None:
    """Whatever the command's own exit code is."""
    done = in_a_shell(["run", *options, sandbox.id, command], ">/dev/full", environment)
    assert done.stderr.startswith(FULL)
    assert done.stderr.count(b"\n") == 1
    assert done.returncode == 125


def test_output_that_is_lost_ends_the_command(sandbox: LocalSandbox, environment: dict[str, str]) -> None:
    mark = new_mark()
    done = in_a_shell(["run", sandbox.id, f"echo x; sleep {mark}"], ">/dev/full", environment)
    assert done.stderr == FULL + b"; the command is gone (confirmed)\n"
    assert done.returncode == 125
    assert not running(mark)


@pytest.mark.slow
def test_stderr_that_is_lost_is_no_success_either(sandbox: LocalSandbox, environment: dict[str, str]) -> None:
    done = in_a_shell(["run", sandbox.id, "echo x >&2; exit 0"], "2>/dev/full", environment)
    assert done.returncode == 125


@pytest.mark.parametrize("options", [[], pytest.param(["--json"], marks=pytest.mark.slow)])
def test_what_is_followed_and_lost_is_no_success(options: list[str], environment: dict[str, str]) -> None:
    with serve(SSEBridge(None, lambda request: Script(["x"]))) as served:
        done = in_a_shell(["follow", *options, served.url], ">/dev/full", environment)
    assert done.stderr == FULL + b"\n"
    assert done.returncode == 125


@pytest.mark.slow
@pytest.mark.parametrize(("redirection", "out", "err"), [(">&-", b"", b"err\n"), ("2>&-", b"out\n", b"")])
def test_a_stream_that_is_closed_from_the_start_leads_nowhere(
    redirection: str, out: bytes, err: bytes, sandbox: LocalSandbox, environment: dict[str, str]
) -> None:
    done = in_a_shell(["run", sandbox.id, "echo out; echo err >&2; exit 3"], redirection, environment)
    assert (done.stdout, done.stderr, done.returncode) == (out, err, 3)


@pytest.mark.slow
def test_a_reader_of_stderr_may_leave(sandbox: LocalSandbox, environment: dict[str, str]) -> None:
    """stdout has a reader of its own, and gets all of it."""
    command = "for i in 1 2 3 4 5; do echo e$i >&2; echo o$i; sleep 0.1; done; exit 5"
    done = in_a_shell(["run", sandbox.id, command], "2> >(head -1 >&2)", environment)
    assert done.stdout == b"o1\no2\no3\no4\no5\n"
    assert done.returncode == 5


@pytest.mark.slow
def test_a_reader_of_both_that_leaves_ends_the_command(sandbox: LocalSandbox, environment: dict[str, str]) -> None:
    """Also if the command prints nothing on stdout."""
    mark = new_mark()
    done = in_a_shell(["run", sandbox.id, f"yes >&2; sleep {mark}"], "2>&1 | head -1", environment)
    assert (done.stdout, done.returncode) == (b"y\n", 141)
    eventually(lambda: not running(mark))


# -- a terminal that is closed


def test_a_terminal_that_is_closed_ends_the_command(sandbox: LocalSandbox, environment: dict[str, str]) -> None:
    mark = new_mark()
    window, tty = pty.openpty()
    program = [*PROGRAM, "run", sandbox.id, f"echo begun; sleep {mark}"]
    with open(window, "rb", buffering=0) as screen:
        leader = ["setsid", "--ctty", "--wait", *program]
        process = subprocess.Popen(leader, env=environment, stdin=tty, stdout=tty, stderr=tty)
        os.close(tty)
        assert b"begun" in screen.read(100)
    process.wait(20)  # the kernel has sent SIGHUP
    eventually(lambda: not running(mark))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGQUIT, 131)], ids=["HUP", "QUIT"])
def test_other_signals_that_end_programs(
    number: signal.Signals, status: int, background: Background, sandbox: LocalSandbox
) -> None:
    mark = new_mark()
    process = background("run", sandbox.id, f"echo begun; sleep {mark}")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.wait(20) == status
    assert not running(mark)


@pytest.mark.slow
def test_nohup(sandbox: LocalSandbox, environment: dict[str, str]) -> None:
    line = f"trap '' HUP; {shlex.join([*PROGRAM, 'run', sandbox.id, 'echo begun; sleep 2; exit 3'])}"
    with subprocess.Popen(["bash", "-c", line + "; exit $?"], env=environment, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        (program,) = psutil.Process(shell.pid).children()
        program.send_signal(signal.SIGHUP)
        assert shell.wait(20) == 3


# -- as much at once as came at once


def test_what_came_together_is_shown_together() -> None:
    """Each `show` takes a thread's time."""
    shown: list[list[Item]] = []

    class Screen:
        async def show(self, items: Iterable[Item]) -> None:
            shown.append(list(items))

        async def end(self, end: End) -> int:
            return end.status

    async def bridge(scope: Any, receive: Any, send: Any) -> None:
        body = b"".join(run_of(*map(str, range(1000)), code=3))
        headers = {"Content-Type": "text/event-stream", "SSE-Bridge-Run": RUN}
        await Response(body, headers=headers)(scope, receive, send)

    async def followed(url: str) -> int:
        return await Following(settings(url, {}), Screen(), cancels=False).run()  # type: ignore[arg-type]

    with serve(bridge, lifespan="off") as served:
        assert anyio.run(followed, served.url) == 3
    lines = [item.body["line"] for items in shown for item in items if item.kind == "stdout"]
    assert lines == [str(number) for number in range(1000)]
    assert len(shown) < 50
    assert json.loads(shown[-1][-1].event.data)["type"] == "exit"
