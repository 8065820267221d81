"""The programs of `docs/following.md` run."""

from __future__ import annotations

import ast
import inspect
from collections.abc import AsyncGenerator
from types import CodeType
from typing import Any

import pytest
from starlette.requests import Request
from starlette.routing import Mount, Router

from sse_bridge import Exit, Lines, SSEBridge
from tests.support.documentation import DOCS, blocks
from tests.support.servers import serve

PAGE = DOCS / "following.md"


async def build() -> AsyncGenerator[Any]:
    yield "compiling"
    yield ("stderr", "a warning")
    yield "FAILED"
    yield Exit(0)


def resolve(request: Request) -> Lines:
    return Lines(build())


@pytest.mark.anyio
async def test_the_programs_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    programs = blocks(PAGE, "python")
    names: dict[str, Any] = {}
    with serve(Router([Mount("/run-sse", SSEBridge(None, resolve))])) as served:
        for block in programs:
            program = block.text.replace("https://example.org", served.url)
            code = compile(program, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            assert isinstance(code, CodeType)
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result
    assert len(programs) == 6
    assert capsys.readouterr().out.startswith("compiling\nFAILED\nexit code 0\n")
    assert names["lines"] == ["compiling", "a warning", "FAILED"]
