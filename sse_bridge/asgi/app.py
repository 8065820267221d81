"""`SSEBridge`: the ASGI application (`design.md` §5, §6)."""

from __future__ import annotations

import inspect
import math
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..errors import ConfigurationError, UpstreamError
from ..flow.policy import Block
from ..relay.heartbeat import keep_time
from ..relay.run import Run
from ..relay.viewer import HEARTBEAT, Viewer
from ..upstream.base import Exec
from ..upstream.client import HTTPUpstream
from ..wire.dialects import DIALECTS
from ..wire.events import Event, encode
from ..wire.frames import DEFAULT_MAX_FRAME_SIZE, FrameSplitter
from ..wire.ids import FrameIds
from . import messages
from .messages import Receive, Scope, Send

__all__ = ["SSEBridge"]

Resolve = Callable[[Request], Exec | Awaitable[Exec]]

_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),  # no copies, and no compression that would hold lines back
    (b"x-accel-buffering", b"no"),  # nginx: pass on what arrives
]
#: Rounds of the event loop that `receive` gets for saying what it knows already: that the viewer has left.
_ROUNDS_TO_NOTICE: Final = 3
#: Random bytes in a run's token: 96 bits, 16 characters.
_TOKEN_BYTES: Final = 12


class SSEBridge:
    """An ASGI application that runs or follows an exec and streams its output to the page.

    Mount it wherever the page expects its events. `GET` or `POST` on its path asks `resolve` what to run, starts
    it, and answers with an event stream. Numbers switch a limit off when they are `None`.

    Args:
        upstream: where execs run, usually `Miosa()`. `None` will do for `EventStream`.
        resolve: takes a `starlette.requests.Request` and returns the exec, such as `SandboxExec`; sync or async (a
            sync one runs in a thread). It refuses a request by raising `starlette.exceptions.HTTPException`.
        dialect: `typed` (unnamed events, JSON with a `type`: for `onmessage`), `named` (the type is the event's
            name) or `verbatim` (the upstream's frames as they are).
        policy: what happens when a viewer falls behind.
        heartbeat: seconds of silence after which a comment is sent. Proxies cut silent connections after 29 to
            100 s, and 15 s is what MIOSA itself, Mercure and sse-starlette send.
        grace: seconds the exec goes on after its viewer has left; `None` for as long as it takes.
        retry_ms: milliseconds a browser waits before it reconnects; `None` leaves it to the browser.
        max_frame_size: bytes of an upstream frame; a larger one is discarded and a `gap` says so.
        send_timeout: seconds one `send` to a viewer may hang before the viewer counts as gone. Servers and kernels
            take a few megabytes before it does.
        commit_after: seconds to wait for the upstream's answer before the response starts with 200; then a refusal
            can only be an `error` frame. Ten, because proxies give a response 30 to 60 s to begin.
        cancel_timeout: seconds that ending the exec may take.
        ids: whether frames carry `id:` lines; `None` means yes, but for `verbatim`.
        allow_cross_site: whether pages of other sites may start a run (`Sec-Fetch-Site: cross-site`).

    Raises:
        ConfigurationError: an argument makes no sense.
    """

    def __init__(
        self,
        upstream: HTTPUpstream | None,
        resolve: Resolve,
        *,
        dialect: str = "typed",
        policy: Block = Block(),  # noqa: B008 (a value, never changed)
        heartbeat: float | None = 15.0,
        grace: float | None = 0.0,
        retry_ms: int | None = 2000,
        max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE,
        send_timeout: float | None = 30.0,
        commit_after: float | None = 10.0,
        cancel_timeout: float = 5.0,
        ids: bool | None = None,
        allow_cross_site: bool = False,
    ) -> None:
        if dialect not in DIALECTS:
            raise ConfigurationError(f"dialect must be one of {', '.join(DIALECTS)}, not {dialect!r}.")
        if not callable(resolve):
            raise ConfigurationError("resolve must be a function that takes a request and returns an exec.")
        _positive(heartbeat=heartbeat, send_timeout=send_timeout, max_frame_size=max_frame_size, retry_ms=retry_ms)
        _positive(cancel_timeout=cancel_timeout)
        _not_negative(grace=grace, commit_after=commit_after)
        self._upstream = HTTPUpstream() if upstream is None else upstream
        self._resolve = resolve
        self._resolve_is_async = any(map(inspect.iscoroutinefunction, (resolve, type(resolve).__call__)))
        self._dialect = DIALECTS[dialect]
        self._ids = self._dialect(FrameIds(None)).ids_by_default if ids is None else ids
        self._policy = policy
        self._heartbeat = heartbeat
        self._grace = grace
        self._retry_ms = retry_ms if dialect != "verbatim" else None
        self._max_frame_size = max_frame_size
        self._send_timeout = send_timeout
        self._commit_after = math.inf if commit_after is None else commit_after
        self._cancel_timeout = cancel_timeout
        self._allow_cross_site = allow_cross_site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:  # a websocket
            await send({"type": "websocket.close"})

    # -- requests

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if messages.route_path(scope):
            return await _send_error(send, 404, "not_found", "There is nothing at this path.")
        if scope["method"] not in ("GET", "POST"):
            allow = [(b"allow", b"GET, POST")]
            return await _send_error(send, 405, "method_not_allowed", "Use GET or POST.", headers=allow)
        request = Request(scope, receive)
        if not self._allow_cross_site and request.headers.get("sec-fetch-site") == "cross-site":
            return await _send_error(send, 403, "cross_site", "Pages of other sites may not start a run here.")
        seen = _last_event_id(request)
        if seen and self._ids:
            # A reconnecting EventSource: its run is over for it. Starting the command again would be the one
            # thing that must not happen; 204 stops the reconnecting (WHATWG HTML 9.2.3).
            return await messages.send_json(send, 204, None)
        try:
            source = await self._resolved(request)
        except HTTPException as refused:
            return await _send_http_exception(send, refused)
        return await self._start(source, seen or None, receive, send)

    async def _resolved(self, request: Request) -> Exec:
        resolve: Callable[[Request], object] = self._resolve
        if self._resolve_is_async:
            result = resolve(request)
        else:  # in a tuple, since trio takes no awaitable out of a thread
            (result,) = await anyio.to_thread.run_sync(lambda: (resolve(request),))
        source = await result if inspect.isawaitable(result) else result
        if not hasattr(source, "work"):
            raise ConfigurationError(
                f"resolve must return an exec, such as SandboxExec(...), not {type(source).__name__}."
            )
        return cast(Exec, source)

    async def _start(self, source: Exec, last_event_id: str | None, receive: Receive, send: Send) -> None:
        """Hosts a run from start to end, within this request.

        All that needs cleaning up happens in child tasks: the server may cancel this one natively, and repeatedly.
        """
        work = source.work(self._upstream, last_event_id)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        dialect = self._dialect(FrameIds(token if self._ids else None))
        splitter = FrameSplitter(self._max_frame_size)
        run = Run(token, work, dialect, splitter, grace=self._grace, cancel_timeout=self._cancel_timeout)
        viewer = run.view(self._policy, heartbeat=self._heartbeat, send_timeout=self._send_timeout)
        try:
            async with anyio.create_task_group() as around:
                around.start_soon(_watch, receive, viewer)
                for _ in range(_ROUNDS_TO_NOTICE):
                    await anyio.lowlevel.checkpoint()
                if not viewer.gone:  # who left while we resolved starts nothing
                    around.start_soon(keep_time, run)
                    async with anyio.create_task_group() as run_and_viewer:
                        run_and_viewer.start_soon(run.read)
                        run_and_viewer.start_soon(self._serve, run, viewer, send)
                around.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _alone(group) from None

    # -- the response

    async def _serve(self, run: Run, viewer: Viewer, send: Send) -> None:
        """Everything that is sent to one viewer, from this one task."""

        async def send_body(content: bytes, more: bool) -> None:
            await send(messages.body(content, more))

        try:
            with viewer.scope:
                with anyio.move_on_after(self._commit_after):
                    await run.answered.wait()
                if run.refused is not None:
                    await _send_upstream_error(send, run.refused)
                else:
                    headers = [*_STREAM_HEADERS, (b"sse-bridge-run", run.token.encode())]
                    await send(messages.start(200, headers))
                    await viewer.write(send_body, self._first_frame(run.token))
        except OSError:  # how servers of ASGI HTTP 2.4 say that the client has left; others say nothing
            viewer.leave("disconnected")
        finally:
            run.leave(viewer)

    def _first_frame(self, token: str) -> bytes:
        """What goes out at once, so that no proxy and no server waits for a first byte.

        Its id makes a browser that loses the connection before the first line come back with a `Last-Event-ID`:
        without one it would look like a new visitor and start the command again.
        """
        first = Event(retry=self._retry_ms, id=f"{token}.0" if self._ids else None)
        return encode(first) or HEARTBEAT

    # -- the rest

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Nothing here depends on these events: a mounted application may never see them."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                return await send({"type": "lifespan.shutdown.complete"})
            await send({"type": "lifespan.startup.complete"})


async def _watch(receive: Receive, viewer: Viewer) -> None:
    """The one reader of `receive`, from before the upstream is asked until the end. A request's body comes first."""
    while (await receive())["type"] != "http.disconnect":
        pass
    viewer.leave("disconnected")


def _last_event_id(request: Request) -> str:
    """Browsers send it as UTF-8 (WHATWG HTML 9.2.4); Starlette reads headers as Latin-1."""
    return request.headers.get("last-event-id", "").encode("latin-1").decode("utf-8", "replace")


async def _send_error(
    send: Send, status: int, code: str, message: str, *, request_id: str | None = None, headers: messages.Headers = ()
) -> None:
    error = {"code": code, "message": message, "request_id": request_id}
    await messages.send_json(send, status, {"error": error}, headers)


async def _send_upstream_error(send: Send, error: UpstreamError) -> None:
    wait = [] if error.retry_after is None else [(b"retry-after", b"%d" % max(1, math.ceil(error.retry_after)))]
    await _send_error(send, error.status, error.code, error.message, request_id=error.request_id, headers=wait)


async def _send_http_exception(send: Send, refused: HTTPException) -> None:
    known = refused.status_code in HTTPStatus._value2member_map_
    code = HTTPStatus(refused.status_code).name.lower() if known else f"http_{refused.status_code}"
    headers = [(name.lower().encode(), value.encode()) for name, value in (refused.headers or {}).items()]
    await _send_error(send, refused.status_code, code, str(refused.detail), headers=headers)


def _alone(group: BaseException) -> BaseException:
    """The exception in a group that holds no other: what somebody else's `except` can catch."""
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        group = group.exceptions[0]
    return group


def _positive(**limits: float | None) -> None:
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise ConfigurationError(f"{name} must be above zero, or None for no limit, not {value}.")


def _not_negative(**limits: float | None) -> None:
    for name, value in limits.items():
        if value is not None and not value >= 0:
            raise ConfigurationError(f"{name} must not be negative, not {value}.")
