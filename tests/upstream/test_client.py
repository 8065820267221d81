"""`HTTPUpstream`: one client for all requests, refusals and other failures, and secrets that stay out of logs."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream

from sse_bridge.errors import UpstreamError, UpstreamMisbehaved, UpstreamRefused, UpstreamTimeout, UpstreamUnreachable
from sse_bridge.upstream import bodies as bodies_module
from sse_bridge.upstream import client as client_module
from sse_bridge.upstream import transport as transport_module
from sse_bridge.upstream.client import HTTPUpstream
from tests.support.upstreams import Connection, dead_url, open_connections, read_all, serve_raw
from tests.upstream.helpers import EVENT, mute, nothing_left_to_the_collector, opened, read, silent, two_chunks

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["ours", "httpx"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs each test with our own transport and with httpx's. On trio, both runs use httpx's."""
    if request.param == "httpx":
        monkeypatch.setattr(transport_module, "is_usable", lambda: False)
    return str(request.param)


async def test_the_client_lives_as_long_as_its_requests(anyio_backend: str) -> None:
    """The last request closes the client and its pool, and the next one makes a new client."""
    client = HTTPUpstream()
    used: list[httpx.AsyncClient] = []
    with serve_raw(two_chunks) as upstream:
        for _ in range(2):
            async with client.lease() as leased, opened(upstream, client) as stream:
                used.append(leased)
                assert client.leases == 2
                assert await read_all(stream) == b"data: 1\n\ndata: 2\n\n"
            assert client.leases == 0
            await upstream.until_left()

    assert [one.is_closed for one in used] == [True, True]
    assert used[0] is not used[1]
    assert [request.headers["accept-encoding"] for request in upstream.requests] == ["identity"] * 2


async def test_requests_at_the_same_time_share_a_client(anyio_backend: str) -> None:
    """There is one pool, however many streams are open."""
    client = HTTPUpstream()
    with serve_raw(silent) as upstream:
        async with client.lease() as first, opened(upstream, client), opened(upstream, client):
            assert client.leases == 3
            async with client.lease() as second:
                assert second is first
        assert client.leases == 0


async def test_a_client_of_your_own_is_used_and_stays_open(anyio_backend: str) -> None:
    """Closing it is up to its owner."""
    with serve_raw(two_chunks) as upstream:
        async with httpx.AsyncClient(headers={"X-Mine": "yes"}) as mine:
            async with opened(upstream, HTTPUpstream(mine)) as stream:
                assert await read_all(stream)
            assert not mine.is_closed
    assert upstream.requests[0].headers["x-mine"] == "yes"


async def test_a_client_of_your_own_neither_follows_redirects_nor_cuts_silence(anyio_backend: str) -> None:
    """Its settings give way: a key stays where it is, and a script may think for an hour."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(302, headers={"Location": "http://elsewhere.invalid/"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), follow_redirects=True, timeout=0.5) as mine:
        with pytest.raises(UpstreamRefused):
            async with HTTPUpstream(mine).open("GET", "http://h.invalid/", headers={}):
                pass
    assert [request.extensions["timeout"] for request in seen] == [
        {"connect": client_module.CONNECT_TIMEOUT, "read": None, "write": client_module.CONNECT_TIMEOUT, "pool": None}
    ]


@pytest.mark.parametrize("behind", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", b"\0garbage"])
async def test_what_follows_a_response_answers_no_other_request(anyio_backend: str, behind: bytes) -> None:
    """The kind of fault: httpcore keeps bytes behind a response, and takes them for the answer to the next request.

    That may be another person's. So each connection is used once (RFC 9112 9.2), whichever transport it is.
    """

    def stays(connection: Connection) -> None:
        number = connection.request.headers["x-number"].encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(number)
        connection.send(head + number + behind)
        connection.stays = True

    client = HTTPUpstream()
    with serve_raw(stays) as upstream:
        async with client.lease():
            for number in range(3):
                async with client.open("GET", upstream.url, headers={"X-Number": str(number)}) as stream:
                    assert await read_all(stream) == str(number).encode()
            await upstream.until_left(3)
    assert (len(upstream.requests), upstream.accepted) == (3, 3)


@pytest.mark.parametrize(
    "content_type", ["text/event-stream", "Text/Event-Stream; charset=UTF-8", "text/event-stream ;x"]
)
async def test_case_and_parameters_of_the_content_type_do_not_matter(anyio_backend: str, content_type: str) -> None:
    """RFC 9110 8.3.1."""
    with serve_raw(lambda connection: connection.answer(200, EVENT, content_type=content_type)) as upstream:
        assert await read(upstream) == EVENT


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "text/event-stream-not", ""])
async def test_a_success_of_another_kind_is_an_error(anyio_backend: str, content_type: str) -> None:
    """Otherwise the page of a portal would pass for an empty stream."""
    handler = serve_raw(lambda connection: connection.answer(200, b"<html>", content_type=content_type))
    with handler as upstream, pytest.raises(UpstreamMisbehaved):
        await read(upstream)


async def test_an_unread_answer_is_closed_while_others_need_the_client(anyio_backend: str) -> None:
    """An endless page would otherwise hold its connection until the last run is over."""

    def endless_page(connection: Connection) -> None:
        connection.head(200, content_type="text/html")
        connection.wait_until_left()

    client = HTTPUpstream()
    with serve_raw(endless_page) as upstream:
        async with client.lease():
            with pytest.raises(UpstreamMisbehaved):
                async with opened(upstream, client):
                    pass
            await upstream.until_left()


async def test_the_body_of_a_refusal_is_read_within_bounds(anyio_backend: str, monkeypatch: Any) -> None:
    """It may be huge, break off, or go silent."""
    monkeypatch.setattr(client_module, "CLOSE_TIMEOUT", 0.1)

    def whole(connection: Connection) -> None:
        connection.answer(404, b'{"request_id":"req_1"}')

    def huge(connection: Connection) -> None:
        connection.head(404)
        while True:
            connection.send(b"x" * 65536)

    def never_ends(connection: Connection) -> None:
        connection.head(404, content_length="10")
        connection.wait_until_left()

    def stops(connection: Connection) -> None:
        connection.head(404, content_length="10")
        connection.send(b"{}")

    for handler, request_id in ((whole, "req_1"), (huge, None), (never_ends, None), (stops, None)):
        with serve_raw(handler) as upstream:
            with pytest.raises(UpstreamRefused) as caught:
                await read(upstream)
            assert (caught.value.status, caught.value.request_id) == (404, request_id)
            await upstream.until_left()


async def test_a_redirect_is_a_refusal(anyio_backend: str) -> None:
    """Following it would hand the key to another server."""

    def redirect(connection: Connection) -> None:
        connection.answer(307, b"", location="/elsewhere")

    with serve_raw(redirect) as upstream, pytest.raises(UpstreamRefused):
        await read(upstream)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "logged"),
    [
        (401, {"error": {"code": "UNAUTHORIZED", "message": "Unknown key."}}, "UNAUTHORIZED: Unknown key."),
        (401, {"error": "unauthorized"}, "unauthorized"),
        (402, {"error": "CREDITS", "detail": "Top up."}, "CREDITS: Top up."),
        (403, {"message": "Missing scope.", "code": "forbidden"}, "forbidden: Missing scope."),
        (400, {"error": {"code": "INVALID_TIMEOUT", "message": "1 to 86400"}}, "INVALID_TIMEOUT: 1 to 86400"),
        (413, {"error": {"code": "RUNNER_COMMAND_TOO_LARGE"}}, "RUNNER_COMMAND_TOO_LARGE"),
        (421, {"error": "misdirected", "runner_url": "https://run.example/?t=1"}, "misdirected"),
        (422, {"errors": {"cwd": ["is not there"]}}, '{"cwd": ["is not there"]}'),
        (500, {"error": "It broke."}, "It broke."),
        (400, {"msg": "cwd missing"}, "cwd missing"),
        (400, {"error_message": "cwd missing"}, "cwd missing"),
        (400, {"errorMessage": "cwd missing", "code": 40012}, "40012: cwd missing"),
        (400, {"reason": "cwd missing"}, "cwd missing"),
        (400, {"title": "Bad cwd", "detail": "It is missing.", "status": 400}, "Bad cwd: It is missing."),
        (400, {"title": "Bad cwd"}, "Bad cwd"),
        (400, {"detail": {"code": "CWD", "msg": "missing"}}, "CWD: missing"),
        (422, {"detail": [{"loc": ["cwd"], "msg": "missing"}]}, '[{"loc": ["cwd"], "msg": "missing"}]'),
        (422, {"errors": [{"code": "CWD", "field": "cwd"}]}, 'CWD: [{"code": "CWD", "field": "cwd"}]'),
        (401, {"error": {"code": 40012, "message": "Unknown key."}}, "40012: Unknown key."),
        (401, {"error": "invalid_token", "error_description": "It has expired."}, "invalid_token: It has expired."),
        (400, "cwd missing", "cwd missing"),
        (400, b"cwd does not exist", "cwd does not exist"),
        (401, b"invalid api key\n", "invalid api key"),
        (502, b"upstream connect error or disconnect", "upstream connect error or disconnect"),
        (502, b"<html>\n<head><title>502 Bad Gateway</title></head><body>nginx</body>", "502 Bad Gateway (HTML)"),
        (502, b"<!DOCTYPE html><h1>Sorry</h1>", "(HTML)"),
        (500, b"x" * 100_000, "x" * 300),
    ],
)
async def test_a_refusal_that_the_operator_has_to_mend_is_a_warning(
    anyio_backend: str, status: int, body: Any, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the upstream's code and words, and the id of the request. Viewers get none of the words.

    The kind of fault: the reason stood under another name, or in no JSON, and the log had nothing behind the colon.
    """
    answer = body if isinstance(body, bytes) else json.dumps(body).encode()
    with serve_raw(lambda connection: connection.answer(status, answer, x_request_id="req_1")) as upstream:
        for attempt in (
            lambda: HTTPUpstream().open("GET", upstream.url, headers={}).__aenter__(),
            lambda: HTTPUpstream().ask("GET", upstream.url, headers={}, json=None, timeout=5),
        ):
            caplog.clear()
            with pytest.raises(UpstreamRefused) as caught:
                await attempt()
            (record,) = [one for one in caplog.records if one.name == "sse_bridge"]
            assert record.levelno == logging.WARNING
            assert record.getMessage() == f"the upstream answered {status} (request req_1): {logged}"
            assert logged not in str(caught.value)
            assert caught.value.upstream_message == logged


@pytest.mark.parametrize(
    ("content_type", "body", "logged"),
    [
        ("application/json", {"error": {"code": "X", "message": "No room."}}, ["X: No room."]),
        ("application/json; charset=utf-8", {"ok": False, "msg": "No room."}, ["No room."]),
        ("application/problem+json", {"title": "No room", "code": 40012}, ["40012: No room"]),
        ("application/json", {"exit_code": 0, "stdout": "secret"}, []),
        ("application/json", "secret", []),
        ("text/plain", {"error": "secret"}, []),
    ],
)
async def test_what_a_200_says_in_place_of_a_stream_is_logged(
    anyio_backend: str, content_type: str, body: Any, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The kind of fault: the platform said what was wrong, and the log had it at no level. Output stays out."""
    answer = json.dumps(body).encode()
    handler = serve_raw(lambda connection: connection.answer(200, answer, content_type=content_type))
    with handler as upstream, pytest.raises(UpstreamMisbehaved) as caught:
        await read(upstream)
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    start = "the upstream answered 200 with JSON in place of an event stream: "
    assert warnings == [start + one for one in logged]
    assert caught.value.upstream_message == (logged[0] if logged else None)
    assert "secret" not in caplog.text
    assert "No room" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "headers"), [(204, {}), (404, {}), (409, {}), (410, {}), (429, {}), (503, {"retry_after": "1"})]
)
async def test_a_refusal_that_needs_no_mending_is_no_warning(
    anyio_backend: str, status: int, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """It passes, or is the viewer's affair."""
    handler = serve_raw(lambda connection: connection.answer(status, b"", **headers))
    with handler as upstream, pytest.raises(UpstreamRefused):
        await read(upstream)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_cookies_are_dropped(anyio_backend: str) -> None:
    """Runs of different people share the client, so it neither stores nor sends cookies."""

    def with_cookie(connection: Connection) -> None:
        connection.answer(200, EVENT, content_type="text/event-stream", set_cookie="a=1; Path=/", connection="close")

    client = HTTPUpstream()
    with serve_raw(with_cookie) as upstream:
        async with client.lease() as leased:
            for _ in range(2):
                async with opened(upstream, client) as stream:
                    assert await read_all(stream) == EVENT
            assert list(leased.cookies.jar) == []
    assert ["cookie" in request.headers for request in upstream.requests] == [False, False]


async def test_a_closed_port_has_started_nothing(anyio_backend: str) -> None:
    """The request failed to reach a server."""
    with pytest.raises(UpstreamUnreachable) as caught:
        async with HTTPUpstream().open("GET", dead_url(), headers={}):
            pass
    assert caught.value.started_nothing


async def test_a_failed_handshake_has_started_nothing(anyio_backend: str) -> None:
    """The request goes out after the handshake."""

    async def speak_plain_http(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 X\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, speak_plain_http)
        url = f"https://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/"
        with pytest.raises(UpstreamUnreachable) as caught:
            async with HTTPUpstream().open("GET", url, headers={}):
                pass
        tasks.cancel_scope.cancel()
    assert caught.value.started_nothing


async def test_a_handshake_that_takes_too_long_has_started_nothing(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is closed, too."""
    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT", 0.1)
    with serve_raw(mute) as upstream:
        with pytest.raises(UpstreamTimeout) as caught:
            async with HTTPUpstream().open("GET", upstream.url.replace("http:", "https:"), headers={}):
                pass
        await upstream.until_left()
    assert caught.value.started_nothing
    assert upstream.requests == []


async def test_cancelling_a_handshake_closes_its_connection(anyio_backend: str) -> None:
    """At that moment, the pool is yet to own the connection."""
    client = HTTPUpstream()
    with serve_raw(mute) as upstream, nothing_left_to_the_collector():
        async with client.lease() as leased, anyio.create_task_group() as tasks:

            async def shake_hands() -> None:
                async with client.open("GET", upstream.url.replace("http:", "https:"), headers={}):
                    raise AssertionError

            tasks.start_soon(shake_hands)
            await upstream.until_reached()
            tasks.cancel_scope.cancel()
        await upstream.until_left()
        assert open_connections(leased) == 0


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200"])
async def test_an_answer_that_breaks_off_may_have_started_something(anyio_backend: str, answer: bytes) -> None:
    """The upstream has read the request, which is therefore sent only once."""
    with serve_raw(lambda connection: connection.send(answer)) as upstream:
        with pytest.raises(UpstreamUnreachable) as caught:
            await read(upstream)
        assert not caught.value.started_nothing
    assert len(upstream.requests) == 1


async def test_a_missing_answer_is_a_timeout(anyio_backend: str, monkeypatch: Any) -> None:
    """The connection is closed, and the request may have started something."""
    monkeypatch.setattr(client_module, "ANSWER_TIMEOUT", 0.1)
    with serve_raw(mute) as upstream:
        with pytest.raises(UpstreamTimeout) as caught:
            await read(upstream)
        assert not caught.value.started_nothing
        assert caught.value.upstream_host == httpx.URL(upstream.url).netloc.decode()
        await upstream.until_left()


async def test_a_short_call_waits_for_a_late_body(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may send the head at once, and the body when the work is done. Both share the `timeout`."""
    monkeypatch.setattr(client_module, "CLOSE_TIMEOUT", 0.05)
    monkeypatch.setattr(bodies_module, "CLOSE_TIMEOUT", 0.05)

    def slow(connection: Connection) -> None:
        connection.head(200, content_length="4")
        threading.Event().wait(0.15)
        connection.send(b"late")

    def endless(connection: Connection) -> None:
        connection.head(200, content_length="9")
        connection.send(b"part")
        connection.wait_until_left()

    for handler, timeout, body in ((slow, 5.0, b"late"), (endless, 1.0, b"part")):
        with serve_raw(handler) as upstream:
            assert await HTTPUpstream().call("GET", upstream.url, headers={}, json=None, timeout=timeout) == (200, body)
            await upstream.until_left()


async def test_a_short_call_that_needs_200_takes_no_other_status(anyio_backend: str) -> None:
    """`ask` returns the body of a 200, and raises the refusal for everything else."""
    for status in (200, 201, 500):
        with serve_raw(lambda connection: connection.answer(status, b"{}")) as upstream:  # noqa: B023
            call = HTTPUpstream().ask("GET", upstream.url, headers={}, json=None, timeout=5)
            if status == 200:
                assert await call == b"{}"
                continue
            with pytest.raises(UpstreamError) as caught:
                await call
            assert caught.value.upstream_status == status


def test_one_upstream_serves_one_event_loop_after_the_other() -> None:
    """A bridge at module level outlives the event loops of tests and reloads."""
    client = HTTPUpstream()
    with serve_raw(two_chunks) as upstream:

        async def follow() -> bytes:
            async with opened(upstream, client) as stream:
                return await read_all(stream)

        read = [anyio.run(follow, backend=backend) for backend in ("asyncio", "trio", "asyncio")]
    assert read == [b"data: 1\n\ndata: 2\n\n"] * 3


async def test_logs_show_neither_keys_nor_urls(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """httpx logs a line for each request, and a URL may hold a ticket."""
    caplog.set_level(logging.DEBUG)
    with serve_raw(two_chunks) as upstream:
        headers = {"Authorization": "Bearer secret-key"}
        url = upstream.url + "/s/sbx_1?ticket=secret-ticket"
        async with HTTPUpstream().open("GET", url, headers=headers) as stream:
            assert await read_all(stream)
    assert upstream.requests[0].path == "/s/sbx_1?ticket=secret-ticket"
    assert "http://upstream/" in caplog.text
    assert "secret" not in caplog.text
    assert "sbx_1" not in caplog.text


async def test_proxies_of_the_environment_are_honoured(anyio_backend: str, monkeypatch: Any) -> None:
    """httpx does so by itself, unless it is given a transport."""
    with serve_raw(two_chunks) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        async with HTTPUpstream().open("GET", "http://sandbox.invalid/x", headers={}) as stream:
            assert await read_all(stream)
    assert proxy.requests[0].path == "http://sandbox.invalid/x"
