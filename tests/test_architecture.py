"""Imports point one way: wire, flow, relay, asgi; upstream and sandbox hang on the side (`design.md` §3)."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import sse_bridge

PACKAGE = Path(sse_bridge.__file__).parent

#: What each room may import of the package.
MAY_IMPORT = {
    "errors": set(),
    "wire": set(),
    "flow": {"wire"},
    "upstream": {"errors", "wire.shapes"},
    "relay": {"wire", "flow", "upstream.base", "errors"},
    "stores": {"relay"},
    "asgi": {"wire", "flow", "relay", "stores", "upstream", "errors"},
    "sandbox": set(),
    "console": {"asgi", "flow", "upstream", "sandbox"},
    "cli": {"console", "sandbox"},
    "__main__": {"cli"},
    "__init__": {"asgi", "errors", "flow", "relay", "upstream"},
}
#: What sans-IO rooms must not know: time, waiting, logs, the network.
IMPURE = {"anyio", "asyncio", "httpx", "logging", "socket", "starlette", "time", "trio"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """Everything that a module imports at run time, with full names; what only type checkers see does not count."""
    package = ["sse_bridge", *path.relative_to(PACKAGE).parts[:-1]]
    tree = tree_of(path)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ([module] if node.module else [f"{module}.{alias.name}" for alias in node.names])


@pytest.mark.parametrize("path", MODULES, ids=map(name_of, MODULES))
def test_imports_point_one_way(path: Path) -> None:
    """A module imports its own room, and the rooms that its room stands on."""
    room = name_of(path).partition(".")[0]
    for imported in imports(path):
        if imported.startswith("sse_bridge."):
            inner = imported.removeprefix("sse_bridge.")
            allowed = MAY_IMPORT[room] | {room}
            assert any(inner == one or inner.startswith(one + ".") for one in allowed), f"imports {imported}"


@pytest.mark.parametrize(
    "path", [path for path in MODULES if name_of(path).split(".")[0] in ("wire", "flow")], ids=name_of
)
def test_wire_and_flow_know_no_world(path: Path) -> None:
    """No `async`, no clock, no logger: time comes in as an argument."""
    assert not IMPURE & {imported.partition(".")[0] for imported in imports(path)}
    assert not [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_upstream_knows_httpx(path: Path) -> None:
    """What an HTTP client raises stays in one room."""
    if not name_of(path).startswith("upstream"):
        assert "httpx" not in {imported.partition(".")[0] for imported in imports(path)}


def test_public_names_are_what_the_package_says() -> None:
    """Each name in `__all__` is there, documented, and public in its own module; nothing else is public."""
    for name in sse_bridge.__all__:
        thing = getattr(sse_bridge, name)
        module = importlib.import_module(thing.__module__)
        assert name in module.__all__
        assert thing.__doc__
    public = {name for name in vars(sse_bridge) if not name.startswith("_")}
    submodules = {module.name for module in pkgutil.iter_modules(sse_bridge.__path__)}
    assert public - submodules == set(sse_bridge.__all__)


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__main__"], ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    """One paragraph at its head."""
    assert ast.get_docstring(tree_of(path))
