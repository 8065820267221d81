"""A server that answers as a test says: a transport of httpx, so that nothing goes over a network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import anyio.lowlevel
import httpx

__all__ = ["RUN", "Broken", "Reply", "Server", "Step", "event", "gone", "refusal", "run_of", "state", "stream"]

RUN: Final = "Zk3vQ0x9bTnWf2Rq"


@dataclass
class Broken:
    """A connection that fails: before the request goes out, or instead of an answer."""

    error: type[httpx.TransportError] = httpx.ReadError


@dataclass
class Reply:
    """An answer.

    Args:
        breaks: whether the connection breaks behind the content.
        silence: seconds between the head and the content.
    """

    status: int = 200
    content: bytes | Sequence[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    breaks: bool = False
    silence: float = 0.0


Step = Reply | Broken | Callable[[httpx.Request], "Reply | Broken"]


class _Body(httpx.AsyncByteStream, httpx.SyncByteStream):
    def __init__(self, reply: Reply, server: Server) -> None:
        self._chunks = [reply.content] if isinstance(reply.content, bytes) else reply.content
        self._breaks = reply.breaks
        self._silence = reply.silence
        self._server = server
        self._is_closed = False
        server.open += 1

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._breaks:
            raise httpx.ReadError("cut")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await anyio.sleep(self._silence)
        for chunk in self:
            yield chunk

    def close(self) -> None:
        self._server.open -= not self._is_closed
        self._is_closed = True

    async def aclose(self) -> None:
        self.close()


class Server(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Answers requests in this order, and goes on with the last answer."""

    def __init__(self, *steps: Step) -> None:
        self.requests: list[httpx.Request] = []
        #: Responses that are not closed.
        self.open = 0
        self._steps = list(steps)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        reply = step(request) if callable(step) else step
        if isinstance(reply, Broken):
            raise reply.error("broken", request=request)
        return httpx.Response(reply.status, headers=reply.headers, stream=_Body(reply, self))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.lowlevel.checkpoint()  # as a network would, it lets a cancellation in
        return self.handle_request(request)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Method and path of each request."""
        return [(each.method, each.url.raw_path.decode()) for each in self.requests]

    @property
    def places(self) -> list[str | None]:
        """Each `Last-Event-ID`."""
        return [each.headers.get("last-event-id") for each in self.requests]


def event(number: int | str | None, kind: str, dialect: str = "typed", **body: Any) -> bytes:
    """One event of the run."""
    head = "" if number is None else f"id: {RUN}.{number}\n"
    if dialect == "named":
        return f"{head}event: {kind}\ndata: {json.dumps(body)}\n\n".encode()
    return f"{head}data: {json.dumps({'type': kind, **body})}\n\n".encode()


def gone(code: str, **more: Any) -> bytes:
    """The refusal of a stream, as an event."""
    return event("gone", "error", code=code, message="No.", **more)


def run_of(*lines: str, code: int | None = 0, dialect: str = "typed") -> list[bytes]:
    """All events of a run that prints lines."""
    printed = [event(number, "stdout", dialect, line=line) for number, line in enumerate(lines, 1)]
    return [event(0, "start", dialect, run=RUN), *printed, event(len(lines) + 1, "exit", dialect, code=code)]


def stream(*events: bytes, breaks: bool = False, run: str | None = RUN) -> Reply:
    """An event stream."""
    headers = {"Content-Type": "text/event-stream; charset=utf-8"} | ({} if run is None else {"SSE-Bridge-Run": run})
    return Reply(200, list(events), headers, breaks)


def state(frames: int, code: int | None = 0, error: Any = None, state: str = "ended", **more: Any) -> Reply:
    """The state of the run."""
    said = {"run": RUN, "state": state, "code": code, "error": error, "frames": frames, **more}
    return Reply(200, json.dumps(said).encode(), {"Content-Type": "application/json"})


def refusal(status: int, code: str, **headers: str) -> Reply:
    """A refusal of the bridge's."""
    said = {"error": {"code": code, "message": "No.", "request_id": "req_1"}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(said).encode(), {"Content-Type": "application/json", **named})
