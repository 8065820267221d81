"""The rules of the house: which way imports point, what each room may know, and how large a class or a file may grow.

`docs/architecture.md` gives the reasons.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import sse_bridge

PACKAGE = Path(sse_bridge.__file__).parent

#: What each room may import of the package.
MAY_IMPORT = {
    "arguments": set(),
    "causes": set(),
    "errors": set(),
    "speedups": set(),
    "wire": {"speedups"},
    "flow": {"arguments", "wire"},
    "upstream": {"arguments", "causes", "errors", "speedups", "wire.exits", "wire.objects", "wire.shapes"},
    "relay": {"wire", "flow", "upstream.base", "causes", "errors"},
    "stores": {
        "arguments",
        "errors",
        "relay",
        "flow",
        "wire.dialects",
        "wire.ids",
        "upstream.base",
        "upstream.reaping",
    },
    "asgi": {
        "arguments",
        "causes",
        "wire",
        "flow",
        "relay",
        "stores",
        "upstream.base",
        "upstream.checks",
        "upstream.client",
        "errors",
    },
    "testing": {"arguments", "errors", "upstream.base", "upstream.lines", "wire.events", "wire.frames"},
    "client": {"arguments", "errors", "upstream.base", "upstream.checks", "wire"},
    "metrics": {"arguments", "asgi.app", "errors", "relay"},
    "sandbox": set(),
    "console": {"asgi", "flow", "upstream", "sandbox"},
    "cli": {"asgi", "client", "console", "errors", "flow", "relay", "sandbox", "speedups", "upstream", "wire.ids"},
    "__main__": {"cli"},
    "__init__": {"asgi", "errors", "flow", "relay", "stores", "upstream", "wire.shapes"},
}
#: What sans-IO rooms must not know: time, waiting, logs, the network.
IMPURE = {"anyio", "asyncio", "httpx", "logging", "socket", "starlette", "time", "trio"}
#: The rooms that may name a platform. `sandbox` imitates one, and the demo runs on that.
KNOW_PLATFORMS = {"upstream", "sandbox", "console", "cli", "__init__"}

#: Lines of a file, unless its docstring says why it is longer.
MAX_LINES = 400
#: Attributes of an instance.
MAX_ATTRIBUTES = 15
#: Classes with more, and why.
LARGE_CLASSES = {
    "relay.statistics.BridgeStatistics": "a flat value: one field for each thing that is counted",
    "relay.viewer.Viewer": "with a thousand viewers, what a line needs of each is read from memory, object by object",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


def room_of(path: Path) -> str:
    return name_of(path).partition(".")[0]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


NAMES = {name_of(path): path for path in MODULES}


def imports(path: Path) -> Iterator[str]:
    """Everything that a module imports, with full names; imports for type checkers and late ones count, too."""
    package = ["sse_bridge", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_package(name: str) -> bool:
    """Whether a name is only passed on the way to a module."""
    return NAMES[name].stem == "__init__"


def inner_imports(path: Path) -> set[str]:
    """The modules of the package that a module imports, by their names inside it."""
    inner = {imported.removeprefix("sse_bridge.") for imported in imports(path) if imported.startswith("sse_bridge.")}
    return {name for name in inner if name in NAMES and NAMES[name] != path}


# -- which way imports point


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    """A module imports its own room, and the rooms that its room stands on."""
    allowed = MAY_IMPORT[room_of(path)] | {room_of(path)}
    for inner in inner_imports(path):
        assert is_package(inner) or any(inner == one or inner.startswith(one + ".") for one in allowed), (
            f"imports {inner}"
        )


def test_no_module_imports_itself_on_a_detour() -> None:
    """There is no circle of imports, the ones for type checkers and the late ones included."""
    graph = {
        name: {inner for inner in inner_imports(path) if NAMES[inner].stem != "__init__"}
        for name, path in NAMES.items()
    }
    finished: set[str] = set()

    def visit(name: str, on_the_way: tuple[str, ...]) -> None:
        assert name not in on_the_way, " -> ".join((*on_the_way, name))
        if name not in finished:
            for inner in graph[name]:
                visit(inner, (*on_the_way, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) in ("wire", "flow")], ids=name_of)
def test_wire_and_flow_are_sans_io(path: Path) -> None:
    """They have neither `async` nor a clock or logger: time comes in as an argument."""
    assert not IMPURE & {imported.partition(".")[0] for imported in imports(path)}
    assert not [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_what_asks_others_knows_httpx(path: Path) -> None:
    """What an HTTP client raises stays in the rooms that have one."""
    if room_of(path) not in ("upstream", "client", "cli"):
        assert "httpx" not in {imported.partition(".")[0] for imported in imports(path)}


# -- what each room may know


def words_of(tree: ast.Module) -> Iterator[str]:
    """Every name and every constant text of a module's code; docstrings are left out."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            if isinstance(node.value, str):
                yield node.value
            elif isinstance(node.value, bytes):
                yield node.value.decode("latin-1")
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_upstream_knows_platforms(path: Path) -> None:
    """Everything else deals with sources and works, whatever stands behind them."""
    if room_of(path) not in KNOW_PLATFORMS:
        assert not [word for word in words_of(tree_of(path)) if "miosa" in word.lower()]
        assert not [name for name in inner_imports(path) if name.startswith("upstream.miosa")]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_ids_are_written_and_read_in_one_place(path: Path) -> None:
    """`wire.ids` alone knows how a run's ids look. `wire.events` writes and reads ids as a field of any event.

    `sandbox.feed` writes those of the platform that it imitates.
    """
    if name_of(path) in ("wire.ids", "wire.events", "sandbox.feed"):
        return
    words = list(words_of(tree_of(path)))
    assert not [word for word in words if re.search(r"(^|\n)id:", word)], "writes an id line"
    assert not [word for word in words if "A-Za-z0-9_-]{16}" in word], "reads a token"
    assert "token_urlsafe" not in words or room_of(path) in ("cli", "console"), "makes a token"


# -- how large a room may grow


def attributes_of(definition: ast.ClassDef) -> set[str]:
    """The attributes of a class's instances: slots, annotated fields, and what its methods assign to `self`."""
    fields = {
        field.target.id
        for field in definition.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }
    assigned = {
        node.attr
        for node in ast.walk(definition)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return fields | assigned


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_class_keeps_to_its_purpose(path: Path) -> None:
    """Few attributes; the exceptions have their reasons above."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ClassDef):
            name, count = f"{name_of(path)}.{node.name}", len(attributes_of(node))
            assert (count > MAX_ATTRIBUTES) == (name in LARGE_CLASSES), f"{name} has {count} attributes"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_file_keeps_to_its_purpose(path: Path) -> None:
    """Few lines."""
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__main__"], ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    """One paragraph at its head."""
    assert ast.get_docstring(tree_of(path))


# -- what is public


def test_public_names_are_what_the_package_says() -> None:
    """Each name in `__all__` is there, documented, and public in its own module. Everything else is private."""
    for name in set(sse_bridge.__all__) - {"__version__", "Policy"}:
        thing = getattr(sse_bridge, name)
        module = importlib.import_module(thing.__module__)
        assert name in module.__all__
        assert thing.__doc__
    public = {name for name in vars(sse_bridge) if not name.startswith("_")}
    submodules = {module.name for module in pkgutil.iter_modules(sse_bridge.__path__)}
    assert public - submodules == set(sse_bridge.__all__) - {"__version__"}


def test_every_class_in_a_public_signature_is_public() -> None:
    """A user can write the type of each public attribute, argument and result. An alias can be written out."""
    hints: list[Any] = []
    for name in sse_bridge.__all__:
        thing = getattr(sse_bridge, name)
        if inspect.isclass(thing):
            hints += [hint for attribute, hint in get_type_hints(thing).items() if not attribute.startswith("_")]
        for member, value in inspect.getmembers(thing):
            function = value.fget if isinstance(value, property) else value
            is_public = not member.startswith("_") or member in {"__init__", "__call__"}
            if is_public and inspect.isfunction(function) and function is not sse_bridge.StartedRun.__init__:
                hints += get_type_hints(function).values()

    ours = {found for found in classes_in(*hints) if found.__module__.startswith("sse_bridge.")}
    assert {sse_bridge.Cancelled, sse_bridge.Shape, sse_bridge.StartedRun, sse_bridge.Stream} <= ours
    assert {found.__name__ for found in ours} <= set(sse_bridge.__all__)


def classes_in(*types: Any) -> Iterator[type]:
    for found in types:
        if isinstance(found, type):
            yield found
        yield from classes_in(*(found if isinstance(found, list) else get_args(found)))


def test_the_version_is_the_distributions() -> None:
    """It stands in one place, from which the distribution takes it."""
    from importlib.metadata import version

    assert sse_bridge.__version__ == version("sse_bridge")
