"""A sandbox's life over HTTP: `sse_bridge.sandbox.lifecycle`, `state` and `errors`."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from sse_bridge.sandbox.errors import ApiError
from sse_bridge.sandbox.state import READY_AFTER, Replays, Sandboxes
from tests.sandbox.helpers import Box, eventually, frame, is_running, lines_of
from tests.support.servers import Served


def test_a_new_sandbox_is_provisioning_and_then_running(http: httpx.Client) -> None:
    """The first answer makes a client ask again; `state` and `status` agree."""
    response = http.post("/sandboxes", json={"name": "n", "template_id": "t", "metadata": {"a": 1}})
    created = response.json()["data"]
    seen = http.get(f"/sandboxes/{created['id']}").json()["data"]

    assert response.status_code == 201
    assert (created["state"], created["status"], created["ready"]) == ("provisioning", "provisioning", False)
    assert (seen["state"], seen["status"], seen["ready"]) == ("running", "running", True)
    assert (seen["name"], seen["template_id"], seen["metadata"]) == ("n", "t", {"a": 1})
    http.delete(f"/sandboxes/{created['id']}")


def test_creation_waits_on_request(http: httpx.Client) -> None:
    """`?wait=` takes seconds or a boolean."""
    for wait in ("5", "true"):
        response = http.post("/sandboxes", params={"wait": wait}, json={"metadata": {READY_AFTER: 0.05}})
        assert response.json()["data"]["ready"] is True
    assert http.post("/sandboxes?wait=false", json={}).json()["data"]["state"] == "provisioning"
    assert http.post("/sandboxes?wait=soon", json={}).status_code == 422


def test_a_repeated_creation_gets_the_first_answer(http: httpx.Client) -> None:
    """The idempotency key and the body's content decide, whatever the order of the body's keys."""
    headers = {"idempotency-key": "b0b7a6a0-1111-4222-8333-444455556666"}
    first = http.post("/sandboxes", json={"name": "a", "size": "xs"}, headers=headers)
    again = http.post("/sandboxes", json={"size": "xs", "name": "a"}, headers=headers)
    other = http.post("/sandboxes", json={"name": "b"}, headers=headers)

    assert (again.status_code, again.json()) == (201, first.json())
    assert (other.status_code, other.json()["error"]["code"]) == (409, "IDEMPOTENCY_PAYLOAD_MISMATCH")
    http.delete(f"/sandboxes/{first.json()['data']['id']}")


def test_a_limited_number_of_answers_is_kept() -> None:
    """The oldest is forgotten first."""
    replays = Replays(limit=2)
    for key in "abc":
        replays.keep(key, {}, {"id": key})

    assert [replays.find(key, {}) for key in "abc"] == [None, {"id": "b"}, {"id": "c"}]


def test_the_list_holds_live_sandboxes(http: httpx.Client, box: Box) -> None:
    """It can be filtered by state."""
    gone = Box(http)
    gone.destroy()

    listed = http.get("/sandboxes").json()
    ids = [each["id"] for each in listed["data"]]

    assert box.id in ids
    assert gone.id not in ids
    assert listed["page"]["total"] == len(ids)
    assert gone.id in [each["id"] for each in http.get("/sandboxes?state=destroyed").json()["data"]]
    assert http.get("/sandboxes?state=paused").json()["data"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"name": 7},
        {"metadata": []},
        {"metadata": {READY_AFTER: "1"}},
        {"metadata": {READY_AFTER: -1}},
        {"env": {"A": 1}},
        [],
    ],
)
def test_a_wrong_creation_is_refused(http: httpx.Client, body: object) -> None:
    """This server checks the options it uses, and ignores the platform's many others."""
    assert http.post("/sandboxes", json=body).status_code == 422


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b'{"metadata":{"a":NaN}}', b'{"metadata":{"a":1e999}}', b"[" * 100_000]
)
def test_invalid_json_is_refused(http: httpx.Client, body: bytes) -> None:
    """Including the extensions of Python's parser."""
    response = http.post("/sandboxes", content=body)

    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_JSON")


def test_a_lone_surrogate_is_refused(http: httpx.Client) -> None:
    """UTF-8 could not carry it back."""
    assert http.post("/sandboxes", content=b'{"metadata":{"a":"\\ud800"}}').status_code == 422


def test_a_body_above_the_limit_is_refused(http: httpx.Client) -> None:
    """With 413, at the limit, so that memory is bounded."""
    response = http.post("/sandboxes", content=b" " * 2_000_000)

    assert (response.status_code, response.json()["error"]["code"]) == (413, "TOO_LARGE")


@pytest.mark.parametrize("form", ["exec", "exec/stream"])
def test_commands_are_refused_until_the_sandbox_is_ready(http: httpx.Client, form: str) -> None:
    """The sandbox is `running` already; the refusal says how long to wait."""
    box = Box(http, metadata={READY_AFTER: 60})
    response = http.post(f"{box.path}/{form}", json={"command": "true"})
    error = response.json()["error"]

    assert (response.status_code, error["code"]) == (409, "SANDBOX_NOT_COMMAND_READY")
    assert error["retryable"] is True
    assert 59_000 < error["retry_after_ms"] <= 60_000
    assert response.headers["retry-after"] == "60"
    assert error["request_id"] == response.headers["x-request-id"]
    seen = http.get(box.path).json()["data"]
    assert (seen["state"], seen["ready"]) == ("running", False)
    box.destroy()


@pytest.mark.parametrize("form", ["exec", "exec/stream"])
def test_a_command_waits_on_request_until_the_sandbox_is_ready(http: httpx.Client, form: str) -> None:
    """`wait` replaces the refusal; `wait_timeout_ms` bounds it."""
    box = Box(http, metadata={READY_AFTER: 0.3})
    patient = http.post(f"{box.path}/{form}", json={"command": "echo ok", "wait": True})
    box.destroy()
    box = Box(http, metadata={READY_AFTER: 60})
    hasty = http.post(f"{box.path}/{form}", json={"command": "true", "wait": True, "wait_timeout_ms": 20})
    refused = http.post(f"{box.path}/{form}", json={"command": "true", "wait": False, "wait_timeout_ms": 100_000})
    box.destroy()

    assert b"ok" in patient.content
    for response in (hasty, refused):
        assert response.json()["error"]["code"] == "SANDBOX_NOT_COMMAND_READY"


@pytest.mark.parametrize("form", ["exec", "exec/stream"])
def test_destruction_ends_the_wait_of_a_command(http: httpx.Client, form: str) -> None:
    """The command is refused as in any destroyed sandbox."""
    box = Box(http, metadata={READY_AFTER: 60})
    answers: list[httpx.Response] = []
    body = {"command": "true", "wait": True}
    waiting = threading.Thread(target=lambda: answers.append(http.post(f"{box.path}/{form}", json=body)))
    waiting.start()
    box.destroy()
    waiting.join(10)

    assert [answer.json()["error"]["code"] for answer in answers] == ["SANDBOX_NOT_RUNNING"]


def test_polling_reports_readiness(http: httpx.Client) -> None:
    """The answer has `ready` at the top, and the platform's components."""
    box = Box(http, metadata={READY_AFTER: 0.5})
    before = http.get(f"{box.path}/readiness").json()
    eventually(lambda: http.get(f"{box.path}/readiness").json()["ready"])
    after = http.get(f"{box.path}/readiness").json()

    assert (before["ready"], before["components"]["command_agent"]) == (False, "starting")
    assert len(after["components"]) == 8
    assert set(after["components"].values()) == {after["status"]} == {"ready"}
    assert box.exec("echo ok")["stdout"] == "ok\n"
    box.destroy()


def test_the_stream_reports_readiness(http: httpx.Client) -> None:
    """As soon as the sandbox is ready, or at once if it already is."""
    box = Box(http, metadata={READY_AFTER: 0.1})
    for _ in range(2):
        stream = http.get(f"{box.path}/readiness/stream")
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.content == b": keepalive\n\nevent: ready\ndata: {}\n\n"
    assert http.get(f"{box.path}/readiness").json()["ready"] is True
    box.destroy()


def test_destruction_ends_a_readiness_stream(http: httpx.Client) -> None:
    """The stream ends after its first comment."""
    box = Box(http, metadata={READY_AFTER: 60})
    with http.stream("GET", f"{box.path}/readiness/stream") as response:
        box.destroy()
        assert response.read() == b": keepalive\n\n"


def test_a_readiness_stream_times_out(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last event says so. The platform's window is 30 s."""
    monkeypatch.setattr("sse_bridge.sandbox.lifecycle._KEEPALIVE", 0.01)
    box = Box(http, metadata={READY_AFTER: 60})

    assert http.get(f"{box.path}/readiness/stream").content == (
        b': keepalive\n\n: keepalive\n\nevent: timeout\ndata: {"reason":"not_ready_after_30s"}\n\n'
    )
    box.destroy()


def test_destroying_ends_every_process(box: Box) -> None:
    """Commands, their children, and those that left their session. Then the folder goes, and then comes the answer."""
    folder = Path(str(box.exec("pwd")["stdout"]).strip())
    command = (
        "trap '' TERM; setsid sh -c 'echo $$ > daemon; sleep 1000' > /dev/null 2>&1 & "
        "sleep 1000 & echo $! > child; echo $$ > main; wait"
    )
    streams: list[bytes] = []
    reader = threading.Thread(target=lambda: streams.append(box.stream(command)))
    reader.start()
    pids = [box.pid(name) for name in ("main", "child", "daemon")]
    assert all(map(is_running, pids))

    assert box.http.delete(box.path).status_code == 204

    assert not any(map(is_running, pids))
    assert not folder.exists()
    reader.join(5)
    assert streams == [frame("exit", {"exit_code": 137})]


def test_a_command_that_cleaned_its_environment_is_ended_with_its_group(box: Box) -> None:
    """The marker is gone, so the process group has to identify it."""
    box.exec("env -i /bin/sh -c 'echo $$ > pid; sleep 1000' > /dev/null 2>&1 &")
    pid = box.pid("pid")
    assert is_running(pid)

    box.destroy()

    eventually(lambda: not is_running(pid))


USES = pytest.mark.parametrize(
    ("method", "route"),
    [
        ("GET", "/readiness"),
        ("GET", "/readiness/stream"),
        ("POST", "/exec"),
        ("POST", "/exec/stream"),
        ("POST", "/fs/write"),
        ("GET", "/files"),
        ("GET", "/fs/download"),
    ],
)


def use(http: httpx.Client, method: str, path: str) -> httpx.Response:
    body = {"command": "true", "path": "x", "content": "", "wait": True} if method == "POST" else None
    return http.request(method, path, json=body)


@USES
def test_an_unknown_sandbox_is_not_found(http: httpx.Client, method: str, route: str) -> None:
    """404 in the platform's envelope, with a request id."""
    response = use(http, method, f"/sandboxes/sbx_unknown{route}")
    error = response.json()["error"]

    assert (response.status_code, error["code"]) == (404, "NOT_FOUND")
    assert error["request_id"] == response.headers["x-request-id"]
    assert [http.request(each, "/sandboxes/sbx_unknown").status_code for each in ("GET", "DELETE")] == [404, 404]


@USES
def test_a_destroyed_sandbox_is_known_but_cannot_be_used(http: httpx.Client, method: str, route: str) -> None:
    """409, and waiting would not help. Its state can still be read, and destroying it again changes nothing."""
    gone = Box(http)
    gone.destroy()
    response = use(http, method, gone.path + route)
    error = response.json()["error"]
    seen = http.get(gone.path)

    assert (response.status_code, error["code"], error["retryable"]) == (409, "SANDBOX_NOT_RUNNING", False)
    assert "retry-after" not in response.headers
    assert (seen.status_code, seen.json()["data"]["state"], seen.json()["data"]["ready"]) == (200, "destroyed", False)
    assert http.delete(gone.path).status_code == 204


async def destroyed(sandboxes: Sandboxes) -> str:
    sandbox = sandboxes.create({})
    await sandboxes.destroy(sandbox)
    return sandbox.id


@pytest.mark.anyio
async def test_a_limited_number_of_destroyed_sandboxes_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first."""
    monkeypatch.setattr("sse_bridge.sandbox.state._MAX_DESTROYED", 1)
    sandboxes = Sandboxes()
    first, second = await destroyed(sandboxes), await destroyed(sandboxes)

    assert sandboxes.find(second).state == "destroyed"
    with pytest.raises(ApiError, match="not found"):
        sandboxes.find(first)
    await sandboxes.close()


@pytest.mark.parametrize("name", ["plain", "a/b", "a b?c#d", "ünï", "files", "%2F"])
def test_a_sandbox_is_found_by_its_name(http: httpx.Client, name: str) -> None:
    """Until it is destroyed: then the name is free for another."""
    path = f"/sandboxes/by-name/{quote(name, safe='')}"
    first, second = Box(http, name=name), Box(http, name=name)

    assert http.get(path).json()["data"]["id"] == first.id
    first.destroy()
    assert http.get(path).json()["data"]["id"] == second.id
    second.destroy()
    assert http.get(path).status_code == 404


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "Basic msk_test_key", "msk_test_key", "Bearer é"])
def test_every_request_needs_the_key(server: Served, header: str | None) -> None:
    """Known and unknown routes answer alike, so that strangers cannot tell them apart."""
    headers = [] if header is None else [(b"authorization", header.encode())]
    for path in ("/api/v1/sandboxes", "/nowhere"):
        response = httpx.get(server.url + path, headers=headers)
        error = response.json()["error"]

        assert (response.status_code, error["code"]) == (401, "invalid_token")
        assert response.headers["www-authenticate"] == "Bearer"
        assert error["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/sandboxes/", 404, "NOT_FOUND"),
        ("PUT", "/sandboxes", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/sandboxes/x/exec", 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_the_router_refuses_in_the_same_envelope(
    http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    """Clients parse a single form of error."""
    response = http.request(method, path)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.headers["x-request-id"]


def test_sandboxes_do_not_share_files(http: httpx.Client, box: Box) -> None:
    """Each has its own workspace."""
    other = Box(http)
    box.write("mine", "1")

    assert other.read("mine") is None
    assert lines_of(other.stream("ls /workspace")) == []
    other.destroy()
