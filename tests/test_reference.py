"""docs/reference/: the table of options agrees with the signature, and each exported name has an entry."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import sse_bridge
from tests.support.documentation import DOCS

PAGE = DOCS / "reference" / "bridge.md"
#: The client's reference is a part of its guide. These names are in the guide's tables and examples instead.
GUIDE = DOCS / "following.md"
IN_THE_GUIDE = {
    *("follow", "follow_sync", "run_lines", "run_lines_sync", "Options", "ServerSentEvent"),
    *("EventsMissing", "FollowError", "KeyRefused", "RunFailed", "RunLost", "RunRefused", "RunUnknown"),
}
ENTRY = re.compile(r"^::: ([\w.]+)(?:\n    .*)*?(?:\n      members: \[(.*)\])?$", re.MULTILINE)


def test_the_table_has_every_option_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| [^|]+ \|$", PAGE.read_text(), re.MULTILINE)
    listed = {name: eval(default, vars(sse_bridge)) for name, default in rows}
    parameters = inspect.signature(sse_bridge.SSEBridge).parameters

    assert list(listed.items()) == [(name, parameter.default) for name, parameter in parameters.items()]


def entries(page: Path) -> Iterator[str]:
    """The names behind `:::` on a page. Of a module, those that it exports, or that the page chooses."""
    for path, chosen in ENTRY.findall(page.read_text()):
        module, _, name = path.rpartition(".")
        named = getattr(importlib.import_module(module), name, None) or importlib.import_module(path)
        if not isinstance(named, ModuleType):
            yield name
        elif chosen:
            yield from chosen.split(", ")
        else:
            yield from named.__all__


@pytest.mark.parametrize(
    "module",
    ["sse_bridge", *(f"sse_bridge.{name}" for name in ("client", "console", "errors", "sandbox", "testing"))],
)
def test_every_exported_name_has_an_entry(module: str) -> None:
    pages = [*(DOCS / "reference").glob("*.md"), GUIDE]
    found = {name for page in pages for name in entries(page)} | {"__version__"}
    if module == "sse_bridge.client":
        assert {name for name in IN_THE_GUIDE if not re.search(rf"\b{name}\b", GUIDE.read_text())} == set()
        found |= IN_THE_GUIDE

    assert set(importlib.import_module(module).__all__) - found == set()
