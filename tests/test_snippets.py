"""Every block of code in README and docs is run by a test, or is named here with the reason why not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.documentation import DOCS, ELSEWHERE, README, ROOT, Block, blocks

TESTS = ROOT / "tests"
PAGES = [README, *sorted(DOCS.glob("**/*.md"))]
#: By page and language; "" stands for a block without one.
NOT_RUN = {
    ("docs/architecture.md", ""): "drawings",
    ("docs/following.md", "sh"): "an install: tests/test_installs.py",
    ("docs/miosa.md", ""): "a line of the log: tests/upstream/test_end.py runs the command in it",
}
#: A file of examples/ that a page shows whole. Tests run it by its name, or by that of its folder.
INCLUDE = re.compile(r'\A--8<-- "examples/(\w+)[^"]*"\n\Z')


def asked_for() -> Iterator[tuple[str, str | None]]:
    """The page and the language of each call of `blocks` and `only_block` in the tests; `None` for all languages."""
    for file in TESTS.glob("**/test_*.py"):
        if "tests.support.documentation" not in (text := file.read_text()):
            continue
        tree = ast.parse(text)
        known = {"README": README, "DOCS": DOCS}
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and (page := path_of(statement.value, known)):
                known[ast.unparse(statement.targets[0])] = page
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or ast.unparse(call.func) not in ("blocks", "only_block"):
                continue
            if page := path_of(call.args[0], known):
                language = ast.literal_eval(call.args[1]) if len(call.args) > 1 else None
                yield str(page.relative_to(ROOT)), language


def path_of(node: ast.expr, known: dict[str, Path]) -> Path | None:
    """What an expression such as `DOCS / "http.md"` stands for."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant) and (folder := path_of(node.left, known)):
        return folder / str(node.right.value)
    return None


def is_run(page: str, block: Block, asked: set[tuple[str, str | None]]) -> bool:
    """Whether a test asks for the block, or runs the programs of all pages."""
    if included := INCLUDE.match(block.text):
        return any(re.search(rf"\b{included[1]}\b", file.read_text()) for file in TESTS.glob("*/test_example*.py"))
    if block.language == "python" and Path(page).name not in ELSEWHERE:
        return True
    return bool({(page, block.language), (page, None)} & asked)


def test_every_block_is_run_or_accounted_for() -> None:
    asked = set(asked_for())
    left = {
        (str(page.relative_to(ROOT)), block.language)
        for page in PAGES
        for block in blocks(page)
        if not is_run(str(page.relative_to(ROOT)), block, asked)
    }

    assert left == set(NOT_RUN)


def test_every_fence_is_read() -> None:
    """Else a block could hide from the test above."""
    for page in PAGES:
        fences = re.findall(r"^ *(?:```|~~~)", page.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(blocks(page)), page
