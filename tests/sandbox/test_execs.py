"""`exec` and `exec/stream` over HTTP, byte by byte: `sse_bridge.sandbox.execs`."""

from __future__ import annotations

import socket
import time

import httpx
import pytest

from sse_bridge.sandbox import create_app
from sse_bridge.sandbox.capture import MAX_OUTPUT
from tests.sandbox.helpers import KEY, Box, eventually, frame, is_running, lines_of, pieces_of
from tests.support.servers import Served, serve

EXIT_0 = frame("exit", {"exit_code": 0})


def test_a_stream_is_the_lines_and_then_the_exit(box: Box) -> None:
    """The body is the platform's frames, byte for byte."""
    assert box.stream("echo hello; echo world") == (
        b'event: stdout\ndata: {"line":"hello"}\n\n'
        b'event: stdout\ndata: {"line":"world"}\n\n'
        b'event: exit\ndata: {"exit_code":0}\n\n'
    )


def test_stdout_and_stderr_are_told_apart(box: Box) -> None:
    """The event's name says which. The order of lines between the two is open."""
    stream = box.stream("echo out; echo err >&2; exit 3")

    assert frame("stdout", {"line": "out"}) in stream
    assert frame("stderr", {"line": "err"}) in stream
    assert stream.endswith(frame("exit", {"exit_code": 3}))


def test_an_unfinished_last_line_is_sent(box: Box) -> None:
    """A command may end without a final newline."""
    assert box.stream("printf 'a\\nb'") == b"".join([frame("stdout", {"line": each}) for each in "ab"]) + EXIT_0


def test_line_separators_of_unicode_travel_raw(box: Box) -> None:
    """U+2028, U+2029 and U+0085 stay inside a line. The SDK would lose the text after them, so bytes are compared."""
    box.write("odd.txt", "a\u2028b\u2029c\u0085d\x0ce\rf\n")

    assert box.stream("cat odd.txt") == frame("stdout", {"line": "a\u2028b\u2029c\u0085d\x0ce\rf"}) + EXIT_0


def test_a_character_may_straddle_two_reads(box: Box) -> None:
    """A character printed in two halves arrives whole."""
    command = r"printf '\xe2\x82'; sleep 0.1; printf '\xac\n'"

    assert box.stream(command) == frame("stdout", {"line": "€"}) + EXIT_0


def test_a_line_above_the_limit_arrives_in_pieces(box: Box) -> None:
    """The limit is 256 KiB, and every byte arrives."""
    pieces = pieces_of(box.stream("head -c 600000 /dev/zero | tr '\\0' x; echo"))

    assert "".join(pieces) == "x" * 600_000 + "\n"
    assert max(map(len, pieces)) == 262_144


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        ("printf 'Password: '", "echo secret", ["Password: ", "secret\n"]),
        ("printf '\\r 10%%'", "printf '\\r100%%\\n'", ["\r 10%", "\r100%\n"]),
        ("printf 'a\\n> '", "printf b", ["> ", "b"]),
        ("printf '\\xe2\\x82'; printf .", "echo", ["\ufffd.", "\n"]),
        ("printf 'x\\xe2\\x82'", "printf '\\xac\\n'", ["x", "€\n"]),
    ],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_text_without_a_newline_is_shown_while_the_command_waits(
    box: Box, stream: str, before: str, after: str, texts: list[str]
) -> None:
    """Output is held back until its line ends: prompts, progress bars, dots, half of a character's bytes."""
    to = ">&2" if stream == "stderr" else ""
    command = f"{{ {before}; while [ ! -e go ]; do sleep 0.01; done; {after}; }} {to}"
    with box.http.stream("POST", f"{box.path}/exec/stream", json={"command": command}) as response:
        parts = response.iter_raw()
        seen = b""
        while not pieces_of(seen, stream):
            seen += next(parts)
        assert pieces_of(seen, stream) == texts[:1]
        box.write("go", "")
        seen += b"".join(parts)

    assert pieces_of(seen, stream) == texts
    assert seen.endswith(EXIT_0)


def test_text_without_a_newline_is_shown_although_more_keeps_coming(box: Box) -> None:
    """Each dot comes sooner than the pause after which text is shown."""
    command = {"command": "while [ ! -e go ]; do printf .; sleep 0.02; done; echo"}
    with box.http.stream("POST", f"{box.path}/exec/stream", json=command) as response:
        parts = response.iter_raw()
        assert next(parts).startswith(b'event: stdout\ndata: {"data":".')
        box.write("go", "")
        seen = b"".join(parts)

    assert pieces_of(seen)[-1].endswith("\n")


def test_a_line_written_in_two_parts_is_one_frame(box: Box) -> None:
    """Python's `print` under `-u` writes the newline apart."""
    assert box.stream("python3 -uc 'print(1)'") == frame("stdout", {"line": "1"}) + EXIT_0


def test_the_response_starts_before_the_command_prints(box: Box) -> None:
    """The headers tell the client that the command runs, while it is still silent."""
    command = {"command": "while [ ! -e go ]; do sleep 0.01; done; echo went"}
    with box.http.stream("POST", f"{box.path}/exec/stream", json=command) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["x-request-id"]
        box.write("go", "")
        assert lines_of(response.read()) == ["went"]


def test_lines_arrive_while_the_command_runs(box: Box) -> None:
    """The first line arrives while the command waits for a file."""
    command = {"command": "echo first; while [ ! -e go ]; do sleep 0.01; done; echo second"}
    with box.http.stream("POST", f"{box.path}/exec/stream", json=command) as response:
        parts = response.iter_raw()
        assert next(parts) == frame("stdout", {"line": "first"})
        box.write("go", "")
        assert b"".join(parts) == frame("stdout", {"line": "second"}) + EXIT_0


def test_a_signal_is_an_exit_code_above_128(box: Box) -> None:
    """128 + N for signal N, as in a shell."""
    assert box.stream("kill -KILL $$") == frame("exit", {"exit_code": 137})
    assert box.exec("kill -TERM $$")["exit_code"] == 143


def test_a_timeout_ends_the_stream_and_the_command(box: Box) -> None:
    """The exit frame reports the timeout, and the shell's children are gone, too."""
    stream = box.stream("echo $$ > pid; echo begun; sleep 1000; true", timeout=1)

    assert stream == frame("stdout", {"line": "begun"}) + frame("exit", {"exit_code": -1, "timed_out": True})
    assert not is_running(box.pid("pid"))


def test_exec_answers_with_output_exit_code_and_duration(box: Box) -> None:
    """stdout and stderr are separate fields."""
    answer = box.exec("echo out; echo err >&2; exit 3")

    assert isinstance(answer.pop("duration_ms"), int)
    assert answer == {"stdout": "out\n", "stderr": "err\n", "exit_code": 3}


def test_exec_reports_a_timeout(box: Box) -> None:
    """The answer holds the output printed before it."""
    answer = box.exec("echo begun; sleep 1000", timeout=1)

    assert (answer["stdout"], answer["exit_code"], answer["timed_out"]) == ("begun\n", -1, True)


def test_exec_keeps_the_head_of_a_large_output(box: Box) -> None:
    """Memory is bounded, and the command runs to its end."""
    answer = box.exec(f"printf é; head -c {MAX_OUTPUT + 1} /dev/zero | tr '\\0' x; echo done > end")

    stdout = answer["stdout"]
    assert isinstance(stdout, str)
    assert len(stdout.encode()) == MAX_OUTPUT
    assert answer["truncated"] is True
    assert answer["exit_code"] == 0
    assert box.read("end") == b"done\n"


def test_commands_run_in_the_workspace(box: Box) -> None:
    """By default, under its virtual name, and in folders below it."""
    box.write("/workspace/sub/a.txt", "here\n")

    assert box.exec("cat sub/a.txt")["stdout"] == "here\n"
    assert box.exec("cat a.txt", cwd="/workspace/sub")["stdout"] == "here\n"
    assert box.exec("cat a.txt", cwd="sub")["stdout"] == "here\n"
    assert box.exec("cat sub/a.txt", cwd="/workspace")["stdout"] == "here\n"
    assert box.exec("cat '/workspace/sub/a.txt'")["stdout"] == "here\n"


def test_a_commands_environment_is_the_sandboxs_and_the_requests(http: httpx.Client) -> None:
    """The request's variables win. Of the server's own, a command gets PATH only."""
    box = Box(http, env={"A": "sandbox", "B": "sandbox"})

    answer = box.exec("echo $A $B $C; cd $D && pwd", env={"B": "request", "C": "x y", "D": "/workspace"})

    home = box.exec("echo $HOME")["stdout"]
    assert answer["stdout"] == f"sandbox request x y\n{home}"
    assert box.exec("env | grep -c PYTEST")["stdout"] == "0\n"
    box.destroy()


def test_stdin_is_empty(box: Box) -> None:
    """A command that reads it finds its end at once."""
    assert box.exec("cat; echo done", timeout=5)["stdout"] == "done\n"


def test_a_child_in_the_background_lives_on_until_destroy(box: Box) -> None:
    """The stream ends with the command itself; the child's further output is dropped."""
    begun = time.monotonic()
    stream = box.stream("(while :; do echo tick; sleep 0.01; done) & echo $! > pid; echo started")

    assert stream.endswith(EXIT_0)
    assert "started" in lines_of(stream)
    assert time.monotonic() - begun < 5
    pid = box.pid("pid")
    box.exec("sleep 0.2")  # long enough for the child to die of SIGPIPE
    assert is_running(pid)
    box.destroy()
    assert not is_running(pid)


def test_leaving_a_stream_does_not_kill_the_command(box: Box) -> None:
    """MIOSA makes no such promise. The command runs on as before, because its pipe is drained."""
    command = "echo $$ > pid; for i in $(seq 50); do head -c 100000 /dev/zero; done; echo done > end"
    with box.http.stream("POST", f"{box.path}/exec/stream", json={"command": command}) as response:
        next(response.iter_raw())

    eventually(lambda: box.read("end") == b"done\n")


def test_leaving_a_silent_stream_does_not_kill_the_command(box: Box) -> None:
    """The command runs on, and its timeout still holds."""
    command = {"command": "echo $$ > pid; sleep 1000", "timeout": 1}
    with box.http.stream("POST", f"{box.path}/exec/stream", json=command):
        pid = box.pid("pid")

    assert is_running(pid)
    eventually(lambda: not is_running(pid))


def test_a_client_that_does_not_read_holds_the_command_back(server: Served, box: Box) -> None:
    """`send` waits, so the pipe fills and the command waits. Once the client leaves, the command goes on."""
    body = b'{"command": "yes | head -c 40000000; echo done > end"}'
    head = f"POST /api/v1{box.path}/exec/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        client.recv(1000)
        # Long enough for all of it, if the client read. The kernel takes a few MB, of half a GB of frames.
        box.exec("yes | head -c 40000000; yes | head -c 40000000")
        assert box.read("end") is None

    eventually(lambda: box.read("end") == b"done\n")


def test_silence_is_filled_with_heartbeats() -> None:
    """They are comments between frames, one for each interval of silence."""
    with serve(create_app(key=KEY, heartbeat=0.05)) as served:
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=f"{served.url}/api/v1", headers=headers) as http:
            stream = Box(http).stream("echo a; sleep 0.3; echo b")

    beat = b": heartbeat\n\n"
    assert stream.count(beat) >= 2
    assert frame("stdout", {"line": "a"}) + beat in stream
    assert stream.replace(beat, b"") == b"".join(frame("stdout", {"line": each}) for each in "ab") + EXIT_0


@pytest.mark.parametrize("form", ["exec", "exec/stream"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "MISSING_PARAM"),
        ({"command": None}, 400, "MISSING_PARAM"),
        ({"command": ""}, 422, "VALIDATION_ERROR"),
        ({"command": " \n"}, 422, "VALIDATION_ERROR"),
        ({"command": ["ls"]}, 422, "VALIDATION_ERROR"),
        ({"command": "a\0b"}, 422, "VALIDATION_ERROR"),
        ({"command": "true", "env": ["A=1"]}, 422, "VALIDATION_ERROR"),
        ({"command": "true", "env": {"A": 1}}, 422, "VALIDATION_ERROR"),
        ({"command": "true", "env": {"": "1"}}, 422, "VALIDATION_ERROR"),
        ({"command": "true", "env": {"A=B": "1"}}, 422, "VALIDATION_ERROR"),
        ({"command": "true", "env": {"A": "\0"}}, 422, "VALIDATION_ERROR"),
        ({"command": "true", "timeout": 0}, 400, "INVALID_TIMEOUT"),
        ({"command": "true", "timeout": -1}, 400, "INVALID_TIMEOUT"),
        ({"command": "true", "timeout": 0.5}, 400, "INVALID_TIMEOUT"),
        ({"command": "true", "timeout": 1.0}, 400, "INVALID_TIMEOUT"),
        ({"command": "true", "timeout": 86_401}, 400, "INVALID_TIMEOUT"),
        ({"command": "true", "timeout": True}, 400, "INVALID_TIMEOUT"),
        ({"command": "true", "timeout": "5"}, 400, "INVALID_TIMEOUT"),
        ({"command": "true", "timeout": [5]}, 400, "INVALID_TIMEOUT"),
        ({"command": "true", "timeout": 10**400}, 400, "INVALID_TIMEOUT"),
        ({"command": "true", "wait": "yes"}, 422, "VALIDATION_ERROR"),
        ({"command": "true", "wait": True, "wait_timeout_ms": 0}, 422, "VALIDATION_ERROR"),
        ({"command": "true", "wait": True, "wait_timeout_ms": 1.5}, 422, "VALIDATION_ERROR"),
        ({"command": "true", "cwd": 7}, 422, "VALIDATION_ERROR"),
        ({"command": "true", "cwd": "missing"}, 422, "VALIDATION_ERROR"),
        ({"command": "true", "cwd": "/etc"}, 400, "INVALID_PATH"),
        ({"command": "x" * 200_000}, 422, "VALIDATION_ERROR"),
    ],
)
def test_a_wrong_request_is_refused_before_a_command_runs(
    shared_box: Box, form: str, body: dict[str, object], status: int, code: str
) -> None:
    """The status and the code say why."""
    response = shared_box.http.post(f"{shared_box.path}/{form}", json=body)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["ok"] is False


@pytest.mark.parametrize("timeout", [1, 86_400])
def test_the_limits_of_a_timeout_are_allowed(box: Box, timeout: int) -> None:
    """They are the platform's."""
    assert box.exec("echo ok", timeout=timeout)["stdout"] == "ok\n"


def test_null_means_absent(box: Box) -> None:
    """Some clients send every key they know, with `null` for the unused ones."""
    nothing = dict.fromkeys(("cwd", "env", "timeout", "wait", "wait_timeout_ms"))

    assert box.exec("echo ok", **nothing)["stdout"] == "ok\n"
