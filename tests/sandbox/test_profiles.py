"""The profiles of a sandbox over HTTP, byte by byte: `sse_bridge.sandbox.profiles` and what it is made of."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.types import Message

from sse_bridge.sandbox import PROFILES, Profile, create_app, runner
from sse_bridge.sandbox.faults import breaking
from sse_bridge.sandbox.profiles import Heartbeat
from tests.sandbox.helpers import KEY, Box, eventually, frame, is_running
from tests.support.servers import serve

RUNNING = b": running\n\n"
EXIT_0 = frame("exit", {"exit_code": 0})


@contextmanager
def serving(profile: Profile, **body: object) -> Iterator[Box]:
    """A sandbox on a server of its own that is made with a profile."""
    with serve(create_app(key=KEY, profile=profile)) as served:
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=f"{served.url}/api/v1", headers=headers, timeout=20) as http:
            yield Box(http, **body)


@pytest.fixture
def soma(http: httpx.Client) -> Iterator[Box]:
    box = Box(http, runtime_profile="soma")
    yield box
    box.destroy()


def refusal(response: httpx.Response) -> tuple[int, str, dict[str, Any]]:
    error: dict[str, Any] = response.json()["error"]
    return response.status_code, error["code"], error


# -- runners


def test_a_runner_sends_all_output_at_the_end(soma: Box) -> None:
    """In one event of each kind, behind a comment that comes at once."""
    assert soma.stream("echo one; echo oops >&2; printf two; exit 3") == (
        RUNNING
        + frame("stdout", {"text": "one\ntwo"})
        + frame("stderr", {"text": "oops\n"})
        + frame("exit", {"exit_code": 3})
    )
    nothing = frame("stdout", {"text": ""}) + frame("stderr", {"text": ""})
    assert soma.stream("kill -9 $$") == RUNNING + nothing + frame("exit", {"exit_code": 137})


def test_a_runner_sends_comments_until_the_end() -> None:
    """Every ten seconds; here faster."""
    heartbeat = PROFILES["soma"].heartbeat
    assert heartbeat.interval == 10
    with serving(replace(PROFILES["soma"], heartbeat=replace(heartbeat, interval=0.02))) as box:
        command = {"command": "while [ ! -e go ]; do sleep 0.01; done"}
        with box.http.stream("POST", f"{box.path}/exec/stream", json=command) as response:
            parts = response.iter_raw()
            seen = b""
            while seen.count(RUNNING) < 4:
                seen += next(parts)
            assert seen.replace(RUNNING, b"") == b""
            box.write("go", "")
            assert b"".join(parts).endswith(EXIT_0)


def test_a_runner_answers_exec_without_a_duration(soma: Box) -> None:
    """And ignores `env` without a word."""
    answer = soma.exec("echo out$NAME; echo err >&2; exit 3", env={"NAME": "no"})
    assert answer == {"stdout": "out\n", "stderr": "err\n", "exit_code": 3}


@pytest.mark.parametrize("route", ["exec", "exec/stream"])
@pytest.mark.parametrize(
    ("options", "status", "code", "details"),
    [
        ({"cwd": "/workspace"}, 400, "RUNNER_UNSUPPORTED_REQUEST", {"field": "cwd"}),
        (
            {"timeout": 3601},
            400,
            "EXEC_TIMEOUT_UNSUPPORTED",
            {"field": "timeout", "limit_ms": 3_600_000, "actual_ms": 3_601_000},
        ),
        (
            {"command": "true " + "€" * 1364},
            413,
            "RUNNER_COMMAND_TOO_LARGE",
            {"field": "argument", "limit": 4096, "actual": 4097},
        ),
        ({"timeout": 86_401}, 400, "INVALID_TIMEOUT", {"field": "timeout"}),
    ],
)
def test_a_runner_refuses_what_it_cannot_do(
    soma: Box, route: str, options: dict[str, object], status: int, code: str, details: dict[str, object]
) -> None:
    """Before it starts anything, and for good."""
    response = soma.http.post(f"{soma.path}/{route}", json={"command": "true", **options})

    assert refusal(response)[:2] == (status, code)
    assert (refusal(response)[2]["details"], refusal(response)[2]["retryable"]) == (details, False)


def test_a_runner_takes_what_is_within_its_limits(soma: Box) -> None:
    """A command of 4,096 bytes for an hour, and a `cwd` of null."""
    assert soma.exec("true " + "€" * 1363 + "  ", cwd=None, timeout=3600)["exit_code"] == 0


@pytest.mark.parametrize(
    ("command", "options", "status", "code"),
    [
        ("echo begun; sleep 1000", {"timeout": 1}, 504, "EXEC_TIMEOUT"),
        ("yes", {}, 413, "EXEC_OUTPUT_LIMIT"),
    ],
)
def test_a_runner_reports_a_failure_in_place_of_the_output(
    soma: Box, command: str, options: dict[str, object], status: int, code: str
) -> None:
    """An error, once the command is killed; the sandbox lives on."""
    pid = f"echo $$ > /workspace/pid; exec {command}" if command == "yes" else f"echo $$ > /workspace/pid; {command}"
    answered = refusal(soma.http.post(f"{soma.path}/exec", json={"command": pid, **options}))
    streamed = soma.stream(pid, **options).removeprefix(RUNNING)

    assert answered[:2] == (status, code)
    assert streamed.startswith(b"event: error\ndata: {")
    assert streamed.endswith(b"}\n\n")
    envelope = json.loads(streamed.partition(b"data: ")[2])
    for error in (answered[2], envelope["error"]):
        assert (error["code"], error["details"]) == (code, {"sandbox_alive": True})
        assert error["request_id"].startswith("req_")
    assert not is_running(soma.pid("pid"))
    assert soma.exec("echo alive")["stdout"] == "alive\n"


def test_a_runner_lets_a_command_print_as_much_as_the_limit(soma: Box) -> None:
    """Of both streams together."""
    half = runner.MAX_OUTPUT // 2
    answer = soma.exec(f"head -c {half} /dev/zero | tr '\\0' x; head -c {half} /dev/zero | tr '\\0' y >&2")

    assert (len(str(answer["stdout"])), len(str(answer["stderr"]))) == (half, half)


@pytest.mark.parametrize("route", ["exec", "exec/stream"])
def test_a_runner_runs_one_command_at_a_time(soma: Box, route: str) -> None:
    """It refuses a second one, and its destruction, until the first has ended."""
    command = {"command": "echo $$ > pid; while [ ! -e go ]; do sleep 0.01; done"}
    with ThreadPoolExecutor() as threads:
        first = threads.submit(soma.http.post, f"{soma.path}/{route}", json=command)
        soma.pid("pid")
        seconds = [soma.http.post(f"{soma.path}/{each}", json={"command": "true"}) for each in ("exec", "exec/stream")]
        destruction = soma.http.delete(soma.path)
        soma.write("go", "")
        assert first.result(20).status_code == 200

    for second in seconds:
        assert refusal(second)[:2] == (409, "SANDBOX_BUSY")
        assert (refusal(second)[2]["retryable"], "retry_after_ms" in refusal(second)[2]) == (True, False)
    assert refusal(destruction)[:2] == (409, "SANDBOX_BUSY")
    assert (refusal(destruction)[2]["retryable"], refusal(destruction)[2]["retry_after_ms"]) == (True, 200)
    assert soma.stream("true").endswith(EXIT_0)


@pytest.mark.parametrize("route", ["exec", "exec/stream"])
def test_the_turn_ends_with_the_command(soma: Box, route: str) -> None:
    """Rather than with its children in the background."""
    command = {"command": "sleep 1000 & echo $! > child"}
    assert soma.http.post(f"{soma.path}/{route}", json=command).status_code == 200
    assert is_running(soma.pid("child"))
    assert soma.exec("echo ok")["stdout"] == "ok\n"


@pytest.mark.parametrize("route", ["exec", "exec/stream"])
def test_the_turn_ends_with_a_refusal(http: httpx.Client, route: str) -> None:
    """Here of a sandbox that is still starting."""
    box = Box(http, runtime_profile="soma", metadata={"sse_bridge.ready_after": 1000})
    for _ in range(2):
        answer = box.http.post(f"{box.path}/{route}", json={"command": "true"})
        assert refusal(answer)[:2] == (409, "SANDBOX_NOT_COMMAND_READY")
    box.destroy()


def test_a_command_has_half_a_minute_on_a_runner() -> None:
    """Unless its request says another time."""
    assert runner.parse({"command": "true"}).timeout == 30
    assert runner.parse({"command": "true", "timeout": 31}).timeout == 31


def test_a_command_outlives_its_stream_on_a_runner(soma: Box) -> None:
    """And keeps the turn."""
    command = {"command": "echo $$ > pid; while [ ! -e go ]; do sleep 0.01; done; echo done > end"}
    with soma.http.stream("POST", f"{soma.path}/exec/stream", json=command) as response:
        assert next(response.iter_raw()) == RUNNING
        soma.pid("pid")
    assert refusal(soma.http.post(f"{soma.path}/exec", json={"command": "true"}))[1] == "SANDBOX_BUSY"
    soma.write("go", "")
    eventually(lambda: soma.read("end") == b"done\n")


def test_a_runner_shows_a_destroyed_sandbox(soma: Box) -> None:
    """Also when the destruction is repeated."""
    for _ in range(2):
        answer = soma.http.delete(soma.path)
        assert answer.status_code == 200
        facts = {"id": soma.id, "state": "destroyed", "operation_id": None, "total_runtime_sec": None}
        assert answer.json().items() >= facts.items()
    assert refusal(soma.http.post(f"{soma.path}/exec", json={"command": "true"}))[:2] == (409, "SANDBOX_NOT_RUNNING")


# -- other spellings

SCRIPT = "echo 'one two three'; printf four; exit 3"


@pytest.mark.parametrize(
    ("profile", "stream"),
    [
        (
            "pieces",
            b"".join(frame("stdout", {"data": each}) for each in ("one two", " three\n", "four"))
            + frame("exit", {"exit_code": 3}),
        ),
        (
            "legacy-unnamed",
            b'data: {"line":"one two three"}\n\ndata: {"line":"four"}\n\ndata: {"exit_code":3}\n\n',
        ),
        (
            "legacy-types",
            b'data: {"type":"stdout","data":"one two three\\nfour"}\n\ndata: {"type":"exit","exit_code":3}\n\n',
        ),
        ("legacy-keys", frame("stdout", {"output": "one two three\nfour"}) + frame("exit", {"exitCode": 3})),
        (
            "legacy-timeout",
            frame("stdout", {"line": "one two three"})
            + frame("stdout", {"line": "four"})
            + frame("exit", {"exit_code": 3}),
        ),
        ("no-exit", frame("stdout", {"line": "one two three"}) + frame("stdout", {"line": "four"})),
        (
            "failed-exit",
            frame("stdout", {"line": "one two three"})
            + frame("stdout", {"line": "four"})
            + frame(
                "exit",
                {
                    "exit_code": -2,
                    "error": {"code": "STREAM_FAILED", "message": "the stream failed", "retryable": True},
                },
            ),
        ),
    ],
)
def test_other_spellings(http: httpx.Client, profile: str, stream: bytes) -> None:
    """A file is printed in one go, so where it is cut is certain."""
    box = Box(http, runtime_profile=profile)
    box.write("out", "one two three\nfour")
    assert box.stream("cat out; exit 3") == stream
    box.destroy()


@pytest.mark.parametrize(
    ("profile", "last"),
    [
        ("legacy-unnamed", b'data: {"exit_code":-1,"timed_out":true}\n\n'),
        ("legacy-types", b'data: {"type":"exit","exit_code":-1,"timed_out":true}\n\n'),
        ("legacy-keys", frame("exit", {"exitCode": -1, "timed_out": True})),
        ("legacy-timeout", b"event: timeout\ndata: {}\n\n"),
    ],
)
def test_a_timeout_is_spelled_as_the_profile_does(http: httpx.Client, profile: str, last: bytes) -> None:
    """In the last frame."""
    box = Box(http, runtime_profile=profile)
    assert box.stream("sleep 1000", timeout=1) == last
    box.destroy()


def test_stderr_is_told_by_the_type_in_the_object(http: httpx.Client) -> None:
    """A character that straddles two reads arrives whole, and half of one at the end is replaced."""
    box = Box(http, runtime_profile="legacy-types")
    stream = box.stream(r"{ printf '\xe2\x82'; sleep 0.1; printf '\xac\xe2'; } >&2")
    assert (
        stream
        == (
            'data: {"type":"stderr","data":"€"}\n\ndata: {"type":"stderr","data":"\ufffd"}\n\n'
            'data: {"type":"exit","exit_code":0}\n\n'
        ).encode()
    )
    box.destroy()


def test_a_piece_may_end_in_the_middle_of_a_character(http: httpx.Client) -> None:
    """As in JavaScript's strings. JSON can write half of one, UTF-8 cannot."""
    box = Box(http, runtime_profile="pieces")
    box.write("out", "123456\N{GRINNING FACE}7")
    halves = b'event: stdout\ndata: {"data":"123456\\ud83d"}\n\nevent: stdout\ndata: {"data":"\\ude007"}\n\n'
    assert box.stream("cat out") == halves + EXIT_0
    box.destroy()


# -- faults


def test_a_late_start_refuses_commands_for_a_while() -> None:
    """The request's own number wins."""
    with serving(replace(PROFILES["late-start"], ready_after=1000)) as box:
        answer = box.http.post(f"{box.path}/exec/stream", json={"command": "true"})
        assert refusal(answer)[:2] == (409, "SANDBOX_NOT_COMMAND_READY")
        soon = Box(box.http, metadata={"sse_bridge.ready_after": 0.01})
        assert soon.exec("echo ok", wait=True)["stdout"] == "ok\n"
    assert PROFILES["late-start"].ready_after > 0


def test_slow_headers_come_after_the_command_has_started(http: httpx.Client) -> None:
    """By the delay at least."""
    box = Box(http, runtime_profile="slow-headers")
    begun = time.monotonic()
    with box.http.stream("POST", f"{box.path}/exec/stream", json={"command": "date +%s%N > started"}) as response:
        assert time.monotonic() - begun >= PROFILES["slow-headers"].header_delay
        assert response.read() == EXIT_0
    box.destroy()


def test_silence_has_no_comments() -> None:
    """Although the application is to send one every few milliseconds."""
    for profile, expected in ((PROFILES["standard"], True), (PROFILES["silent"], False)):
        with serve(create_app(key=KEY, heartbeat=0.01, profile=profile)) as served:
            headers = {"authorization": f"Bearer {KEY}"}
            with httpx.Client(base_url=f"{served.url}/api/v1", headers=headers, timeout=20) as http:
                assert (b": heartbeat" in Box(http).stream("sleep 0.3; echo x")) is expected


@pytest.mark.parametrize("profile", ["cut", "cut-inside"])
def test_a_cut_breaks_the_connection_and_leaves_the_command(http: httpx.Client, profile: str) -> None:
    """Behind two frames, or in the middle of the third. The platform promises no more."""
    box = Box(http, runtime_profile=profile)
    box.write("out", "one\ntwo\nthree\n")
    seen: list[bytes] = []
    command = {"command": "cat out; while [ ! -e go ]; do sleep 0.01; done; cat out; echo done > end"}
    stream = box.http.stream("POST", f"{box.path}/exec/stream", json=command)
    with stream as response, pytest.raises(httpx.RemoteProtocolError):
        seen.extend(response.iter_raw())
    box.write("go", "")

    third = frame("stdout", {"line": "three"}).removesuffix(b"\n\n")
    rest = third[: len(third) // 2] if profile == "cut-inside" else b""
    assert b"".join(seen) == frame("stdout", {"line": "one"}) + frame("stdout", {"line": "two"}) + rest
    eventually(lambda: box.read("end") == b"done\n")
    box.destroy()


def test_a_cut_takes_the_connection_of_its_own_request(http: httpx.Client) -> None:
    """Another stream of the same client, on another connection, goes on."""
    box, sound = Box(http, runtime_profile="cut"), Box(http)
    command = {"command": "while [ ! -e go ]; do sleep 0.01; done; echo went"}
    with http.stream("POST", f"{sound.path}/exec/stream", json=command) as response:
        with pytest.raises(httpx.RemoteProtocolError):
            box.stream("echo one; echo two; echo three")
        sound.write("go", "")
        assert response.read() == frame("stdout", {"line": "went"}) + EXIT_0
    box.destroy()
    sound.destroy()


@pytest.mark.anyio
async def test_a_connection_that_cannot_be_found_is_told() -> None:
    """Rather than a stream that stays whole, with which a test would prove nothing."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"client": ("203.0.113.1", 1), "server": ("127.0.0.1", 1)}
    with pytest.raises(RuntimeError, match="no connection"):
        await breaking(send, scope, 0, False)({"type": "http.response.body", "body": EXIT_0, "more_body": True})


# -- choosing


def test_a_server_has_a_profile_that_requests_may_replace() -> None:
    """`auto` leaves it to the server."""
    with serving(PROFILES["soma"]) as box:
        assert box.stream("true").startswith(RUNNING)
        assert Box(box.http, runtime_profile="auto").stream("true").startswith(RUNNING)
        assert Box(box.http, runtime_profile="standard").stream("true") == EXIT_0


@pytest.mark.parametrize("profile", ["unknown", 1, ""])
def test_an_unknown_profile_is_refused(http: httpx.Client, profile: object) -> None:
    """A test with a typo would prove nothing."""
    answer = http.post("/sandboxes", json={"runtime_profile": profile})
    assert refusal(answer)[:2] == (422, "VALIDATION_ERROR")


def test_the_defaults_of_a_profile_are_the_standard_one() -> None:
    """So a profile of one's own says only what is different."""
    assert Profile() == PROFILES["standard"]
    assert Heartbeat() == PROFILES["standard"].heartbeat
