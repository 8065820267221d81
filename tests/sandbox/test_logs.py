"""A sandbox's log over HTTP: `sse_bridge.sandbox.logs`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
import pytest

from sse_bridge.sandbox import create_app
from tests.sandbox.helpers import KEY, Box, eventually
from tests.support.servers import serve


def start(box: Box, command: str) -> None:
    box.http.post(f"{box.path}/processes", json={"command": command}).raise_for_status()


def detach(box: Box, command: str) -> None:
    box.http.post(f"{box.path}/commands", json={"command": command, "detached": True}).raise_for_status()


def log(box: Box, **query: int) -> list[str]:
    lines: list[str] = box.http.get(f"{box.path}/logs", params=query).raise_for_status().json()["data"]["lines"]
    return lines


@contextlib.contextmanager
def following(box: Box) -> Iterator[Iterator[str]]:
    """The stream's events, as pairs of lines."""
    with box.http.stream("GET", f"{box.path}/logs/stream") as response:
        assert response.headers["content-type"] == "text/event-stream"
        yield (line for line in response.iter_lines() if line)


def test_the_log_is_what_runs_by_itself(box: Box) -> None:
    """Processes and detached commands, both streams, lines without their end included."""
    assert log(box) == []
    start(box, "echo process; echo oops >&2")
    eventually(lambda: sorted(log(box)) == ["oops", "process"])
    detach(box, "printf command")
    eventually(lambda: log(box)[2:] == ["command"])
    box.exec("echo exec")
    box.stream("echo stream")
    box.http.post(f"{box.path}/commands", json={"command": "echo waited for"}).raise_for_status()

    assert log(box)[2:] == ["command"]


@pytest.mark.parametrize(("query", "count"), [({}, 200), ({"lines": 3}, 3), ({"lines": 999}, 300)])
def test_the_log_is_the_last_lines(box: Box, query: dict[str, int], count: int) -> None:
    """200 unless the client says how many."""
    start(box, "seq 300")
    eventually(lambda: log(box, lines=1) == ["300"])

    assert log(box, **query) == [str(number) for number in range(301 - count, 301)]


@pytest.mark.parametrize("lines", ["0", "-1", "x", ""])
def test_a_wrong_number_of_lines_is_refused(shared_box: Box, lines: str) -> None:
    """It is a positive integer."""
    response = shared_box.http.get(f"{shared_box.path}/logs", params={"lines": lines})

    assert (response.status_code, response.json()["error"]["details"]) == (422, {"field": "lines"})


def test_the_stream_is_the_kept_log_and_then_the_live_one(http: httpx.Client) -> None:
    """It goes on from one process to the next, through a stop, and ends with the sandbox."""
    box = Box(http)
    start(box, "echo old")
    eventually(lambda: log(box) == ["old"])
    with following(box) as lines:
        assert [next(lines), next(lines)] == ["event: stdout", 'data: {"line":"old"}']
        detach(box, "echo new >&2")
        assert [next(lines), next(lines)] == ["event: stderr", 'data: {"line":"new"}']
        http.post(f"{box.path}/stop", json={}).raise_for_status()
        assert log(box) == ["old", "new"]
        http.post(f"{box.path}/resume", json={}).raise_for_status()
        start(box, "echo again")
        assert [next(lines), next(lines)] == ["event: stdout", 'data: {"line":"again"}']
        box.destroy()
        assert list(lines) == []


def test_a_destroyed_sandbox_has_no_log(http: httpx.Client) -> None:
    """It is refused as on all routes."""
    box = Box(http)
    box.destroy()
    for path in ("logs", "logs/stream"):
        refusal = http.get(f"{box.path}/{path}")
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (409, "SANDBOX_NOT_RUNNING")
        assert http.get(f"/sandboxes/sbx_unknown/{path}").status_code == 404


def test_a_silent_stream_sends_comments() -> None:
    """As `exec/stream` does."""
    with serve(create_app(key=KEY, heartbeat=0.02)) as served:
        headers = {"authorization": f"Bearer {KEY}"}
        with (
            httpx.Client(base_url=f"{served.url}/api/v1", headers=headers, timeout=20) as http,
            following(Box(http)) as lines,
        ):
            assert next(lines) == ": heartbeat"
