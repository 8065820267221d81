"""A viewer that drives an ASGI application directly, through `receive` and `send`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel

from sse_bridge.asgi.messages import Message, Scope
from sse_bridge.relay.signal import Signal
from sse_bridge.wire import events
from sse_bridge.wire.events import Event
from sse_bridge.wire.frames import FrameSplitter


def is_start(event: Event) -> bool:
    return event.type == "start" or (event.data or "").startswith('{"type":"start",')


class Page:
    """One request. Hand `page.scope, page.receive, page.send` to the application.

    `leave()` disconnects; `stall()` makes `send` hang until `resume()`; `until(...)` waits for a condition on what the
    application has sent.

    Args:
        pieces: the request's body, a message each. hypercorn sends an empty one at the end.
    """

    def __init__(
        self, method: str = "GET", path: str = "/", *, root_path: str = "", headers: dict[str, str] | None = None,
        pieces: Sequence[bytes] = (b"",),
    ) -> None:  # fmt: skip
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": root_path,
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("127.0.0.1", 5),
            "server": ("127.0.0.1", 80),
        }
        self.sent: list[Message] = []
        #: Raised by `send`, as servers of ASGI HTTP 2.4 do after the client has left.
        self.broken: OSError | None = None
        self._pieces = list(pieces)
        self._left = anyio.Event()
        self._changed = Signal()
        self._flowing = anyio.Event()
        self._flowing.set()

    async def receive(self) -> Message:
        if self._pieces:
            body = self._pieces.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._pieces)}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.broken is not None:
            raise self.broken
        await self._flowing.wait()
        await anyio.lowlevel.checkpoint()
        self.sent.append(message)
        self._changed.notify()
        if self.ended:
            self._left.set()  # servers say so once a response is complete, and some frameworks wait for it

    def leave(self) -> None:
        self._left.set()

    def stall(self) -> None:
        self._flowing = anyio.Event()

    def resume(self) -> None:
        self._flowing.set()

    async def until(self, condition: Callable[[], object], timeout: float = 10) -> None:
        with anyio.fail_after(timeout):
            while not condition():
                await self._changed.wait()

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def content(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def ended(self) -> bool:
        """Whether the response is complete: its last part had `more_body` false."""
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)

    @property
    def is_dismissed(self) -> bool:
        """Whether it got the empty response to a client that left before any other had begun."""
        return self.status == 499 and self.ended and not self.content

    @property
    def dispatched(self) -> list[Event]:
        """What an `EventSource` would have dispatched so far."""
        return [event for event in events.parse(FrameSplitter(None).feed(self.content)) if event.data is not None]

    @property
    def events(self) -> list[Event]:
        """The same without `start`, which comes before anything that the run says."""
        return [event for event in self.dispatched if not is_start(event)]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The JSON objects of the events, in the typed dialect."""
        return [json.loads(event.data or "") for event in self.events]

    @property
    def error(self) -> dict[str, Any]:
        """The JSON error of a refused request."""
        error: dict[str, Any] = json.loads(self.content)["error"]
        return error


def lines(page: Page) -> list[Any]:
    """The lines that the page got, and the types of its other objects, in the typed dialect."""
    return [said.get("line", said["type"]) for said in page.objects]


def ids(page: Page) -> list[int]:
    """The numbers of the frames that the page got."""
    return [int(str(event.id).rpartition(".")[2]) for event in page.events]
