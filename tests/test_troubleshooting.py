"""docs/troubleshooting.md lists sentences that pages show, in the package's own words."""

from __future__ import annotations

import re

import pytest

from tests.support.documentation import DOCS, ROOT

ROWS: list[tuple[str, str]] = re.findall(
    r"^\| ([^|`]+\.) \| `(\w+)` \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE
)
SOURCES = "\n".join(path.read_text() for path in (ROOT / "sse_bridge").glob("**/*.py"))
#: Sentences that the package puts together.
PARTS = {
    "The upstream cannot be reached.": ["cannot be reached."],
    "The upstream broke the connection before it answered.": ["broke the connection before it answered."],
    "The upstream did not accept a connection in time.": [
        "The upstream did not {message} in time.",
        "accept a connection",
    ],
    "The upstream did not answer in time.": ["The upstream did not {message} in time.", '"answer"'],
}


@pytest.mark.parametrize(("message", "code"), ROWS)
def test_a_sentence_is_one_of_the_package(message: str, code: str) -> None:
    for part in PARTS.get(message, [message]):
        assert part in SOURCES
    assert code in SOURCES


def test_the_page_lists_sentences() -> None:
    """Else the test above sees none."""
    assert len(ROWS) >= 15
