"""docs/browser.md: its page and its script run as they stand, beside the application that it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from sse_bridge import SSEBridge
from sse_bridge.console import STATIC
from sse_bridge.testing import Script
from sse_bridge.upstream.lines import Item
from tests.support.accessibility import violations
from tests.support.documentation import DOCS, only_block
from tests.support.modules import watching_problems
from tests.support.servers import serve

GUIDE = DOCS / "browser.md"
LINES: list[Item] = ["one", ("stderr", "two"), "three"]

POLICY = only_block(GUIDE, "text").partition(": ")[2].strip()
PAGE = only_block(GUIDE, "html").replace("</title>", '</title><link rel="icon" href="data:,">')
SCRIPT = f"""<!doctype html><title>follow</title><link rel="icon" href="data:,">
<button id="stop">Stop</button><pre></pre>
<script type="module">
const show = (line) => document.querySelector("pre").append(line, "\\n");
const stop = document.getElementById("stop");
{only_block(GUIDE, "js")}
</script>"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The application of the page's first block; the bridge plays a script."""
    pages = {
        "/": HTMLResponse(PAGE, headers={"Content-Security-Policy": f"{POLICY}; img-src data:"}),
        "/styled": HTMLResponse(f"{PAGE}<style>{only_block(GUIDE, 'css')}</style>"),
        "/script": HTMLResponse(SCRIPT),
    }

    async def answer(request: Request) -> HTMLResponse:
        return pages[request.url.path]

    app = Starlette(routes=[Route(path, answer) for path in pages])

    async def script(request: Request) -> Script:
        return Script(LINES, exit=3)

    names: dict[str, Any] = {"app": app, "bridge": SSEBridge(None, script)}
    exec(only_block(GUIDE, "python"), names)
    with serve(app) as served:
        yield served.url


def test_the_page_shows_a_run(page: Page, url: str, problems: list[str]) -> None:
    """Under the policy that the text gives."""
    with watching_problems(page, problems):
        page.goto(url)
        page.click("#run")
        page.get_by_text("exit code 3").wait_for()
        page.locator(".row").get_by_text("three").wait_for()

    assert page.locator(".row .text").all_inner_texts() == ["one", "two", "three"]
    assert "#run=" in page.url


@pytest.mark.slow
def test_axe_finds_nothing_in_the_page(page: Page, url: str) -> None:
    """Readers copy it."""
    page.goto(url)
    page.locator("#run").wait_for()

    assert violations(page) == []


def test_the_style_gives_height_and_colours(page: Page, url: str) -> None:
    page.goto(f"{url}/styled")
    page.set_viewport_size({"width": 800, "height": 1000})
    page.click("#run")
    row = page.locator(".row").get_by_text("three")
    row.wait_for()

    assert page.evaluate("getComputedStyle(document.querySelector('sse-console')).blockSize") == "700px"
    style = row.evaluate("(row) => { const s = getComputedStyle(row); return [s.color, s.fontFamily]; }")
    assert style == ["rgb(230, 230, 230)", '"JetBrains Mono", monospace']


def test_the_script_shows_a_run(page: Page, url: str) -> None:
    page.goto(f"{url}/script")
    page.get_by_text("[exit 3]").wait_for()

    assert page.inner_text("pre").split() == ["one", "two", "three", "[exit", "3]"]


def test_what_the_text_names_is_there() -> None:
    """Each attribute and property in the tables of the element is one of its module's, or of its style sheet's."""
    source = "".join((STATIC / name).read_text() for name in ("sse-console.js", "styles.js"))
    tables = GUIDE.read_text().partition("| attribute | means |")[2].partition("**Keys**")[0]
    first_cells = re.findall(r"^\| (`.*?) \|", tables, re.MULTILINE)
    names = {name for cell in first_cells for name in re.findall(r"`([a-z-]+)", cell)}

    assert len(names) >= 18
    assert {name for name in names if not re.search(rf"\b{name}\b", source)} == set()
