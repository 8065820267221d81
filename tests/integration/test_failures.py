"""Failing upstreams: the viewer gets the documented answer, connections are closed, and secrets stay secret."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest
import uvicorn

from sse_bridge import EventStream, Miosa, SandboxExec, SSEBridge
from sse_bridge.wire import events
from sse_bridge.wire.frames import FrameSplitter
from tests.support.asgi import is_start
from tests.support.sandboxes import KEY, LocalSandbox, local_sandbox, new_mark, running
from tests.support.servers import serve
from tests.support.waiting import eventually

WRONG_KEY = "msk_test_wrong_wrong_wrong"
TICKET = "sset_test_ticket"
SECRETS = (KEY, WRONG_KEY, TICKET, "Bearer")


class Checked:
    """A bridge on a real server, and a check of its clean-up."""

    def __init__(self, url: str, server: uvicorn.Server) -> None:
        self.url = url
        self.server = server
        self._connections = connections()

    def get(self) -> httpx.Response:
        return httpx.get(self.url, timeout=30)

    def check_clean_up(self) -> None:
        """All requests have ended, and the connections to the upstream are closed."""
        eventually(lambda: not self.server.server_state.tasks)
        eventually(lambda: connections() <= self._connections)


def connections() -> int:
    """Sockets of this process, which serves both the bridge and the upstream."""
    return len(psutil.Process().net_connections())


@contextmanager
def bridged(upstream: Miosa | None, resolve: Callable[[Any], Any], **options: Any) -> Iterator[Checked]:
    with serve(SSEBridge(upstream, resolve, **options)) as served:
        checked = Checked(served.url, served.server)
        yield checked
        checked.check_clean_up()


@pytest.fixture(autouse=True)
def no_secret_in_any_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Searches all logs at all levels, httpx's included, which name each request."""
    caplog.set_level(logging.DEBUG)
    yield
    for secret in SECRETS:
        assert secret not in caplog.text


def assert_error(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert set(error) == {"code", "message", "request_id"}
    for secret in (*SECRETS, "/api/v1", "127.0.0.1"):
        assert secret not in response.text + str(response.headers)


def test_a_wrong_key_is_the_servers_problem(sandbox: LocalSandbox) -> None:
    """502, not 401: the viewer has no key to correct. The request id helps the platform's support."""
    with bridged(sandbox.miosa(WRONG_KEY), lambda request: SandboxExec(sandbox.id, "ls")) as bridge:
        response = bridge.get()

    assert_error(response, 502, "upstream_unauthorized")
    assert response.json()["error"]["request_id"].startswith("req_")


def test_an_unknown_sandbox_is_not_found(sandbox: LocalSandbox) -> None:
    """The viewer gets the platform's 404, since only the application can have chosen a wrong sandbox."""
    with bridged(sandbox.miosa(), lambda request: SandboxExec("sbx_unknown", "ls")) as bridge:
        assert_error(bridge.get(), 404, "not_found")


def test_a_starting_sandbox_is_waited_for() -> None:
    """The command runs once, and the viewer only notices the delay."""
    with (
        local_sandbox(metadata={"sse_bridge.ready_after": 0.6}) as starting,
        bridged(starting.miosa(), lambda request: SandboxExec(starting.id, "echo run >> runs; cat runs")) as bridge,
    ):
        response = bridge.get()

    assert [body.get("line") for body in objects(response)] == ["run", None]


@pytest.mark.parametrize("profile", ["cut", "cut-inside"])
def test_a_command_behind_a_cut_connection_is_ended(caplog: pytest.LogCaptureFixture, profile: str) -> None:
    """It runs on without its stream, so it is found and seen to end; what is certain of its output is shown."""
    mark = new_mark()
    command = f"echo one; echo two; echo three; sleep {mark}; :"
    with (
        local_sandbox(runtime_profile=profile) as cut,
        bridged(cut.miosa(), lambda request: SandboxExec(cut.id, command)) as bridge,
    ):
        response = bridge.get()
        eventually(lambda: not running(mark))

    assert [said.get("line", said.get("code")) for said in objects(response)] == ["one", "two", "upstream_lost"]
    assert "may run on" not in caplog.text


def test_a_sandbox_that_stays_unready_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the bridge's own waiting, with a `Retry-After`."""
    monkeypatch.setattr("sse_bridge.upstream.miosa.sandbox_exec.READY_TIMEOUT", 0.5)
    with (
        local_sandbox(metadata={"sse_bridge.ready_after": 60}) as starting,
        bridged(starting.miosa(), lambda request: SandboxExec(starting.id, "ls")) as bridge,
    ):
        response = bridge.get()

    assert_error(response, 503, "not_ready")
    assert int(response.headers["retry-after"]) >= 1


async def never_ready(scope: Any, receive: Any, send: Any) -> None:
    body = json.dumps({"error": {"code": "SANDBOX_STARTING", "message": "soon"}}).encode()
    await send({"type": "http.response.start", "status": 409, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


def test_a_sandbox_that_is_not_ready_after_the_response_began_is_an_error_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The status 200 has gone out by then."""
    monkeypatch.setattr("sse_bridge.upstream.miosa.sandbox_exec.READY_TIMEOUT", 0.5)
    with (
        serve(never_ready, lifespan="off") as platform,
        bridged(Miosa(platform.url, KEY), lambda request: SandboxExec("sbx", "ls"), commit_after=0.1) as bridge,
    ):
        response = bridge.get()

    assert response.status_code == 200
    assert [(body["type"], body["code"]) for body in objects(response)] == [("error", "not_ready")]


def test_an_upstream_that_is_down_is_502() -> None:
    """The connection is refused."""
    with bridged(Miosa("http://127.0.0.1:9", KEY), lambda request: SandboxExec("sbx", "ls")) as bridge:
        answer = bridge.get()
        assert_error(answer, 502, "upstream_unreachable")
        assert "127.0.0.1" not in answer.text


async def html(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<h1>Welcome to the captive portal</h1>"})


def test_an_upstream_that_answers_html_is_502() -> None:
    """A proxy's page may have status 200; its content type gives it away."""
    with (
        serve(html, lifespan="off") as portal,
        bridged(Miosa(portal.url, KEY), lambda request: SandboxExec("sbx", "ls")) as bridge,
    ):
        response = bridge.get()

    assert_error(response, 502, "upstream_not_event_stream")
    assert "captive" not in response.text


class StopsMidFrame:
    """Stands in front of a real sandbox and breaks every stream after its first bytes."""

    def __init__(self, sandbox: LocalSandbox) -> None:
        self.sandbox = sandbox
        self.execs = threading.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        async with httpx.AsyncClient(timeout=30) as client:
            url = self.sandbox.url + scope["path"]
            async with client.stream("POST", url, content=body, headers=headers) as answer:
                kept = [(n.encode(), v.encode()) for n, v in answer.headers.items() if n == "content-type"]
                await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
                if scope["path"].endswith("/exec"):
                    await send({"type": "http.response.body", "body": await answer.aread()})
                    self.execs.release()
                    return
                first = await anext(answer.aiter_raw())
                await send({"type": "http.response.body", "body": first + b"event: std", "more_body": True})
        raise ConnectionAbortedError  # uvicorn closes the connection with the body incomplete


def test_an_upstream_that_stops_mid_frame_is_an_error_frame_and_its_process_is_ended(
    sandbox: LocalSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The line before the break arrives, and the bridge finds and ends the command."""
    mark = new_mark()
    platform = StopsMidFrame(sandbox)
    with (
        serve(platform, lifespan="off") as served,
        bridged(Miosa(served.url, KEY), lambda request: SandboxExec(sandbox.id, f"echo first; sleep {mark}")) as bridge,
    ):
        seen = objects(bridge.get())

        assert platform.execs.acquire(timeout=5)
        eventually(lambda: not running(mark))

    assert seen[0] == {"type": "stdout", "line": "first"}
    assert [(body["type"], body["code"]) for body in seen[1:]] == [("error", "upstream_lost")]
    assert "not seen to end" not in caplog.text


def test_any_event_stream_can_be_followed_with_its_own_headers(caplog: pytest.LogCaptureFixture) -> None:
    """Credentials stay secret, in a header as well as in the URL."""

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        allowed = dict(scope["headers"]).get(b"x-secret") == KEY.encode()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200 if allowed else 403, "headers": headers})
        await send({"type": "http.response.body", "body": b'data: {"line":"a"}\n\ndata: {"exit_code":0}\n\n'})

    with (
        serve(stream, lifespan="off") as served,
        bridged(
            None,
            lambda request: EventStream(f"{served.url}?ticket={TICKET}", headers={"X-Secret": KEY}),
            dialect="typed",
        ) as bridge,
    ):
        response = bridge.get()

    assert [body["type"] for body in objects(response)] == ["stdout", "exit"]
    assert KEY not in response.text + str(response.headers)


def objects(response: httpx.Response) -> list[dict[str, Any]]:
    parsed = events.parse(FrameSplitter(None).feed(response.content))
    return [json.loads(event.data) for event in parsed if event.data is not None and not is_start(event)]
