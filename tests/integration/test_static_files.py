"""The modules for pages, served: types, caching, and that each import names a file that is there."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from sse_bridge.console import STATIC, static_files
from tests.support.servers import serve

MODULES = sorted(STATIC.iterdir())


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    app = Starlette(routes=[Mount("/sse-bridge", static_files())])
    with serve(app) as served, httpx.Client(base_url=served.url) as client:
        yield client


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_is_javascript_and_asked_for_anew(
    client: httpx.Client, module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even on a machine that calls JavaScript plain text. A browser that has it is told so."""
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_, **__: ("text/plain", None))
    answer = client.get(f"/sse-bridge/{module.name}")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = client.get(f"/sse-bridge/{module.name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


def test_other_files_stay_where_they_are(client: httpx.Client) -> None:
    """The folder above holds Python."""
    for path in ("../app.py", "%2e%2e/app.py", "nothing.js", ""):
        assert client.get(f"/sse-bridge/{path}").status_code == 404


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_imports_its_neighbours_only_and_says_what_it_is_for(module: Path) -> None:
    """No package, no build step. No file is longer than a module in Python may be."""
    text = module.read_text()

    assert all((STATIC / name).is_file() for name in re.findall(r'from "\./([\w.-]+)"', text))
    assert re.findall(r'(?:from|import) "([^"]*)"', text) == [
        f"./{n}" for n in re.findall(r'"\./([\w.-]+\.js)";', text)
    ]
    assert text.startswith("/**\n * ")
    assert len(text.splitlines()) <= 400
