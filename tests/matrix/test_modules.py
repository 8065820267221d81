"""The modules for pages in Chromium, Firefox and WebKit: a page that checks them by itself, and posts what it found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from sse_bridge.testing import Script
from tests.support.modules import POLICY, Scripts
from tests.support.servers import serve
from tests.support.skipping import skip

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(240)]

TESTS: Final = Path(__file__).parents[1]
PAGE: Final = """<!doctype html><html lang="en"><title>modules</title><link rel="icon" href="data:,">
<script src="/shown.js"></script><script type="module" src="/suite.js"></script><body></body>"""
#: The names of the checks in `suite.js`.
CHECKS: Final = [
    "parser",
    "terminal",
    "follows",
    "follows by GET",
    "refused",
    "stops",
    "shows a run",
    "shows many lines",
]
TEXTS: Final = [
    ("10%\r 20%\r100%", "100%"),
    ("Downloading 10%\r\x1b[KDone", "Done"),
    ("abcdef\x1b[3D\x1b[1KX", "   Xef"),
    ("\x1b[1;31mred\x1b[0m", "red"),
    ("\u4e16\u754c\rx", "x \u754c"),
    ("\U0001f600\rx", "x "),
    ("e\u0301\r\u00e8", "\u00e8"),
]


def cases() -> dict[str, Any]:
    """What the page is to parse and to show, with what it should find."""
    vectors = json.loads((TESTS / "wire" / "sse-vectors.json").read_text())
    return {
        "vectors": [
            {
                "id": each["id"],
                "input": each["input_b64"],
                "expected": [{key: event[key] for key in ("event", "data", "id")} for event in each["expected"]],
                "retry": each["final_retry"],
                "last": each["final_last_event_id"],
            }
            for each in vectors
        ],
        "texts": TEXTS,
    }


class Suite:
    """The site of the page, and what the page has posted."""

    def __init__(self) -> None:
        self._scripts = Scripts()
        self._scripts.by_name["three"] = Script(["one", ("stderr", "two")], exit=3)
        self._scripts.by_name["waits"] = Script(["one"], waits=True)
        self._posted = threading.Event()
        self._results: list[list[str]] = []

    def app(self) -> Starlette:
        page = HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})
        routes = [
            Route("/suite", lambda request: page),
            Route("/suite.js", lambda request: FileResponse(TESTS / "browser" / "suite.js")),
            Route("/shown.js", lambda request: Response("var shown = [];", media_type="text/javascript")),
            Route("/cases", lambda request: JSONResponse(cases())),
            Route("/results", self._take, methods=["POST"]),
        ]
        return Starlette(routes=[*routes, Mount("/", self._scripts.app())])

    async def _take(self, request: Request) -> Response:
        self._results = await request.json()
        self._posted.set()
        return Response(status_code=204)

    def results(self) -> list[list[str]]:
        assert self._posted.wait(180), "the page has posted nothing"
        return self._results


@contextmanager
def running(*command: str) -> Iterator[None]:
    """A browser that shows a page, until the block ends."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet) as process:
        try:
            yield
        finally:
            process.terminate()


def program(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    skip(f"there is no {names[0]}; `make system-matrix` as root installs it")
    return ""


def chromium(url: str, profile: Path) -> list[str]:
    path = program("chromium", "chromium-browser")
    arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ]  # containers have 64 MB of it
    return [path, *arguments, f"--user-data-dir={profile}", url]


def firefox(url: str, profile: Path) -> list[str]:
    return [program("firefox-esr", "firefox"), "--headless", "--no-remote", "--profile", str(profile), url]


def webkit(url: str, profile: Path) -> list[str]:
    client = TESTS / "matrix" / "clients" / "webkit.py"
    return [sys.executable, str(client), program("WebKitWebDriver"), url]


@pytest.mark.parametrize("browser", [chromium, firefox, webkit], ids=lambda browser: browser.__name__)
def test_the_modules_work_in(browser: Callable[[str, Path], list[str]], tmp_path: Path) -> None:
    """The parser, the terminal, following, stopping, and the element with a million lines."""
    suite = Suite()
    with serve(suite.app()) as served, running(*browser(f"{served.url}/suite", tmp_path)):
        results = suite.results()

    assert results == [[name, ""] for name in CHECKS]
