"""For tests of an application that mounts the bridge: output from a script, and a page that reads as a browser does.

    async def test_the_page_shows_the_build() -> None:
        app = make_app(resolve=lambda request: Script(["compiling", "done"], exit=0))
        async with Page(app, "/run-sse/") as page:
            events = [event.json() async for event in page]
        assert [event["type"] for event in events] == ["start", "stdout", "stdout", "exit"]

Neither needs a platform, a server or a port. Both run on asyncio and trio.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, Self
from urllib.parse import quote, unquote

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Message

from .arguments import described, is_a, number, shown
from .errors import ConfigurationError, UpstreamError
from .upstream.base import Cancelled, Room, Stream, Take, Upstream, Work
from .upstream.lines import Exit, Item, Lines
from .wire import events
from .wire.frames import FrameSplitter

__all__ = ["Event", "Page", "PageError", "Script"]

#: Connections after which a page gives up: a browser would start the run again and again.
_MOST_CONNECTIONS: Final = 100
#: What a browser leaves as it is in a path and a query. What is escaped already stays so.
_KEPT: Final = "%/?:@!$&'()*+,;=[]|~"
#: Bytes of a refusal that an error quotes.
_QUOTED: Final = 300


@dataclass
class Script:
    """A source that needs no platform: it prints lines, and exits.

    Two scripts with the same arguments are the same source.

    Args:
        lines: what it prints, as a `Lines` yields it: text of stdout, or a pair such as `("stderr", "oh no")`.
        exit: its exit code; `None` ends the stream without one.
        delay: seconds before each line.
        refusal: raised instead of starting it, such as `UpstreamRefused("Not found.", code="not_found", status=404)`.
        error: raised behind the lines, such as `UpstreamLost("The stream broke off.")`.
        waits: whether it goes on behind the lines until it is ended.
        ends: how far ending it gets: `Cancelled.CONFIRMED`, or less for a platform that does not see it end.

    Raises:
        ConfigurationError: an argument is of the wrong kind.
    """

    lines: Sequence[Item] = ()
    exit: int | None = field(default=0, kw_only=True)
    delay: float = field(default=0.0, kw_only=True)
    refusal: UpstreamError | None = field(default=None, kw_only=True)
    error: UpstreamError | None = field(default=None, kw_only=True)
    waits: bool = field(default=False, kw_only=True)
    ends: Cancelled = field(default=Cancelled.CONFIRMED, kw_only=True)
    #: How often the bridge has started it.
    starts: int = field(default=0, init=False, compare=False)
    #: How often it has come to an end: by itself, or because it was ended.
    stops: int = field(default=0, init=False, compare=False)
    #: How often the bridge has asked for its end.
    cancels: int = field(default=0, init=False, compare=False)

    def __post_init__(self) -> None:
        if is_a(self.lines, str, bytes) or not isinstance(self.lines, Sequence):
            raise ConfigurationError(f"Script needs a list of lines, such as ['done'], not {described(self.lines)}.")
        if self.exit is not None:
            Exit(self.exit)
        if (delay := number(self.delay)) is None or not 0 <= delay < inf:
            raise ConfigurationError(f"Script(delay=...) must be seconds, 0 or more, not {shown(self.delay)}.")
        for name, error in (("refusal", self.refusal), ("error", self.error)):
            if error is not None and not is_a(error, UpstreamError):
                raise ConfigurationError(
                    f"Script({name}=...) must be an UpstreamError, such as UpstreamLost('...'), not {described(error)}."
                )
        if not is_a(self.waits, bool):
            raise ConfigurationError(f"Script(waits=...) must be True or False, not {described(self.waits)}.")
        if not is_a(self.ends, Cancelled):
            raise ConfigurationError(f"Script(ends=...) must be a Cancelled, not {described(self.ends)}.")

    def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
        """See `Source.work`."""
        return _Playing(self, Lines(self._play()).work(upstream, last_event_id))

    async def _play(self) -> AsyncGenerator[Item]:
        try:
            for line in self.lines:
                await anyio.sleep(self.delay)
                yield line
            if self.waits:
                await anyio.sleep_forever()
            if self.error is not None:
                raise self.error.with_traceback(None)  # or it would grow with each run
            if self.exit is not None:
                yield Exit(self.exit)
        finally:
            self.stops += 1


class _Playing:
    """A script on its way to viewers: the work of a `Lines`, counted."""

    def __init__(self, script: Script, work: Work) -> None:
        self.may_run = False
        self.shape = work.shape
        self._script = script
        self._work = work

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[Stream]:
        self._script.starts += 1
        if self._script.refusal is not None:
            raise self._script.refusal.with_traceback(None)
        async with self._work.stream() as self._stream:
            self.may_run = self._work.may_run
            yield self

    async def push(self, take: Take, room: Room) -> None:
        await self._stream.push(take, room)
        self.may_run = self._work.may_run

    async def cancel(self, timeout: float) -> Cancelled:
        self._script.cancels += 1
        outcome = await self._work.cancel(timeout)
        return self._script.ends if outcome is Cancelled.CONFIRMED else outcome


class Event(events.Event):
    """An event that a browser would dispatch. `type` is `message` unless the frame names another."""

    def json(self) -> Any:
        """What `data` says as JSON."""
        return json.loads(self.data or "null")


class PageError(AssertionError):
    """The page got no event stream, or more connections than a test can mean."""


class Page:
    """A page with an `EventSource`: it follows a stream of an ASGI application, and comes back when it is cut.

    Iterate it for its events, `start` included. As in a browser (WHATWG HTML 9.2), each connection but the first sends
    the last event id, and 204 ends the iteration. Other than a browser, the page comes back at once,
    and it takes all it is sent without waiting for the test to read.

    Leaving the block disconnects.

    Args:
        app: the ASGI application, or a bridge of its own.
        url: path and query, such as `/run-sse/?run=nightly`.
        method: `GET`, as in a browser, or another for clients that are no `EventSource`.
        headers: sent with each request, such as a cookie; `None` for none but `Accept`.
        body: of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        url: str = "/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        #: How often it has connected.
        self.connections = 0
        #: The last event id; empty before there is one.
        self.last_event_id = ""
        #: Status and headers of the latest response; the names of headers are in lower case.
        self.status = 0
        self.headers: dict[str, str] = {}
        self._app = app
        self._url = url
        self._method = method
        self._sent = {"accept": "text/event-stream", **{name.lower(): it for name, it in (headers or {}).items()}}
        self._body = body
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup | None = None  # within the block
        self._connection: _Connection | None = None
        self._events: AsyncGenerator[Event] = self._follow()

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(self, *raised: Any) -> bool | None:
        self._tasks = None
        await self._events.aclose()
        if self._connection is not None:
            self._connection.close()
        return await self._stack.__aexit__(*raised)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._tasks is None:
            raise RuntimeError("A page is read within its block: async with Page(app, url) as page: ...")
        return await anext(self._events)

    def cut(self) -> None:
        """Cuts the connection, as a network does. The iteration goes on with the next one."""
        if self._connection is not None:
            self._connection.cut()

    async def _follow(self) -> AsyncGenerator[Event]:
        while self.connections < _MOST_CONNECTIONS:
            self.connections += 1
            if self._connection is not None:
                self._connection.close()
            connection = self._connection = _Connection(self._scope(), self._body)
            assert self._tasks is not None
            self._tasks.start_soon(connection.run, self._app)
            if (head := await connection.head()) is None:
                continue
            self.status, self.headers = head
            if self.status == 204:
                return
            if self.status != 200 or not self.headers.get("content-type", "").startswith("text/event-stream"):
                raise PageError(
                    f"{self._method} {self._url} was answered {self.status}: {await connection.beginning()!r}"
                )
            splitter = FrameSplitter(None)
            while (chunk := await connection.chunk()) is not None:
                for event in events.parse(splitter.feed(chunk)):
                    if event.id is not None:
                        self.last_event_id = event.id
                    if event.data is not None:
                        yield Event(event.type, event.data, self.last_event_id, event.retry)
        raise PageError(f"The page has connected {_MOST_CONNECTIONS} times, and its stream is still not over.")

    def _scope(self) -> dict[str, Any]:
        path, _, query = self._url.partition("#")[0].partition("?")
        sent = {**self._sent, **({"last-event-id": self.last_event_id} if self.last_event_id else {})}
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": self._method,
            "scheme": "http",
            "path": unquote(path or "/"),
            "raw_path": quote(path or "/", safe=_KEPT).encode(),
            "root_path": "",
            "query_string": quote(query, safe=_KEPT).encode(),
            "headers": [(b"host", b"testserver"), *((name.encode(), it.encode()) for name, it in sent.items())],
            "client": ("127.0.0.1", 50000),
            "server": ("testserver", 80),
        }


class _Connection:
    """One request and its response."""

    def __init__(self, scope: dict[str, Any], body: bytes) -> None:
        self._scope = scope
        self._requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._cut = anyio.Event()
        self._over = anyio.Event()
        self._to_page, self._from_app = anyio.create_memory_object_stream[Message](inf)
        self._running = anyio.CancelScope()
        self._has_ended = False

    async def run(self, app: ASGIApp) -> None:
        """Serves the request. A cut ends it, as it does in servers that cancel a request whose client has left."""
        with self._to_page, self._running:
            await app(self._scope, self._receive, self._send)

    def close(self) -> None:
        """Cuts the connection, and forgets what has arrived."""
        self.cut()
        self._from_app.close()

    async def head(self) -> tuple[int, dict[str, str]] | None:
        """Waits for status and headers; `None` if the connection is cut before."""
        try:
            start = await self._from_app.receive()
        except anyio.EndOfStream:
            if self._cut.is_set():
                return None
            raise PageError("The application has returned without an answer.") from None
        return start["status"], {name.decode("latin-1").lower(): it.decode("latin-1") for name, it in start["headers"]}

    async def chunk(self) -> bytes | None:
        """The next part of the body; `None` behind the last one, and after the cut."""
        if self._has_ended:
            return None
        try:
            message = await self._from_app.receive()
        except anyio.EndOfStream:
            return None
        self._has_ended = self._has_ended or not message.get("more_body", False)
        content: bytes = message.get("body", b"")
        return content

    async def beginning(self) -> bytes:
        """The body, as far as an error quotes it."""
        content = b""
        while len(content) < _QUOTED and (chunk := await self.chunk()) is not None:
            content += chunk
        return content[:_QUOTED]

    def cut(self) -> None:
        self._has_ended = True
        self._cut.set()
        self._over.set()
        self._running.cancel()

    async def _receive(self) -> Message:
        if self._requests:
            return self._requests.pop()
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._cut.is_set():
            raise OSError("The client has left.")
        self._to_page.send_nowait(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._over.set()  # a server says the disconnect behind a complete response, too
        await anyio.lowlevel.checkpoint()
