"""The snippets of README and docs that are no Python: scripts of pages, lines for a shell, and data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from sse_bridge import Miosa, SandboxExec, Source, SSEBridge, speedups
from sse_bridge.testing import Script
from tests.support.documentation import DOCS, README, ROOT, blocks, only_block
from tests.support.programs import find
from tests.support.sandboxes import KEY, LocalSandbox
from tests.support.servers import Served, serve

#: A run, as the contract shows it.
RUN = "Zk3vQ0x9bTnWf2Rq"
Resolve = Callable[[Request], Source]
Shell = Callable[..., str]

HTML = """<!doctype html><link rel="icon" href="data:,"><pre></pre>
<script type="module">
const output = document.querySelector("pre");
const show = (line) => output.append(line, "\\n");
{script}
</script>"""


@contextmanager
def page_with(script: str, resolve: Resolve, miosa: Miosa | None = None, **options: Any) -> Iterator[Served]:
    """Serves a page with a script, beside the bridge at `/run-sse/`."""
    html = HTMLResponse(HTML.replace("{script}", script))
    bridge = SSEBridge(miosa, resolve, **options)
    with serve(Starlette(routes=[Route("/", lambda request: html), Mount("/run-sse", bridge)])) as served:
        yield served


# -- scripts of pages


def test_the_page_of_the_readme_shows_a_run(page: Page) -> None:
    script = Script(["one", ("stderr", "two"), "three"], exit=3)
    with page_with(only_block(README, "js"), lambda request: script, refusals="frame") as served:
        page.goto(served.url)
        page.get_by_text("[exit 3]").wait_for()

        assert page.inner_text("pre").splitlines() == ["one", "two", "three", "[exit 3]"]


def test_the_page_of_the_readme_says_that_it_was_refused(page: Page) -> None:
    """The host answers 500 if `resolve` raises."""

    def resolve(request: Request) -> Source:
        raise LookupError("no such pipeline")

    with page_with(only_block(README, "js"), resolve, refusals="frame") as served:
        page.goto(served.url)
        page.get_by_text("[refused: see the server's log]").wait_for()

        assert page.inner_text("pre").strip() == "[refused: see the server's log]"


def test_the_key_of_a_page_stands_for_one_run(page: Page) -> None:
    """`docs/users.md`: a page that mounts twice within a moment."""
    script = (
        only_block(DOCS / "users.md", "js")
        + """
    const again = new EventSource(source.url);
    for (const mounted of [source, again]) mounted.onmessage = (event) => show(event.data);
    """
    )
    source = Script(["a"], waits=True)
    with page_with(script, lambda request: source, key=lambda request: request.query_params.get("key")) as served:
        page.goto(served.url)
        page.wait_for_function("document.querySelector('pre').textContent.match(/stdout/g)?.length === 2")
        runs = re.findall(r'"run":"(.{16})"', page.inner_text("pre"))

    assert len(runs) == 2
    assert len(set(runs)) == source.starts == 1


def test_a_page_appends_what_is_unfinished(page: Page, sandbox: LocalSandbox) -> None:
    """`docs/progress.md`. The script asks, and waits for the answer."""
    appends = only_block(DOCS / "progress.md", "js")
    script = f"""
    window.partials = 0;
    const source = new EventSource("/run-sse/");
    source.onmessage = ({{ data }}) => {{
      const message = JSON.parse(data);
      if (message.line !== undefined) {{ {appends} }}
      window.partials += Boolean(message.partial);
      if (message.type === "exit") {{ source.close(); window.isOver = true; }}
    }};"""
    asking = sandbox.another(runtime_profile="pieces")
    command = "printf 'Go on? '; until test -e yes; do sleep 0.02; done; echo yes; echo done"
    with page_with(script, lambda request: SandboxExec(asking.id, command), asking.miosa()) as served:
        page.goto(served.url)
        page.wait_for_function("window.partials > 0")
        asking.write("/workspace/yes", "")
        page.wait_for_function("window.isOver")

        assert page.inner_text("pre") == "Go on? yes\ndone\n"


# -- lines for a shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Runs a line, and returns what it prints. `python` is the one with the package in it."""
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"

    def run(line: str, **variables: str) -> str:
        env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **variables}
        return subprocess.run(
            ["bash", "-c", line], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, timeout=60, check=True
        ).stdout

    return run


def test_the_readme_names_targets_of_make(shell: Shell) -> None:
    """They take too long to be run here: `make test` is what runs this."""
    lines = only_block(README, "sh").splitlines()

    assert len(lines) == 2
    for line in lines:
        assert shell(line.replace("make", "make --dry-run", 1))


def test_curl_starts_watches_and_ends_runs(shell: Shell) -> None:
    """`docs/http.md`: `$RUN` is the answer to the second line."""
    find("curl")
    answers: list[str] = []
    run = ""
    with serve(mounted(lambda request: Script(["a"], waits=request.method == "POST"))) as served:
        for line in only_block(DOCS / "http.md", "sh").splitlines():
            answers.append(shell(line.replace("http://localhost:8000", served.url), RUN=run))
            run = run or (json.loads(answers[-1])["run"] if "respond-async" in line else "")
        after = httpx.get(f"{served.url}/run-sse/{run}", headers={"Accept": "application/json"})

    watched, started, state, ended = answers
    assert '"line":"a"' in watched
    assert '"type":"exit"' in watched
    assert json.loads(started)["href"] == f"/run-sse/{run}"
    assert json.loads(state)["state"] == "running"
    assert ended == ""
    assert after.json()["error"]["code"] == "cancelled"


def mounted(resolve: Resolve, miosa: Miosa | None = None) -> Starlette:
    return Starlette(routes=[Mount("/run-sse", SSEBridge(miosa, resolve))])


def test_python_says_where_the_modules_are(shell: Shell) -> None:
    folder = Path(shell(only_block(DOCS / "browser.md", "sh")).strip())

    assert (folder / "sse-bridge.js").is_file()
    assert (folder / "sse-console.js").is_file()


@pytest.mark.slow
def test_python_says_whether_the_twin_is_in_use(shell: Shell) -> None:
    """`docs/speedups.md` shows the answer where it is; else there is a reason."""
    typed, answer = only_block(DOCS / "speedups.md", "console").splitlines()

    said = shell(typed.removeprefix("$ ")).strip()
    assert said == speedups.REASON
    assert (said == answer) == speedups.IN_USE


# -- data


def test_the_json_of_the_contract_is_what_the_bridge_answers(sandbox: LocalSandbox) -> None:
    """`docs/http.md`: the state of a run that has exited, and a refusal."""
    state, refusal = (json.loads(block.text) for block in blocks(DOCS / "http.md", "json"))
    commands = {"GET": SandboxExec(sandbox.id, "exit 3"), "POST": SandboxExec("sbx_9ccc416576c8a9d1", "true")}
    app = mounted(lambda request: commands[request.method], sandbox.miosa())
    with serve(app) as served, httpx.Client(base_url=served.url, headers={"Accept": "application/json"}) as client:
        run = client.get("/run-sse/", headers={"Accept": "text/event-stream"}).headers["sse-bridge-run"]
        known, refused = client.get(f"/run-sse/{run}").json(), client.post("/run-sse/").json()

    assert known.keys() == state.keys()
    assert {name: type(value) for name, value in known.items()} == {name: type(value) for name, value in state.items()}
    assert (known["state"], known["code"], known["error"]) == (state["state"], state["code"], state["error"])
    assert refused["error"].keys() == refusal["error"].keys()
    assert (refused["error"]["code"], refused["error"]["message"]) == ("not_found", refusal["error"]["message"])


def test_the_frames_of_the_contract_are_what_the_bridge_sends(sandbox: LocalSandbox) -> None:
    """`docs/http.md`: a refusal, and the same script in three dialects. Heartbeats and gaps are other tests'."""
    refusal, typed, named, verbatim = (block.text.strip().split("\n\n") for block in blocks(DOCS / "http.md", ""))
    unknown = SSEBridge(sandbox.miosa(), lambda request: SandboxExec("sbx_1", "true"), refusals="frame")
    command = SandboxExec(sandbox.id, "echo Starting data pipeline...")

    (refused,) = frames_of(unknown)
    assert re.sub('req_[^"]+', "", refused) == re.sub('req_[^"]+', "", refusal[0])
    start, line, end = frames_of(SSEBridge(sandbox.miosa(), lambda request: command))
    assert [start, line] == typed[:2]
    assert end.partition("\n")[2] == typed[-1].partition("\n")[2]
    assert named[0] in frames_of(SSEBridge(sandbox.miosa(), lambda request: command, dialect="named"))
    assert verbatim[0] in frames_of(SSEBridge(sandbox.miosa(), lambda request: command, dialect="verbatim"))


def frames_of(bridge: SSEBridge) -> list[str]:
    """What a browser gets, with the token of the contract."""
    with serve(Starlette(routes=[Mount("/run-sse", bridge)])) as served:
        answer = httpx.get(f"{served.url}/run-sse/", headers={"Accept": "text/event-stream"}, timeout=20)
    text = re.sub(r'^id: .{16}|"run":".{16}', lambda found: found[0][:-16] + RUN, answer.text, flags=re.MULTILINE)
    text = text.replace(f"{RUN}.gone", "v7Jm2sXq0LdT9cEa.gone").replace(": heartbeat\n", "")
    return text.strip().split("\n\n")


def test_the_frames_of_the_platform_are_those_of_the_local_sandbox(sandbox: LocalSandbox) -> None:
    """`docs/miosa.md`, whose heartbeat takes fifteen seconds. stdout and stderr come in either order."""
    shown = only_block(DOCS / "miosa.md", "text")
    url = f"{sandbox.url}/api/v1/sandboxes/{sandbox.id}/exec/stream"
    answer = httpx.post(
        url, json={"command": "echo hello; echo warn >&2"}, headers={"Authorization": f"Bearer {KEY}"}, timeout=20
    )

    expected = [frame for frame in shown.strip().split("\n\n") if frame != ": heartbeat"]
    assert sorted(answer.text.strip().split("\n\n")) == sorted(expected)


def test_the_deployment_of_kubernetes_waits_for_the_drain() -> None:
    """`docs/many-workers.md`: its command is one that uvicorn takes, and its times add up."""
    spec = yaml.safe_load(only_block(DOCS / "many-workers.md", "yaml"))["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    program, *arguments = container["command"]
    (pause,) = re.findall(r"drain=(\d+)", "".join(block.text for block in blocks(DOCS / "many-workers.md", "python")))
    _, before = container["lifecycle"]["preStop"]["exec"]["command"]

    assert program == "uvicorn"
    taken = uvicorn.main.make_context(program, arguments).params
    assert (taken["app"], taken["host"]) == ("app:app", "0.0.0.0")
    assert taken["port"] == container["readinessProbe"]["httpGet"]["port"]
    assert spec["terminationGracePeriodSeconds"] > int(before) + int(pause) + 5


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """`docs/metrics.md`: it asks where the page's program serves."""
    config = only_block(DOCS / "metrics.md", "yaml")
    (tmp_path / "prometheus.yml").write_text(config)
    check = [find("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    (job,) = yaml.safe_load(config)["scrape_configs"]

    assert done.returncode == 0, done.stdout + done.stderr
    assert f'app.mount("{job["metrics_path"].rstrip("/")}", make_asgi_app())' in (DOCS / "metrics.md").read_text()
