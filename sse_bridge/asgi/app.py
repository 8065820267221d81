"""`SSEBridge`: the signature of the product, and the door through which every request comes."""

from __future__ import annotations

import math

from ..flow.pace import TokenBucket
from ..flow.policy import Block, Policy
from ..relay.options import RunOptions, ViewerOptions
from ..relay.statistics import BridgeStatistics
from ..upstream.base import Upstream
from ..upstream.checks import check_upstream
from ..upstream.client import HTTPUpstream
from ..wire.frames import DEFAULT_MAX_FRAME_SIZE
from . import options
from .hosting import Host
from .messages import Receive, Scope, Send
from .options import DEFAULT_REPLAY, Authorize, ChoosePolicy, ChooseRate, DialectName, Resolve
from .requests import Application, Requests

__all__ = ["SSEBridge"]


class SSEBridge:
    """An ASGI application that runs or follows an exec and streams its output to the page.

    Mount it wherever the page expects its events. A `GET` or `POST` on its path asks `resolve` what to run, starts it,
    and answers with an event stream. Where `None` is allowed, it switches the limit off.

    Args:
        upstream: where execs run, usually `Miosa()`. With `None`, the bridge can only follow an `EventStream`.
        resolve: takes a `starlette.requests.Request` and returns the source, such as a `SandboxExec`. It may be sync or
            async; a sync function runs in a thread. To refuse a request, raise `starlette.exceptions.HTTPException`.
        dialect: `typed` (unnamed events, JSON with a `type`: for `onmessage`), `named` (the type is the event's name)
            or `verbatim` (the upstream's frames as they are).
        policy: what happens when a viewer falls behind: `Block`, `Drop` or `Coalesce`. A function of the request, sync
            or async, chooses for each viewer.
        rate: a `TokenBucket` that limits the frames a viewer gets, or a function of the request that returns one or
            `None`.
        heartbeat: seconds of silence before a comment is sent. Proxies cut silent connections after 29 to 100 s; MIOSA
            itself, Mercure and sse-starlette send one every 15 s.
        grace: seconds the exec goes on after the last viewer has left. A viewer that comes back in time has lost
            nothing. `None` lets the exec run to its end. Unless its policy drops, the script pauses meanwhile,
            once it is `high_water` bytes ahead.
        max_viewers: responses that this bridge streams at once; further requests get 503 with `Retry-After`. There is
            no default because memory decides: each viewer may hold `high_water` bytes, each run `replay`.
        max_runs: execs of this bridge that run at once; further requests that would start one get 503.
        replay: bytes that every viewer has taken and that are kept for viewers that come late or come back.
        retry_ms: milliseconds a browser waits before it reconnects; `None` leaves that to the browser.
        max_frame_size: bytes of an upstream frame. A larger one is discarded, and a `gap` says so.
        send_timeout: seconds that one `send` to a viewer may hang before the viewer counts as gone. Servers and
            kernels take a few megabytes before it does.
        commit_after: seconds to wait for the upstream's answer before the response starts with 200. A later refusal
            is an `error` frame. Ten, because proxies give a response 30 to 60 s to begin.
        cancel_timeout: seconds that ending the exec may take, a day (86,400) at most.
        ids: whether frames carry `id:` lines. `None` means yes, except for `verbatim`. Without ids a run cannot be
            resumed: a browser that reconnects starts a new one.
        authorize: takes the request and a run's token, and says whether the request may follow or cancel that run;
            sync or async. `None` allows every request that knows the token, which cannot be guessed.
        allow_cross_site: whether pages of other sites may start a run (`Sec-Fetch-Site: cross-site`).

    Raises:
        ConfigurationError: an argument is of the wrong kind or out of range.
    """

    def __init__(
        self,
        upstream: Upstream | None,
        resolve: Resolve,
        *,
        dialect: DialectName = "typed",
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
        authorize: Authorize | None = None,
        allow_cross_site: bool = False,
        max_viewers: int | None = None,
        max_runs: int | None = None,
    ) -> None:
        check_upstream(upstream)
        spelling = options.a_dialect(dialect)
        options.a_function("resolve", resolve, "takes a request and returns a source")
        options.a_policy_or_function(policy)
        options.a_rate_or_function(rate)
        if authorize is not None:
            options.a_function("authorize", authorize, "takes a request and a run, and says yes or no", takes=2)
        options.positive(
            heartbeat=heartbeat, send_timeout=send_timeout, max_frame_size=max_frame_size, retry_ms=retry_ms
        )
        options.positive(max_viewers=max_viewers, max_runs=max_runs)
        options.whole(max_frame_size=max_frame_size, retry_ms=retry_ms, max_viewers=max_viewers, max_runs=max_runs)
        options.cancel_time(cancel_timeout=cancel_timeout)
        options.not_negative(grace=grace, commit_after=commit_after)
        options.size(replay=replay)
        options.flags(allow_cross_site=allow_cross_site, ids=False if ids is None else ids)
        resumes = spelling.ids_by_default if ids is None else ids
        self._host = Host(
            RunOptions(
                dialect=spelling,
                ids=resumes,
                max_frame_size=max_frame_size,
                replay=replay,
                grace=grace,
                cancel_timeout=cancel_timeout,
            ),
            ViewerOptions(
                heartbeat=_or_never(heartbeat),
                send_timeout=_or_never(send_timeout),
                commit_after=_or_never(commit_after),
                retry_ms=retry_ms,
            ),
            max_runs=max_runs,
            max_viewers=max_viewers,
        )
        self._requests = Requests(
            self._host,
            Application(resolve, authorize, policy, rate, allow_cross_site),
            HTTPUpstream() if upstream is None else upstream,
            resumes=resumes,
        )

    def statistics(self) -> BridgeStatistics:
        """What happens now, and what was counted since the bridge was made."""
        return self._host.statistics()

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

        This happens by itself where the bridge can hear the server's SIGTERM and SIGINT, as in uvicorn, hypercorn and
        granian. In other hosts, call it before the host waits for open responses. It returns when all requests are
        over, after two seconds and `cancel_timeout` at most, and may be called again.
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
