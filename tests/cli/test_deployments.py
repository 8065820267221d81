"""What the doctor says of deployments that are good, and of such that are wrong in one way."""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sse_bridge import SSEBridge
from sse_bridge.cli.deployment import look_at_deployment
from sse_bridge.cli.finding import Finding
from sse_bridge.cli.visiting import Patience
from sse_bridge.testing import Script
from tests.support.meddling_proxies import cuts_silence, deaf, flushes, holds, with_headers
from tests.support.proxies import Nginx
from tests.support.servers import serve

pytestmark = pytest.mark.slow

#: A machine that is busy is not slow by it.
PATIENT: dict[str, float] = {"at_once": 10.0, "first": 10.0, "leave": 10.0, "silence": 10.0}


def bridge_of(script: Script, **options: Any) -> SSEBridge:
    async def resolve(request: Request) -> Script:
        return script

    return SSEBridge(None, resolve, **{"heartbeat": 0.6, **options})


def wait_for(condition: Callable[[], bool]) -> bool:
    """Whether it holds soon: a server's threads have their own time."""
    until = time.monotonic() + 3
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


def silent() -> Script:
    return Script([], waits=True)


def examine(url: str, **waits: float) -> dict[str, Finding]:
    """What the doctor finds, by what it looked at."""
    return {finding.what: finding for finding in _examined(url, {}, **waits)[0]}


def _examined(url: str, headers: dict[str, str], **waits: float) -> tuple[list[Finding], list[str]]:
    told: list[str] = []
    chosen = Patience(**{**PATIENT, **waits})
    return anyio.run(look_at_deployment, url, headers, chosen, told.append), told


def wrong(findings: dict[str, Finding]) -> list[str]:
    return [what for what, finding in findings.items() if finding.is_good is False]


# -- good ones


@pytest.mark.parametrize("script", [silent(), Script(["a", "b"], waits=True)], ids=["silent", "prints"])
def test_a_good_deployment(script: Script) -> None:
    app = Starlette(routes=[Mount("/run-sse", bridge_of(script))])
    with serve(app) as served:
        findings, told = _examined(f"{served.url}/run-sse/", {}, **PATIENT)
    good = {finding.what for finding in findings if finding.is_good}
    looks = {"start", "Origin", "without the slash", "lines one by one", "silence", "leaving", "resume", "place", "end"}
    assert good == looks, findings
    assert len(told) == 1
    assert "watching the stream for 2 heartbeats" in told[0]
    assert (script.starts, script.stops) == (1, 1)


def test_a_run_that_no_viewer_may_leave_alone() -> None:
    """With `grace=0`, a run ends with its last viewer."""
    with serve(bridge_of(silent(), grace=0)) as served:
        findings = examine(served.url + "/")
    assert wrong(findings) == []
    assert findings["silence"].is_good
    assert findings["leaving"].is_good


@pytest.mark.parametrize("lines", [[], ["a"]], ids=["silent", "prints"])
def test_a_stream_without_ids_and_without_a_start(lines: list[str]) -> None:
    with serve(bridge_of(Script(lines, waits=True), dialect="verbatim")) as served:
        findings = examine(served.url + "/", first=2.0)
    assert wrong(findings) == []
    assert findings["silence"].is_good
    assert findings["place"].is_good is None


def test_a_first_heartbeat_is_none_without_others() -> None:
    """`verbatim` sends one with the head."""
    with serve(bridge_of(silent(), dialect="verbatim", heartbeat=None)) as served:
        findings = examine(served.url + "/", first=1.0, silence=4.0)
    assert wrong(findings) == []
    assert findings["silence"].is_good is None
    assert "no heartbeat in" in findings["silence"].found


def test_a_script_that_ends_leaves_silence_open() -> None:
    with serve(bridge_of(Script(["a"]))) as served:
        findings = examine(served.url + "/")
    assert wrong(findings) == []
    assert findings["silence"].is_good is None
    assert "the run ended" in findings["silence"].found
    assert findings["leaving"].found == "not checked: the run ended meanwhile"


def test_a_script_that_prints_leaves_silence_open() -> None:
    with serve(bridge_of(Script(["a"] * 1000, delay=0.02), heartbeat=60)) as served:
        findings = examine(served.url + "/", silence=4.0)
    assert wrong(findings) == []
    assert findings["silence"].is_good is None
    assert "the script prints" in findings["silence"].found


def test_no_time_for_silence() -> None:
    with serve(bridge_of(silent())) as served:
        findings, told = _examined(served.url + "/", {}, silence=0)
    assert told == []
    assert "silence" not in {finding.what for finding in findings}
    assert all(finding.is_good is not False for finding in findings)


# -- silence


@pytest.mark.parametrize("grace", [0, 10])
def test_a_proxy_that_cuts_silence(grace: float) -> None:
    with serve(bridge_of(silent(), heartbeat=30, grace=grace)) as served, cuts_silence(served.port, 2) as url:
        findings = examine(url + "/")
    assert wrong(findings) == ["silence"]
    assert re.search(r"was cut after \d+\.\d s of silence", findings["silence"].found)
    assert "proxy_read_timeout" in findings["silence"].remedy
    assert "heartbeat=" in findings["silence"].remedy


def test_heartbeats_keep_the_same_proxy_from_cutting() -> None:
    with serve(bridge_of(silent(), heartbeat=0.5)) as served, cuts_silence(served.port, 4) as url:
        findings = examine(url + "/")
    assert wrong(findings) == []
    assert "2 heartbeats came" in findings["silence"].found


# -- lines that are held back


def test_a_proxy_that_flushes_now_and_then() -> None:
    script = Script(["a"], waits=True)
    with serve(bridge_of(script)) as served, flushes(served.port, 2) as url:
        findings = examine(url + "/", at_once=0.5)
    assert "the first event is held back: it took" in findings["lines one by one"].found
    assert wrong(findings) == ["lines one by one"]
    assert script.stops == 1


def test_a_proxy_that_holds_back_what_comes_later() -> None:
    script = Script(["a"] * 1000, delay=0.05)
    with serve(bridge_of(script)) as served, holds(served.port, b"\n\n") as url:
        findings = examine(url + "/", at_once=0.5, silence=3.0, look=0.1, leave=2.0)
    assert "lines are held back" in findings["lines one by one"].found


# -- the run on other connections


def refusing(app: ASGIApp, status: int, body: bytes = b"") -> ASGIApp:
    """Answers requests for the run's state in place of the application."""

    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] == "http" and scope["method"] == "GET" and Request(scope).headers["accept"]
        if asks == "application/json":
            return await Response(body, status)(scope, receive, send)
        return await app(scope, receive, send)

    return refuses


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (503, b"", "9 of 9 requests for the run got 503"),
        (200, b"hello", "9 of 9 requests for the run got something other"),
        (200, b'{"run": "BBBBBBBBBBBBBBBB", "viewers": 2}', "9 of 9 requests for the run got something other"),
        (404, b"", "9 of 9 requests did not find the run"),
    ],
)
def test_connections_that_do_not_get_the_state(status: int, body: bytes, says: str) -> None:
    script = silent()
    with serve(refusing(bridge_of(script), status, body), lifespan="off") as served:
        findings = examine(served.url + "/")
    assert wrong(findings) == ["resume"]
    assert says in findings["resume"].found
    assert script.stops == 1


@pytest.mark.parametrize("script", [silent(), Script(["a", "b"], waits=True)], ids=["silent", "prints"])
def test_a_proxy_that_drops_the_place(script: Script) -> None:
    app = with_headers(bridge_of(script), lambda headers: headers.pop(b"last-event-id", None))
    with serve(app, lifespan="off") as served:
        findings = examine(served.url + "/")
    assert wrong(findings) == ["place"]
    assert "got event 0 again" in findings["place"].found


def test_a_viewer_that_leaves_unnoticed() -> None:
    with serve(bridge_of(silent())) as served, deaf(served.port) as url:
        findings = examine(url + "/", leave=0.5, silence=4.0)
        unwatched = examine(url + "/", leave=0.5, silence=0)
    assert wrong(findings) == ["leaving"]
    assert "abortonclose" in findings["leaving"].remedy
    assert unwatched["leaving"].is_good is None


# -- a run that others use


def shared(script: Script) -> SSEBridge:
    return bridge_of(script, key=lambda request: "one for all", grace=60)


@pytest.mark.parametrize(("is_watched", "has_date"), [(True, True), (False, True), (False, False)])
def test_a_run_that_others_use_goes_on(is_watched: bool, has_date: bool) -> None:
    script = Script(["a"], waits=True)
    app = changing(shared(script), lambda headers: None if has_date else headers.update({b"date": b"unknown"}))
    with serve(app, lifespan="off") as served:
        run = httpx.post(served.url + "/", headers={"Accept": "application/json"}).headers["location"]
        with ExitStack() as stack:
            if is_watched:
                stack.enter_context(httpx.stream("GET", served.url + run))
            else:
                time.sleep(5)
            findings = examine(served.url + "/", leave=1.0)
        state = httpx.get(served.url + run, headers={"Accept": "application/json"}).json()
    assert state["state"] == "running"
    assert wrong(findings) == []
    assert findings["shared run"].is_good is findings["end"].is_good is findings["leaving"].is_good is None
    assert script.starts == 1


# -- limits


def test_a_bridge_that_lets_one_viewer_in() -> None:
    script = silent()
    with serve(bridge_of(script, max_viewers=1)) as served:
        findings = examine(served.url + "/")
    assert wrong(findings) == []
    assert "(busy)" in findings["lines one by one"].found
    assert script.stops == 1


def test_a_bridge_whose_run_goes_on() -> None:
    script = silent()
    with serve(bridge_of(script, max_runs=1, grace=60)) as served:
        httpx.post(served.url + "/", headers={"Accept": "application/json"})
        findings = examine(served.url + "/", start=1.0)
    assert wrong(findings) == []
    assert "less busy" in findings["start"].remedy
    assert script.starts == 1


@pytest.mark.parametrize("headers", [{}, {"Cookie": "login=ann"}])
def test_workers_that_a_cookie_chooses(headers: dict[str, str]) -> None:
    workers, turns = [bridge_of(silent()), bridge_of(silent())], itertools.count()

    async def chooses(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = Request(scope).cookies.get("worker") or str(next(turns) % 2)

        async def sends(message: Message) -> None:
            if message["type"] == "http.response.start":
                cookie = (b"set-cookie", f"worker={chosen}".encode())
                message = {**message, "headers": [*message["headers"], cookie]}
            await send(message)

        await workers[int(chosen)](scope, receive, sends)

    with serve(chooses, lifespan="off") as served:
        found, _ = _examined(served.url + "/", headers, silence=0)
    assert all(finding.is_good is not False for finding in found), found


# -- addresses


def test_a_proxy_that_changes_the_host() -> None:
    script = silent()
    app = with_headers(bridge_of(script), lambda headers: headers.update({b"host": b"app:8000"}))
    with serve(app, lifespan="off") as served:
        findings = examine(served.url + "/", silence=0)
    assert wrong(findings) == ["Origin"]
    assert "proxy_set_header Host $http_host" in findings["Origin"].remedy
    assert script.starts == 1


def moved(status: int, target: str) -> ASGIApp:
    """A bridge that is not served without its slash."""

    async def away(request: Request) -> Response:
        return RedirectResponse(target, status)

    methods = ["GET", "POST"]
    return Starlette(routes=[Route("/run-sse", away, methods=methods), Mount("/run-sse", bridge_of(silent()))])


@pytest.mark.parametrize(
    ("status", "target", "is_good", "says"),
    [
        (307, "/run-sse/", True, "keeps the method"),
        (301, "/run-sse/", False, "turns a POST into a GET"),
        (307, "http://app:8000/run-sse/", False, "leads to http://app:8000"),
        (307, "/login", None, "have pages ask with the slash"),
    ],
)
def test_the_address_without_the_slash(status: int, target: str, is_good: bool | None, says: str) -> None:
    with serve(moved(status, target)) as served:
        finding = examine(f"{served.url}/run-sse/", silence=0)["without the slash"]
    assert finding.is_good is is_good
    assert says in finding.found


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which nginx finds its certificate, which this process trusts."""
    authority = trustme.CA()
    monkeypatch.setattr(trustme, "CA", lambda: authority)
    authority.cert_pem.write_to_path(str(tmp_path / "trusted.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    return tmp_path


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_behind_tls(version: str, trusted: Path) -> None:
    """A redirect of an application that does not know its scheme leads to `http://`."""
    nginx, app = Nginx(trusted, tls=True), Starlette(routes=[Mount("/run-sse", bridge_of(silent()))])
    location = "proxy_set_header Host $http_host;"
    with serve(app) as served, nginx.serve(served.port, location, http2=version == "HTTP/2") as url:
        findings = examine(f"{url}/run-sse/", silence=0)
    assert wrong(findings) == ["without the slash"]
    assert "leads to http://" in findings["without the slash"].found
    assert findings["HTTP version"].found == version
    assert findings["HTTP version"].is_good is (True if version == "HTTP/2" else None)


# -- the start


def test_an_application_that_fails_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    asked = 0

    async def resolve(request: Request) -> Script:
        nonlocal asked
        asked += 1
        raise RuntimeError("no database")

    with serve(SSEBridge(None, resolve)) as served:
        findings = examine(served.url + "/")
    assert wrong(findings) == ["start"]
    assert "http_500" in findings["start"].found
    assert asked == 1


@pytest.mark.parametrize("status", [404, 405])
def test_a_path_that_is_no_bridges(status: int) -> None:
    methods = ["GET"] if status == 405 else ["GET", "POST"]
    app = Starlette(routes=[Route("/run-sse", lambda request: Response(status_code=status), methods=methods)])
    with serve(app) as served:
        findings = examine(f"{served.url}/run-sse")
    assert "Is this the URL of a bridge?" in findings["start"].remedy


def test_a_path_below_the_bridges() -> None:
    with serve(Starlette(routes=[Mount("/run-sse", bridge_of(silent()))])) as served:
        findings = examine(f"{served.url}/run-sse/BBBBBBBBBBBBBBBB")
    assert "Is this the URL of a bridge?" in findings["start"].remedy


def test_an_address_that_has_moved() -> None:
    target = "https://ann:secret@a.example/there?token=secret"
    app = Starlette(routes=[Route("/run-sse/", lambda request: RedirectResponse(target, 301), methods=["POST"])])
    with serve(app) as served:
        findings = examine(f"{served.url}/run-sse/")
    assert "to https://a.example/there." in findings["start"].found
    assert "secret" not in str(findings)


def changing(app: ASGIApp, change: Callable[[dict[bytes, bytes]], object]) -> ASGIApp:
    """An application whose 201s get other headers."""

    async def changed(scope: Scope, receive: Receive, send: Send) -> None:
        async def sends(message: Message) -> None:
            if message.get("status") == 201:
                headers = dict(message["headers"])
                change(headers)
                message = {**message, "headers": list(headers.items())}
            await send(message)

        await app(scope, receive, sends)

    return changed


@pytest.mark.parametrize("location", [b"/elsewhere", b"http://a.example/BBBBBBBBBBBBBBBB", b"//[", b""])
def test_a_run_whose_location_is_wrong_is_ended(location: bytes) -> None:
    script = silent()
    app = changing(bridge_of(script, grace=60), lambda headers: headers.update({b"location": location}))
    with serve(app, lifespan="off") as served:
        findings = examine(served.url + "/")
        assert wait_for(lambda: script.stops == 1)
    assert wrong(findings) == ["start"]
    assert "its Location names no run" in findings["start"].found


@pytest.mark.parametrize("fails", [True, False], ids=["an error", "Ctrl-C"])
def test_a_run_is_ended_whatever_happens(fails: bool) -> None:
    script = silent()

    async def stopped(url: str) -> None:
        with anyio.CancelScope() as scope:

            def tell(message: str) -> None:
                scope.cancel()
                if fails:
                    raise RuntimeError("unexpected")

            await look_at_deployment(url, {}, Patience(**PATIENT), tell)

    with serve(bridge_of(script, grace=60)) as served:
        if fails:
            with pytest.raises(ExceptionGroup):
                anyio.run(stopped, served.url + "/")
        else:
            anyio.run(stopped, served.url + "/")
        assert wait_for(lambda: script.stops == 1)


def test_the_doctor_opens_a_stream_before_it_looks_elsewhere() -> None:
    """The bridge ends a run that has no viewer for ten seconds, and a redirect of the bare address may take as long."""
    asked: list[tuple[str, str]] = []
    app = Starlette(routes=[Mount("/run-sse", bridge_of(silent()))])

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked.append((scope["method"], scope["path"]))
        await app(scope, receive, send)

    with serve(noting) as served:
        examine(f"{served.url}/run-sse/", silence=0)
    assert ("GET", "/run-sse") in asked
    assert asked.index(("GET", "/run-sse")) > [method for method, _ in asked].index("DELETE")


def test_an_address_that_lets_users_in_by_its_query() -> None:
    script = silent()
    bridge = bridge_of(script)

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["query_string"] != b"token=a":
            return await Response(status_code=401)(scope, receive, send)
        return await bridge(scope, receive, send)

    with serve(door) as served:
        findings = examine(served.url + "/?token=a", silence=0)
    assert wrong(findings) == []
    assert findings["end"].is_good
    assert script.stops == 1


def test_a_server_that_is_up_a_moment_later() -> None:
    script, refusals = silent(), [502, 503]
    bridge = bridge_of(script)

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        if refusals:
            return await Response(status_code=refusals.pop())(scope, receive, send)
        return await bridge(scope, receive, send)

    with serve(late, lifespan="off") as served:
        findings = examine(served.url + "/", silence=0)
    assert findings["start"].is_good
    assert script.starts == 1
