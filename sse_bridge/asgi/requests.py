"""What a request asks for, and whether it may: the route, the place to resume from, identity and keys.

How runs and viewers are carried is `hosting`'s business; how a refusal looks is that of `refusals`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from ..errors import BridgeUnavailable, ConfigurationError, KeyConflict
from ..relay.mirror import Followed, Mirror
from ..stores.base import StoreAway
from ..stores.memory import Key
from ..upstream.base import Cancelled, Source, Upstream
from ..wire.dialects import Dialect
from ..wire.ids import Place, is_token, new_token, read_place
from . import asked, hypercorn, messages, options, paths
from .application import Application, Purpose, call
from .finding import key_of
from .hosting import Answer, Beginning, Host, Limits, Visit, stopping
from .joining import answered
from .messages import Receive, Scope, Send
from .refusals import Refusal, accepts, send_refusal
from .response import naming_identity

__all__ = ["Requests", "Style"]

#: How refusals go out: as HTTP statuses, for programs, or as frames, for pages.
Style: TypeAlias = Literal["status", "frame"]

logger: Final = logging.getLogger("sse_bridge")

_ALLOWED: Final = {False: "GET, POST", True: "GET, DELETE"}
#: Seconds that a `DELETE` waits for the command's end. Callers have timeouts; httpx's is five seconds.
DELETE_WAIT: Final = 3.0
#: Characters that end a header's line or are invalid in it (RFC 9110 5.5). A query may hold them.
_NO_HEADER_HAS: Final = frozenset("\r\n\0")

_FOREIGN: Final = (
    "Pages of other sites may not start a run here. If a proxy changes the Host header, let it pass on the browser's."
)
_NOWHERE: Final = (
    "There is nothing at this path. If the bridge is to answer here, the host in front of it has to name the path in "
    "root_path, as mounts and SSEBridgeMiddleware do."
)
_NOT_SHOWN: Final = Refusal(503, "not_shown", "Runs are started by pages that are shown, not by a prefetch.")
_STORE_AWAY: Final = Refusal(503, "busy", "Runs cannot be looked up now. Try again in a moment.", retry_after=2.0)
_UNKNOWN: Final = Refusal(404, "run_unknown", "This run is unknown here. It may have ended some time ago.")


#: How often a feed is looked for that ends while `authorize` is asked.
_LOOKS: Final = 3


class Requests:
    """Answers requests: reads what each asks for, asks the application, and has it hosted.

    Args:
        host: carries runs and viewers.
        application: what the application decides.
        upstream: what sources are opened with.
        style: how refusals go out.
        allow_cross_site: whether pages of other sites may start runs.
        identity_encoding: whether event streams name their content coding.
    """

    def __init__(
        self,
        host: Host,
        application: Application,
        upstream: Upstream,
        *,
        style: Style,
        allow_cross_site: bool,
        identity_encoding: bool,
    ) -> None:
        self._host = host
        self._application = application
        self._upstream = upstream
        self._style = style
        self._allow_cross_site = allow_cross_site
        self._identity_encoding = identity_encoding
        self._resumes = host.options.run.ids
        self._has_warned = False

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request."""
        here = self._host.here()
        here.request_began(scope)
        has_left = hypercorn.knows_of_leaving(scope)
        outbox = messages.Outbox(send)
        send = hypercorn.sending(outbox.send, has_left)
        if self._identity_encoding:
            send = naming_identity(send)
        inbox = messages.Inbox(receive, has_left)
        try:
            if here.stopping:
                raise stopping()
            answer = await self._route(Request(scope, inbox), send)
            await answer
        except HTTPException as raised:
            await self._refuse(Request(scope), send, Refusal.of_exception(raised))
        except StoreAway:
            await self._refuse_for_now(Request(scope), send)
        except BridgeUnavailable as raised:
            await self._refuse(Request(scope), send, Refusal.of_limit(raised))
        except KeyConflict as raised:
            await self._refuse(Request(scope), send, Refusal.of_key(raised))
        except (ClientDisconnect, BaseExceptionGroup) as raised:
            # The client has left, and the application was reading its body.
            if not inbox.is_over or not _is_only(raised, ClientDisconnect):
                raise
        finally:
            here.request_ended()
        await outbox.close_unread()

    async def _route(self, request: Request, send: Send) -> Answer:
        """Decides on the request, and returns the answer for the caller to await.

        An idle stream then holds neither the request nor the coroutines that decided on it: 2 KB.
        """
        token = paths.below_mount(request.scope)
        method = request.method
        if token and not is_token(token):
            raise HTTPException(404, _NOWHERE)
        if not token and method in ("GET", "POST"):
            return await self._start_or_resume(request, send)
        if token and method == "GET":
            return await self._follow(request, token, send)
        if token and method == "DELETE":
            return self._delete(request, token, send)
        raise HTTPException(405, f"Use {_ALLOWED[bool(token)]}.", {"Allow": _ALLOWED[bool(token)]})

    # -- starting

    async def _start_or_resume(self, request: Request, send: Send) -> Answer:
        seen = asked.last_event_id(request)
        place = read_place(seen)
        if place is not None and (self._resumes or place.number is None):
            # A viewer that has seen a run never starts one, whatever has become of it.
            return await self._resume(request, place, send)
        if asked.is_speculative(request):
            return self._send_refusal(send, _NOT_SHOWN, new_token(), None)
        if not self._allow_cross_site and asked.is_foreign(request):
            raise HTTPException(403, _FOREIGN)
        identity = await self._identity(request, Purpose.STARTING)
        key = await self._key(request, identity)
        source = await self._resolve(request)
        key = key_of(source, identity) or key
        limits = await self._limits(request, Purpose.STARTING)
        looks = 0
        while True:
            run, token = self._host.finder.local(key, source), ""
            if run is None:
                token, run = await self._host.finder.claim(key, source)
            if run is None:
                with self._host.finder.freeing(token, key):
                    work = source.work(self._upstream, _place_upstream(seen, key))
                beginning = Beginning(source, work, identity, key, self._host.options.run.grace)
                if asked.wants_no_stream(request):
                    run = await self._host.launch_apart(beginning, limits, token)
                    return self._tell_started(request, run, send)
                return self._host.host(beginning, self._visit(request, send, limits), token)
            if not await self._may(request, run, identity, Purpose.STARTING):
                return self._refuse_unknown(request, new_token(), send)
            looks += 1
            if not run.is_over or (key is not None and key.is_idempotency_key) or looks == _LOOKS:
                break  # else it has ended while the application was asked, and starts anew
        if asked.wants_no_stream(request):
            run = await answered(run, self._host.here(), self._host.finder)
            return self._tell_started(request, run, send)
        return await self._attach(request, run, 1, send, limits)

    async def _tell_started(self, request: Request, run: Followed, send: Send) -> None:
        if run.refused is not None:
            return await self._refuse(request, send, Refusal.of_run(run.refused))
        href = paths.href(request.scope, run.token)
        headers = [(b"location", href.encode()), (b"sse-bridge-run", run.token.encode())]
        return await messages.send_json(send, 201, {"run": run.token, "href": href}, headers)

    # -- following

    async def _resume(self, request: Request, place: Place, send: Send) -> Answer:
        """Continues behind the frame seen last. 204 stops an `EventSource` (WHATWG HTML 9.2.3)."""
        if place.number is None:  # it was told so before
            return messages.send_json(send, 204, None)
        run = await self._permitted(request, place.token)
        if run is None or not _can_have_seen(run, place.number):
            return self._refuse_unknown(request, place.token, send)
        return await self._attach(
            request, run, place.number + 1, send, await self._limits(request, Purpose.RETURNING), resumes=True
        )

    async def _follow(self, request: Request, token: str, send: Send) -> Answer:
        place = read_place(asked.last_event_id(request))
        if place == (token, None):
            return messages.send_json(send, 204, None)
        run = await self._permitted(request, token)
        if run is None:
            return self._refuse_unknown(request, token, send)
        if asked.prefers_json(request):
            return messages.send_json(send, 200, _state_of(run))
        seen = place.number if place is not None and place.token == token else None
        limits = await self._limits(request, Purpose.RETURNING)
        if seen is None or not _can_have_seen(run, seen):
            if run.refused is not None:
                return self._refuse(request, send, Refusal.of_run(run.refused).for_good())
            # From the beginning, a viewer is told how much of it is no longer kept.
            return await self._attach(request, run, 1, send, limits)
        return await self._attach(request, run, seen + 1, send, limits, resumes=True)

    async def _attach(
        self, request: Request, run: Followed, number: int, send: Send, limits: Limits, *, resumes: bool = False
    ) -> Answer:
        found = await self._host.finder.again(run)
        if found is None:
            return self._refuse_unknown(request, run.token, send)
        run = found
        if isinstance(run, Mirror) and run.is_over:
            number = run.begins(number)
        if run.is_over and number == run.audience.log.next and (resumes or run.refused is None):  # it has seen the end
            return messages.send_json(send, 204, None)
        return await self._host.attach(run, number, self._visit(request, send, limits), resumes=resumes)

    async def _delete(self, request: Request, token: str, send: Send) -> None:
        run = await self._permitted(request, token)
        if run is None:
            return await self._refuse_unknown(request, token, send)
        run.cancel()
        halted = run.halting if isinstance(run, Mirror) else run.done
        with anyio.move_on_after(DELETE_WAIT):
            await halted.wait()
        if halted.is_set and run.cancelled in (None, Cancelled.CONFIRMED):
            return await messages.send_json(send, 204, None)
        how_far = None if run.cancelled is None else run.cancelled.value
        return await messages.send_json(send, 202, {"run": run.token, "cancelled": how_far})

    def _warn_of_workers(self, token: str) -> None:
        """Logs once why requests may ask for runs that are unknown."""
        if not self._has_warned and self._host.options.store is None:
            self._has_warned = True
            logger.warning(
                "run %s...: a request asked for this run, which is unknown in this process. Either it has expired (see "
                "keep=), or another worker has it: share runs with store=RedisStore(...), or have the proxy send each "
                "browser back to the worker that it came from. This is said once.",
                token[:6],
            )

    # -- refusing

    def _visit(self, request: Request, send: Send, limits: Limits) -> Visit:
        return Visit(request.scope, request.receive, send, limits, self._refuses_in_frames(request))

    def _refuses_in_frames(self, request: Request) -> bool:
        return self._style == "frame" and accepts(request, "text/event-stream")

    async def _refuse(self, request: Request, send: Send, refusal: Refusal) -> None:
        dialect = self._host.options.run.dialect if self._refuses_in_frames(request) else None
        await self._send_refusal(send, refusal, new_token(), dialect)

    async def _refuse_for_now(self, request: Request, send: Send) -> None:
        """The store of other workers' runs is away. A browser is to ask again by itself: a status would stop it."""
        style = self._host.options.run.dialect if accepts(request, "text/event-stream") else None
        await self._send_refusal(send, _STORE_AWAY, new_token(), style)

    async def _refuse_unknown(self, request: Request, token: str, send: Send) -> None:
        """Says that there is no such run; of another identity's run it says the same.

        A client that reads event streams gets a frame, so that a page can tell its reader.
        """
        dialect = self._host.options.run.dialect if accepts(request, "text/event-stream") else None
        await self._send_refusal(send, _UNKNOWN, token, dialect)

    async def _send_refusal(self, send: Send, refusal: Refusal, token: str, dialect: Dialect | None) -> None:
        self._host.count_refusal(refusal)
        await send_refusal(send, refusal, token, dialect)

    # -- what the application says

    async def _permitted(self, request: Request, token: str) -> Followed | None:
        """The run of that name, if it is known and the request may follow and end it.

        `identify` is asked first, for known and unknown runs alike: a refusal of its own would tell them apart.
        """
        identity = await self._identity(request, Purpose.RETURNING)
        run = await self._host.finder.find(token)
        if run is None:
            self._warn_of_workers(token)
        elif await self._may(request, run, identity, Purpose.RETURNING):
            return await self._host.finder.again(run)
        return None

    async def _may(self, request: Request, run: Followed, identity: str | None, purpose: Purpose) -> bool:
        if self._application.authorize is not None:
            return bool(
                await self._ask("authorize", self._application.authorize, purpose, request, run.info_for(identity))
            )
        return self._application.identify is None or run.is_owned_by(identity)

    async def _identity(self, request: Request, purpose: Purpose) -> str | None:
        if self._application.identify is None:
            return None
        identity = await self._ask("identify", self._application.identify, purpose, request)
        return _text_or_none("identify", identity)

    async def _key(self, request: Request, identity: str | None) -> Key | None:
        header = request.headers.get("idempotency-key") or None if request.method == "POST" else None
        if self._application.key is None:
            word = header
        else:
            chosen = await self._ask("key", self._application.key, Purpose.STARTING, request)
            word = _text_or_none("key", chosen) or None
        return None if word is None else Key(identity, word, is_idempotency_key=word == header)

    async def _resolve(self, request: Request) -> Source:
        return options.a_source(await self._ask("resolve", self._application.resolve, Purpose.STARTING, request))

    async def _limits(self, request: Request, purpose: Purpose) -> Limits:
        policy: object = self._application.policy
        if callable(policy):
            policy = await self._ask("policy", policy, purpose, request)
        rate: object = self._application.rate
        if callable(rate):
            rate = await self._ask("rate", rate, purpose, request)
        return Limits(options.a_policy(policy), options.a_rate(rate))

    async def _ask(
        self, name: str, function: Callable[..., object], purpose: Purpose, request: Request, *more: object
    ) -> object:
        """Calls a function of the application's.

        When the server stops, the wait for an async function ends. A sync one runs on in its thread, and the request
        waits for it.

        What the function raises reaches the host, which has handlers for it, or logs it and answers 500.

        Raises:
            BridgeUnavailable: the server is stopping.
        """
        here = self._host.here()
        answer = None
        try:
            with here.wait():
                answer = await call(function, request, *more, limiter=self._host.threads.limiter(purpose))
        except Exception as raised:
            raised.add_note(f"The application's {name} raised this, which sse_bridge asked about a {request.method}.")
            raise
        if here.stopping:
            raise stopping()
        return answer


def _place_upstream(seen: str | None, key: Key | None) -> str | None:
    """The upstream's own id behind which the client would go on; `None` for where the upstream begins.

    A stream that its source shares begins there: other clients, which come later, have seen something else.
    """
    is_shared = key is not None and key.is_of_source
    return seen if seen and not is_shared and _NO_HEADER_HAS.isdisjoint(seen) else None


def _can_have_seen(run: Followed, number: int) -> bool:
    """Whether a viewer can have seen that frame. Another worker shows its frames before they come here."""
    is_unsure = isinstance(run, Mirror) and (run.is_lost or run.is_discarded or not run.is_over)
    return is_unsure or number < run.audience.log.next


def _state_of(run: Followed) -> dict[str, Any]:
    outcome = run.outcome()
    error = None if outcome.error is None else {"code": outcome.error, "message": outcome.message}
    return {
        "run": run.token,
        "state": run.state,
        "code": outcome.exit_code,
        "error": error,
        "started_at": run.info.started_at,
        "ended_at": run.ended_at,
        "frames": run.audience.log.next - 1,
        "viewers": run.audience.viewers,
        **({"timed_out": True} if outcome.timed_out else {}),
    }


def _is_only(raised: BaseException, kind: type[BaseException]) -> bool:
    """Whether an exception is of that kind, or a group of exceptions that are."""
    if isinstance(raised, BaseExceptionGroup):
        return raised.split(kind)[1] is None
    return isinstance(raised, kind)


def _text_or_none(name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{name} must return a string or None, not {type(value).__name__}.")
    return value
