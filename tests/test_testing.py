"""`sse_bridge.testing`: scripts and pages for tests of applications."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from sse_bridge import Cancelled, ConfigurationError, SSEBridge, UpstreamLost, UpstreamRefused
from sse_bridge.testing import Event, Page, PageError, Script
from tests.support.documentation import DOCS, blocks

pytestmark = pytest.mark.anyio


def bridged(source: Any, **options: Any) -> SSEBridge:
    async def resolve(request: Request) -> Any:
        return source

    return SSEBridge(resolve=resolve, **options)


async def objects(page: Page) -> list[Any]:
    return [event.json() async for event in page]


# -- scripts


async def test_a_script_prints_its_lines_and_exits() -> None:
    """As a command does."""
    script = Script(["a", ("stderr", "b"), b"c\n"], exit=3)
    async with Page(bridged(script)) as page:
        start, *rest = await objects(page)

    assert start == {"type": "start", "run": page.last_event_id.partition(".")[0]}
    assert rest == [
        {"type": "stdout", "line": "a"},
        {"type": "stderr", "line": "b"},
        {"type": "stdout", "line": "c"},
        {"type": "exit", "code": 3},
    ]
    assert (script.starts, script.stops, script.cancels) == (1, 1, 0)


async def test_a_script_may_end_without_an_exit() -> None:
    """As an event stream does."""
    async with Page(bridged(Script(["a"], exit=None))) as page:
        assert [said["type"] for said in await objects(page)] == ["start", "stdout"]


async def test_a_script_may_be_refused() -> None:
    """The page gets the status; nothing is read."""
    script = Script(["a"], refusal=UpstreamRefused("There is no such sandbox.", code="not_found", status=404))
    async with Page(bridged(script)) as page:
        with pytest.raises(PageError, match=r"GET / was answered 404: .*not_found"):
            await anext(page)

    assert (script.starts, script.stops) == (1, 0)


async def test_a_script_may_break_off() -> None:
    """Behind its lines."""
    script = Script(["a"], error=UpstreamLost("The stream broke off."))
    async with Page(bridged(script)) as page:
        *_, last = await objects(page)

    assert (last["type"], last["code"]) == ("error", "upstream_lost")


@pytest.mark.parametrize("ends", list(Cancelled))
async def test_a_script_that_waits_is_ended(ends: Cancelled) -> None:
    """By a `DELETE`, for one. It tells how far that got."""
    script = Script(["a"], waits=True, ends=ends)
    bridge = bridged(script, cancel_timeout=0.1)
    async with Page(bridge) as page:
        await anext(page)
        await anext(page)
        async with Page(bridge, f"/{page.headers['sse-bridge-run']}", method="DELETE") as delete:
            with suppress(StopAsyncIteration, PageError):
                await anext(delete)
            assert delete.status == (204 if ends is Cancelled.CONFIRMED else 202)
        *_, last = await objects(page)

    assert last["code"] == "cancelled"
    assert (script.starts, script.stops, script.cancels) == (1, 1, 1)
    assert getattr(bridge.statistics().cancels, ends.value) == 1


async def test_scripts_are_compared_by_their_arguments() -> None:
    """So that requests with one key share a run."""
    assert Script(["a"]) == Script(["a"])
    assert Script(["a"]) != Script(["a"], exit=1)
    played = Script(["a"])
    async with Page(bridged(played)) as page:
        await objects(page)
    assert played == Script(["a"])


async def test_an_error_of_many_runs_does_not_grow() -> None:
    """Each run would add to its traceback, and keep what it refers to."""
    refusal, error = UpstreamRefused("No."), UpstreamLost("It broke off.")
    for script in (Script(refusal=refusal), Script(error=error)):
        lengths = set()
        for _ in range(3):
            async with Page(bridged(script)) as page:
                with suppress(PageError):
                    await objects(page)
            lengths.add(len([*traceback.walk_tb((script.refusal or error).__traceback__)]))
        assert len(lengths) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lines": "done"}, r"Script needs a list of lines, such as \['done'\], not a str"),
        ({"lines": iter(["a"])}, "Script needs a list of lines"),
        ({"exit": "3"}, "Exit takes a whole number"),
        ({"delay": -1}, "must be seconds, 0 or more, not -1"),
        ({"refusal": UpstreamRefused}, "must be an UpstreamError, .* not the class UpstreamRefused"),
        ({"error": ValueError("x")}, "must be an UpstreamError, .* not a ValueError"),
        ({"waits": 1}, "must be True or False, not an int"),
        ({"ends": "confirmed"}, "must be a Cancelled, not a str"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_arguments_of_another_kind_are_refused(arguments: dict[str, Any], words: str) -> None:
    """When the script is made. A text would have been printed letter by letter."""
    with pytest.raises(ConfigurationError, match=words):
        Script(**arguments)


# -- pages


async def test_a_page_comes_back_where_it_was() -> None:
    """With its last event id, as often as it is cut. Each event arrives once."""
    script = Script([str(number) for number in range(100)])
    async with Page(bridged(script)) as page:
        seen = []
        async for event in page:
            seen.append(event.json())
            if len(seen) % 30 == 0:
                page.cut()

    assert [said.get("line") for said in seen] == [None, *map(str, range(100)), None]
    assert page.connections > 3
    assert script.starts == 1
    assert page.status == 204


async def test_leaving_the_block_disconnects() -> None:
    """The run ends after its grace."""
    script = Script(["a"], waits=True)
    bridge = bridged(script, grace=0)
    async with Page(bridge) as page:
        await anext(page)

    with anyio.fail_after(10):
        while not script.stops:
            await anyio.lowlevel.checkpoint()
    assert script.cancels == 1


async def test_a_page_is_read_within_its_block() -> None:
    """Elsewhere there is nothing that could carry its connection."""
    page = Page(bridged(Script(["a"])))
    with pytest.raises(RuntimeError, match="within its block: async with"):
        await anext(page)
    async with page:
        await anext(page)
    with pytest.raises(RuntimeError, match="within its block: async with"):
        await anext(page)


async def test_a_page_sends_what_it_is_told_to() -> None:
    """Method, query, headers and body reach the application, through its routes."""
    asked: list[Any] = []

    async def resolve(request: Request) -> Script:
        asked.append((request.method, dict(request.query_params), request.headers["cookie"], await request.body()))
        return Script()

    app = Starlette(routes=[Mount("/run-sse", SSEBridge(resolve=resolve))])
    async with Page(app, "/run-sse/?run=a", method="POST", headers={"Cookie": "s=1"}, body=b"{}") as page:
        await anext(page)

    assert asked == [("POST", {"run": "a"}, "s=1", b"{}")]


@pytest.mark.parametrize(
    ("url", "path", "raw_path", "query"),
    [
        ("/a%20b/%C3%BC?x=%20&y=a+b", "/a b/ü", b"/a%20b/%C3%BC", b"x=%20&y=a+b"),
        ("/ü?x=ü", "/ü", b"/%C3%BC", b"x=%C3%BC"),
        ("/a#part", "/a", b"/a", b""),
        ("?x=1", "/", b"/", b"x=1"),
    ],
)
async def test_a_page_escapes_its_url_as_a_browser_does(url: str, path: str, raw_path: bytes, query: bytes) -> None:
    """The application gets what a server would make of it."""
    asked: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append((scope["path"], scope["raw_path"], scope["query_string"]))
        await Response(status_code=204)(scope, receive, send)

    async with Page(app, url) as page:
        assert await objects(page) == []
    assert asked == [(path, raw_path, query)]


async def test_the_application_hears_of_the_disconnect_after_a_complete_answer() -> None:
    """As from a server. Quart waits for it."""
    heard = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response(status_code=204)(scope, receive, send)
        while (await receive())["type"] != "http.disconnect":
            pass
        heard.set()

    async with Page(app) as page:
        assert await objects(page) == []
        with anyio.fail_after(10):
            await heard.wait()


async def test_a_page_comes_back_that_is_cut_before_an_answer() -> None:
    """The application may take its time for one."""
    asked = 0

    async def resolve(request: Request) -> Script:
        nonlocal asked
        asked += 1
        if asked == 1:
            page.cut()
            await anyio.sleep_forever()
        return Script(["a"])

    async with Page(SSEBridge(resolve=resolve)) as page:
        assert [said["type"] for said in await objects(page)] == ["start", "stdout", "exit"]
    assert (asked, page.connections) == (2, 3)


async def test_what_is_no_event_stream_is_an_error() -> None:
    """Which quotes the answer."""
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("Please log in."))])
    async with Page(app) as page:
        with pytest.raises(PageError, match=r"GET / was answered 200: b'Please log in.'"):
            await anext(page)


async def test_an_application_that_does_not_answer_is_an_error() -> None:
    """It has returned."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    async with Page(app) as page:
        with pytest.raises(PageError, match="returned without an answer"):
            await anext(page)


async def test_a_stream_that_never_ends_is_an_error() -> None:
    """A browser would start the run again without end."""
    async with Page(bridged(Script(), ids=False)) as page:
        with pytest.raises(PageError, match="connected 100 times"):
            await objects(page)


async def test_what_the_application_raises_reaches_the_test() -> None:
    """As its own exception, in the group of the block."""

    async def resolve(request: Request) -> Script:
        raise KeyError("no such page")

    with pytest.raises(ExceptionGroup) as caught:
        async with Page(SSEBridge(resolve=resolve)) as page:
            await anext(page)
    assert caught.group_contains(KeyError, match="no such page")


async def test_an_event_is_what_a_browser_dispatches() -> None:
    """Its name, its data, and the last event id."""
    async with Page(bridged(Script(["a"]), dialect="named")) as page:
        _, line, _ = [event async for event in page]

    assert isinstance(line, Event)
    assert (line.type, line.data, line.json()) == ("stdout", '{"line":"a"}', {"line": "a"})
    assert line.id == page.last_event_id.replace(".2", ".1")


# -- the guide


def test_the_examples_of_the_guide_pass(tmp_path: Path) -> None:
    """As a user would run them: without a key."""
    application, *tests = blocks(DOCS / "testing.md", "python")
    (tmp_path / application.title).write_text(application.text)
    (tmp_path / tests[0].title).write_text("\n\n".join(block.text for block in tests))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(tmp_path)]
    keyless = {name: value for name, value in os.environ.items() if not name.startswith("MIOSA_")}
    result = subprocess.run(command, cwd=tmp_path, env=keyless, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 0, result.stdout
    assert re.search(r"\b[4-9] passed", result.stdout), result.stdout
