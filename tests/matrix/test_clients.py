"""The clients that people follow streams with: browsers, libraries and curl."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import trustme

from tests.matrix.cells import Cell
from tests.matrix.programs import CLIENTS, Client, following
from tests.matrix.proxies import PROXIES
from tests.matrix.sites import Site, assert_is_complete, site
from tests.matrix.table import YES, Results
from tests.support.cutting_proxy import cutting_proxy
from tests.support.sandboxes import LocalSandbox
from tests.support.waiting import eventually

Saw = Callable[..., None]


def _param(name: str, client: Client) -> Any:
    return pytest.param(client, id=name, marks=[] if client.is_quick else [pytest.mark.matrix])


@pytest.fixture(params=[_param(*item) for item in CLIENTS.items()])
def client(request: pytest.FixtureRequest) -> Client:
    made: Client = request.param
    return made


@pytest.fixture(scope="module")
def sites(
    sandbox: LocalSandbox,
    authority: trustme.CA,
    certificate: trustme.LeafCert,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[bool], Site]]:
    """Serves the page and the bridges, over HTTP/1.1 or HTTP/2."""
    with ExitStack() as stack:

        @functools.cache
        def made(is_http2: bool) -> Site:
            cell = Cell("clients", "clients", "", proxy=PROXIES["nginx-h2"] if is_http2 else None)
            folder = tmp_path_factory.mktemp("clients")
            return stack.enter_context(site(cell, sandbox, authority, certificate, folder))

        yield made


@pytest.fixture
def served(client: Client, sites: Callable[[bool], Site]) -> Site:
    return sites(client.is_http2)


@pytest.fixture
def saw(client: Client, results: Results) -> Saw:
    """Notes what a test has seen, for the page."""

    def note(column: str, text: str = YES) -> None:
        results.add("clients", client.title, column, text)

    return note


def address(client: Client, served: Site, bridge: str, query: str, port: int | None = None) -> str:
    """What the client opens: the stream, or the page that opens it."""
    stream = served.address(bridge, query, port=port)
    url = httpx.URL(stream)
    return f"{url.copy_with(path='/', query=None)}#{url.raw_path.decode()}" if client.browser else stream


def test_lines_arrive_when_they_are_printed(client: Client, served: Site, saw: Saw) -> None:
    """The script waits after its first line, and goes on only once the client has shown it."""
    script = served.script()
    with following(client, address(client, served, "quiet-sse", f"mark={script.mark}")) as shown:
        shown.until('"line":"first"')
        saw("first line")
        script.release()
        shown.until('"type":"exit"')

    assert_is_complete(shown.objects())
    saw("lines, exit code")


def test_a_refusal(client: Client, served: Site, saw: Saw) -> None:
    """Programs see its status. A browser sees that it is one, and does not ask again."""
    with following(client, address(client, served, "run-sse", "unknown=1&mark=none")) as shown:
        shown.until("status: 404" if client.refusal == "status" else "closed")

    saw("refusal", client.refusal)


def test_leaving_ends_the_command(client: Client, served: Site, saw: Saw) -> None:
    """At once, without a heartbeat. A browser closes the tab and runs on."""
    script = served.script()
    with following(client, address(client, served, "quiet-sse", f"mark={script.mark}")) as shown:
        shown.until('"line":"first"')
        eventually(script.is_running)
        shown.leave()
        eventually(lambda: not script.is_running(), 20)

    saw("leaving")


def test_a_client_resumes_after_a_cut(client: Client, served: Site, saw: Saw) -> None:
    """Each line once, and the command was started once. Clients that stay away are given their place."""
    script = served.script()
    query = f"mark={script.mark}"
    with (
        cutting_proxy(served.port, cuts=0, most=0) as (url, proxy),
        following(client, address(client, served, "kept-sse", query, httpx.URL(url).port)) as shown,
    ):
        shown.until('"line":"first"')
        proxy.cut()
        if client.comes_back:
            script.release()
            shown.until('"type":"exit"')
    objects = shown.objects()
    if not client.comes_back:
        script.release()
        place = shown.last_id
        again_at = address(client, served, "kept-sse", f"{query}&lastEventId={place}" if client.browser else query)
        with following(client, again_at, place) as again:
            again.until('"type":"exit"')
        objects += again.objects()

    assert_is_complete(objects)
    assert script.starts() == 1
    saw("resume", "by itself" if client.comes_back else "given the place")
