"""Where a request stands below its mount, in every convention there is."""

from __future__ import annotations

import pytest

from sse_bridge.asgi.messages import route_path


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
        ("/run-sse-other", "/run-sse", "run-sse-other"),  # not below the mount at all
        ("/other", "/run-sse", "other"),
    ],
)
def test_the_path_below_the_mount(path: str, root_path: str, expected: str) -> None:
    """Full or stripped path, trailing slash or none."""
    assert route_path({"type": "http", "path": path, "root_path": root_path}) == expected


def test_a_server_may_leave_the_root_path_out() -> None:
    """ASGI makes it optional."""
    assert route_path({"type": "http", "path": "/a"}) == "a"


@pytest.mark.parametrize(("path", "expected"), [("/run-sse/abc", "abc"), ("/api/run-sse/abc", "abc"), ("/run-sse", "")])
def test_a_proxy_may_have_stripped_a_prefix(path: str, expected: str) -> None:
    """Starlette's mounts add to the root path that the server was told, whether or not the path has it."""
    scope = {"type": "http", "path": path, "root_path": "/api/run-sse", "app_root_path": "/api"}

    assert route_path(scope) == expected
