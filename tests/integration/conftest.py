"""One local sandbox for all tests of this folder, and one browser for each file that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import chromium
from tests.support.sandboxes import LocalSandbox, local_sandbox, new_mark


@pytest.fixture(scope="session")
def sandbox() -> Iterator[LocalSandbox]:
    with local_sandbox() as made:
        yield made


@pytest.fixture
def mark() -> str:
    """See `new_mark`."""
    return new_mark()


@pytest.fixture(scope="module")  # while it is open, Playwright keeps an event loop running in this thread
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture
def problems() -> list[str]:
    """What the scripts of `page` raised and did not catch. A test that expects something removes it."""
    return []


@pytest.fixture
def page(browser: Browser, problems: list[str]) -> Iterator[Page]:
    """A tab. A problem of its scripts fails the test."""
    with browser.new_context() as context:
        opened = context.new_page()
        opened.on("pageerror", lambda error: problems.append(str(error)))
        yield opened
        assert problems == []
