"""The programs in `examples/` do what they say, against a local sandbox."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from sse_bridge.wire import events
from sse_bridge.wire.frames import FrameSplitter
from tests.support.sandboxes import KEY, LocalSandbox
from tests.support.servers import serve

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def environment(sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIOSA_BASE_URL", sandbox.url)
    monkeypatch.setenv("MIOSA_API_KEY", KEY)
    monkeypatch.setenv("SANDBOX_ID", sandbox.id)
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("name", ["starlette_app", "fastapi_app", "quart_app"])
@pytest.mark.parametrize(("path", "root_path"), [("/run-sse", ""), ("/run-sse/", ""), ("/run-sse/", "/behind/a/proxy")])
def test_an_application_with_the_bridge_in_it(name: str, path: str, root_path: str) -> None:
    """With and without a trailing slash, and behind a proxy that adds a path."""
    app = importlib.import_module(f"examples.{name}").app
    with serve(app, root_path=root_path) as served:
        response = httpx.get(served.url + path, follow_redirects=True, cookies={"user": "ada"}, timeout=20)

    assert response.status_code == 200
    assert [body.get("line") or body["code"] for body in objects(response)] == [
        "processing batch 1",
        "processing batch 2",
        "processing batch 3",
        0,
    ]


def test_the_fastapi_example_refuses_strangers() -> None:
    """A request without the cookie gets 401 before a command runs."""
    app = importlib.import_module("examples.fastapi_app").app
    with serve(app) as served:
        response = httpx.get(served.url + "/run-sse", follow_redirects=True)

    assert response.status_code == 401
    assert response.json()["error"] == {"code": "unauthorized", "message": "Log in first.", "request_id": None}


def test_the_script_for_the_real_platform_works_with_the_local_sandbox() -> None:
    """It creates a sandbox, runs, leaves, checks for processes and destroys."""
    finished = subprocess.run(
        [sys.executable, "examples/miosa_platform.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "exit code 3" in finished.stdout
    assert "still run: 0" in finished.stdout


def objects(response: httpx.Response) -> list[dict[str, Any]]:
    parsed = events.parse(FrameSplitter(None).feed(response.content))
    return [json.loads(event.data) for event in parsed if event.data is not None]
