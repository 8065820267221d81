"""`SSEBridge`: the ASGI application (`design.md` §5, §6)."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Awaitable, Callable
from typing import Final, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..errors import ConfigurationError
from ..flow.pace import TokenBucket
from ..flow.policy import Block, Policy
from ..relay.options import RunOptions, ViewerOptions
from ..relay.run import Run
from ..relay.signal import Latch
from ..relay.statistics import BridgeStatistics, Totals
from ..relay.viewer import HEARTBEAT, Gone, Viewer
from ..stores.memory import MemoryStore
from ..upstream.base import Source as Exec
from ..upstream.client import HTTPUpstream
from ..wire.dialects import DIALECTS
from ..wire.events import Event, encode
from ..wire.frames import DEFAULT_MAX_FRAME_SIZE
from ..wire.ids import event_id, is_token, new_token, read_place
from . import messages, options, refusals
from .messages import Receive, Scope, Send
from .refusals import RETRY_AFTER_STOP
from .sockets import Sockets, with_own_addresses
from .stopping import Open

__all__ = ["SSEBridge"]

Resolve = Callable[[Request], Exec | Awaitable[Exec]]
Authorize = Callable[[Request, str], bool | Awaitable[bool]]
ChoosePolicy = Callable[[Request], Policy | Awaitable[Policy]]
ChooseRate = Callable[[Request], TokenBucket | Awaitable[TokenBucket | None] | None]

_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),  # no copies, and no compression that would hold lines back
    (b"x-accel-buffering", b"no"),  # nginx: pass on what arrives
]
#: Rounds of the event loop that `receive` gets for saying what it knows already: that the viewer has left.
_ROUNDS_TO_NOTICE: Final = 5
_ALLOWED: Final = {False: "GET, POST", True: "GET, DELETE"}
#: Bytes. What was handed to `send` has not arrived: kernels held 3.9 MB of it (measured), which a cut connection loses.
DEFAULT_REPLAY: Final = 8 * 1024 * 1024
#: Seconds after which trying again makes sense for who was turned away: streams end at no time that is known.
_RETRY_AFTER: Final = "5"
#: Milliseconds over which viewers are spread that come back after a stop, all of which were told at the same time.
_SPREAD: Final = 5000
#: Seconds that stopping may take beyond `cancel_timeout`.
_STOP: Final = 2.0
#: Seconds for a server to see that a connection was cut: until then an end without an end is an error in its log.
_SEE: Final = 0.3


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
        policy: what happens when a viewer falls behind: `Block`, `Drop` or `Coalesce`; or a function of the request
            that says which, sync or async, for viewers that differ.
        rate: a `TokenBucket` that limits the frames a viewer gets; or a function of the request that returns one, or
            `None`.
        heartbeat: seconds of silence after which a comment is sent. Proxies cut silent connections after 29 to
            100 s, and 15 s is what MIOSA itself, Mercure and sse-starlette send.
        grace: seconds the exec goes on after the last viewer has left, who may come back and has lost nothing; `None`
            for as long as it takes. Under `Block` it waits at the mark meanwhile.
        max_viewers: responses that this process streams at once; `None` for no limit. Beyond, requests get 503 with
            `Retry-After`. There is no default, because memory decides: up to `high_water` or `replay` each.
        max_runs: execs that go on at once; `None` for no limit. Beyond, requests that would start one get 503.
        replay: bytes that all viewers have got and that are kept for those who come late or come back.
        retry_ms: milliseconds a browser waits before it reconnects; `None` leaves it to the browser.
        max_frame_size: bytes of an upstream frame; a larger one is discarded and a `gap` says so.
        send_timeout: seconds one `send` to a viewer may hang before the viewer counts as gone. Servers and kernels
            take a few megabytes before it does.
        commit_after: seconds to wait for the upstream's answer before the response starts with 200; then a refusal
            can only be an `error` frame. Ten, because proxies give a response 30 to 60 s to begin.
        cancel_timeout: seconds that ending the exec may take.
        ids: whether frames carry `id:` lines; `None` means yes, but for `verbatim`. Without them nothing resumes:
            a browser that reconnects starts a new run.
        authorize: takes the request and a run's token, and says whether the request may follow or cancel that run;
            sync or async. `None`: who knows the token may, and it cannot be guessed.
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
        policy: Policy | ChoosePolicy = Block(),  # noqa: B008 (a value, never changed)
        rate: TokenBucket | ChooseRate | None = None,
        heartbeat: float | None = 15.0,
        grace: float | None = 10.0,
        replay: int = DEFAULT_REPLAY,
        retry_ms: int | None = 2000,
        max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE,
        send_timeout: float | None = 30.0,
        commit_after: float | None = 10.0,
        cancel_timeout: float = 5.0,
        ids: bool | None = None,
        authorize: Authorize | None = None,
        allow_cross_site: bool = False,
        max_viewers: int | None = None,
        max_runs: int | None = None,
    ) -> None:
        if dialect not in DIALECTS:
            raise ConfigurationError(f"dialect must be one of {', '.join(DIALECTS)}, not {dialect!r}.")
        if not callable(resolve):
            raise ConfigurationError("resolve must be a function that takes a request and returns an exec.")
        if not callable(policy):
            options.a_policy(policy)
        if not callable(rate):
            options.a_rate(rate)
        options.positive(
            heartbeat=heartbeat, send_timeout=send_timeout, max_frame_size=max_frame_size, retry_ms=retry_ms
        )
        options.positive(max_viewers=max_viewers, max_runs=max_runs)
        options.whole(
            max_frame_size=max_frame_size, retry_ms=retry_ms, replay=replay, max_viewers=max_viewers, max_runs=max_runs
        )
        if cancel_timeout is None or replay is None:
            raise ConfigurationError("cancel_timeout and replay have no `None`: ending and keeping are bounded.")
        options.positive(cancel_timeout=cancel_timeout)
        options.not_negative(grace=grace, commit_after=commit_after, replay=replay)
        self._upstream = HTTPUpstream() if upstream is None else upstream
        self._resolve = resolve
        self._authorize = authorize
        self._store = MemoryStore()
        self._dialect = DIALECTS[dialect]
        self._ids = self._dialect.ids_by_default if ids is None else ids
        self._totals = Totals()
        self._policy = policy
        self._rate = rate
        self._max_viewers = max_viewers
        self._max_runs = max_runs
        self._sees_retry = self._dialect.has_own_frames
        self._retry_ms = retry_ms if self._sees_retry else None
        self._commit_after = math.inf if commit_after is None else commit_after
        self._cancel_timeout = cancel_timeout
        self._run_options = RunOptions(
            dialect=self._dialect,
            ids=self._ids,
            max_frame_size=max_frame_size,
            replay=replay,
            grace=grace,
            cancel_timeout=cancel_timeout,
        )
        self._viewer_options = ViewerOptions(
            heartbeat=math.inf if heartbeat is None else heartbeat,
            send_timeout=math.inf if send_timeout is None else send_timeout,
            commit_after=self._commit_after,
            retry_ms=self._retry_ms,
        )
        self._allow_cross_site = allow_cross_site
        self._open: Open | None = None
        self._sockets = Sockets()

    def statistics(self) -> BridgeStatistics:
        """What happens now, and what was counted since the bridge was made."""
        shown = [run for run in self._store.runs if not run.is_over or run.audience.viewers]
        return self._totals.snapshot(tuple(run.statistics() for run in shown))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:  # a websocket
            await send({"type": "websocket.close"})

    async def shutdown(self) -> None:
        """Ends every stream and exec of this bridge, and takes no new request in this event loop: they get 503.

        Where the server's own handling of SIGTERM and SIGINT can be seen, as in uvicorn, hypercorn and granian, this
        happens by itself. Other hosts call it before they wait for open responses. Returns when all requests
        are over, after two seconds and `cancel_timeout` at most; call it as often as you like.
        """
        await self._here(listen=False).shutdown(_STOP + self._cancel_timeout)

    # -- requests

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        here = self._here()
        here.enter()
        try:
            if here.stopping:
                return await refusals.send_http_exception(send, _stopping())
            return await self._route(scope, receive, send)
        finally:
            here.leave()

    def _here(self, listen: bool = True) -> Open:
        """What is open in this event loop. A bridge may see one after the other."""
        token = anyio.lowlevel.current_token()
        if self._open is None or not self._open.is_in(token):
            self._open = Open(token, self._farewell)
            if listen:
                self._open.listen()
        return self._open

    def _farewell(self) -> bytes:
        """What a viewer gets with its end when the server stops."""
        if not self._sees_retry:
            return b""
        return encode(Event(retry=(self._retry_ms or int(1000 * RETRY_AFTER_STOP)) + random.randrange(_SPREAD)))

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        token = messages.route_path(scope)
        method = request.method
        try:
            if not token and method in ("GET", "POST"):
                await self._start_or_resume(request, send)
            elif token and method == "GET":
                await self._watch_run(request, token, send)
            elif token and method == "DELETE":
                await self._delete(request, token, send)
            else:
                raise HTTPException(405, f"Use {_ALLOWED[bool(token)]}.", {"Allow": _ALLOWED[bool(token)]})
        except HTTPException as refused:
            await refusals.send_http_exception(send, refused)

    async def _start_or_resume(self, request: Request, send: Send) -> None:
        seen = _last_event_id(request)
        if seen and self._ids:
            # Whatever it says, a browser that has seen something must not start a command.
            return await self._resume(request, seen, send)
        if not self._allow_cross_site and request.headers.get("sec-fetch-site") == "cross-site":
            raise HTTPException(403, "Pages of other sites may not start a run here.")
        key = request.headers.get("idempotency-key") or None if request.method == "POST" else None
        source = await self._resolved(request)
        limits = await self._chosen(request)
        # From here to the store nothing waits: two requests with one key must not both find none.
        run = None if key is None else self._store.started_with(key, anyio.current_time())
        if run is not None:
            return await self._attach(request, run, 1, send)
        return await self._start(source, limits, seen or None, key, request, send)

    async def _resume(self, request: Request, seen: str, send: Send) -> None:
        """Goes on behind the frame that was seen last. 204 ends an `EventSource` (WHATWG HTML 9.2.3)."""
        place = read_place(seen)
        run = None if place is None else self._store.get(place.token, anyio.current_time())
        if run is None or place is None or place.number >= run.audience.log.next:
            return await messages.send_json(send, 204, None)
        return await self._attach(request, run, place.number + 1, send)

    async def _watch_run(self, request: Request, token: str, send: Send) -> None:
        run = self._store.get(token, anyio.current_time())
        if run is None:
            if is_token(token):  # it was a run once: an EventSource is to stop asking
                return await messages.send_json(send, 204, None)
            raise HTTPException(404, "There is nothing at this path.")
        place = read_place(_last_event_id(request))
        known = place is not None and place.token == token and place.number < run.audience.log.next
        # Who has seen nothing is told how much of the beginning is no longer kept.
        return await self._attach(request, run, place.number + 1 if place is not None and known else 1, send)

    async def _attach(self, request: Request, run: Run, number: int, send: Send) -> None:
        """One more viewer, from frame `number` on, of a run that another request hosts, or that is over."""
        await self._authorized(request, run)
        if run.is_over and number == run.audience.log.next:  # it has seen the end
            return await messages.send_json(send, 204, None)
        limits = await self._chosen(request)
        viewer = self._view(run, *limits, number)
        try:
            async with anyio.create_task_group() as tasks:
                connection = _Connection(request.scope, request.receive, send, tasks.cancel_scope)
                tasks.start_soon(self._show, run, viewer, connection)
                await connection.watch(viewer)
        finally:
            run.audience.leave(viewer)  # who is cancelled before the first step never gets to it
        if connection.failures:
            raise connection.failures[0]
        return None

    async def _delete(self, request: Request, token: str, send: Send) -> None:
        run = self._store.get(token, anyio.current_time())
        if run is None:
            raise HTTPException(404, "There is no such run.")
        await self._authorized(request, run)
        run.cancel()
        await messages.send_json(send, 204, None)

    async def _authorized(self, request: Request, run: Run) -> None:
        if self._authorize is not None and not await self._ask(self._authorize, request, run.token):
            raise HTTPException(403, "This run is not yours to see.")

    async def _chosen(self, request: Request) -> tuple[Policy, TokenBucket | None]:
        """The policy and the rate of one viewer."""
        policy = await self._ask(self._policy, request) if callable(self._policy) else self._policy
        rate = await self._ask(self._rate, request) if callable(self._rate) else self._rate
        return options.a_policy(policy), options.a_rate(rate)

    def _view(self, run: Run, policy: Policy, rate: TokenBucket | None, number: int) -> Viewer:
        """One more viewer, if there is room for one."""
        if self._max_viewers is not None:
            self._bound("viewers", sum(other.audience.viewers for other in self._store.runs), self._max_viewers)
        return run.audience.view(policy, rate, number, self._viewer_options, self._here().clock)

    def _bound(self, what: str, there_are: int, most: int) -> None:
        if there_are >= most:
            self._totals.requests_turned_away += 1
            raise HTTPException(503, f"There are too many {what} here now.", {"Retry-After": _RETRY_AFTER})

    async def _resolved(self, request: Request) -> Exec:
        source = await self._ask(self._resolve, request)
        if not hasattr(source, "work"):
            raise ConfigurationError(
                f"resolve must return an exec, such as SandboxExec(...), not {type(source).__name__}."
            )
        return cast(Exec, source)

    async def _ask(self, function: Callable[..., object], *arguments: object) -> object:
        """Calls what the application gave us; nobody waits for that when the server stops."""
        here = self._here()
        answer = None
        with here.wait():
            answer = await _call(function, *arguments)
        if here.stopping:
            raise _stopping()
        return answer

    async def _start(
        self,
        source: Exec,
        limits: tuple[Policy, TokenBucket | None],
        last_event_id: str | None,
        key: str | None,
        request: Request,
        send: Send,
    ) -> None:
        """Hosts a run from start to end, within this request, which may outlive its own viewer.

        All that needs cleaning up happens in child tasks: the server may cancel this one natively, and repeatedly.
        """
        if self._max_runs is not None:
            self._bound("runs", sum(not other.done.is_set for other in self._store.runs), self._max_runs)
        work = source.work(self._upstream, last_event_id)
        token = new_token()
        run = Run(token, work, self._run_options, self._totals, self._here().clock)
        viewer = self._view(run, *limits, 1)
        self._store.add(run, key)
        watching = anyio.CancelScope()
        connection = _Connection(request.scope, request.receive, send, watching)
        here = self._here()
        here.add_run(run)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._show, run, viewer, connection)
                tasks.start_soon(self._read, run)
                with watching:
                    await connection.watch(viewer)
        except BaseExceptionGroup as group:
            raise _alone(group) from None
        finally:
            here.remove_run(run)
            run.audience.leave(viewer)
            if not run.began:
                run.skip()
                self._store.forget(run)
        if connection.failures:
            raise connection.failures[0]

    async def _read(self, run: Run) -> None:
        """Reads the run. Who left while we resolved starts nothing, nor does a run that was ended meanwhile."""
        for _ in range(_ROUNDS_TO_NOTICE):
            await anyio.lowlevel.checkpoint()
        if not run.audience.is_followed or run.is_over:
            return run.skip()
        try:
            await run.read()
        finally:
            if run.started_nothing:
                self._store.forget(run)
            else:
                self._store.finish(run, anyio.current_time())

    # -- the response

    async def _show(self, run: Run, viewer: Viewer, connection: _Connection) -> None:
        """Everything about one viewer but how it is noticed to be gone: what is sent to it, from this one task.

        What fails here is this viewer's alone, since others may follow the run: it is kept in `connection.failures`.
        """
        here = self._here()
        timer = here.clock.start(viewer)
        here.add_viewer(viewer, run)
        send = connection.send

        def send_body(content: bytes, more: bool) -> Awaitable[None]:
            return send(messages.body(content, more))

        try:
            with viewer.scope:
                if await self._begin(run, viewer, send):
                    await viewer.write(send_body, self._first_frames(run, viewer))
            if viewer.scope.cancelled_caught:
                viewer.leave(Gone.STOPPED)
            await self._see_off(run, viewer, connection)
        except OSError:  # how servers of ASGI HTTP 2.4 say that the client has left; others say nothing
            viewer.leave(Gone.DISCONNECTED)
        except Exception as error:
            connection.failures.append(error)
        finally:
            here.remove_viewer(viewer)
            timer.stop()
            run.audience.leave(viewer)
            connection.watching.cancel()

    async def _begin(self, run: Run, viewer: Viewer, send: Send) -> bool:
        """Sends the head of the response when the upstream has answered, or a whole response if it has refused."""
        with anyio.move_on_after(self._commit_after):
            await run.answered.wait()
        if run.refused is not None:
            await viewer.until_done()
            await viewer.timed(refusals.send_refusal(send, run.refused))
            return False
        headers = [*_STREAM_HEADERS, (b"sse-bridge-run", run.token.encode())]
        await viewer.timed(send(messages.start(200, headers)))
        return True

    async def _see_off(self, run: Run, viewer: Viewer, connection: _Connection) -> None:
        """Cuts the connection of a client that does not read: the server would wait for it, for ever."""
        here = self._here()
        scope = with_own_addresses(connection.scope, connection.receive)
        is_stuck = viewer.gone in (Gone.STALLED, Gone.STOPPED)
        if here.stopping and not is_stuck and self._sockets.unsent(scope):
            with here.wait():  # it was given its end, but has not taken what came before
                await anyio.sleep_forever()
            is_stuck = self._sockets.unsent(scope) > 0
        if is_stuck:
            if here.stopping:  # granian ends with its last connection, and what runs with it
                await run.done.wait()
            if self._sockets.cut(scope):
                with anyio.move_on_after(_SEE):
                    await connection.left.wait()

    def _first_frames(self, run: Run, viewer: Viewer) -> bytes:
        """What goes out at once, so that no proxy and no server waits for a first byte.

        Its id makes a browser that loses the connection before the first line come back with a `Last-Event-ID`:
        without one it would look like a new visitor and start the command again.
        """
        seen = viewer.delivery.first - 1
        first = Event(retry=self._retry_ms, id=event_id(run.token, seen) if self._ids else None)
        return encode(first) or HEARTBEAT

    # -- the rest

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Nothing here depends on these events: a mounted application may never see them."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.shutdown()
                return await send({"type": "lifespan.shutdown.complete"})
            await send({"type": "lifespan.startup.complete"})


class _Connection:
    """A request's connection, once it is one viewer's: its ASGI callables, and when its client left.

    Args:
        watching: what to cancel when nobody needs to know that any more.
    """

    __slots__ = ("failures", "left", "receive", "scope", "send", "watching")

    def __init__(self, scope: Scope, receive: Receive, send: Send, watching: anyio.CancelScope) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.watching = watching
        self.left = Latch()
        #: What `receive` and `send` raised that is no way of saying that the client has left.
        self.failures: list[Exception] = []

    async def watch(self, viewer: Viewer) -> None:
        """The one reader of `receive`, from before the upstream is asked until the end. A request's body comes first.

        It runs in the task of the request itself: that may be cancelled natively and at any time, and has nothing to
        clean up here.
        """
        try:
            while (await self.receive())["type"] != "http.disconnect":
                pass
        except Exception as error:
            self.failures.append(error)
        self.left.set()
        viewer.leave(Gone.DISCONNECTED)


async def _call(function: Callable[..., object], *arguments: object) -> object:
    """Calls what the application gave us: on the event loop if it is async, in a thread if it is not."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        result = function(*arguments)
    else:  # in a tuple, since trio takes no awaitable out of a thread
        (result,) = await anyio.to_thread.run_sync(lambda: (function(*arguments),))
    return await result if inspect.isawaitable(result) else result


def _stopping() -> HTTPException:
    return HTTPException(503, "The server is stopping.", {"Retry-After": f"{RETRY_AFTER_STOP:.0f}"})


def _last_event_id(request: Request) -> str:
    """Browsers send it as UTF-8 (WHATWG HTML 9.2.4); Starlette reads headers as Latin-1."""
    return request.headers.get("last-event-id", "").encode("latin-1").decode("utf-8", "replace")


def _alone(group: BaseException) -> BaseException:
    """The exception in a group that holds no other: what somebody else's `except` can catch."""
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        group = group.exceptions[0]
    return group
