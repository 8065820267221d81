"""The pages that the package serves, under axe: landmarks, headings, names, contrast."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount, Route

from sse_bridge import SSEBridge
from sse_bridge.console import static_files
from sse_bridge.console.app import create_app
from sse_bridge.console.pages import COMMAND, page_of
from sse_bridge.testing import Script
from tests.support.accessibility import violations
from tests.support.sandboxes import LocalSandbox
from tests.support.servers import serve


async def script(request: Request) -> Script:
    return Script(["one", ("stderr", "two")], exit=3)


@pytest.fixture(scope="module")
def urls(sandbox: LocalSandbox) -> Iterator[dict[str, str]]:
    """The page of `sse-bridge serve`, and the demo's."""
    command = Starlette(
        routes=[
            Route("/", page_of(COMMAND)),
            Mount("/sse-bridge", static_files()),
            Mount("/run-sse", SSEBridge(None, script, refusals="frame")),
        ]
    )
    with serve(command) as one, serve(create_app(sandbox.miosa())) as other:
        yield {"serve": one.url, "demo": other.url}


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[1280, 390])
def page(browser: Browser, theme: Any, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A desk's screen, and a phone's."""
    is_phone = request.param < 500
    viewport: Any = {"width": request.param, "height": 800}
    with browser.new_context(viewport=viewport, color_scheme=theme, is_mobile=is_phone, has_touch=is_phone) as context:
        yield context.new_page()


@pytest.mark.slow
def test_axe_finds_nothing_in_the_page_of_serve(page: Page, urls: dict[str, str]) -> None:
    """Before a run, and after one."""
    page.goto(urls["serve"])
    assert page.get_by_role("heading", level=1).inner_text() == "sse_bridge"
    page.locator("#run").wait_for()
    assert violations(page) == []
    page.click("#run")
    page.get_by_text("exit code 3").wait_for()
    assert violations(page) == []

    # And the console fills what the heading leaves.
    box = page.locator("sse-console").bounding_box()
    assert box is not None
    assert box["y"] < 60
    assert 760 < box["y"] + box["height"] <= 800
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")


@pytest.mark.slow
def test_axe_finds_nothing_in_the_page_of_the_demo(page: Page, urls: dict[str, str]) -> None:
    """Before a run, and during one."""
    page.goto(urls["demo"])
    page.locator("#run").wait_for()
    assert violations(page) == []
    page.click("#run")
    page.get_by_text("Batch 1/10").wait_for()
    assert violations(page) == []
    page.click("#stop")
    page.locator("#stop:disabled").wait_for()
