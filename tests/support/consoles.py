"""A page with one `<sse-console>`, as `shown`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from playwright.sync_api import Page

from tests.support.modules import watching_problems

__all__ = ["Shown", "drawn", "in_sight", "showing", "write"]

#: Shows a console with the given attributes. The first argument is the address's fragment.
Shown = Callable[..., Page]


@contextmanager
def showing(tab: Page, url: str, problems: list[str]) -> Iterator[Shown]:
    """Opens the page of `scripts_site`, each time with a new console."""

    def show(fragment: str = "", **attributes: str) -> Page:
        tab.goto("about:blank")
        tab.goto(f"{url}/{fragment}")
        tab.evaluate(
            """async (attributes) => {
                await import("/modules/sse-console.js");
                window.shown = document.createElement("sse-console");
                for (const [name, value] of Object.entries(attributes)) shown.setAttribute(name, value);
                document.body.append(shown);
            }""",
            attributes,
        )
        return tab

    with watching_problems(tab, problems):
        yield show
        tab.unroute_all()
        tab.evaluate("window.shown?.run?.stop().catch(() => {})")


def write(page: Page, count: int, text: str = "line") -> None:
    """Writes lines, and waits until they are drawn."""
    page.evaluate(
        """([count, text]) => {
            const first = shown.lines.received;
            for (let n = first + 1; n <= first + count; n += 1) shown.write({ type: "stdout", line: `${text} ${n}` });
        }""",
        [count, text],
    )
    drawn(page)


def drawn(page: Page) -> None:
    page.evaluate("new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")


def in_sight(page: Page) -> list[int]:
    """The numbers of the lines that are wholly in the pane."""
    numbers: list[int] = page.locator("#output").evaluate(
        """(output) => {
            const pane = output.getBoundingClientRect();
            return [...output.querySelectorAll("[data-number]")]
              .filter((row) => row.getBoundingClientRect().top >= pane.top - 1)
              .filter((row) => row.getBoundingClientRect().bottom <= pane.bottom + 1)
              .map((row) => Number(row.dataset.number));
        }"""
    )
    return numbers
