"""Pausing, stopping, resuming and extending over HTTP: `sse_bridge.sandbox.resting`."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import anyio
import httpx
import psutil
import pytest

from sse_bridge.sandbox.errors import ApiError
from sse_bridge.sandbox.state import READY_AFTER, Sandboxes
from tests.sandbox.helpers import Box, eventually, frame, is_running

TICKS = "echo $$ > me; while :; do echo tick >> ticks; sleep 0.01; done"


def change(box: Box, to: str, **body: object) -> dict[str, Any]:
    data: dict[str, Any] = box.http.post(f"{box.path}/{to}", json=body).raise_for_status().json()["data"]
    return data


def refused(box: Box, to: str, **body: object) -> tuple[int, str, bool]:
    response = box.http.post(f"{box.path}/{to}", json=body)
    error = response.json()["error"]
    return response.status_code, error["code"], error["retryable"]


def state_of(box: Box) -> tuple[str, bool]:
    data = box.http.get(box.path).raise_for_status().json()["data"]
    assert data["status"] == data["state"]
    return data["state"], data["ready"]


def is_frozen(pid: int) -> bool:
    """Whether the process is suspended. A shell in `vfork` waits for a child, which is suspended then."""
    process = psutil.Process(pid)
    in_vfork = process.status() == psutil.STATUS_DISK_SLEEP
    with suppress(psutil.NoSuchProcess):  # the child has ended meanwhile
        return any(it.status() == psutil.STATUS_STOPPED for it in (process.children() if in_vfork else [process]))
    return False


def test_a_pause_freezes_every_process(box: Box) -> None:
    """Those that left their session, too. A resume lets them go on where they were."""
    command = f"setsid sh -c 'echo $$ > daemon; sleep 1000' > /dev/null 2>&1 & {TICKS}"
    started = box.http.post(f"{box.path}/processes", json={"command": command})
    pids = [started.json()["data"]["pid"], box.pid("daemon")]

    assert change(box, "pause")["state"] == "paused"
    eventually(lambda: all(map(is_frozen, pids)))
    assert state_of(box) == ("paused", False)

    assert change(box, "resume")["state"] == "running"
    eventually(lambda: not any(map(is_frozen, pids)))
    assert state_of(box) == ("running", True)
    assert all(map(is_running, pids))
    box.write("ticks", "")
    eventually(lambda: bool(box.read("ticks")))


def test_an_open_stream_waits_for_the_resume(box: Box) -> None:
    """And then gets the rest."""
    streams: list[bytes] = []
    command = "echo $$ > me; while [ ! -e go ]; do sleep 0.01; done; echo done"
    reader = threading.Thread(target=lambda: streams.append(box.stream(command)))
    reader.start()
    box.pid("me")
    box.exec("(sleep 0.2; touch go) > /dev/null 2>&1 &")
    change(box, "pause")
    change(box, "resume")
    reader.join(10)

    assert streams == [frame("stdout", {"line": "done"}) + frame("exit", {"exit_code": 0})]


def test_the_timeout_of_a_command_goes_on(box: Box) -> None:
    """It is a time of the server's clock, and kills a frozen process, too."""
    started = box.http.post(f"{box.path}/processes", json={"command": "echo $$ > me; sleep 1000", "timeout": 1})
    pid = started.json()["data"]["pid"]
    box.pid("me")
    change(box, "pause")

    eventually(lambda: not is_running(pid))
    change(box, "resume")
    eventually(lambda: box.http.get(f"{box.path}/processes/{pid}").json()["data"]["timed_out"])


def test_a_stop_ends_the_processes_and_keeps_the_files(box: Box) -> None:
    """A resume is then like the start of a machine."""
    box.write("kept", "1")
    streams: list[bytes] = []
    command = "trap '' TERM; setsid sh -c 'echo $$ > daemon; sleep 1000' > /dev/null 2>&1 & echo $$ > me; sleep 1000"
    reader = threading.Thread(target=lambda: streams.append(box.stream(command)))
    reader.start()
    pids = [box.pid("me"), box.pid("daemon")]

    assert change(box, "stop")["state"] == "stopped"
    assert not any(map(is_running, pids))
    reader.join(10)
    assert streams == [frame("exit", {"exit_code": 137})]
    assert state_of(box) == ("stopped", False)

    assert change(box, "resume")["state"] == "running"
    assert box.read("kept") == b"1"
    assert box.exec("echo ok")["stdout"] == "ok\n"


def test_a_paused_sandbox_can_be_stopped_and_destroyed(http: httpx.Client) -> None:
    """Its frozen processes end."""
    for ending in ("stop", "destroy"):
        box = Box(http)
        box.exec("sleep 1000 > /dev/null & echo $! > me")
        pid = box.pid("me")
        change(box, "pause")
        if ending == "stop":
            assert change(box, "stop")["state"] == "stopped"
        else:
            box.destroy()
        assert not is_running(pid)
        box.destroy()
        assert http.get(box.path).json()["data"]["state"] == "destroyed"


USES = [
    ("POST", "/exec"),
    ("POST", "/exec/stream"),
    ("POST", "/processes"),
    ("GET", "/processes"),
    ("POST", "/commands"),
    ("GET", "/commands"),
    ("POST", "/fs/write"),
    ("GET", "/files"),
    ("POST", "/extend"),
]


@pytest.mark.parametrize("to", ["pause", "stop"])
def test_a_sandbox_at_rest_cannot_be_used(box: Box, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """409, and waiting would not help. Its state and its readiness can be read."""
    monkeypatch.setattr("sse_bridge.sandbox.lifecycle._KEEPALIVE", 0.01)
    state = change(box, to)["state"]
    body = {"command": "true", "path": "x", "content": "", "wait": True}
    for method, path in USES:
        response = box.http.request(method, box.path + path, json=body if method == "POST" else None)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["retryable"]) == (409, "SANDBOX_NOT_RUNNING", False)
        assert error["details"] == {"state": state}
        assert "retry-after" not in response.headers
    readiness = box.http.get(f"{box.path}/readiness").json()
    assert (readiness["ready"], readiness["status"]) == (False, state)
    assert b"event: timeout" in box.http.get(f"{box.path}/readiness/stream").content


def test_a_stream_of_readiness_sees_a_resume(box: Box) -> None:
    """It goes on while the sandbox is stopped."""
    change(box, "stop")
    with box.http.stream("GET", f"{box.path}/readiness/stream") as response:
        change(box, "resume")
        assert response.read() == b": keepalive\n\nevent: ready\ndata: {}\n\n"


def test_a_change_that_the_state_does_not_allow_is_refused(http: httpx.Client) -> None:
    """409 with the state, and not retryable."""
    box = Box(http)
    assert refused(box, "resume") == (409, "SANDBOX_NOT_PAUSED", False)
    change(box, "pause")
    assert refused(box, "pause") == (409, "SANDBOX_NOT_RUNNING", False)
    change(box, "stop")
    assert refused(box, "stop") == (409, "SANDBOX_NOT_RUNNING", False)
    assert refused(box, "pause") == (409, "SANDBOX_NOT_RUNNING", False)
    box.destroy()
    for to in ("pause", "stop", "resume", "extend"):
        assert refused(box, to) == (409, "SANDBOX_NOT_RUNNING", False)
        assert http.post(f"/sandboxes/sbx_unknown/{to}", json={}).status_code == 404


def test_a_resume_can_add_to_the_environment(http: httpx.Client) -> None:
    """Beside the variables of the creation."""
    box = Box(http, env={"A": "1", "B": "1"})
    change(box, "pause")
    assert refused(box, "resume", env=[]) == (422, "VALIDATION_ERROR", False)
    change(box, "resume", env={"B": "2"})

    assert box.exec("echo $A $B")["stdout"] == "1 2\n"
    box.destroy()


def test_a_repeated_resume_gets_the_first_answer(http: httpx.Client, box: Box) -> None:
    """By its idempotency key, which is this sandbox's then; without one it is refused."""
    change(box, "pause")
    headers = {"idempotency-key": "b0b7a6a0-2222-4222-8333-444455556666"}
    answers = [box.http.post(f"{box.path}/resume", json={}, headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert refused(box, "resume") == (409, "SANDBOX_NOT_PAUSED", False)
    other = Box(http)
    answer = http.post(f"{other.path}/resume", json={}, headers=headers)
    assert answer.json()["error"]["code"] == "IDEMPOTENCY_PAYLOAD_MISMATCH"
    other.destroy()


def test_a_starting_sandbox_can_be_paused(http: httpx.Client) -> None:
    """It goes on starting after the resume."""
    box = Box(http, metadata={READY_AFTER: 60})
    assert change(box, "pause")["state"] == "paused"
    assert change(box, "resume")["ready"] is False
    box.destroy()


def test_an_extension_changes_nothing(box: Box) -> None:
    """There is no time limit to extend; the time is checked."""
    assert change(box, "extend")["state"] == "running"
    assert change(box, "extend", timeout_sec=60)["state"] == "running"
    assert refused(box, "extend", timeout_sec=-1) == (422, "VALIDATION_ERROR", False)


def test_a_sandbox_at_rest_is_listed_and_keeps_its_name(http: httpx.Client) -> None:
    """The list leaves out destroyed ones, and a state selects."""
    box = Box(http, name="resting")
    change(box, "pause")

    def listed(query: str) -> bool:
        return box.id in [each["id"] for each in http.get(f"/sandboxes{query}").json()["data"]]

    assert [listed(query) for query in ("", "?state=paused", "?state=running")] == [True, True, False]
    assert http.get("/sandboxes/by-name/resting").json()["data"]["state"] == "paused"
    box.destroy()
    assert [listed(query) for query in ("", "?state=paused", "?state=destroyed")] == [False, False, True]


@pytest.mark.anyio
async def test_a_stop_that_goes_on_is_a_state_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume in its midst would have its commands killed. A stop that is given up has happened."""
    ending = anyio.Event()

    async def end(*arguments: object) -> None:
        ending.set()
        await anyio.sleep_forever()

    monkeypatch.setattr("sse_bridge.sandbox.state.end_all", end)
    sandboxes = Sandboxes()
    sandbox = sandboxes.create({})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sandbox.stop)
        await ending.wait()
        assert sandbox.state == "pausing"
        with pytest.raises(ApiError, match="pausing"):
            sandbox.resume({})
        tasks.cancel_scope.cancel()
    monkeypatch.undo()

    assert sandbox.state == "stopped"
    await sandboxes.close()
