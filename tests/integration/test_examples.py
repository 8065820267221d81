"""The programs in `examples/` do what they say, against a local sandbox."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sse_bridge import SSEBridge
from sse_bridge.wire import events
from sse_bridge.wire.frames import FrameSplitter
from tests.support.sandboxes import KEY, LocalSandbox
from tests.support.servers import serve
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
BATCHES = ["processing batch 1", "processing batch 2", "processing batch 3"]


@pytest.fixture(autouse=True)
def environment(sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIOSA_BASE_URL", sandbox.url)
    monkeypatch.setenv("MIOSA_API_KEY", KEY)
    monkeypatch.setenv("SANDBOX_ID", sandbox.id)
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("name", ["starlette_app", "fastapi_app", "mounts_twice", "quart_app"])
@pytest.mark.parametrize(("path", "root_path"), [("/run-sse", ""), ("/run-sse/", ""), ("/run-sse/", "/behind/a/proxy")])
def test_an_application_with_the_bridge_in_it(name: str, path: str, root_path: str) -> None:
    """With and without a trailing slash, and behind a proxy that adds a path."""
    app = importlib.import_module(f"examples.{name}").app
    with serve(app, root_path=root_path) as served:
        response = httpx.get(served.url + path, follow_redirects=True, cookies={"user": "ada"}, timeout=20)

    assert response.status_code == 200
    start, *lines, end = objects(response)
    assert start == {"type": "start", "run": response.headers["sse-bridge-run"]}
    assert [line["line"] for line in lines] == BATCHES
    assert end == {"type": "exit", "code": 0}


@pytest.mark.parametrize("name", ["fastapi_app", "fastapi_start", "mounts_twice", "quart_app"])
def test_the_page_of_an_application(page: Page, name: str) -> None:
    """It shows each line once, and the exit."""
    app = importlib.import_module(f"examples.{name}").app
    with serve(app) as served:
        page.context.add_cookies([{"name": "user", "value": "ada", "url": served.url}])
        page.goto(served.url)
        if name == "fastapi_start":
            page.click("button")
        page.get_by_text("[exit 0]").wait_for()

        assert page.inner_text("pre").splitlines() == [*BATCHES, "[exit 0]"]


# -- FastAPI, with a login


def test_the_fastapi_example_refuses_strangers(page: Page) -> None:
    """A request without the cookie gets 401 before a command runs. Its page shows why."""
    app = importlib.import_module("examples.fastapi_app").app
    with serve(app) as served:
        response = httpx.get(served.url + "/run-sse/")
        page.goto(served.url)
        page.get_by_text("[Log in first.]").wait_for()

    assert response.status_code == 401
    assert response.json()["error"] == {"code": "unauthorized", "message": "Log in first.", "request_id": None}


def test_users_of_the_fastapi_example_follow_and_end_only_their_own_runs() -> None:
    """Another user, and a request before the login, get the answer for an unknown run."""
    app = importlib.import_module("examples.fastapi_app").app
    with serve(app) as served, stream(served.url + "/run-sse/", "ada") as response:
        run = f"{served.url}/run-sse/{response.headers['sse-bridge-run']}"
        for cookies in ({"user": "bob"}, {}):
            assert httpx.get(run, cookies=cookies).status_code == 404
            assert httpx.delete(run, cookies=cookies).status_code == 404
        response.read()
        ended = httpx.get(run, cookies={"user": "ada"}, headers={"Accept": "application/json"}).json()

    assert (ended["state"], ended["code"]) == ("ended", 0)


# -- FastAPI, with an endpoint that starts runs


def test_an_endpoint_starts_a_run_that_its_user_follows() -> None:
    """The endpoint's model and dependency have their say first, and `Location` leads to the run."""
    app = importlib.import_module("examples.fastapi_start").app
    with serve(app) as served:

        def post(batches: int, cookies: dict[str, str]) -> httpx.Response:
            return httpx.post(served.url + "/builds", json={"batches": batches}, cookies=cookies)

        assert post(3, {}).status_code == 401
        assert post(11, {"user": "ada"}).status_code == 422
        started = post(2, {"user": "ada"})
        assert started.status_code == 201
        run = served.url + started.headers["location"]
        assert httpx.get(run, cookies={"user": "bob"}).status_code == 404
        followed = httpx.get(run, cookies={"user": "ada"}, timeout=20)

    start, *lines, end = objects(followed)
    assert start == {"type": "start", **started.json()}
    assert [line["line"] for line in lines] == BATCHES[:2]
    assert end == {"type": "exit", "code": 0}


def test_an_endpoint_passes_on_what_the_platform_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint answers with a status of its own."""
    monkeypatch.setenv("SANDBOX_ID", "sbx_unknown")
    app = importlib.import_module("examples.fastapi_start").app
    with serve(app) as served:
        refused = httpx.post(served.url + "/builds", json={"batches": 1}, cookies={"user": "ada"})

    assert refused.status_code == 404
    assert "does not exist" in refused.json()["detail"]


def test_only_the_endpoint_starts_runs() -> None:
    """A request to the bridge itself is refused."""
    app = importlib.import_module("examples.fastapi_start").app
    with serve(app) as served:
        assert httpx.get(served.url + "/run-sse/", cookies={"user": "ada"}).status_code == 404


# -- a component that mounts twice


def test_a_component_that_mounts_twice_starts_one_command(page: Page) -> None:
    """It opens, closes and opens its stream within thirty milliseconds."""
    example = importlib.import_module("examples.mounts_twice")
    before = example.bridge.statistics().runs_started
    asked: list[str] = []
    with serve(example.app) as served:
        page.on("request", lambda request: asked.append(request.url) if "/run-sse/" in request.url else None)
        page.goto(served.url)
        page.get_by_text("[exit 0]").wait_for()

    assert len(asked) == 2
    assert example.bridge.statistics().runs_started == before + 1


# -- an agent


def test_the_page_shows_every_attempt_of_the_agent(page: Page) -> None:
    """Two fail, and the third passes, each with its program and what that printed."""
    app = importlib.import_module("examples.agent_loop").app
    with serve(app) as served:
        page.goto(served.url)
        page.get_by_text("Done.").wait_for()

        assert page.locator("section").evaluate_all("all => all.map(one => one.className)") == [
            "failed",
            "failed",
            "passed",
        ]
        printed = page.locator("section").evaluate_all("all => all.map(one => one.lastChild.textContent)")
        assert page.locator("section .code").count() == 3
    assert "SyntaxError" in printed[0]
    assert printed[1].startswith("adding up\n")
    assert "NameError: name 'totall' is not defined" in printed[1]
    assert printed[2] == "adding up\n55\n"


def test_an_attempt_is_stopped_when_its_viewer_leaves(sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process of the sandbox."""
    example = importlib.import_module("examples.agent_loop")

    async def sleepy(messages: list[dict[str, str]]) -> str:
        return "import time\nprint('ready')\ntime.sleep(300)"

    monkeypatch.setattr(example, "stub", sleepy)
    with serve(SSEBridge(resolve=example.resolve, grace=0)) as served:
        with stream(served.url, "ada") as response:
            said = response.iter_lines()  # closes the response when it is forgotten
            assert 'data: {"type":"stdout","line":"ready"}' in said
            (pid,) = [process["pid"] for process in sandbox.processes() if process["status"] == "running"]
            assert psutil.pid_exists(pid)
        eventually(lambda: not psutil.pid_exists(pid))

    assert sandbox.processes()[-1]["status"] == "exited"


def test_the_agent_may_ask_a_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind an API of OpenAI's form, here a stand-in that answers in prose. It is told what the program printed."""
    asked: list[Any] = []
    programs = ["print(1 / 0)", "print(55)"]

    async def complete(request: Request) -> JSONResponse:
        asked.append((request.headers["authorization"], await request.json()))
        content = f"Sure.\n```python\n{programs[len(asked) - 1]}\n```\nThat is it."
        return JSONResponse({"choices": [{"message": {"role": "assistant", "content": content}}]})

    with serve(Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])) as model:
        for name, value in (("URL", model.url + "/v1"), ("KEY", "sk-1"), ("NAME", "m-1")):
            monkeypatch.setenv(f"MODEL_{name}", value)
        with serve(importlib.import_module("examples.agent_loop").app) as served:
            *_, end = objects(httpx.get(served.url + "/run-sse/", timeout=20))

    assert end == {"type": "exit", "code": 0}
    (key, first), (_, second) = asked
    assert (key, first["model"], len(first["messages"])) == ("Bearer sk-1", "m-1", 1)
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"].rstrip() == programs[0]
    assert "ZeroDivisionError" in second["messages"][2]["content"]


# -- the real platform


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


def stream(url: str, user: str) -> AbstractContextManager[httpx.Response]:
    return httpx.stream("GET", url, cookies={"user": user}, timeout=20)
