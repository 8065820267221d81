"""`events`: what happens in a sandbox, as an event stream that goes on until the client leaves."""

from __future__ import annotations

import math

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .feed import Feed
from .outlet import Outlet
from .state import Sandbox, Sandboxes
from .ulids import from_text

__all__ = ["SandboxEvents", "routes"]


def routes(sandboxes: Sandboxes, *, heartbeat: float) -> list[Route]:
    """The routes of this module, relative to the API's root."""
    return [Route("/sandboxes/{id}/events", SandboxEvents(sandboxes, heartbeat), methods=["GET"])]


class SandboxEvents:
    """`GET /sandboxes/{id}/events`: the events from now on, or those behind a `Last-Event-ID`.

    A client that resumes behind an event that is no longer kept gets all that are. An id that is no ULID counts as
    none. MIOSA documents neither; both are our choices. The stream ends with its sandbox.
    """

    def __init__(self, sandboxes: Sandboxes, heartbeat: float) -> None:
        self._sandboxes = sandboxes
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        request = Request(scope, receive)
        sandbox = self._sandboxes.watched(request.path_params["id"])
        sandbox.notice_start()
        position = _position(request.headers.get("last-event-id", ""), sandbox.feed)
        outlet = Outlet(send, self._heartbeat)
        await outlet.begin()
        async with outlet.served(receive) as tasks:
            tasks.start_soon(_await_start, sandbox)
            while (batch := await sandbox.feed.next(position)) is not None:
                await outlet.write(batch.frames)
                position = batch.last
            await outlet.end(b"")


def _position(last_event_id: str, feed: Feed) -> int:
    number = from_text(last_event_id)
    return feed.newest if number is None else min(number, feed.newest)


async def _await_start(sandbox: Sandbox) -> None:
    await sandbox.life.wait_until_ready(math.inf)
    sandbox.notice_start()
