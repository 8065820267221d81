"""docs/compatibility.md says what the matrix has seen. The tests of this file run after all others of the matrix."""

from __future__ import annotations

import pytest

from tests.matrix.cells import CELLS
from tests.matrix.programs import CLIENTS
from tests.matrix.table import COLUMNS, PAGE, Results, rows_of, table, with_text
from tests.matrix.versions import versions


def titles(section: str) -> list[str]:
    """What is tried, in the order of the page."""
    if section == "clients":
        return [client.title for client in CLIENTS.values()]
    return [cell.title for cell in CELLS if cell.section == section]


@pytest.fixture(autouse=True, scope="module")
def written(request: pytest.FixtureRequest, results: Results) -> None:
    """Writes the page's tables, if that was asked for."""
    if not request.config.getoption("--write-tables", default=False):
        return
    page = PAGE.read_text()
    for section in COLUMNS:
        seen = results.rows(section)
        missing = [title for title in titles(section) if title not in seen]
        assert not missing, f"only a complete and successful run can write the page; missing: {missing}"
        page = with_text(page, section, table(section, [seen[title] for title in titles(section)]))
    lines = [f"| {kind} | {line} |" for kind, line in versions()]
    PAGE.write_text(with_text(page, "versions", "\n".join(["| | |", "|---|---|", *lines])))


@pytest.mark.parametrize("section", COLUMNS)
def test_the_page_lists_what_is_tried(section: str) -> None:
    """Every cell and nothing else, in order."""
    assert list(rows_of(PAGE.read_text(), section)) == titles(section)


@pytest.mark.parametrize("section", COLUMNS)
def test_the_page_says_what_was_seen(section: str, results: Results) -> None:
    """Of every row that was run as a whole: `make test` runs some, `make test-matrix` all."""
    on_page = rows_of(PAGE.read_text(), section)
    seen = results.rows(section)

    assert {title: on_page.get(title) for title in seen} == seen
