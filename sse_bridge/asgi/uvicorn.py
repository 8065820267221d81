"""Tells whether the uvicorn that runs on this event loop stops, however it was told to.

`limit_max_requests` and a program that sets `should_exit` send no signal. The server is found once for each event loop,
in the task that serves. Only its public attributes are read.
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import Any

from .coroutines import frames

__all__ = ["is_stopping", "servers"]


def servers() -> list[Any]:
    """Every `uvicorn.Server` that runs on this event loop; none where uvicorn is not loaded."""
    kind = getattr(sys.modules.get("uvicorn.server"), "Server", None)
    if kind is None:
        return []
    # Others' frames are left alone. Until Python 3.12, one that is looked into keeps what it has in its variables then.
    own = {method.__code__ for method in vars(kind).values() if isinstance(method, FunctionType)}
    selves = (frame.f_locals.get("self") for frame in frames() if frame.f_code in own)
    found = {id(one): one for one in selves if isinstance(one, kind)}
    return list(found.values())


def is_stopping(server: Any) -> bool:
    """Whether a running server has been told to stop, or has closed its listeners."""
    return server.should_exit or (server.started and not any(one.is_serving() for one in server.servers))
