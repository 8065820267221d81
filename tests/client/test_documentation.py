"""The programs of `docs/following.md` run."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import AsyncGenerator
from types import CodeType
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.routing import Mount, Router

from sse_bridge import Exit, Lines, SSEBridge
from sse_bridge.client import Options
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
            if "async " not in program or "asyncio.run(" in program:  # whole, and to be run outside an event loop
                await anyio.to_thread.run_sync(exec, program, names)
                continue
            code = compile(program, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            assert isinstance(code, CodeType)
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result
    assert len(programs) == 6
    shown = capsys.readouterr().out
    assert shown.startswith("compiling\nFAILED\nexit code 0\ncompiling\na warning\nFAILED\nexit code 0\n")


def test_the_table_of_the_page_has_all_options() -> None:
    table = PAGE.read_text().partition("| option | default |")[2].partition("\n\n")[0]

    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(Options.__annotations__)
