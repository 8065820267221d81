"""`paths`: the path of a request below its mount, in every framework's convention."""

from __future__ import annotations

import pytest

from sse_bridge.asgi.paths import below_root


@pytest.mark.parametrize(
    ("path", "root_path", "expected"),
    [
        ("/", "", ""),
        ("", "", ""),
        ("/run-sse", "/run-sse", ""),  # Starlette, FastAPI, hypercorn's dispatcher: the full path
        ("/run-sse/", "/run-sse", ""),
        ("/run-sse/abc", "/run-sse", "abc"),
        ("/api/run-sse/abc/", "/api/run-sse/", "abc"),
        ("/abc", "", "abc"),  # Litestar: a stripped path
        ("/run-sse-other", "/run-sse", "run-sse-other"),  # another path that begins alike
        ("/other", "/run-sse", "other"),
    ],
)
def test_the_path_below_the_mount(path: str, root_path: str, expected: str) -> None:
    """The same for full and stripped paths, with and without a trailing slash."""
    assert below_root({"type": "http", "path": path, "root_path": root_path}) == expected


def test_a_scope_may_lack_the_root_path() -> None:
    """ASGI makes it optional; the mount is then at the root."""
    assert below_root({"type": "http", "path": "/a"}) == "a"


@pytest.mark.parametrize(("path", "expected"), [("/run-sse/abc", "abc"), ("/api/run-sse/abc", "abc"), ("/run-sse", "")])
def test_a_proxy_may_have_stripped_a_prefix(path: str, expected: str) -> None:
    """Starlette's mounts extend the root path that the server was given, even where `path` lacks it."""
    scope = {"type": "http", "path": path, "root_path": "/api/run-sse", "app_root_path": "/api"}

    assert below_root(scope) == expected
