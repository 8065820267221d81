"""The first program of docs/many-workers.md, served by the command line below it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import httpx
import pytest

from tests.redis.keeper import Keeper
from tests.support.documentation import DOCS, ROOT, blocks, only_block
from tests.support.programs import free_port, listening

#: What the page leaves to the reader.
PIPELINE = """
from sse_bridge import Lines

async def lines():
    yield "a line"

async def pipeline(request):
    return Lines(lines())
"""
MOUNTED = """
from starlette.applications import Starlette
from starlette.routing import Mount

app = Starlette(routes=[Mount("/run-sse", bridge)])
"""


@pytest.mark.slow
def test_any_worker_serves_a_run(redis_server: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection goes to any of the four."""
    program = blocks(DOCS / "many-workers.md", "python")[0].text
    (tmp_path / "app.py").write_text(PIPELINE + program.replace("redis://localhost:6379/0", redis_server.url) + MOUNTED)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    command, port = shlex.split(only_block(DOCS / "many-workers.md", "sh")), free_port()
    with listening([sys.executable, "-m", *command, "--port", str(port)], port, tmp_path):
        url = f"http://127.0.0.1:{port}/run-sse/"
        run = httpx.get(url, timeout=30).headers["sse-bridge-run"]
        seen = [httpx.get(url + run, timeout=30).text for _ in range(12)]

    assert all('"line":"a line"' in text for text in seen)
