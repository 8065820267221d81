"""The programs in README and docs do what their pages say, against a local sandbox."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import logging
import socket
import subprocess
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.routing import Mount, Router

import sse_bridge
from tests.support.documentation import DOCS, ELSEWHERE, README, ROOT, blocks
from tests.support.sandboxes import KEY, LocalSandbox
from tests.support.servers import serve

TUTORIAL = DOCS / "tutorial.md"
#: The server that a reader has running.
RUNNING = "http://localhost:8000"

PAGES = {
    str(page.relative_to(ROOT)): programs
    for page in [README, *sorted(DOCS.glob("**/*.md"))]
    if page.name not in ELSEWHERE
    and (programs := [block.text for block in blocks(page, "python") if "--8<--" not in block.text])
}


def namespace() -> dict[str, Any]:
    """What a reader has at hand: the package, the libraries that are named, and an application."""

    async def pipeline(request: Request) -> sse_bridge.Source:
        return sse_bridge.Lines(output())

    async def output() -> AsyncIterator[str]:
        yield "a line"

    async def is_teammate(request: Request, owner: str | None) -> bool:
        return True

    return {
        **{name: getattr(sse_bridge, name) for name in sse_bridge.__all__},
        **vars_of(AsyncIterator, FastAPI, HTTPException, Request, SessionMiddleware, asynccontextmanager),
        **vars_of(FastAPIInstrumentor, OpenTelemetryMiddleware),
        **vars_of(anyio, logging, socket, subprocess, pipeline, output, is_teammate),
        "app": FastAPI(),
        "listener": socket.socket(),
        "user": lambda request: request.session.get("user"),
        "KEY": KEY,
        "SECRET": "secret",
    }


def vars_of(*things: Any) -> dict[str, Any]:
    return {thing.__name__: thing for thing in things}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the only one for a store
@pytest.mark.parametrize("page", PAGES)
async def test_the_programs_of_a_page_run(
    page: str, sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    """One after the other, as they stand. Functions of a request, or of a request and a run, are called, too."""
    monkeypatch.setenv("MIOSA_BASE_URL", sandbox.url)
    monkeypatch.setenv("MIOSA_API_KEY", KEY)
    monkeypatch.setattr(logging, "basicConfig", lambda **options: None)
    names = namespace()
    names["bridge"] = sse_bridge.SSEBridge(sse_bridge.Miosa(), names["pipeline"])
    run = sse_bridge.RunInfo("Zk3vQ0x9bTnWf2Rq", "ann", None, 0.0, "running")
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"q=hi", "headers": []}
    request = Request({**scope, "session": {"user": "ann"}})
    mounted = Router([Mount("/run-sse", sse_bridge.SSEBridge(None, names["pipeline"]))])
    with names["listener"], serve(mounted) as served:
        for block in PAGES[page]:
            known = dict(names)
            await execute(block.replace("sbx_123", sandbox.id).replace(RUNNING, served.url), page, names)
            for name, function in names.items():
                if function is not known.get(name) and inspect.isroutine(function):
                    await call(function, {"request": request, "run": run})
    await names["bridge"].shutdown()


async def execute(block: str, page: str, names: dict[str, Any]) -> None:
    code = compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result


async def call(function: Any, arguments: dict[str, Any]) -> None:
    parameters = inspect.signature(function).parameters
    if parameters and set(parameters) <= set(arguments):
        result = function(*(arguments[name] for name in parameters))
        if inspect.isawaitable(result):
            await result


@pytest.fixture
def tutorial(sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Starlette]:
    """Makes the application of the tutorial. Its environment is complete, unless a test changes it before."""
    monkeypatch.setenv("MIOSA_BASE_URL", sandbox.url)
    monkeypatch.setenv("MIOSA_API_KEY", KEY)
    monkeypatch.setenv("SANDBOX_ID", sandbox.id)
    for block in blocks(TUTORIAL, "python"):
        (tmp_path / block.title).write_text(block.text.replace("sleep(0.5)", "sleep(0.05)"))

    def make() -> Starlette:
        spec = importlib.util.spec_from_file_location("tutorial_app", tmp_path / "app.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        app: Starlette = module.app
        return app

    return make


def test_the_application_of_the_tutorial(page: Page, tutorial: Callable[[], Starlette]) -> None:
    """Its page shows what the script beside it prints, and the exit."""
    with serve(tutorial()) as served:
        page.goto(served.url)
        page.get_by_text("[exit 0]").wait_for()

        assert page.inner_text("pre").splitlines() == [*(f"tick {number}" for number in range(1, 61)), "[exit 0]"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SANDBOX_ID", "sbx_9ccc416576c8a9d1", "[The sandbox or stream does not exist.]"),
        ("MIOSA_BASE_URL", "http://127.0.0.1:9", "[The upstream cannot be reached.]"),
        ("MIOSA_API_KEY", "msk_of_another_start", "[The upstream does not accept the server's key.]"),
        ("SANDBOX_ID", None, "[refused: see the server's log]"),
        ("MIOSA_API_KEY", None, "[refused: see the server's log]"),
    ],
)
def test_the_page_of_the_tutorial_shows_why_there_is_no_run(
    page: Page,
    tutorial: Callable[[], Starlette],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str | None,
    message: str,
) -> None:
    """In the words of the tutorial's table."""
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    assert f"| `{message}` |" in TUTORIAL.read_text()

    with serve(tutorial()) as served:
        page.goto(served.url)
        page.get_by_text(message).wait_for()

        assert page.inner_text("pre").strip() == message


def test_the_page_of_the_readme_is_that_of_the_tutorial() -> None:
    """So the tests of the tutorial's page hold for both."""
    (script,) = blocks(README, "js")
    app = next(block.text for block in blocks(TUTORIAL, "python") if block.title == "app.py")

    assert script.text in textwrap.dedent(app.partition("  const show")[2].partition("\n")[2].partition("</script>")[0])
