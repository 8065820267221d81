"""`sse-bridge demo`: a page that shows a script's output as it is printed."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from .listening import LOOPBACK, listen, notice_frozen_clients, port_of, url_of
from .saying import fail, missing

__all__ = ["demo"]


def demo(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = LOOPBACK,
    port: Annotated[int, typer.Option(parser=port_of, metavar="PORT", help="0 picks a free one.")] = 8000,
) -> int:
    """Serve a page with a Run button, and a local sandbox in which its script runs."""
    try:
        from ..console.server import serve
    except ModuleNotFoundError as error:
        return missing(error, "uvicorn", "serve")
    try:
        listener = listen(host, port)
    except OSError as error:
        return fail(f"cannot listen on {host}, port {port}: {error}")
    with listener:
        notice_frozen_clients(listener)
        print(f"The demo is at {url_of(listener)} (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            serve(listener)
    return 0
