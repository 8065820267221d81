"""README and the pages of `docs/`, and the code blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["DOCS", "README", "ROOT", "Block", "blocks"]

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
DOCS: Final = ROOT / "docs"

_BLOCK: Final = re.compile(r'^```(\w+)(?: title="([^"\n]*)")?[^\n]*\n(.*?)^```', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    #: The file to save it as, or the terminal to type it into. Empty if the page names neither.
    title: str
    text: str


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The code blocks of a page, in its order: all, or those in one language."""
    found = [Block(*match) for match in _BLOCK.findall(page.read_text())]
    return [block for block in found if language in (None, block.language)]
