"""Streams an output that is kept: first what there is of it, then what is new, until its end or the client leaves."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Receive

from .kept import KeptOutput
from .outlet import Outlet, ShownOutput
from .output import LineEncoder

__all__ = ["follow"]


async def follow(output: KeptOutput, outlet: Outlet, receive: Receive, ending: Callable[[], bytes]) -> None:
    """Serves one response.

    Args:
        output: what to stream.
        outlet: the response, still to begin.
        receive: the request's.
        ending: the last frames, asked for once the output is over.
    """
    await outlet.begin()
    shown = {stream: ShownOutput(outlet, LineEncoder(stream)) for stream in ("stdout", "stderr")}
    async with outlet.served(receive) as tasks:
        for each in shown.values():
            tasks.start_soon(each.show_unfinished)
        position = 0
        while (piece := await output.next(position)) is not None:
            await shown[piece.stream].add(piece.data)
            position = piece.end
        await outlet.end(b"".join(each.finish() for each in shown.values()) + ending())
