"""Every way in which `run` and `follow` end: the exit code, the last line of `--json`, and what people read."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from sse_bridge import Lines, SSEBridge, UpstreamLost
from sse_bridge.cli import main
from sse_bridge.testing import Script
from tests.cli.conftest import Background, Piped, own_sandbox
from tests.support.programs import free_port
from tests.support.sandboxes import KEY, LocalSandbox, new_mark, running
from tests.support.servers import serve
from tests.support.waiting import eventually

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
RUN = "Zk3vQ0x9bTnWf2Rq"


def last(stdout: bytes) -> Any:
    """The last line as JSON. All others have to be JSON, too."""
    return [json.loads(line) for line in stdout.splitlines()][-1]


def read_until(process: subprocess.Popen[bytes], word: bytes) -> bytes:
    assert process.stdout is not None
    read = b""
    while word not in read:
        line = process.stdout.readline()
        assert line, read
        read += line
    return read


def is_filled(pipe: IO[bytes]) -> bool:
    """Whether a pipe that is not read is filled by half. Its pages need not be full where a writer has to wait."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return bool(waiting > fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) // 2)


# -- run


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A platform that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        yield listener


def asked(silent: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket:
    """The connection on which it has asked for the start of its command."""
    connection, _ = silent.accept()
    connection.settimeout(30)
    request = b""
    while b"/exec/stream" not in request:
        request += connection.recv(65536)
    return connection


@pytest.mark.parametrize(
    ("number", "status"), [SIGNALS[0], pytest.param(*SIGNALS[1], marks=pytest.mark.slow)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_before_the_platforms_first_answer(
    number: signal.Signals, status: int, silent: socket.socket, background: Background
) -> None:
    """It leaves within a second or so, instead of the five that ending a command may take."""
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    process = background("run", "--json", "sbx_1", "true", MIOSA_BASE_URL=url)
    with asked(silent, process):
        process.send_signal(number)
        out, err = process.communicate(timeout=4)
    assert process.returncode == status
    assert b"the platform does not answer; the command may be running" in err
    assert b"Traceback" not in err
    assert (last(out)["code"], last(out)["cancelled"]) == ("cancelled", "requested")


@pytest.mark.slow
def test_a_signal_while_a_sandbox_gets_ready(silent: socket.socket, background: Background) -> None:
    """The platform has refused so far, so there is no command."""
    busy = b"HTTP/1.1 429 Busy\r\nRetry-After: 10\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    process = background("run", "--json", "sbx_1", "true", MIOSA_BASE_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
    with asked(silent, process) as connection:
        connection.sendall(busy)
        while connection.recv(65536):  # it closes the connection once it has the answer
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"the command was not started" in err
    assert last(out) == {"type": "error", "code": "cancelled", "message": "the command was not started"}
    silent.settimeout(0)
    with pytest.raises(BlockingIOError):
        silent.accept()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), SIGNALS, ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_command_and_says_whether_it_is_gone(
    number: signal.Signals, status: int, background: Background, sandbox: LocalSandbox
) -> None:
    mark = new_mark()
    process = background("run", "--json", sandbox.id, f"echo begun; sleep {mark}")
    read_until(process, b"begun")
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert b"the command is gone (confirmed)" in err
    assert (last(out)["code"], last(out)["cancelled"]) == ("cancelled", "confirmed")
    assert out.count(b'"error"') == 1
    assert not running(mark)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_signal_is_heeded_while_the_reader_has_paused_the_pipe(
    options: list[str], background: Background, sandbox: LocalSandbox
) -> None:
    mark = new_mark()
    process = background("run", *options, sandbox.id, f"echo begun; sh -c 'yes; sleep {mark}'")
    read_until(process, b"begun")
    out = process.stdout
    assert out is not None
    eventually(lambda: is_filled(out))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    eventually(lambda: not running(mark))


@pytest.mark.slow
def test_a_second_signal_leaves_with_a_last_line(background: Background) -> None:
    with own_sandbox() as (server, box, platform):
        process = background("run", "--json", box, "echo begun; sleep 30", **platform)
        read_until(process, b"begun")
        server.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert b"ending the command" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=4)
    assert (process.returncode, last(out)["code"]) == (143, "left")
    assert b"may still be running" in err


@pytest.mark.slow
def test_a_platform_that_vanishes(background: Background) -> None:
    with own_sandbox() as (server, box, platform):
        mark = new_mark()
        process = background("run", "--json", box, f"echo begun; sleep {mark}", **platform)
        read_until(process, b"begun")
        server.kill()
        out, err = process.communicate(timeout=30)
    for left in running(mark):
        left.kill()
    assert process.returncode == 125
    assert b"the command may still be running" in err
    assert (last(out)["code"], last(out)["cancelled"]) == ("upstream_lost", "requested")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({"MIOSA_API_KEY": "msk_wrong"}, "upstream_unauthorized", "Check MIOSA_API_KEY."),
        ({"MIOSA_API_KEY": ""}, "configuration", "Set MIOSA_API_KEY"),
        (
            {"MIOSA_BASE_URL": "http://127.0.0.1:1"},
            "upstream_unreachable",
            "127.0.0.1:1 cannot be reached. (upstream_unreachable) Is MIOSA_BASE_URL set",
        ),
        ({}, "not_found", "Is that the id of a sandbox of yours?"),
    ],
)
def test_a_command_that_is_not_started(variables: dict[str, str], code: str, said: str, piped: Piped) -> None:
    done = piped("run", "--json", "sbx_none", "true", **variables)
    assert done.returncode == 125
    assert last(done.stdout)["type"] == "error"
    assert last(done.stdout)["code"] == code
    assert said in done.stderr.decode()


@pytest.mark.slow
def test_a_refusal_in_the_platforms_own_words(piped: Piped, sandbox: LocalSandbox) -> None:
    done = piped("run", "--json", "--cwd", "/elsewhere", sandbox.id, "true")
    words = "The platform refused the command: INVALID_PATH: path must be inside /workspace"
    assert (done.returncode, last(done.stdout)["message"]) == (125, words)
    assert re.fullmatch(rf"sse-bridge: {words} \(upstream_rejected, req_\w+\)\n", done.stderr.decode())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (200, "The platform sent no event stream"),
        (400, "The platform refused the command"),
        (500, "The platform failed"),
    ],
)
def test_a_refusal_that_quotes_the_request(status: int, words: str, piped: Piped) -> None:
    async def platform(scope: Scope, receive: Receive, send: Send) -> None:
        shown = dict(scope["headers"]).get(b"authorization", b"").decode()
        body = {"error": {"code": "NO_GOOD", "message": f"no good: {shown} may not"}}
        await JSONResponse(body, status_code=status)(scope, receive, send)

    with serve(platform, lifespan="off") as served:
        done = piped("run", "--json", "sbx_1", "true", MIOSA_BASE_URL=served.url)
    assert last(done.stdout)["message"] == f"{words}: NO_GOOD: no good: ... ... may not"
    assert KEY not in done.stderr.decode()


@pytest.mark.slow
def test_a_command_that_a_signal_ended_has_an_exit(piped: Piped, sandbox: LocalSandbox) -> None:
    done = piped("run", "--json", sandbox.id, "kill -9 $$")
    assert done.returncode == 137
    assert last(done.stdout)["type"] == "exit"
    assert [line for line in done.stdout.splitlines() if b"exit" in line] == done.stdout.splitlines()[-1:]


# -- follow


def bridge_of(source: Script | Lines, **options: Any) -> SSEBridge:
    async def resolve(request: Request) -> Script | Lines:
        return source

    return SSEBridge(None, resolve, **options)


@pytest.mark.slow
def test_an_error_of_the_run(piped: Piped) -> None:
    with serve(bridge_of(Script(["a"], error=UpstreamLost("It broke off.")))) as served:
        done = piped("follow", "--json", served.url)
    assert done.returncode == 125
    assert last(done.stdout) == {"type": "error", "code": "upstream_lost", "message": "It broke off."}
    assert done.stderr == b"sse-bridge: It broke off. (upstream_lost)\n"


@pytest.mark.slow
def test_a_stream_without_a_command_ends(piped: Piped) -> None:
    with serve(bridge_of(Script(["a"], exit=None))) as served:
        done = piped("follow", "--json", served.url)
    assert (done.returncode, last(done.stdout), done.stderr) == (0, {"type": "end"}, b"")


@pytest.mark.slow
@pytest.mark.parametrize("accepts", [False, True])
def test_a_gap(accepts: bool, piped: Piped) -> None:
    """It is refused, unless the user accepts it."""
    events = [{"type": "start", "run": RUN}, {"type": "gap", "dropped": 8, "bytes": 99}, {"type": "exit", "code": 3}]
    frames = [f"id: {RUN}.{n}\ndata: {json.dumps(body)}\n\n" for n, body in zip((0, 8, 9), events, strict=True)]

    async def with_a_gap(scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Content-Type": "text/event-stream", "SSE-Bridge-Run": RUN}
        await Response("".join(frames), 200, headers)(scope, receive, send)

    with serve(with_a_gap) as served:
        done = piped("follow", "--json", *(["--accept-gaps"] if accepts else []), served.url + "/")
    if accepts:
        assert (done.returncode, last(done.stdout)) == (3, {"type": "exit", "code": 3})
    else:
        assert (done.returncode, last(done.stdout)["code"], last(done.stdout)["dropped"]) == (125, "gap", 8)
        assert b"8 events are missing." in done.stderr


@pytest.mark.slow
def test_a_server_that_is_not_there(piped: Piped) -> None:
    done = piped("follow", "--json", "--give-up-after", "1", f"http://127.0.0.1:{free_port()}/")
    assert (done.returncode, last(done.stdout)["code"]) == (125, "gave_up")
    assert done.stderr == b"sse-bridge: The server could not be reached for 1 seconds. (gave_up)\n"


@pytest.mark.slow
def test_a_server_that_vanishes_amid_a_run(background: Background) -> None:
    with serve(bridge_of(Script(["a"], waits=True), grace=None, retry_ms=10)) as served:
        process = background("follow", "--json", "--give-up-after", "1", served.url)
        read_until(process, b'"a"')
        served.server.force_exit = served.server.should_exit = True
        out, err = process.communicate(timeout=30)
    assert process.returncode == 125
    assert last(out)["type"] == "error"
    assert last(out)["code"] in ("gave_up", "server_stopped", "run_unknown")
    assert err.startswith(b"sse-bridge: ")


@pytest.mark.slow
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize(("number", "status"), SIGNALS, ids=["SIGINT", "SIGTERM"])
def test_a_signal_leaves_the_run_or_ends_its_command(
    ends: bool, number: signal.Signals, status: int, background: Background
) -> None:
    script = Script(["a"], waits=True)
    with serve(bridge_of(script, grace=None)) as served:
        process = background("follow", "--json", *(["--cancel-on-exit"] if ends else []), served.url)
        read_until(process, b'"a"')
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert script.stops == int(ends)
    assert process.returncode == status
    assert last(out)["code"] == ("cancelled" if ends else "left")
    assert last(out).get("cancelled") == ("confirmed" if ends else None)
    assert (b"the command is gone (confirmed)" if ends else b"it goes on while it has viewers") in err


@pytest.mark.slow
def test_a_bridge_that_does_not_answer(silent: socket.socket, background: Background) -> None:
    """The user learns early that it is waited for, and may leave."""
    host = f"127.0.0.1:{silent.getsockname()[1]}"
    process = background("follow", "--json", f"http://{host}/")
    assert process.stderr is not None
    said = f"sse-bridge: nothing has come from {host} yet; still trying\n"
    assert process.stderr.readline().decode() == said
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=4)
    assert (process.returncode, last(out)["code"]) == (130, "left")
    assert b"a command may be running" in err


@pytest.mark.slow
def test_a_bridge_that_answers_with_an_error(background: Background) -> None:
    """The user learns of it with the first retry, and reads it once."""
    asked = []

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await Response(status_code=500)(scope, receive, send)

    with serve(broken, lifespan="off") as served:
        process = background("follow", served.url)
        eventually(lambda: len(asked) >= 3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=4)
    assert err.decode().count("sse-bridge: The server answered 500 Internal Server Error. Trying again.\n") == 1


# -- what is said before anything runs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", " ", "true"], "the id of the sandbox is blank"),
        (["run", "--cwd", "relative", "sbx_1", "true"], "not an absolute path"),
        (["run", "--env", "=1", "sbx_1", "true"], "not a variable"),
        (["run", "--timeout", "0", "sbx_1", "true"], "--timeout"),
        (["run", "sbx_1", ""], "the command is blank"),
        (["run", "sbx_1", "--"], "the command is blank"),
        (["run", "--json", "sbx_1", "--", " \t"], "the command is blank"),
        (["serve", "sbx_1", ""], "the command is blank"),
        (["run", "sbx_1", "--cwd", "/workspace", "--", "true"], "`--cwd` is an option of sse-bridge"),
        (["run", "sbx_1", "--timeout=5", "true"], "`--timeout` is an option of sse-bridge"),
        (["run", "sbx_1", "-e", "A=1", "--", "true"], "`-e` is an option of sse-bridge"),
        (["serve", "sbx_1", "--port", "1", "--", "true"], "`--port` is an option of sse-bridge"),
        (["follow", "nonsense"], "not a URL"),
        (["follow", "http://localhost/", "--header", "nonsense"], "not a header"),
        (["follow", "http://localhost/", "--header", "a b: c"], "not a header"),
        (["doctor", "nonsense"], "not a URL"),
        (["serve", "--port", "99999", "sbx_1", "true"], "not a port"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["command", "true"], ["--", "true", "--cwd"], ["true", "--env"], ["-x"]])
def test_words_of_a_command_that_are_no_options_of_ours(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They pass, and what is missing is the key. The kind of fault: `command` is the name of an argument of ours."""
    monkeypatch.setenv("MIOSA_API_KEY", "")
    monkeypatch.delenv("MIOSA_ACCESS_TOKEN", raising=False)
    assert main(["run", "sbx_1", *words]) == 125
    assert "There is no API key." in capsys.readouterr().err


def test_a_port_that_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["sandbox", "--port", str(port)]) == 1
    said = f"sse-bridge: cannot listen on 127.0.0.1, port {port}: Address already in use. --port 0 picks a free one\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("command", ["run", "follow"])
def test_the_exit_codes_are_in_the_help_and_the_documentation(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    for code in ("0", "124", "125", "130", "143", "129", "131", "141", *(["137"] if command == "run" else [])):
        assert re.search(rf"\b{code}\b", shown)
        assert re.search(rf"\b{code}\b", page)
