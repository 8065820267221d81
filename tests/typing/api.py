"""A user's program over the whole public interface. Type checkers read it; it is never run.

The calls that must not type-check carry a `type: ignore` with the error they must give. Strict mypy reports an ignore
that is not needed, so a wrong call that passes fails the check.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict

import httpx
from fastapi import FastAPI
from quart import Quart
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount, Route

import sse_bridge
from sse_bridge import (
    EVENT_STREAM,
    EXEC,
    HOST_JOB,
    Block,
    BridgeError,
    BridgeStatistics,
    BridgeUnavailable,
    Cancelled,
    CancelStatistics,
    Coalesce,
    ConfigurationError,
    Drop,
    EndAware,
    EventStream,
    Exit,
    HasId,
    HostJob,
    HTTPUpstream,
    Interruption,
    KeyConflict,
    Lines,
    Miosa,
    MiosaStream,
    Outcome,
    Policy,
    RedisStore,
    Reopened,
    Resumable,
    RunInfo,
    RunStatistics,
    SandboxExec,
    SandboxProcess,
    Shape,
    Shareable,
    Source,
    SSEBridge,
    SSEBridgeMiddleware,
    StartedRun,
    Stream,
    TokenBucket,
    Traceable,
    Upstream,
    UpstreamError,
    UpstreamLost,
    UpstreamMisbehaved,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
    ViewerStatistics,
    Work,
)
from sse_bridge.testing import Event, Page, Script

version: str = sse_bridge.__version__

# -- what to run ------------------------------------------------------------------------------------------------------

miosa = Miosa()
elsewhere = Miosa("http://127.0.0.1:8080", "msk_1", tenant="acme", client=httpx.AsyncClient())
upstream: Upstream = miosa
as_in_the_sdk: Miosa = Miosa.from_sdk(object())
plain: HTTPUpstream = HTTPUpstream(httpx.AsyncClient())


async def printed() -> AsyncGenerator[str | tuple[str, bytes] | Exit]:
    yield "a"
    yield "stderr", b"b"
    yield Exit(0)


async def numbers() -> AsyncGenerator[int]:
    yield 1


Lines(numbers())  # type: ignore[arg-type]
Lines(printed)  # type: ignore[arg-type]
SSEBridge(resolve=lambda request: Lines(printed()), dialect=None)

sources: list[Source] = [
    Lines(printed(), chunks=True, name="a"),
    Script(["a", ("stderr", "b")], exit=3, error=UpstreamLost("gone")),
    SandboxExec("sbx_1", "ls", cwd="/", env={"A": "1"}, timeout=60),
    EventStream("https://example.org/events", method="POST", headers={"Authorization": "x"}, json={"a": [1]}),
    HostJob("host_1", "make", ["test"], cwd="~/app", env={"CI": "1"}, timeout=60),
    MiosaStream("/sandboxes/sbx_1/logs/stream?tail=20"),
    EventStream("https://example.org/events", reconnect=60, key="prices"),
    SandboxProcess("sbx_1", "npm run dev", cwd="/app", env={"A": "1"}, name="web", stop=False),
    SandboxProcess("sbx_1", pid=12),
]


def resolve(request: Request) -> Source:
    return sources[0]


class Sandbox:
    """As the SDK has one: its id is an attribute that may change."""

    def __init__(self) -> None:
        self.id = "sbx_1"


sandbox: HasId = Sandbox()
in_a_sandbox: str = SandboxExec(sandbox, "ls").sandbox_id
SandboxExec(object(), "ls")  # type: ignore[arg-type]


async def resolve_later(request: Request) -> SandboxExec:
    return SandboxExec(request.path_params["sandbox"], "ls")


# -- the application ---------------------------------------------------------------------------------------------------


def policy_for(request: Request) -> Policy:
    return Drop() if "mobile" in request.query_params else Block()


async def policy_later(request: Request) -> Block | Coalesce:
    return Coalesce(high_water=2**20, max_rate=None, beyond="drop", stall_timeout=None)


def rate_for(request: Request) -> TokenBucket | None:
    return TokenBucket(1000, burst=50)


def who(request: Request) -> str | None:
    return request.headers.get("x-user")


async def may(request: Request, run: RunInfo) -> bool:
    return run.owner == who(request) or run.started_at > 0 or run.state == "ended"


async def key_of(request: Request) -> str | None:
    return request.query_params.get("key")


def on_start(run: RunInfo) -> None:
    assert run.token
    assert run.source


async def on_end(run: RunInfo, outcome: Outcome) -> None:
    seconds: float = outcome.duration
    code: int | None = outcome.exit_code
    said: tuple[str | None, str | None] = (outcome.error, outcome.message)
    counts: tuple[int, int, Cancelled | None] = (outcome.lines, outcome.bytes, outcome.cancelled)
    assert [run.owner, seconds, code, said, counts]


bridge = SSEBridge(
    miosa,
    resolve,
    dialect="named",
    policy=Block(high_water=2**20, stall_timeout=None),
    rate=TokenBucket(10.0),
    heartbeat=None,
    grace=None,
    replay=0,
    retry_ms=None,
    max_frame_size=None,
    send_timeout=None,
    commit_after=None,
    cancel_timeout=1.5,
    ids=True,
    identify=who,
    authorize=may,
    key=key_of,
    refusals="frame",
    keep=None,
    keep_bytes=None,
    max_run_time=3600,
    max_viewer_time=None,
    on_start=on_start,
    on_end=on_end,
    allow_cross_site=True,
    identity_encoding=True,
    max_viewers=10,
    max_runs=10,
)
SSEBridge(None, resolve_later, policy=policy_for, rate=rate_for)
SSEBridge(None, resolve, store=RedisStore("redis://localhost", lease=5, linger=0.01, prefix="a:"), drain=60)
SSEBridge(resolve=resolve_later)
SSEBridge(plain, lambda request: sources[1], policy=policy_later, dialect="verbatim")

# -- hosts -------------------------------------------------------------------------------------------------------------

starlette = Starlette(routes=[Mount("/run-sse", app=bridge), Route("/run", bridge)])
starlette.add_middleware(SSEBridgeMiddleware, path="/run-sse", bridge=bridge)
fastapi = FastAPI()
fastapi.mount("/run-sse", bridge)
fastapi.add_middleware(SSEBridgeMiddleware, path="/run-sse", bridge=bridge)
quart = Quart(__name__)
quart.asgi_app = SSEBridgeMiddleware(quart.asgi_app, "/run-sse", bridge)  # type: ignore[method-assign]

# -- at run time -------------------------------------------------------------------------------------------------------


async def operate() -> tuple[int, float]:
    statistics: BridgeStatistics = bridge.statistics()
    runs: tuple[RunStatistics, ...] = statistics.runs
    viewers: tuple[ViewerStatistics, ...] = runs[0].viewers
    cancels: CancelStatistics = statistics.cancels
    plain: dict[str, object] = asdict(statistics)
    run: StartedRun = await bridge.start(sources[0], owner="ann", key="build-42", grace=None)
    outcome: Outcome = await run.wait()
    ended: Cancelled | None = await run.cancel()
    assert run.info.token == run.token
    assert outcome.cancelled is ended
    await bridge.shutdown()
    assert plain["cancels"]
    return viewers[0].frames_pending + cancels.confirmed, runs[0].bytes_kept


def handle(error: BridgeError) -> float | None:
    match error:
        case UpstreamRefused() | UpstreamUnreachable() | UpstreamTimeout() | UpstreamMisbehaved() | UpstreamLost():
            status: int = error.status
            return error.retry_after if status == 503 else None
        case UpstreamError():
            return 0.0 if error.started_nothing else None
        case BridgeUnavailable():
            return error.retry_after
        case KeyConflict():
            return None
        case ConfigurationError():
            value_error: ValueError = error
            raise value_error
    return None


class Clock:
    """A source of the user's own, with its work and its stream in one."""

    may_run = False
    shape: Shape = EXEC if version else HOST_JOB if plain else EVENT_STREAM

    def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
        return self

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[Stream]:
        yield self

    async def push(self, take: Callable[[bytes], bool], room: Callable[[], Awaitable[None]]) -> None:
        if not take(b'event: stdout\ndata: {"line":"tick"}\n\n'):
            await room()

    async def cancel(self, timeout: float) -> Cancelled:
        return Cancelled.CONFIRMED


async def carry(work: Work) -> Cancelled:
    opening: AbstractAsyncContextManager[Stream] = work.stream()
    async with opening as stream:
        await stream.push(lambda chunk: len(chunk) > 0, operate_room)
    return await work.cancel(5.0)


async def operate_room() -> None: ...


SSEBridge(None, lambda request: Clock())


class LastingClock(Clock):
    """Work with all that is optional."""

    has_event_ids = True
    may_repeat = False
    shared_as: str | None = "clock"
    mark = "clock 1"

    def saw_end(self) -> None: ...

    def trace(self) -> str:
        return "look at the wall"

    @asynccontextmanager
    async def again(
        self, said: tuple[UpstreamLost | None, str | None, float | None, bool, bool]
    ) -> AsyncGenerator[Reopened]:
        yield Reopened(self, is_exact=said[1] is not None)

    def resume(self, interruption: Interruption) -> AbstractAsyncContextManager[Reopened] | None:
        return self.again(interruption) if interruption.lost else None


aware: EndAware = LastingClock()
lasting: Resumable = LastingClock()
traceable: Traceable = LastingClock()
shareable: Shareable = LastingClock()

# -- what must not type-check ------------------------------------------------------------------------------------------

SSEBridge(miosa, resolve, dialect="typd")  # type: ignore[arg-type]
SSEBridge(miosa, resolve, policy="drop")  # type: ignore[arg-type]
SSEBridge(miosa, resolve, policy=Drop)  # type: ignore[arg-type]
SSEBridge(miosa, resolve, rate=1000)  # type: ignore[arg-type]
SSEBridge(miosa, resolve, grace="10")  # type: ignore[arg-type]
SSEBridge(miosa, resolve, refusals="frames")  # type: ignore[arg-type]
SSEBridge(miosa, resolve, hartbeat=1)  # type: ignore[call-arg]
SSEBridge(miosa, resolve, cancel_timeout=None)  # type: ignore[arg-type]
SSEBridge(miosa, sources[0])  # type: ignore[arg-type]
SSEBridge(miosa, SandboxExec)  # type: ignore[arg-type]
SSEBridge(miosa, lambda request: "ls")  # type: ignore[arg-type, return-value]
SSEBridge("https://api.miosa.ai", resolve)  # type: ignore[arg-type]
SSEBridge(Miosa, resolve)  # type: ignore[arg-type]
SandboxExec("sbx_1", ["ls"])  # type: ignore[arg-type]
SandboxExec("sbx_1", "ls", env={"A": 1})  # type: ignore[dict-item]
SandboxExec("sbx_1", "ls", "/workspace")  # type: ignore[call-arg]
SandboxProcess("sbx_1", ["ls"])  # type: ignore[arg-type]
SandboxProcess("sbx_1", 12)  # type: ignore[arg-type]
SSEBridge(miosa, resolve, store="redis://localhost")  # type: ignore[arg-type]
Block("1 MiB")  # type: ignore[arg-type]
Coalesce(beyond="dorp")  # type: ignore[arg-type]
TokenBucket()  # type: ignore[call-arg]
SSEBridgeMiddleware(starlette, bridge=bridge)  # type: ignore[call-arg]


async def read_page() -> list[Event]:
    async with Page(bridge, "/", headers={"Cookie": "a"}) as page:
        return [event async for event in page]
