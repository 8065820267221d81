"""The system's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Route, sync_playwright

from tests.support.skipping import skip

#: npm packages, as `tests/browser/package.json` names them.
_PACKAGES: Final = Path(__file__).parents[1] / "browser" / "node_modules"
_ARGUMENTS = [
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        skip("there is no Chromium; `make system` as root installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def show(page: Page, url: str, html: str, fragment: str = "") -> None:
    """Shows `html` at `url`, where it may load npm packages from `/node_modules/`.

    Of the page's requests, only those for event streams reach the server. The page finds `fragment` in
    `location.hash`.
    """
    if not _PACKAGES.is_dir():
        skip("the npm packages of tests/browser are missing; `make test` installs them where there is npm")
    page.route(f"{url}/", lambda route: route.fulfill(content_type="text/html; charset=utf-8", body=html))
    page.route(f"{url}/node_modules/**", _fulfill_from_packages)
    page.goto(f"{url}/#{fragment}")


def _fulfill_from_packages(route: Route) -> None:
    file = _PACKAGES / urlsplit(route.request.url).path.removeprefix("/node_modules/")
    # Modules that were written for bundlers import each other without `.js`.
    route.fulfill(content_type="text/javascript", path=file if file.suffix == ".js" else f"{file}.js")
