"""The tutorial's page, unchanged, in a real browser under each policy."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from sse_bridge import Block, Coalesce, Drop, SandboxExec, SSEBridge
from tests.integration.test_browser import TUTORIAL
from tests.support.sandboxes import LocalSandbox
from tests.support.servers import serve

pytestmark = pytest.mark.slow

#: Bursts with silences between, two streams, and text that looks like several lines or like JSON.
SCRIPT = """
import sys, time
for burst in range(20):
    for number in range(100):
        print(f'{burst}.{number} "quoted" back\\\\slash \\\\n {{"type":"exit"}} caf\\u00e9 \\u2028')
    print(f"warning {burst}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    time.sleep(0.02)
sys.exit(3)
"""


@pytest.mark.parametrize(
    "policy", [Block(), Drop(), Coalesce(), Coalesce(beyond="drop"), Coalesce(max_rate=None)], ids=repr
)
def test_the_tutorials_page_shows_the_scripts_output(page: Page, sandbox: LocalSandbox, policy: Any) -> None:
    """The text is the same under each policy, as the browser is fast enough; `Coalesce` needs fewer events."""
    sandbox.write("/workspace/bursts.py", SCRIPT)

    def resolve(request: Request) -> SandboxExec:
        return SandboxExec(sandbox.id, "python3 bursts.py", cwd="/workspace")

    bridge = SSEBridge(sandbox.miosa(), resolve, policy=policy)
    app = Starlette(routes=[Route("/", lambda request: HTMLResponse(TUTORIAL)), Mount("/run-sse", bridge)])
    with serve(app) as site:
        page.goto(site.url)
        page.wait_for_function("document.getElementById('output').textContent.includes('[exit 3]')")
        text = page.evaluate("document.getElementById('output').textContent")
        seen = page.evaluate("window.seen")

    lines = text.split("\n")
    printed = [
        f'{burst}.{number} "quoted" back\\slash \\n {{"type":"exit"}} café \u2028'
        for burst in range(20)
        for number in range(100)
    ]
    assert [line for line in lines if not line.startswith("warning")] == [*printed, "[exit 3]", ""]
    assert [line for line in lines if line.startswith("warning")] == [f"warning {burst}" for burst in range(20)]
    numbers = [int(event_id.rpartition(".")[2]) for event_id in seen]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 2021
    assert numbers[0] == 0  # `start`
    assert (len(numbers) == 2022) != isinstance(policy, Coalesce)
