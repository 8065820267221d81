"""Each framework, server and proxy, and what people combine of them: what a viewer relies on holds in every cell."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import trustme

from tests.matrix.cells import CELLS, Cell, Stop
from tests.matrix.programs import CLIENTS, following
from tests.matrix.sites import Site, assert_is_complete, site
from tests.matrix.table import YES, Results
from tests.matrix.tabs import LOST, Http2Tab, Tab
from tests.support.cutting_proxy import cutting_proxy
from tests.support.sandboxes import LocalSandbox
from tests.support.waiting import eventually

Saw = Callable[..., None]

#: Requests that a viewer makes until it has met the worker with its run, of two.
_TRIES = 40


def _param(cell: Cell) -> Any:
    marks = [] if cell.is_quick else [pytest.mark.matrix]
    return pytest.param(cell, id=f"{cell.section}-{cell.name}", marks=marks)


@pytest.fixture(scope="module", params=[_param(cell) for cell in CELLS])
def served(
    request: pytest.FixtureRequest,
    sandbox: LocalSandbox,
    authority: trustme.CA,
    certificate: trustme.LeafCert,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """A cell, for all tests of this file."""
    with site(request.param, sandbox, authority, certificate, tmp_path_factory.mktemp("cell")) as made:
        yield made


@pytest.fixture
def saw(served: Site, results: Results) -> Saw:
    """Notes what a test has seen, for the page."""

    def note(column: str, text: str = YES) -> None:
        results.add(served.cell.section, served.cell.title, column, text)

    return note


def test_lines_arrive_when_they_are_printed(served: Site, saw: Saw) -> None:
    """The script waits after its first line, and goes on only once that has arrived, without a heartbeat to push it."""
    script = served.script()
    with served.open("quiet-sse", script) as tab:
        assert tab.headers["content-type"].startswith("text/event-stream")
        tab.until(b'"line":"first"')
        saw("first line")
        script.release()
        tab.rest()

    assert_is_complete(tab.objects())
    saw("lines, exit code")


def test_heartbeats_arrive(served: Site, saw: Saw) -> None:
    """While the script is silent. They fill no buffer: three of them are 36 bytes."""
    script = served.script()
    with served.open("run-sse", script) as tab:
        tab.until(b"\n: heartbeat\n: heartbeat\n: heartbeat\n")
        script.release()
        tab.rest()

    assert_is_complete(tab.objects())
    saw("heartbeat")


def test_a_refusal_is_a_status(served: Site, saw: Saw) -> None:
    """Of the application, and of the platform."""
    denied = served.ask("GET", served.address("run-sse", "denied=1"))
    unknown = served.ask("GET", served.address("run-sse", "unknown=1&mark=none"))

    assert (denied.status, denied.json()["error"]["message"]) == (401, "Log in first.")
    assert (unknown.status, unknown.json()["error"]["code"]) == (404, "not_found")
    saw("refusal")


def test_leaving_ends_the_command(served: Site, saw: Saw) -> None:
    """At once, without a heartbeat; or, behind some proxies, after a few heartbeats at most.

    A tab that is closed leaves the connection of HTTP/2 open for others, and resets its stream.
    """
    script = served.script()
    bound = served.cell.heartbeats
    bridge = "run-sse" if bound else "quiet-sse"
    with served.open(bridge, script) as tab:
        tab.until(b'"line":"first"')
        eventually(script.is_running)
    eventually(lambda: not script.is_running(), 20)

    if bound:
        sent = served.ask("GET", served.address("heartbeats", f"mark={script.mark}")).json()
        assert sent - tab.content.count(b": heartbeat\n") <= bound
    if served.cell.is_http2:
        other = served.script()
        with served.open(bridge, other) as tab:
            tab.until(b'"line":"first"')
            assert isinstance(tab, Http2Tab)
            tab.reset()
            eventually(lambda: not other.is_running(), 20)
    saw("leaving", f"≤ {bound} heartbeats" if bound else YES)


def ask_its_worker(served: Site, send: Callable[[], Tab]) -> Tab:
    """Sends a request until the worker with the run answers. With one worker that is the first try."""
    for _ in range(_TRIES):
        tab = send()
        if tab.status != 404 or served.cell.server.workers == 1:
            break
        assert tab.json()["error"]["code"] == "run_unknown"
    return tab


def _at_worker(served: Site) -> str:
    return YES if served.cell.server.workers == 1 else "on its worker"


def test_a_viewer_resumes_after_a_cut(served: Site, saw: Saw) -> None:
    """Each line once, and the command was started once."""
    script = served.script()
    with (
        cutting_proxy(served.port, cuts=0, most=0) as (url, proxy),
        served.open("kept-sse", script, port=httpx.URL(url).port) as first,
        suppress(*LOST),
    ):
        first.until(b'"line":"first"')
        proxy.cut()
        first.rest()
    script.release()

    def come_back() -> Tab:
        with served.open("kept-sse", script, place=first.last_id) as tab:
            tab.rest()
        return tab

    second = ask_its_worker(served, come_back)

    assert second.status == 200
    assert_is_complete(first.objects() + second.objects())
    assert script.starts() == 1
    saw("resume", _at_worker(served))


def test_delete_ends_the_command(served: Site, saw: Saw) -> None:
    """Its viewer is told, and gets a proper end."""
    script = served.script()
    with served.open("kept-sse", script) as tab:
        tab.until(b'"line":"first"')
        answer = ask_its_worker(served, lambda: served.ask("DELETE", served.address("kept-sse", below=tab.run)))
        tab.rest()

    assert answer.status in (202, 204)
    assert tab.objects()[-1]["code"] == "cancelled"
    eventually(lambda: not script.is_running())
    saw("`DELETE`", _at_worker(served))


def test_the_server_stops(served: Site, saw: Saw) -> None:
    """All of its processes, and the command. The viewer is told why and gets a proper end, if the server lets it."""
    script = served.script()
    address = served.address("kept-sse", f"mark={script.mark}")
    if served.cell.is_http2:  # after a GOAWAY, Python's clients give up streams that go on
        with following(CLIENTS["curl-h2"], address) as viewer:
            viewer.until('"line":"first"')
            served.process.tell(signal.SIGTERM)
            is_whole = viewer.code() == 0
        last = viewer.objects()[-1]
    else:
        is_whole = False
        with served.open("kept-sse", script) as tab, suppress(*LOST):
            tab.until(b'"line":"first"')
            served.process.tell(signal.SIGTERM)
            tab.rest()
            is_whole = True
        last = tab.objects()[-1]
    served.process.wait_until_gone()

    stop = served.cell.server.stop
    assert last.get("code") == "server_stopped"
    assert is_whole or stop is Stop.TOLD
    assert not script.is_running()
    assert "Traceback" not in served.process.log.read_text()
    saw("stop", stop.value)
