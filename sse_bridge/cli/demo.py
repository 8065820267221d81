"""`sse-bridge demo`: a page that shows a script's output as it is printed."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from .listening import LOOPBACK, Port, notice_frozen_clients, opened, reach_of, url_of
from .saying import missing

__all__ = ["demo"]


def demo(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = LOOPBACK,
    port: Port = 8000,
) -> int:
    """Serve a page with a Run button, and a local sandbox in which its script runs."""
    try:
        from ..console.server import serve
    except ModuleNotFoundError as error:
        return missing(error, "uvicorn", "serve")
    if (listener := opened(host, port)) is None:
        return 1
    with listener:
        notice_frozen_clients(listener)
        print(f"The demo is at {url_of(listener)} (Ctrl-C ends it)", *reach_of(listener), sep="\n", flush=True)
        with suppress(KeyboardInterrupt):
            serve(listener)
    return 0
