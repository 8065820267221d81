"""`exec` and `exec/stream`: a command's output as one answer, or as an event stream while it is printed.

Both are plain ASGI applications, because a command outlives its response: it runs on when the client leaves and when
the response ends. MIOSA documents no cancel for these routes and does not promise that closing the connection kills, so
this server never kills for that. A command ends by itself, by its `timeout`, with its sandbox, or with the server.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from .output import HEARTBEAT, LineEncoder, boundary, exit_frame
from .processes import Outcome
from .requests import ExecRequest, json_object
from .state import Sandboxes

__all__ = ["MAX_OUTPUT", "BlockingExec", "StreamingExec", "routes"]

#: Bytes that `exec` keeps of stdout, and of stderr; it reads and drops the rest. MIOSA documents no limit.
MAX_OUTPUT: Final = 10 * 1024 * 1024
#: Seconds that the beginning of a line waits for its end. A person at a prompt does not notice them, and a program that
#: writes a line in several parts (Python's `print` under `-u` writes the newline apart) is done by then.
_UNFINISHED: Final = 0.1


def routes(sandboxes: Sandboxes, *, heartbeat: float) -> list[Route]:
    """The routes of this module, relative to the API's root."""
    return [
        Route("/sandboxes/{id}/exec", BlockingExec(sandboxes), methods=["POST"]),
        Route("/sandboxes/{id}/exec/stream", StreamingExec(sandboxes, heartbeat), methods=["POST"]),
    ]


class BlockingExec:
    """`POST /sandboxes/{id}/exec`: runs a command and answers when it has ended."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        request = Request(scope, receive)
        sandbox = self._sandboxes.get(request.path_params["id"])
        wanted = ExecRequest.parse(await json_object(request))
        stdout, stderr = _Head(MAX_OUTPUT), _Head(MAX_OUTPUT)
        async with sandbox.run(wanted) as command, anyio.create_task_group() as pumps:
            pumps.start_soon(command.stdout.pump, stdout.add)
            pumps.start_soon(command.stderr.pump, stderr.add)
            outcome = await command.ended()
            with suppress(OSError):  # the client has left (ASGI HTTP, 2.4); children in the background live on
                await _answer(outcome, stdout, stderr)(scope, receive, send)
            # The task group ends with the last process that holds the pipes; a child in the background may hold them
            # for long.


def _answer(outcome: Outcome, stdout: _Head, stderr: _Head) -> JSONResponse:
    data: dict[str, object] = {
        "stdout": stdout.text(),
        "stderr": stderr.text(),
        "exit_code": outcome.exit_code,
        "duration_ms": outcome.duration_ms,
    }
    if outcome.timed_out:
        data["timed_out"] = True
    if stdout.is_cut or stderr.is_cut:
        data["truncated"] = True
    return JSONResponse({"data": data})


class _Head:
    """The first bytes of an output, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self.is_cut = False

    async def add(self, piece: bytes) -> None:
        """Keeps as much as still fits."""
        self._bytes += piece
        if len(self._bytes) > self._limit:
            self.is_cut = True
            del self._bytes[boundary(self._bytes, self._limit) :]

    def text(self) -> str:
        """The bytes kept, as text; invalid UTF-8 becomes U+FFFD."""
        return self._bytes.decode("utf-8", "replace")


class StreamingExec:
    """`POST /sandboxes/{id}/exec/stream`: runs a command and streams what it prints, line by line."""

    def __init__(self, sandboxes: Sandboxes, heartbeat: float) -> None:
        self._sandboxes = sandboxes
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        request = Request(scope, receive)
        sandbox = self._sandboxes.get(request.path_params["id"])
        wanted = ExecRequest.parse(await json_object(request))
        async with sandbox.run(wanted) as command, anyio.create_task_group() as pumps:
            outlet = _Outlet(send, self._heartbeat)
            await outlet.begin()
            stdout, stderr = _Output(outlet, "stdout"), _Output(outlet, "stderr")
            pumps.start_soon(command.stdout.pump, stdout.add)
            pumps.start_soon(command.stderr.pump, stderr.add)
            async with anyio.create_task_group() as watchers:
                watchers.start_soon(outlet.watch, receive)
                watchers.start_soon(outlet.beat)
                watchers.start_soon(stdout.show_unfinished)
                watchers.start_soon(stderr.show_unfinished)
                outcome = await command.ended()
                last = exit_frame(outcome.exit_code, timed_out=outcome.timed_out)
                await outlet.end(stdout.finish() + stderr.finish() + last)
                watchers.cancel_scope.cancel()


class _Outlet:
    """The response of one stream. stdout, stderr and the heartbeat take turns in writing it.

    While the client does not read, `send` waits, and the writer with it. Once the client has left, output is accepted
    and dropped.
    """

    def __init__(self, send: Send, interval: float) -> None:
        self._send = send
        self._interval = interval
        self._turn = anyio.Lock(fast_acquire=True)
        self._sending = anyio.CancelScope()
        #: The client has left, or has received the whole response.
        self.is_over = False
        self._last = anyio.current_time()

    async def begin(self) -> None:
        """Sends the headers, before there is any output."""
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await self._put({"type": "http.response.start", "status": 200, "headers": headers})
        await self.write(b"")  # some servers hold the headers back until the first part of the body

    async def write(self, frames: bytes) -> None:
        """Sends frames, in the order of the calls."""
        await self._put({"type": "http.response.body", "body": frames, "more_body": True})

    async def end(self, frames: bytes) -> None:
        """Sends the last frames, and ends the response."""
        await self._put({"type": "http.response.body", "body": frames, "more_body": False})

    async def beat(self) -> None:
        """Sends a comment after each interval of silence."""
        while True:
            await anyio.sleep_until(self._last + self._interval)
            if anyio.current_time() >= self._last + self._interval:
                await self.write(HEARTBEAT)

    async def watch(self, receive: Receive) -> None:
        """Waits for the client to leave, then stops sending and releases a `send` that waits."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stop()

    async def _put(self, message: Message) -> None:
        async with self._turn:
            if not self.is_over:
                with anyio.CancelScope() as self._sending:
                    await self._try(message)
            if message.get("more_body") is False:
                self._stop()  # drops a heartbeat that waits for its turn
            self._last = anyio.current_time()

    async def _try(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # the client has left (ASGI HTTP, 2.4)
            self._stop()

    def _stop(self) -> None:
        self.is_over = True
        self._sending.cancel()


class _Output:
    """stdout or stderr of a stream, as frames."""

    def __init__(self, outlet: _Outlet, stream: str) -> None:
        self._outlet = outlet
        self._encoder = LineEncoder(stream)
        self._waits_since: float | None = None  # when text of an unfinished line arrived that is still to be sent
        self._waits = anyio.Event()

    async def add(self, piece: bytes) -> None:
        """Sends the lines that a piece of output completes."""
        if self._outlet.is_over:
            return
        if frames := self._encoder.feed(piece):
            self._waits_since = None  # a new line, whose time runs once those before it are sent
            await self._outlet.write(frames)
        if self._encoder.is_waiting and self._waits_since is None:
            self._waits_since = anyio.current_time()
            self._waits.set()

    async def show_unfinished(self) -> None:
        """Sends what there is of a line that stays unfinished, as a prompt or a progress bar does."""
        while True:
            await self._waits.wait()
            self._waits = anyio.Event()
            while self._waits_since is not None:
                left = self._waits_since + _UNFINISHED - anyio.current_time()
                if left > 0:
                    await anyio.sleep(left)
                    continue
                self._waits_since = None
                if frames := self._encoder.flush():
                    await self._outlet.write(frames)

    def finish(self) -> bytes:
        """The frames of an unfinished last line."""
        return self._encoder.finish()
