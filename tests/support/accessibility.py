"""What axe finds in a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page

from tests.support.skipping import skip

__all__ = ["violations"]

_AXE: Final = Path(__file__).parents[1] / "browser" / "node_modules" / "axe-core" / "axe.min.js"


def violations(page: Page, within: str | None = None) -> list[Any]:
    """The rules that are broken, best practices included, with the places. `within` is a selector; else, the page."""
    if not _AXE.is_file():
        skip("the npm packages of tests/browser are missing; `make test` installs them where there is npm")
    page.evaluate(_AXE.read_text())
    found: list[Any] = page.evaluate(
        """async (within) => {
            const { violations } = await axe.run(within ?? document, { resultTypes: ["violations"] });
            return violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html + node.failureSummary)]);
        }""",
        within,
    )
    return found
