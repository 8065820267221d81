"""Requests that start a run, and those that must leave it: places, prefetches, other sites, odd paths."""

from __future__ import annotations

import anyio
import pytest

from sse_bridge import SSEBridge, SSEBridgeMiddleware
from sse_bridge.asgi.messages import Receive, Scope, Send
from tests.support.asgi import Page, ids, lines
from tests.support.site import Site, never, site, visit
from tests.support.work import finished

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def ask(it: Site, query: str, path: str = "/", **headers: str) -> Page:
    page = Page(path=path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    page.scope["query_string"] = query.encode()
    it.visit(page)
    await page.until(lambda: page.ended)
    return page


# -- the place


@pytest.mark.parametrize(
    "name", ["lastEventId", "Last-Event-ID", "last_event_id", "LASTEVENTID", "last-event-id", "Last_Event_Id"]
)
@pytest.mark.parametrize("path", ["/", "run"])
async def test_the_place_may_stand_in_the_query(name: str, path: str) -> None:
    """In each spelling of the polyfills, at the mount and at the run's own path."""
    async with site(finished("a", "b")) as it:
        _, run = await it.started()
        page = await ask(it, f"x=1&{name}={run}.1", path if path == "/" else f"/{run}")

    assert ids(page) == [2, 3]
    assert it.starts == 1


async def test_the_header_wins_over_the_query() -> None:
    """A browser that comes back sends the header, and a polyfill's address still holds an older place."""
    async with site(finished("a", "b")) as it:
        _, run = await it.started()
        page = await ask(it, f"lastEventId={run}.0", last_event_id=f"{run}.2")

    assert ids(page) == [3]


@pytest.mark.parametrize(
    "query", ["lastEventId=", "lastEventId=7", "lastEventId=%00", "event=abcdefghijklmnop.1", "%ff=%ff"]
)
async def test_only_a_place_of_ours_counts(query: str) -> None:
    """Everything else is a first visit."""
    async with site(finished("a")) as it:
        page = await ask(it, query)

    assert lines(page) == ["a", "exit"]
    assert it.starts == 1


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("lastEventId=%C3%BC7", "ü7"),
        ("last_event_id=a%0d%0aX-Key:%20b", None),
        ("lastEventId=a%00", None),
        ("x=7", None),
    ],
)
async def test_without_ids_the_query_reaches_the_upstream(query: str, expected: str | None) -> None:
    """In `verbatim` the upstream resumes. It gets a header, so ids that a header cannot hold are left out."""
    work = finished()
    async with site(work, dialect="verbatim") as it:
        await ask(it, query)

    assert work.last_event_id == expected


@pytest.mark.parametrize("rest", ["1", "0", "gone", "x", "", "9" * 40, "1%0d%0aX: y"])
async def test_an_id_of_ours_never_starts_a_run(rest: str) -> None:
    """However it is garbled behind the token."""
    async with site(resolve=never) as it:
        page = await ask(it, f"lastEventId={'n' * 16}.{rest}")

    assert page.status == (204 if rest == "gone" else 404)


# -- prefetches


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Sec-Purpose", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender"),
        ("Sec-Purpose", "Prerender"),
        ("Purpose", "prefetch"),
        ("X-Moz", "prefetch"),
        ("X-Purpose", "preview"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_prefetch_starts_nothing(name: str, value: str, method: str) -> None:
    """The answer is 503, which no browser keeps."""
    page = await visit(SSEBridge(None, never), Page(method, headers={name: value}))

    assert page.status == 503
    assert page.headers["cache-control"] == "no-store"


async def test_a_prefetch_may_follow_a_run() -> None:
    """That starts nothing."""
    async with site(finished("a")) as it:
        _, run = await it.started()
        assert (await ask(it, "", f"/{run}", sec_purpose="prefetch")).status == 200
        assert (await ask(it, f"lastEventId={run}.1", sec_purpose="prefetch")).status == 200


# -- pages of other sites


@pytest.mark.parametrize(
    ("origin", "host", "site_said", "starts"),
    [
        (None, "a.example", None, True),
        ("http://a.example", "a.example", None, True),
        ("https://a.example", "a.example", None, True),
        ("HTTP://A.Example", "a.EXAMPLE", None, True),
        ("http://a.example:80", "a.example", None, True),
        ("http://a.example", "a.example:80", None, True),
        ("https://a.example", "a.example:443", None, True),
        ("https://a.example:443", "a.example", None, True),
        ("http://a.example:8000", "a.example:8000", None, True),
        ("http://[::1]:8000", "[::1]:8000", None, True),
        ("http://[::1]", "[::1]:80", None, True),
        ("http://a.example:8001", "a.example:8000", None, False),
        ("http://a.example:443", "a.example", None, False),
        ("https://a.example", "a.example:80", None, False),
        ("http://b.a.example", "a.example", None, False),
        ("http://a.example.evil", "a.example", None, False),
        ("http://[::2]", "[::1]", None, False),
        ("null", "a.example", None, False),
        ("null", "null", None, False),
        ("null", None, None, False),
        ("", "", None, False),
        ("http://[", "a.example", None, False),
        ("a.example", "a.example", None, False),
        ("http://a.example", None, None, False),
        ("http://evil.example", "a.example", "same-origin", True),
        ("http://b.a.example", "a.example", "same-site", True),
        ("http://a.example", "a.example", "cross-site", False),
        (None, "a.example", "Cross-Site", False),
        (None, "a.example", "none", True),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_which_pages_may_start_a_run(
    origin: str | None, host: str | None, site_said: str | None, starts: bool, method: str
) -> None:
    """`Sec-Fetch-Site` decides where there is one, else `Origin` against `Host`.

    Pages of sibling subdomains may start one if the browser says `same-site`.
    """
    given = {"origin": origin, "host": host, "sec-fetch-site": site_said}
    headers = {name: value for name, value in given.items() if value is not None}
    for allowed in (False, True):
        async with site(finished(), allow_cross_site=allowed) as it:
            page = await it.answer(method, **headers)
        assert page.status == (200 if starts or allowed else 403)
        assert it.starts == (starts or allowed)


# -- paths


@pytest.mark.parametrize(
    ("path", "starts"),
    [
        ("/run-sse", True),
        ("/run-sse/", True),
        ("//run-sse", False),
        ("///run-sse/", False),
        ("/run-sse//", False),
        ("/run-sse///", False),
        ("/run-sse/./", False),
        ("/run-sse/../run-sse", False),
        ("/x/../run-sse", False),
        ("/run-ssex", False),
        ("/Run-SSE", False),
        ("/run-sse;x", False),
        ("/run-sse/\x00", False),
        ("/run%2Dsse", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize("is_stripped", [True, False])
async def test_only_the_exact_path_of_the_middleware_starts_a_run(
    path: str, starts: bool, root_path: str, is_stripped: bool
) -> None:
    """One slash may follow. Guards in front compare paths, too, and take every other spelling for another path."""

    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with site(finished()) as it:
        app = SSEBridgeMiddleware(other, "/run-sse", it.bridge)
        page = Page(path=path if is_stripped else root_path + path, root_path=root_path)
        with anyio.fail_after(5):
            await app(page.scope, page.receive, page.send)

    assert page.status == (200 if starts else 404)
    assert it.starts == starts


@pytest.mark.parametrize(
    "name", ["%00" * 3, "\x00" * 16, "a" * 15, "a" * 17, "a" * 15 + "\n", "é" * 16, "a" * 100_000, "."]
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_path_that_names_no_run_is_not_found(name: str, method: str) -> None:
    """Whatever it holds."""
    page = await visit(SSEBridge(None, never), Page(method, "/" + name))

    assert page.status == 404


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "get"])
@pytest.mark.parametrize("path", ["/", "/" + "n" * 16])
async def test_other_methods_start_and_end_nothing(method: str, path: str) -> None:
    """They get 405."""
    page = await visit(SSEBridge(None, never), Page(method, path))

    assert page.status == 405


async def test_a_huge_accept_header_is_read_like_any_other() -> None:
    """Its length costs one look."""
    async with site(finished()) as it:
        page = await it.answer("POST", accept="a/b," * 25_000 + "application/json")

    assert page.status == 201
