"""What a request asks for, and whether it may: the route, the place to resume from, the application's answers.

How runs and viewers are carried is `hosting`'s business.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..flow.pace import TokenBucket
from ..flow.policy import Policy
from ..relay.run import Run
from ..upstream.base import Source, Upstream
from ..wire.ids import is_token, read_place
from . import messages, options, refusals
from .hosting import Host, Limits
from .messages import Receive, Scope, Send
from .options import Authorize, ChoosePolicy, ChooseRate, Resolve

__all__ = ["Application", "Requests"]

_ALLOWED: Final = {False: "GET, POST", True: "GET, DELETE"}


@dataclass(frozen=True, slots=True)
class Application:
    """What the application decides. Functions may be sync or async; sync ones run in a thread."""

    resolve: Resolve
    authorize: Authorize | None
    policy: Policy | ChoosePolicy
    rate: TokenBucket | ChooseRate | None
    allow_cross_site: bool


class Requests:
    """Answers requests: reads what each asks for, asks the application, and has it hosted.

    Args:
        host: carries runs and viewers.
        application: what the application decides.
        upstream: what sources are opened with.
        resumes: whether ids are on, so that viewers can come back to a run.
    """

    def __init__(self, host: Host, application: Application, upstream: Upstream, *, resumes: bool) -> None:
        self._host = host
        self._application = application
        self._upstream = upstream
        self._resumes = resumes

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request."""
        here = self._host.here()
        here.request_began()
        try:
            if here.stopping:
                raise refusals.stopping()
            await self._route(Request(scope, receive), send)
        except HTTPException as refused:
            await refusals.send_http_exception(send, refused)
        finally:
            here.request_ended()

    async def _route(self, request: Request, send: Send) -> None:
        token = messages.route_path(request.scope)
        method = request.method
        if not token and method in ("GET", "POST"):
            await self._start_or_resume(request, send)
        elif token and method == "GET":
            await self._follow(request, token, send)
        elif token and method == "DELETE":
            await self._delete(request, token, send)
        else:
            raise HTTPException(405, f"Use {_ALLOWED[bool(token)]}.", {"Allow": _ALLOWED[bool(token)]})

    # -- what can be asked for

    async def _start_or_resume(self, request: Request, send: Send) -> None:
        seen = _last_event_id(request)
        if seen and self._resumes:  # a browser that has seen something never starts a command, whatever it has seen
            return await self._resume(request, seen, send)
        if not self._application.allow_cross_site and request.headers.get("sec-fetch-site") == "cross-site":
            raise HTTPException(403, "Pages of other sites may not start a run here.")
        key = request.headers.get("idempotency-key") or None if request.method == "POST" else None
        source = await self._resolve(request)
        limits = await self._limits(request)
        run = None if key is None else self._host.started_with(key)
        if run is not None:
            return await self._attach(request, run, 1, send)
        work = source.work(self._upstream, seen or None)
        return await self._host.start(work, key, limits, request, send)

    async def _resume(self, request: Request, seen: str, send: Send) -> None:
        """Continues behind the frame seen last. 204 stops an `EventSource` (WHATWG HTML 9.2.3)."""
        place = read_place(seen)
        run = None if place is None else self._host.find(place.token)
        if run is None or place is None or place.number >= run.audience.log.next:
            return await messages.send_json(send, 204, None)
        return await self._attach(request, run, place.number + 1, send)

    async def _follow(self, request: Request, token: str, send: Send) -> None:
        run = self._host.find(token)
        if run is None:
            if is_token(token):  # it was a run once: an `EventSource` is to stop asking
                return await messages.send_json(send, 204, None)
            raise HTTPException(404, "There is nothing at this path.")
        place = read_place(_last_event_id(request))
        is_known = place is not None and place.token == token and place.number < run.audience.log.next
        # From the beginning, a viewer is told how much of it is no longer kept.
        return await self._attach(request, run, place.number + 1 if place is not None and is_known else 1, send)

    async def _attach(self, request: Request, run: Run, number: int, send: Send) -> None:
        await self._authorize(request, run)
        if run.is_over and number == run.audience.log.next:  # it has seen the end
            return await messages.send_json(send, 204, None)
        return await self._host.attach(run, number, await self._limits(request), request, send)

    async def _delete(self, request: Request, token: str, send: Send) -> None:
        run = self._host.find(token)
        if run is None:
            raise HTTPException(404, "There is no such run.")
        await self._authorize(request, run)
        run.cancel()
        await messages.send_json(send, 204, None)

    # -- what the application says

    async def _resolve(self, request: Request) -> Source:
        return options.a_source(await self._ask(self._application.resolve, request))

    async def _authorize(self, request: Request, run: Run) -> None:
        authorize = self._application.authorize
        if authorize is not None and not await self._ask(authorize, request, run.token):
            raise HTTPException(403, "This run is not yours to see.")

    async def _limits(self, request: Request) -> Limits:
        policy, rate = self._application.policy, self._application.rate
        chosen_policy = await self._ask(policy, request) if callable(policy) else policy
        chosen_rate = await self._ask(rate, request) if callable(rate) else rate
        return Limits(options.a_policy(chosen_policy), options.a_rate(chosen_rate))

    async def _ask(self, function: Callable[..., object], *arguments: object) -> object:
        """Calls a function of the application's. When the server stops, the wait for it ends.

        Raises:
            HTTPException: the server is stopping.
        """
        here = self._host.here()
        answer = None
        with here.wait():
            answer = await _call(function, *arguments)
        if here.stopping:
            raise refusals.stopping()
        return answer


async def _call(function: Callable[..., object], *arguments: object) -> object:
    """Calls an async function on the event loop, and a sync one in a thread."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        result = function(*arguments)
    else:  # in a tuple, because trio lets no awaitable out of a thread
        (result,) = await anyio.to_thread.run_sync(lambda: (function(*arguments),))
    return await result if inspect.isawaitable(result) else result


def _last_event_id(request: Request) -> str:
    """Browsers send it as UTF-8 (WHATWG HTML 9.2.4); Starlette reads headers as Latin-1."""
    return request.headers.get("last-event-id", "").encode("latin-1").decode("utf-8", "replace")
