"""README and the pages of `docs/`, and the code blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Final

__all__ = ["DOCS", "ELSEWHERE", "README", "ROOT", "Block", "blocks", "only_block"]

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
DOCS: Final = ROOT / "docs"
#: Pages whose programs have tests of their own. Those of all others are run by tests/integration/test_documentation.py.
ELSEWHERE: Final = {"following.md", "testing.md", "tutorial.md"}

_BLOCK: Final = re.compile(r'^( *)```(\w*)(?: title="([^"\n]*)")?[^\n]*\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    #: Empty if the page names none.
    language: str
    #: The file to save it as, or the terminal to type it into. Empty if the page names neither.
    title: str
    text: str


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The code blocks of a page, in its order: all, or those in one language.

    A test that asks for blocks runs all of them: `tests/test_snippets.py` reads the calls.
    """
    found = [Block(language, title, dedent(text)) for _, language, title, text in _BLOCK.findall(page.read_text())]
    return [block for block in found if language in (None, block.language)]


def only_block(page: Path, language: str) -> str:
    """The text of the one block of a page in a language."""
    (block,) = blocks(page, language)
    return block.text
