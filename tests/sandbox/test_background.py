"""Processes over HTTP: `sse_bridge.sandbox.background`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import httpx
import pytest

from sse_bridge.sandbox import create_app
from tests.sandbox.helpers import KEY, Box, eventually, frame, is_running, lines_of
from tests.support.servers import serve

FOREVER = "echo begun; sleep 1000"


def start(box: Box, command: str, **options: object) -> dict[str, object]:
    """The answer to a start."""
    response = box.http.post(f"{box.path}/processes", json={"command": command, **options})
    assert response.status_code == 201
    data: dict[str, object] = response.json()["data"]
    return data


def look(box: Box, pid: object) -> dict[str, object]:
    data: dict[str, object] = box.data(f"processes/{pid}")
    return data


def logs(box: Box, pid: object, **query: int) -> str:
    text: str = box.data(f"processes/{pid}/logs", **query)
    return text


def stream(box: Box, pid: object) -> bytes:
    return box.http.get(f"{box.path}/processes/{pid}/stream").raise_for_status().content


@contextlib.contextmanager
def following(box: Box, pid: object) -> Iterator[Iterator[str]]:
    with box.http.stream("GET", f"{box.path}/processes/{pid}/stream") as response:
        assert response.headers["content-type"] == "text/event-stream"
        yield (line for line in response.iter_lines() if line.startswith("data: "))


def until_ended(box: Box, pid: object) -> dict[str, object]:
    eventually(lambda: look(box, pid)["status"] != "running")
    return look(box, pid)


def test_a_process_runs_on_after_its_request(box: Box) -> None:
    """It has a number, which is that of its process group."""
    started = start(box, "echo $$ > me; sleep 1000", name="dev")
    pid = started["pid"]

    assert isinstance(pid, int)
    assert started == {**look(box, pid), "status": "running", "exit_code": None}
    assert (started["name"], started["command"]) == ("dev", "echo $$ > me; sleep 1000")
    assert box.pid("me") == pid
    assert is_running(pid)


def test_its_end_can_be_read(box: Box) -> None:
    """With the exit code, and in the list."""
    pid = start(box, "echo out; echo err >&2; exit 3", env={"A": "1"}, cwd="/workspace")["pid"]

    ended = until_ended(box, pid)

    assert (ended["status"], ended["exit_code"], ended["timed_out"]) == ("exited", 3, False)
    assert ended in box.http.get(f"{box.path}/processes").json()["data"]
    assert sorted(logs(box, pid).splitlines()) == ["err", "out"]


def test_a_timeout_ends_it(box: Box) -> None:
    """Without one it runs until it is stopped."""
    pid = start(box, FOREVER, timeout=1)["pid"]

    assert stream(box, pid) == frame("stdout", {"line": "begun"}) + frame("exit", {"exit_code": -1, "timed_out": True})
    assert (look(box, pid)["exit_code"], look(box, pid)["timed_out"]) == (-1, True)


def test_a_stream_is_the_kept_output_and_then_the_live_one(box: Box) -> None:
    """Its frames are those of `exec/stream`, with the exit at the end."""
    pid = start(box, "echo old; while [ ! -e go ]; do sleep 0.01; done; echo new; exit 4")["pid"]
    eventually(lambda: logs(box, pid) == "old\n")
    with following(box, pid) as lines:
        assert next(lines) == 'data: {"line":"old"}'
        box.write("go", "")
        assert list(lines) == ['data: {"line":"new"}', 'data: {"exit_code":4}']

    assert stream(box, pid) == (
        frame("stdout", {"line": "old"}) + frame("stdout", {"line": "new"}) + frame("exit", {"exit_code": 4})
    )


def test_closing_a_stream_leaves_it_running(box: Box) -> None:
    """And another reader may follow."""
    pid = start(box, "echo begun; while [ ! -e go ]; do sleep 0.01; done; echo done")["pid"]
    with following(box, pid) as lines:
        next(lines)
    box.write("go", "")

    assert lines_of(stream(box, pid).rpartition(b"event: exit")[0]) == ["begun", "done"]


def test_a_reader_that_does_not_read_holds_nothing_back(box: Box) -> None:
    """The process prints on, and what is kept of it is bounded."""
    pid = start(box, "while [ ! -e go ]; do sleep 0.01; done; seq 1000000; echo end")["pid"]
    with following(box, pid):
        box.write("go", "")
        assert until_ended(box, pid)["exit_code"] == 0

    assert logs(box, pid, tail=2) == "1000000\nend\n"
    assert 900_000 < len(logs(box, pid, tail=999_999)) <= 1024 * 1024
    assert stream(box, pid).endswith(frame("stdout", {"line": "end"}) + frame("exit", {"exit_code": 0}))


@pytest.mark.parametrize(("query", "lines"), [({}, 200), ({"tail": 3}, 3), ({"tail": 999}, 300)])
def test_a_log_is_the_last_lines(box: Box, query: dict[str, int], lines: int) -> None:
    """200 unless the client says how many."""
    pid = start(box, "seq 300")["pid"]
    until_ended(box, pid)

    assert logs(box, pid, **query).split() == [str(number) for number in range(301 - lines, 301)]


def test_a_stop_ends_the_whole_group(box: Box) -> None:
    """204 once it has ended, and 204 again when it is repeated."""
    pid = start(box, "sleep 1000 & echo $! > child; wait")["pid"]
    child = box.pid("child")
    for _ in range(2):
        assert box.http.delete(f"{box.path}/processes/{pid}").status_code == 204
        assert (look(box, pid)["status"], look(box, pid)["exit_code"]) == ("exited", 143)
    assert not is_running(child)


def test_a_stop_lets_it_clean_up(box: Box) -> None:
    """SIGTERM comes first."""
    pid = start(box, "trap 'echo cleaned; exit 7' TERM; echo begun; while :; do sleep 0.01; done")["pid"]
    eventually(lambda: logs(box, pid) == "begun\n")

    assert box.http.delete(f"{box.path}/processes/{pid}").status_code == 204
    assert stream(box, pid).endswith(frame("stdout", {"line": "cleaned"}) + frame("exit", {"exit_code": 7}))


def test_a_stop_kills_what_ignores_it_after_five_seconds(box: Box) -> None:
    """As MIOSA's Go and Elixir SDKs say."""
    pid = start(box, "trap '' TERM; echo begun; while :; do sleep 0.01; done")["pid"]
    eventually(lambda: logs(box, pid) == "begun\n")
    begun = time.monotonic()

    assert box.http.delete(f"{box.path}/processes/{pid}").status_code == 204
    assert time.monotonic() - begun >= 5
    assert look(box, pid)["exit_code"] == 137


def test_it_ends_with_its_sandbox(http: httpx.Client) -> None:
    """Its stream ends with an exit, and its routes refuse as all do."""
    box = Box(http)
    pid = start(box, FOREVER)["pid"]
    with following(box, pid) as lines:
        next(lines)
        box.destroy()
        assert list(lines) == ['data: {"exit_code":137}']
    own = f"processes/{pid}"
    box.assert_refused(
        ("GET", "processes"),
        ("POST", "processes"),
        ("GET", own),
        ("GET", f"{own}/logs"),
        ("DELETE", own),
    )


def test_it_ends_with_the_server() -> None:
    """Although no request waits for it."""
    with serve(create_app(key=KEY)) as served:
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=f"{served.url}/api/v1", headers=headers, timeout=20) as http:
            pid = start(Box(http), FOREVER)["pid"]
    assert isinstance(pid, int)
    eventually(lambda: not is_running(pid))


@pytest.mark.parametrize("pid", ["0", "999999999", "abc", "-1", "cmd_1"])
def test_an_unknown_one_is_not_found(shared_box: Box, pid: str) -> None:
    """On every route."""
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("GET", "/stream")):
        refusal = shared_box.http.request(method, f"{shared_box.path}/processes/{pid}{path}")
        assert (refusal.status_code, refusal.json()["error"]["message"]) == (404, "process not found")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"command": ""}, 422),
        ({"command": "true", "name": 1}, 422),
        ({"command": "true", "env": []}, 422),
        ({"command": "true", "timeout": 0}, 400),
        ({"command": "true", "cwd": "/etc"}, 400),
        ({"command": "true", "cwd": "missing"}, 422),
    ],
)
def test_a_wrong_start_is_refused(shared_box: Box, body: dict[str, object], status: int) -> None:
    """And starts nothing."""
    assert shared_box.http.post(f"{shared_box.path}/processes", json=body).status_code == status
    assert shared_box.http.get(f"{shared_box.path}/processes").json()["data"] == []


@pytest.mark.parametrize("tail", ["0", "-1", "x", "", "1.5", "9999999999"])
def test_a_wrong_tail_is_refused(box: Box, tail: str) -> None:
    """It is a positive number of lines."""
    pid = start(box, "true")["pid"]

    assert box.http.get(f"{box.path}/processes/{pid}/logs", params={"tail": tail}).status_code == 422


def test_the_oldest_that_ended_are_forgotten(box: Box) -> None:
    """A hundred are known, beside those that run."""
    running = start(box, FOREVER)["pid"]
    first = start(box, "true")["pid"]
    until_ended(box, first)
    for _ in range(101):
        until_ended(box, start(box, "true")["pid"])

    known = [each["pid"] for each in box.http.get(f"{box.path}/processes").json()["data"]]

    assert running in known
    assert first not in known
    assert len(known) <= 102


def test_a_silent_stream_sends_comments() -> None:
    """As `exec/stream` does."""
    with serve(create_app(key=KEY, heartbeat=0.02)) as served:
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=f"{served.url}/api/v1", headers=headers, timeout=20) as http:
            box = Box(http)
            pid = start(box, "sleep 1000")["pid"]
            with http.stream("GET", f"{box.path}/processes/{pid}/stream") as response:
                assert next(line for line in response.iter_lines() if line) == ": heartbeat"
