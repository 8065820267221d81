"""Pages in a real browser: refusals, Stop for a silent run, unfinished lines, and components that mount twice."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from sse_bridge import SandboxExec, SSEBridge
from tests.support.sandboxes import LocalSandbox, new_mark, running
from tests.support.servers import serve
from tests.support.waiting import eventually

#: Starts the command in the query, or follows the run in the query. It closes only at an exit, so that the bridge has
#: to send it away after a refusal.
PAGE = """
<!doctype html><title>run</title><link rel="icon" href="data:,">
<button disabled>Stop</button><pre></pre>
<script>
  const output = document.querySelector("pre"), stop = document.querySelector("button");
  const query = new URLSearchParams(location.search), run = query.get("run");
  const source = new EventSource(run ? "/run-sse/" + run : "/run-sse/?" + query);
  source.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "start") {
      stop.onclick = () => fetch("/run-sse/" + message.run, { method: "DELETE" });
      stop.disabled = false;
    } else if (message.type === "stdout") output.append(message.line, "\\n");
    else if (message.type === "error") output.append(`[${message.status ?? message.code}] ${message.message}`, "\\n");
    else if (message.type === "exit") {
      output.append(`[exit ${message.code}]`, "\\n");
      source.close();
    }
  };
</script>
"""

#: Mounts a component, unmounts it after the milliseconds in the query, and mounts it again.
COMPONENT = """
<!doctype html><title>component</title><link rel="icon" href="data:,"><pre></pre>
<script>
  const output = document.querySelector("pre");
  const query = new URLSearchParams(location.search);
  query.set("key", Array.from(crypto.getRandomValues(new Uint32Array(4))).join("-"));
  function mount() {
    output.textContent = "";
    const source = new EventSource("/run-sse/?" + query);
    source.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "stdout") output.append(message.line, "\\n");
      if (message.type !== "exit") return;
      output.append(`[exit ${message.code}]`, "\\n");
      source.close();
    };
    return () => source.close();
  }
  const unmount = mount();
  setTimeout(() => { unmount(); mount(); }, Number(query.get("after")));
</script>
"""


class Site:
    """A page and a bridge that runs the command in the query, which only a test may do."""

    def __init__(self, sandbox: LocalSandbox, html: str, **options: Any) -> None:
        self._sandbox = sandbox
        #: Commands that requests asked for, in order.
        self.asked: list[str] = []
        self.bridge = SSEBridge(
            sandbox.miosa(), self._resolve, refusals="frame", retry_ms=100, key=self._key, **options
        )
        self.app = Starlette(routes=[Route("/", lambda request: HTMLResponse(html)), Mount("/run-sse", self.bridge)])
        self.url = ""

    def _resolve(self, request: Request) -> SandboxExec:
        command = request.query_params["command"]
        self.asked.append(command)
        if command == "without a login":
            raise HTTPException(401, "Log in first.")
        sandbox = "sbx_unknown" if command == "in another sandbox" else self._sandbox.id
        return SandboxExec(sandbox, command, cwd="/workspace")

    @staticmethod
    async def _key(request: Request) -> str | None:
        return request.query_params.get("key")

    def address(self, command: str, **query: object) -> str:
        more = "".join(f"&{name}={value}" for name, value in query.items())
        return f"{self.url}/?command={quote(command)}{more}"

    def stream(self, command: str) -> Any:
        return httpx.stream("GET", f"{self.url}/run-sse/?command={quote(command)}", timeout=20)

    @property
    def runs_started(self) -> int:
        return self.bridge.statistics().runs_started


@contextmanager
def site(sandbox: LocalSandbox, html: str = PAGE, **options: Any) -> Iterator[Site]:
    made = Site(sandbox, html, **options)
    with serve(made.app) as served:
        made.url = served.url
        yield made


def text_of(page: Page) -> str:
    return page.inner_text("pre").rstrip("\n")


def wait_until_closed(page: Page) -> None:
    page.wait_for_function("source.readyState === EventSource.CLOSED")


def mark() -> str:
    """Seconds to sleep, different for each sleeper, so that it can be found."""
    return new_mark()


# -- refusals


@pytest.mark.parametrize(
    ("command", "shown"),
    [("without a login", "[401] Log in first."), ("in another sandbox", "[404] The sandbox or stream does not exist.")],
)
def test_a_page_shows_why_it_gets_no_run(page: Page, sandbox: LocalSandbox, command: str, shown: str) -> None:
    """The refusal is a message. The browser comes back once, is sent away, and asks the application only once."""
    with site(sandbox) as it:
        page.goto(it.address(command))
        wait_until_closed(page)

        assert text_of(page) == shown
        assert it.asked == [command]


def test_a_page_shows_that_its_run_has_expired(page: Page, sandbox: LocalSandbox) -> None:
    """A link to an old run explains itself. The command ran only once."""
    with site(sandbox, keep=0.0) as it:
        with it.stream("echo hello") as response:
            run = response.headers["sse-bridge-run"]
            response.read()
        eventually(lambda: httpx.get(f"{it.url}/run-sse/{run}").status_code == 404)
        page.goto(f"{it.url}/?run={run}")
        wait_until_closed(page)

        assert text_of(page) == "[404] This run is unknown here. It may have ended some time ago."
        assert it.runs_started == 1


@pytest.mark.slow
def test_the_browser_asks_a_busy_bridge_again_by_itself(page: Page, sandbox: LocalSandbox) -> None:
    """The page stays empty meanwhile, and gets its run once there is room."""
    with site(sandbox, max_runs=1) as it:
        with it.stream(f"sleep {mark()}") as response:
            page.goto(it.address("echo hello"))
            eventually(lambda: it.bridge.statistics().requests_turned_away)
            page.wait_for_function("source.readyState === EventSource.CONNECTING")
            assert text_of(page) == ""
            httpx.delete(f"{it.url}/run-sse/{response.headers['sse-bridge-run']}")
        page.get_by_text("[exit 0]").wait_for()

        assert text_of(page) == "hello\n[exit 0]"
        assert it.runs_started == 2


# -- a silent run


def test_a_silent_run_can_be_stopped(page: Page, sandbox: LocalSandbox) -> None:
    """`start` names the run before the script has printed anything."""
    seconds = mark()
    with site(sandbox) as it:
        page.goto(it.address(f"sleep {seconds}"))
        eventually(lambda: running(seconds))
        page.click("button:enabled")
        wait_until_closed(page)

        assert text_of(page).startswith("[cancelled]")
        eventually(lambda: not running(seconds))


# -- lines that take their time


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("printf 'Name: '", "echo Ann", [("Name: ", True), ("Ann", False)]),
        ("printf '50%%'", "printf '\\r100%%\\n'", [("50%", True), ("\r100%", False)]),
        ("printf 'a\\n> '", "true", [("a", False), ("> ", True)]),
        ("printf 'x\\xe2\\x82'", "printf '\\xac\\n'", [("x", True), ("€", False)]),
    ],
)
def test_a_line_is_shown_before_it_ends(
    sandbox: LocalSandbox, before: str, after: str, expected: list[tuple[str, bool]]
) -> None:
    """The local sandbox held it back until its newline. The bridge marks what goes on as `partial`."""
    gate = f"gate-{uuid.uuid4().hex}"
    with site(sandbox) as it, it.stream(f"{before}; until [ -e {gate} ]; do sleep 0.02; done; {after}") as response:
        found = []
        for message in messages(response):
            if message["type"] == "stdout":
                found.append((message["line"], message.get("partial", False)))
                if found[-1][1]:
                    sandbox.write(f"/workspace/{gate}", "")

    assert found == expected


@pytest.mark.parametrize("size", [65_536, 300_000, 1_000_000])
def test_a_long_line_is_one_line(sandbox: LocalSandbox, size: int) -> None:
    """However many pieces it takes, all but the last are `partial`."""
    with site(sandbox) as it, it.stream(f"head -c {size} /dev/zero | tr '\\0' x; echo; echo next") as response:
        lines = [message for message in messages(response) if message["type"] == "stdout"]

    assert [line["line"] for line in lines[-1:]] == ["next"]
    assert "".join(line["line"] for line in lines[:-1]) == "x" * size
    assert [line.get("partial", False) for line in lines[:-1]] == [True] * (len(lines) - 2) + [False]


def messages(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


# -- components that mount twice


@pytest.mark.parametrize("after", [0, 5, 30])
def test_a_component_that_mounts_twice_runs_one_command(page: Page, sandbox: LocalSandbox, after: int) -> None:
    """The second connection has the key of the first, so it follows the same run, from its beginning."""
    with site(sandbox, COMPONENT) as it:
        page.goto(it.address("echo one; sleep 0.3; echo two", after=after))
        page.get_by_text("[exit 0]").wait_for()

        assert text_of(page) == "one\ntwo\n[exit 0]"
        assert it.runs_started == 1


def test_pages_that_load_apart_run_a_command_each(page: Page, sandbox: LocalSandbox) -> None:
    """Each chooses a key of its own: a reload is a new request for a run."""
    with site(sandbox, COMPONENT) as it:
        for _ in range(2):
            page.goto(it.address("sleep 0.2; echo one", after=0))
            page.get_by_text("[exit 0]").wait_for()

        assert it.runs_started == 2
