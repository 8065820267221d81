"""A site for the modules of pages: an empty page under a strict policy, the modules, and a bridge of scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import ConsoleMessage, Error, Page
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from sse_bridge import SSEBridge
from sse_bridge.console import static_files
from sse_bridge.testing import Script
from tests.support.servers import Served, serve

__all__ = ["ASK_NOW", "POLICY", "Scripts", "later", "scripts_site", "watching_problems"]

#: What a strict site allows: its own modules and its own server. No markup from strings either, where a browser knows
#: Trusted Types.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'"
)
#: Ends a wait before an attempt, as a network that comes back does.
ASK_NOW: Final = "dispatchEvent(new Event('online'))"
_PAGE: Final = """<!doctype html><html lang="en"><title>modules</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1"><body></body>"""


class Scripts:
    """What the bridge plays: the script that the query's `script` names."""

    def __init__(self, **options: Any) -> None:
        self.by_name: dict[str, Script] = {}
        #: Headers of the requests that were about to start a run.
        self.asked: list[dict[str, str]] = []
        self.bridge = SSEBridge(None, self._resolve, **{"grace": 5.0, **options})

    async def _resolve(self, request: Request) -> Script:
        self.asked.append(dict(request.headers))
        script = self.by_name.get(request.query_params.get("script", ""))
        if script is None:
            raise HTTPException(404, "There is no such script.")
        return script

    def app(self) -> ASGIApp:
        page = HTMLResponse(_PAGE, headers={"Content-Security-Policy": POLICY})
        routes = [
            Route("/", lambda request: page),
            Mount("/modules", static_files()),
            Mount("/run-sse", self.bridge),
        ]
        return Starlette(routes=routes)


@contextmanager
def scripts_site(**options: Any) -> Iterator[tuple[Served, Scripts]]:
    """Serves the site. `options` are the bridge's."""
    scripts = Scripts(**options)
    with serve(scripts.app()) as served:
        yield served, scripts


def later(page: Page, seconds: int) -> None:
    """Moves the page's clock on, without its timers. Until the page is left, it stands still then."""
    page.evaluate("(at) => { performance.now = () => at; }", page.evaluate("performance.now()") + 1000 * seconds)


@contextmanager
def watching_problems(page: Page, problems: list[str]) -> Iterator[None]:
    """What the page's scripts raise, and a violation of its policy, is a problem, and fails the test."""

    def said(message: ConsoleMessage) -> None:
        if "Content Security" in message.text or "TrustedHTML" in message.text:
            problems.append(message.text)

    def raised(error: Error) -> None:
        problems.append(str(error))

    page.on("console", said)
    page.on("pageerror", raised)
    yield
    page.remove_listener("console", said)
    page.remove_listener("pageerror", raised)
    assert problems == []
