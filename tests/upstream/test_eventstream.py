"""`EventStream`: any stream by its URL. Mistakes show when it is made, and its `repr` keeps secrets."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import httpx
import pytest

from sse_bridge import ConfigurationError, EventStream
from sse_bridge.errors import UpstreamRefused, UpstreamUnreachable
from sse_bridge.upstream.base import Cancelled
from sse_bridge.upstream.client import HTTPUpstream
from tests.support.upstreams import Connection, dead_url, read_all, serve_raw
from tests.upstream.platform import recorded_waits

pytestmark = pytest.mark.anyio


def one_event(connection: Connection) -> None:
    """Sends one event."""
    connection.answer(200, b"data: 1\n\n", content_type="text/event-stream")


async def read(source: EventStream, last_event_id: str | None = None) -> bytes:
    """Follows the stream to its end."""
    async with source.work(HTTPUpstream(), last_event_id).stream() as stream:
        return await read_all(stream)


async def test_a_get_like_a_browsers(anyio_backend: str) -> None:
    """It has an `Accept` that suits MIOSA's routes (`docs/miosa.md` §2), forbids caching, and lacks `Last-Event-ID`."""
    with serve_raw(one_event) as upstream:
        assert await read(EventStream(upstream.url + "/events?x=1")) == b"data: 1\n\n"

    request = upstream.requests[0]
    assert (request.method, request.path) == ("GET", "/events?x=1")
    assert request.headers["accept"] == "text/event-stream, application/json;q=0.9"
    assert request.headers["cache-control"] == "no-store"
    assert "last-event-id" not in request.headers


async def test_a_post_with_headers_and_a_body_of_its_own(anyio_backend: str) -> None:
    """They are sent as given, and the caller's mapping stays as it is."""
    headers = {"accept": "text/event-stream", "X-Key": "k"}
    with serve_raw(one_event) as upstream:
        await read(EventStream(upstream.url, method="POST", headers=headers, json={"a": [1]}))

    request = upstream.requests[0]
    assert (request.method, request.json, request.headers["x-key"]) == ("POST", {"a": [1]}, "k")
    assert request.headers["accept"] == headers["accept"]
    assert len(headers) == 2


@pytest.mark.parametrize(
    ("method", "status", "headers", "asks_again"),
    [
        ("GET", 429, {}, True),
        ("GET", 429, {"retry_after": "3"}, True),
        ("GET", 503, {"retry_after": "3"}, True),
        ("get", 529, {"retry_after": "3"}, True),
        ("POST", 429, {}, True),
        ("POST", 503, {"retry_after": "3"}, False),
        ("DELETE", 529, {"retry_after": "3"}, False),
        ("GET", 503, {}, False),
        ("GET", 503, {"retry_after": "60"}, False),
        ("GET", 502, {"retry_after": "3"}, False),
        ("GET", 404, {}, False),
    ],
)
async def test_an_upstream_that_is_busy_is_asked_again_where_that_is_safe(
    anyio_backend: str,
    method: str,
    status: int,
    headers: dict[str, str],
    asks_again: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A 429 started nothing. A 503 may have, so only requests that ask for nothing to be done are repeated."""
    waits = recorded_waits(monkeypatch)
    with serve_raw(lambda connection: connection.answer(status, b"", **headers), one_event) as upstream:
        if asks_again:
            assert await read(EventStream(upstream.url, method=method)) == b"data: 1\n\n"
        else:
            with pytest.raises(UpstreamRefused):
                await read(EventStream(upstream.url, method=method))
    assert len(upstream.requests) == 1 + asks_again
    assert waits == ([3.0 if headers else 0.25] if asks_again else [])


async def test_an_upstream_that_stays_busy_is_a_refusal_with_a_time(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After half a minute of asking."""
    waits = recorded_waits(monkeypatch)
    busy = serve_raw(lambda connection: connection.answer(503, b"", retry_after="7"))
    with busy as upstream, pytest.raises(UpstreamRefused) as caught:
        await read(EventStream(upstream.url))
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "busy", 7.0)
    assert waits == [7.0] * 4


@pytest.mark.parametrize("seen", ["7", "ü", "01H\u2028"])
async def test_an_upstream_that_resumes_gets_the_viewers_id(anyio_backend: str, seen: str) -> None:
    """It is sent as UTF-8 (WHATWG HTML 9.2.4)."""
    with serve_raw(one_event) as upstream:
        await read(EventStream(upstream.url), seen)

    # The raw server reads headers as UTF-8.
    assert upstream.requests[0].headers["last-event-id"] == seen


async def test_the_viewers_id_replaces_the_sources(anyio_backend: str) -> None:
    """A server would join two headers of that name into an unknown id."""
    with serve_raw(one_event) as upstream:
        source = EventStream(upstream.url, headers={"last-event-id": "first"})
        await read(source)
        await read(source, "later")

    assert [request.headers["last-event-id"] for request in upstream.requests] == ["first", "later"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "post"])
async def test_any_method_is_sent_without_a_body(anyio_backend: str, method: str) -> None:
    """The content type is left out, too."""
    with serve_raw(one_event) as upstream:
        await read(EventStream(upstream.url, method=method))

    assert upstream.requests[0].method == method.upper()
    assert "content-type" not in upstream.requests[0].headers
    assert upstream.requests[0].body == b""


async def test_a_stream_that_is_over_is_a_refusal_with_204(anyio_backend: str) -> None:
    """The status has to reach browsers, because it stops them from reconnecting."""
    with serve_raw(lambda connection: connection.head(204)) as upstream, pytest.raises(UpstreamRefused) as caught:
        await read(EventStream(upstream.url))
    assert caught.value.status == 204


async def test_a_closed_port_is_unreachable(anyio_backend: str) -> None:
    """The error is one of the package's own."""
    with pytest.raises(UpstreamUnreachable):
        await read(EventStream(dead_url()))


async def test_cancelling_is_confirmed_at_once(anyio_backend: str) -> None:
    """The stream's connection is all there is to end."""
    work = EventStream("http://127.0.0.1/").work(HTTPUpstream(), None)

    assert not work.may_run
    assert await work.cancel(1) is Cancelled.CONFIRMED


@pytest.mark.parametrize(
    "url",
    [
        "/events",
        "h.example/x",
        "ftp://h.example/",
        "http://",
        "",
        None,
        "http://\x00",
        "http://h.example:x/",
        "http://h.example:-1/",
        "http://h.example:0/",
        "http://h.example:99999/",  # asyncio and trio raise various errors for this one and the rest
        "http://a..b/",
        f"http://{'a' * 64}.example/",
        "http://xn--/",
    ],
)
def test_a_url_that_cannot_be_followed_is_refused(url: Any) -> None:
    """The mistake shows when the source is made."""
    with pytest.raises(ConfigurationError, match="absolute http"):
        EventStream(url)


@pytest.mark.parametrize("name", ["", "X-Kéy", "X Key", "X-Key:", "X-Key\r\nX-More", "\ud800", 7, None])
def test_a_name_that_is_not_a_token_is_refused(name: Any) -> None:
    """In a request it would look like an unreachable upstream, to every viewer."""
    with pytest.raises(ConfigurationError, match="a name that HTTP does not allow"):
        EventStream("http://h.example/", headers={name: "secret"})
    with pytest.raises(ConfigurationError, match="HTTP method"):
        EventStream("http://h.example/", method=name)


@pytest.mark.parametrize("value", ["secret\n", "secret\r\nX-More: 1", "sécret", " secret", 7, None])
def test_a_header_that_cannot_be_sent_is_refused_without_quoting_it(value: Any) -> None:
    """A key read from a file often ends with a newline, which would look like an unreachable upstream."""
    with pytest.raises(ConfigurationError, match="X-Key") as caught:
        EventStream("http://h.example/", headers={"X-Key": value})

    assert not re.search("secret|sécret|7", str(caught.value))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": httpx.URL("http://h.example/?secret")}, r"URL as a string, not a URL. Write str\(...\) around it"),
        ({"url": b"http://h.example/?secret"}, "not a bytes object. Decode it first"),
        ({"url": 1234}, "as a string, not an int"),
        ({"url": "h.example/?secret"}, "such as https://example.org/events"),
        ({"headers": ["X-Key: secret"]}, r"takes a mapping, such as {'X-Key': '...'}, not a list. Write dict"),
        ({"headers": [("X-Key", "secret")]}, r"not a list. Write dict\(...\) around pairs"),
        ({"headers": "X-Key: secret"}, "not a str"),
        ({"headers": {b"X-Key": "secret"}}, r"a name that HTTP does not allow \(a bytes object\)"),
        ({"headers": {"X-Key": b"secret"}}, r"the value of 'X-Key' cannot be sent \(a bytes object\)"),
        ({"headers": {"X-Key": 1234}}, r"the value of 'X-Key' cannot be sent \(an int\)"),
        ({"method": httpx.get}, r"such as 'GET' \(passed: a function\)"),
        ({"method": b"GET"}, r"such as 'GET' \(passed: a bytes object\)"),
        ({"method": "GET /secret"}, r"such as 'GET' \(passed: a str\)"),
        ({"json": Path("/secret")}, r"what JSON can say.*\(passed: a PosixPath\)"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_refused_without_quoting_it(options: Any, message: str) -> None:
    """The message says what to write instead."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        EventStream(**{"url": "http://h.example/", **options})

    assert not re.search("secret|1234", str(caught.value))


@pytest.mark.parametrize("headers", [None, {}, {"X-Key": ""}, httpx.Headers({"X-Key": "1"})])
def test_any_mapping_holds_headers(headers: Any) -> None:
    """Its values are as they are sent."""
    assert EventStream("http://h.example/", headers=headers).headers == headers


def endless() -> list[Any]:
    """A list that contains itself."""
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "json",
    [float("nan"), {"a": [float("-inf")]}, "secret \ud800", {"\udc80": 1}, b"secret", {1, 2}, {(1, 2): 3}, endless()],
    ids=["nan", "infinity", "surrogate", "key", "bytes", "set", "tuple as key", "endless"],
)
def test_a_body_that_is_not_json_is_refused_without_quoting_it(json: Any) -> None:
    """The mistake shows when the source is made, instead of failing for each viewer."""
    with pytest.raises(ConfigurationError, match="what JSON can say") as caught:
        EventStream("http://h.example/", json=json)

    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("json", [{}, [], "", 0, False, {"a": ["ü\u2028", None, 1.5]}])
async def test_a_body_is_sent_as_json_whatever_it_is(anyio_backend: str, json: Any) -> None:
    """Values that count as false are bodies, too. A content type of the caller's wins."""
    with serve_raw(one_event) as upstream:
        await read(EventStream(upstream.url, method="POST", json=json))
        await read(EventStream(upstream.url, method="POST", json=json, headers={"content-type": "application/a+json"}))

    assert [request.json for request in upstream.requests] == [json] * 2
    assert [request.headers["content-type"] for request in upstream.requests] == [
        "application/json",
        "application/a+json",
    ]


@pytest.mark.parametrize(
    "url",
    ["http://h", "HTTPS://h.example:8443/x?y#z", "http://127.0.0.1/", "http://[::1]:80/", "http://bücher.example."],
)
def test_a_url_that_can_be_followed_is_taken_as_it_is(url: str) -> None:
    """That holds for names, addresses, ports and queries."""
    assert EventStream(url).url == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://secret:secret@h.example:8443/runs/7?ticket=secret#secret", "https://h.example:8443/runs/7"),
        ("http://secret@[::1]/a%3Fb", "http://[::1]/a%3Fb"),
        ("http://h.example", "http://h.example"),
    ],
)
def test_repr_leaves_out_credentials(url: str, shown: str) -> None:
    """Headers, bodies, user info and queries may hold them."""
    source = EventStream(url, method="POST", headers={"X-Key": "secret"}, json={"key": "secret"})

    assert repr(source) == f"EventStream('{shown}', method='POST')"
