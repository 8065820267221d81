"""The pages of the demo and of `sse-bridge serve`."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse

__all__ = ["COMMAND", "DEMO", "page_of"]

_HERE: Final = Path(__file__).parent
#: The page of the demo.
DEMO: Final = _HERE / "index.html"
#: A page that runs one command. It expects the bridge at `run-sse/`, and the modules at `sse-bridge/`.
COMMAND: Final = _HERE / "command.html"


def page_of(path: Path) -> Callable[[Request], Awaitable[HTMLResponse]]:
    """An endpoint that answers with a page."""
    html = path.read_text("utf-8")
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _security_policy(html),
        "Referrer-Policy": "no-referrer",  # the address may hold a token
    }

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    return page


def _security_policy(html: str) -> str:
    """Lets the page run its own script, the modules and its style sheet, and talk to this server alone."""
    hashes = {
        kind: f"'sha256-{b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
        for kind, content in re.findall(r"<(script|style)\b[^>]*>(.*?)</\1>", html, re.DOTALL)
    }
    return (
        f"default-src 'none'; script-src 'self' {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
        "img-src data:; require-trusted-types-for 'script'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
