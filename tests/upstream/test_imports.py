"""The modules of `upstream` import each other in one direction, for type checkers as well."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import sse_bridge.upstream

ROOM = Path(sse_bridge.upstream.__file__).parent


def imports_of(path: Path) -> set[str]:
    """The modules of the room that a module names anywhere, `TYPE_CHECKING` blocks included."""
    here = path.relative_to(ROOM).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not 0 < node.level <= len(here):
            continue
        package = here[: len(here) - node.level]
        modules = [node.module] if node.module else [alias.name for alias in node.names]
        found |= {".".join([*package, *module.split(".")]) for module in modules}
    return found


def test_imports_form_no_circle() -> None:
    """`base` stands at the bottom, so a platform can be read without the HTTP client."""
    graph = {
        ".".join(path.relative_to(ROOM).with_suffix("").parts): imports_of(path)
        for path in ROOM.rglob("*.py")
        if path.stem != "__init__"
    }

    assert graph["base"] == set()
    assert "client" not in graph["transport"]
    assert graph["miosa.sandbox_exec"] >= {"base", "client", "miosa.cancel"}
    TopologicalSorter(graph).prepare()  # raises `CycleError`
