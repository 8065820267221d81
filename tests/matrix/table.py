"""The tables of docs/compatibility.md: what the tests have seen, and what the page says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["CHECKS", "CLIENT_CHECKS", "COLUMNS", "PAGE", "Results", "YES", "rows_of", "table", "with_text"]

PAGE: Final = Path(__file__).parents[2] / "docs" / "compatibility.md"
YES: Final = "✓"
#: Columns of the tables of cells.
CHECKS: Final = (
    "first line",
    "heartbeat",
    "lines, exit code",
    "refusal",
    "leaving",
    "resume",
    "`DELETE`",
    "stop",
)
#: Columns of the clients' table.
CLIENT_CHECKS: Final = ("first line", "lines, exit code", "refusal", "leaving", "resume")
#: The columns of each table, by its section.
COLUMNS: Final = {
    "frameworks": CHECKS,
    "servers": CHECKS,
    "proxies": CHECKS,
    "combinations": CHECKS,
    "clients": CLIENT_CHECKS,
}


class Results:
    """What tests have seen, by table, row and column."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, dict[str, str]]] = {}

    def add(self, section: str, row: str, column: str, text: str) -> None:
        """Notes what one test has seen."""
        assert column in COLUMNS[section], column
        self._seen.setdefault(section, {}).setdefault(row, {})[column] = text

    def rows(self, section: str) -> dict[str, str]:
        """The rows of a table of which all was tested and passed."""
        columns = COLUMNS[section]
        seen = self._seen.get(section, {})
        return {
            title: _row(title, (of[column] for column in columns))
            for title, of in seen.items()
            if of.keys() == set(columns)
        }


def _row(title: str, cells: Iterable[str]) -> str:
    """A row of a table of Markdown."""
    return f"| {title} | {' | '.join(cells)} |"


def table(section: str, rows: Iterable[str]) -> str:
    """A table of Markdown, with its head."""
    columns = COLUMNS[section]
    return "\n".join([_row("", columns), "|---|" + ":-:|" * len(columns), *rows])


def _marks(section: str) -> tuple[str, str]:
    return f"<!-- {section}: written by `make test-matrix` -->\n", "<!-- end -->"


def rows_of(page: str, section: str) -> dict[str, str]:
    """The rows of a table on the page, by their titles."""
    begin, end = _marks(section)
    lines = page.partition(begin)[2].partition(end)[0].splitlines()[2:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def with_text(page: str, section: str, text: str) -> str:
    """The page with another table."""
    begin, end = _marks(section)
    before, _, rest = page.partition(begin)
    assert rest, f"the page has no place for {section}"
    return f"{before}{begin}{text}\n{end}{rest.partition(end)[2]}"
