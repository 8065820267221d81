"""The application of the stop tests, as a module for any server's command line. It serves `/run-sse?run=<name>`."""

from __future__ import annotations

import json
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from sse_bridge import Miosa, SandboxExec, SSEBridge

_SETTINGS = json.loads(os.environ["BRIDGE"])


def _work(request: Request) -> SandboxExec:
    return SandboxExec(_SETTINGS["sandbox"], _SETTINGS["commands"][request.query_params["run"]], cwd="/workspace")


_BRIDGE = SSEBridge(Miosa(_SETTINGS["url"], _SETTINGS["key"]), _work, **_SETTINGS["options"])


app = Starlette(routes=[Route("/health", lambda request: PlainTextResponse("ok")), Mount("/run-sse", _BRIDGE)])
