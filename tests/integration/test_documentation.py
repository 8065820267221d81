"""The programs in README and docs do what their pages say, against a local sandbox."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import logging
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.routing import Mount, Router

import sse_bridge
from tests.support.documentation import DOCS, README, ROOT, blocks
from tests.support.sandboxes import KEY, LocalSandbox
from tests.support.servers import serve

#: Pages with programs that other tests run.
ELSEWHERE = {"following.md", "testing.md", "tutorial.md"}
#: The server that a reader has running.
RUNNING = "http://localhost:8000"
#: What a block needs that is not installed for tests, by a word in it.
NOT_HERE = {"OpenTelemetryMiddleware": "opentelemetry-instrumentation-asgi"}


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
        **vars_of(anyio, logging, socket, subprocess, pipeline, output, is_teammate),
        "app": Starlette(),
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
            if any(word in block for word in NOT_HERE):
                continue
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


def test_the_application_of_the_tutorial(
    page: Page, sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its page shows what the script beside it prints, and the exit."""
    monkeypatch.setenv("MIOSA_BASE_URL", sandbox.url)
    monkeypatch.setenv("MIOSA_API_KEY", KEY)
    monkeypatch.setenv("SANDBOX_ID", sandbox.id)
    for block in blocks(DOCS / "tutorial.md", "python"):
        (tmp_path / block.title).write_text(block.text.replace("sleep(0.5)", "sleep(0.05)"))
    spec = importlib.util.spec_from_file_location("tutorial_app", tmp_path / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with serve(module.app) as served:
        page.goto(served.url)
        page.get_by_text("[exit 0]").wait_for()

        assert page.inner_text("pre").splitlines() == [*(f"tick {number}" for number in range(1, 61)), "[exit 0]"]
