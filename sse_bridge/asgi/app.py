"""`SSEBridge`: the signature of the product, and the door through which every request comes."""

from __future__ import annotations

import math
from typing import Literal, get_args

from ..errors import ConfigurationError, UpstreamError
from ..flow.pace import TokenBucket
from ..flow.policy import Block, Policy
from ..relay.ending import Cause
from ..relay.options import RunOptions, ViewerOptions
from ..relay.statistics import BridgeStatistics, WorkerStatistics
from ..relay.watching import Watcher
from ..stores.memory import DEFAULT_KEEP, DEFAULT_KEEP_BYTES, Key
from ..stores.redis.config import RedisStore
from ..stores.redis.shared import SharedRuns
from ..upstream.base import Source, Upstream
from ..upstream.checks import check_upstream
from ..upstream.client import HTTPUpstream
from ..wire.frames import DEFAULT_MAX_FRAME_SIZE
from . import options
from .application import Application, Authorize, ChooseKey, Identify, OnEnd, OnStart
from .finding import key_of
from .handle import StartedRun
from .hosting import Beginning, Host, HostOptions, Limits, stopping
from .joining import answered
from .messages import Receive, Scope, Send
from .options import DEFAULT_REPLAY, ChoosePolicy, ChooseRate, DialectName, Resolve
from .requests import Requests, Style

__all__ = ["SSEBridge"]


class SSEBridge:
    """An ASGI application that runs or follows an exec and streams its output to the page.

    Mount it wherever the page expects its events. A `GET` or `POST` on its path asks `resolve` what to run, starts it,
    and answers with an event stream. Where `None` is allowed, it switches the limit off.

    Args:
        upstream: where execs run, usually `Miosa()`. Left out, the bridge carries what needs no platform: an
            `EventStream` or `Lines`.
        resolve: takes a `starlette.requests.Request` and returns the source, such as a `SandboxExec`. It may be sync or
            async; a sync function runs in a thread. To refuse a request, raise `starlette.exceptions.HTTPException`.
        dialect: `typed` (unnamed events, JSON with a `type`: for `onmessage`), `named` (the type is the event's name)
            or `verbatim` (the upstream's frames as they are). `None` leaves it to the source: `typed` for a
            `SandboxExec`, `verbatim` for an `EventStream`. What is said before there is a source is typed then.
        policy: what happens when a viewer falls behind: `Block`, `Drop` or `Coalesce`. A function of the request, sync
            or async, chooses for each viewer.
        rate: a `TokenBucket` that limits the frames a viewer gets, or a function of the request that returns one or
            `None`.
        heartbeat: seconds of silence before a comment is sent. Proxies cut silent connections after 29 to 100 s; MIOSA
            itself, Mercure and sse-starlette send one every 15 s. Keep it well below the shortest of these: a cut is a
            viewer that leaves, and with `grace=0` it ends the exec.
        grace: seconds the exec goes on after the last viewer has left. A viewer that comes back in time has lost
            nothing. `None` lets the exec run to its end. Unless its policy drops, the script pauses meanwhile,
            once it is `high_water` bytes ahead.
        max_viewers: responses that this bridge streams at once; further requests get 503 with `Retry-After`. There is
            no default because memory decides: each viewer may hold `high_water` bytes, each run `replay`.
        max_runs: execs of this bridge that run at once; further requests that would start one get 503.
        store: where several workers share their runs, so that any of them serves any viewer. `None`: a run lives in the
            process that started it.
        drain: seconds for which runs go on when the server is told to stop, while other workers serve their viewers.
            It needs a `store`, and a server that waits for open requests as long.
        replay: bytes that every viewer has taken and that are kept for viewers that come late or come back.
        retry_ms: milliseconds a browser waits before it reconnects; `None` leaves that to the browser.
        max_frame_size: bytes of an upstream frame. A larger one is discarded, and a `gap` says so.
        send_timeout: seconds for which a `send` to a viewer may hang while its client takes nothing; then the viewer
            counts as gone. Servers and kernels take a few megabytes before a `send` hangs.
        commit_after: seconds to wait for the upstream's answer before the response starts with 200. A later refusal
            is an `error` frame. Ten, because proxies give a response 30 to 60 s to begin.
        cancel_timeout: seconds that ending the exec may take, a day (86,400) at most.
        ids: whether frames carry `id:` lines. `None` means yes, except for `dialect="verbatim"`. Without ids a run
            cannot be resumed: a browser that reconnects starts a new one.
        identify: takes the request and names its sender: a string, or `None` for an anonymous one; sync or async. An
            identity owns the runs that it starts, and its keys are its own. Only the owner may follow and end a run,
            unless `authorize` decides otherwise. Without `identify`, every request that knows a run's token may, and
            the token cannot be guessed.
        authorize: takes the request and a `RunInfo`, and says whether the request may follow and end that run; sync
            or async. It replaces the comparison with the owner. A request that may not gets the same answer as for
            a run that does not exist.
        key: takes the request and returns a key or `None`; sync or async. Requests of an identity with the same key
            share one run: a page that mounts twice, or a hundred tabs of one feed. `None` takes the `Idempotency-Key`
            header of a `POST`. Without `identify` a key is a secret like a token, so use random ones.
        refusals: `status` answers a request that gets no stream with an HTTP status and a JSON body, for programs.
            `frame` answers an `EventSource`, which cannot see a status, with an `error` frame.
        keep: seconds that a run can be read after its end, and after its last viewer has left; `None` for no limit.
        keep_bytes: bytes that all runs together may hold which are over and have no viewer; `None` for no limit. The
            newest of them is always kept.
        max_run_time: seconds after which a run is ended with its command; `None` for no limit.
        max_viewer_time: seconds after which a response ends, so that the viewer comes back with its place; `None` for
            no limit. It needs ids: without a place the viewer would start a new run.
        on_start: takes a `RunInfo` once the upstream has said yes; sync or async. What it raises is logged.
        on_end: takes a `RunInfo` and an `Outcome` once the run has left no work running; sync or async. What it raises
            is logged.
        allow_cross_site: whether pages of other sites may start a run. They are told by `Sec-Fetch-Site`, or by an
            `Origin` that differs from `Host`.
        identity_encoding: whether event streams carry `Content-Encoding: identity`. It stops layers in front from
            compressing them that ignore `Cache-Control: no-transform`, and hold lines back for it. Off, because
            RFC 9110 8.4.1 advises against sending it.

    Raises:
        ConfigurationError: an argument is of the wrong kind or out of range.
    """

    def __init__(
        self,
        upstream: Upstream | None = None,
        resolve: Resolve | None = None,
        *,
        dialect: DialectName | None = None,
        policy: Policy | ChoosePolicy = Block(),  # noqa: B008 (an immutable value)
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
        identify: Identify | None = None,
        authorize: Authorize | None = None,
        key: ChooseKey | None = None,
        refusals: Style = "status",
        keep: float | None = DEFAULT_KEEP,
        keep_bytes: int | None = DEFAULT_KEEP_BYTES,
        max_run_time: float | None = None,
        max_viewer_time: float | None = None,
        on_start: OnStart | None = None,
        on_end: OnEnd | None = None,
        allow_cross_site: bool = False,
        identity_encoding: bool = False,
        max_viewers: int | None = None,
        max_runs: int | None = None,
        store: RedisStore | None = None,
        drain: float = 0.0,
    ) -> None:
        check_upstream(upstream)
        spelling = options.a_dialect(dialect)
        resolve = options.a_resolve(resolve)
        options.a_policy_or_function(policy)
        options.a_rate_or_function(rate)
        options.functions(
            1,
            identify=(identify, "takes a request and returns a string or None"),
            key=(key, "takes a request and returns a string or None"),
            on_start=(on_start, "takes a run"),
        )
        options.functions(
            2,
            authorize=(authorize, "takes a request and a run, and says yes or no"),
            on_end=(on_end, "takes a run and its outcome"),
        )
        options.positive(
            heartbeat=heartbeat, send_timeout=send_timeout, max_frame_size=max_frame_size, retry_ms=retry_ms
        )
        options.positive(max_viewers=max_viewers, max_runs=max_runs)
        options.whole(max_frame_size=max_frame_size, retry_ms=retry_ms, max_viewers=max_viewers, max_runs=max_runs)
        options.whole(keep_bytes=keep_bytes)
        options.cancel_time(cancel_timeout=cancel_timeout)
        options.not_negative(grace=grace, commit_after=commit_after, keep=keep, keep_bytes=keep_bytes)
        options.positive(max_run_time=max_run_time, max_viewer_time=max_viewer_time)
        options.size(replay=replay)
        options.flags(
            allow_cross_site=allow_cross_site, identity_encoding=identity_encoding, ids=False if ids is None else ids
        )
        options.not_negative(drain=drain)
        if drain and store is None:
            raise ConfigurationError("drain needs store=RedisStore(...): other workers serve the viewers meanwhile.")
        options.a_choice("refusals", refusals, get_args(Style))
        if max_viewer_time is not None and not (spelling.ids_by_default if ids is None else ids):
            raise ConfigurationError("max_viewer_time needs ids=True: a viewer comes back to its place by an id.")
        self._upstream = HTTPUpstream() if upstream is None else upstream
        self._limits = Limits(Block() if callable(policy) else policy, None if callable(rate) else rate)
        run_options = RunOptions(
            dialect=spelling,
            ids=spelling.ids_by_default if ids is None else ids,
            max_frame_size=max_frame_size,
            replay=replay,
            grace=grace,
            cancel_timeout=cancel_timeout,
            max_run_time=_or_never(max_run_time),
            source_decides=dialect is None,
        )
        viewer_options = ViewerOptions(
            heartbeat=_or_never(heartbeat),
            send_timeout=_or_never(send_timeout),
            commit_after=_or_never(commit_after),
            retry_ms=retry_ms,
            max_viewer_time=_or_never(max_viewer_time),
        )
        shared = None if store is None else SharedRuns(options.a_store(store), self._upstream)
        self._host = Host(
            HostOptions(
                run_options, viewer_options, max_runs, max_viewers, keep, keep_bytes, on_start, on_end, shared, drain
            )
        )
        self._requests = Requests(
            self._host,
            Application(resolve, identify, authorize, key, policy, rate),
            self._upstream,
            style=refusals,
            allow_cross_site=allow_cross_site,
            identity_encoding=identity_encoding,
        )

    async def start(
        self,
        source: Source,
        *,
        owner: str | None = None,
        key: str | None = None,
        grace: float | Literal["bridge"] | None = "bridge",
    ) -> StartedRun:
        """Starts a run without a request, from any code of the application's. Pages follow it at `<mount>/<token>`.

        Returns once the upstream has said yes, or once the run has ended for another reason, such as `max_run_time` or
        a `DELETE`; `wait` tells. A bug in the bridge ends the run with `bridge_failed`, and is logged.

        A task of the event loop carries the run, and the same stop ends it. Its first viewer has ten seconds to come,
        or `grace` if that is longer.

        Args:
            source: what to run.
            owner: the identity that may follow and end it; `None` lets every holder of the token.
            key: an idempotency key of the owner's: a run that was started with it before is returned instead.
            grace: seconds that the work goes on without a viewer; `None` lets it run to its end. `bridge` takes the
                bridge's own `grace`.

        Raises:
            ConfigurationError: an argument is of the wrong kind or out of range.
            UpstreamError: the upstream refused.
            KeyConflict: the key stands for a run with another source.
            BridgeUnavailable: the bridge is at a limit, its server stops, or its store is away: with a `key`, or
                with `when_down="refuse"`.
        """
        options.a_source(source, "start must get")
        options.a_text_or_none(owner=owner, key=key)
        if grace != "bridge":
            options.not_negative(grace=grace)
        started_with = Key(owner, key, is_idempotency_key=True) if key else key_of(source, owner)
        run, token = self._host.finder.local(started_with, source), ""
        if run is None:
            token, run = await self._host.finder.claim(started_with, source)
        if run is None:
            seconds = self._host.options.run.grace if grace == "bridge" else grace
            with self._host.finder.freeing(token, started_with):
                work = source.work(self._upstream, None)
            beginning = Beginning(source, work, owner, started_with, seconds)
            run = await self._host.launch_apart(beginning, self._limits, token)
        else:
            run = await answered(run, self._host.here(), self._host.finder)
        if isinstance(run.refused, UpstreamError):
            raise run.refused
        if run.refused is Cause.SERVER_STOPPED:
            raise stopping()
        return StartedRun(run, self._host.finder, self._host.options.run.cancel_timeout)

    def statistics(self) -> BridgeStatistics:
        """What happens now, and what was counted since the bridge was made.

        Any thread may call it, and gets numbers that belong together: the event loop counts, between two of its steps.
        That takes time for each run that is kept and each viewer that is there. If the event loop is too busy to count
        within a second, another thread gets the snapshot that was taken last.
        """
        return self._host.statistics()

    async def everywhere(self) -> tuple[WorkerStatistics, ...]:
        """What each worker of the bridge says of itself: how many runs it reads, and how many viewers it serves.

        With a store, the answer comes with this worker's next beat, within a second. Redis is asked no more often than
        without. A worker that has died is listed until another one has buried it. Without a store, this process is the
        only worker.

        Raises:
            BridgeUnavailable: Redis does not answer.
        """
        return await self._host.everywhere()

    def watch(self, watcher: Watcher) -> None:
        """Tells a watcher of every run from now on, while it happens. Metrics and traces come by here.

        Raises:
            ConfigurationError: the argument is of the wrong kind.
        """
        self._host.watch(options.a_watcher(watcher))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves an ASGI scope: HTTP requests and lifespan events. A websocket is closed."""
        if scope["type"] == "http":
            await self._requests.answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close"})

    async def shutdown(self) -> None:
        """Ends every stream and exec of this bridge in this event loop. New requests get 503.

        This happens by itself where the bridge can hear the server's signals, or see that it accepts no more
        connections, as in uvicorn, gunicorn, hypercorn, granian and daphne. In other hosts, call it before the host
        waits for open responses. It returns when all requests are over, after two seconds and `cancel_timeout` at most,
        and may be called again.
        """
        await self._host.shutdown()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Serves lifespan events. Only the shutdown matters, and a mounted application may never see it."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.shutdown()
                return await send({"type": "lifespan.shutdown.complete"})
            await send({"type": "lifespan.startup.complete"})


def _or_never(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
