"""A load that makes bridges count all they can count."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import anyio

from sse_bridge import Block, Cancelled, Coalesce, Drop, Policy, RedisStore, SSEBridge, Stream, Upstream, Work
from sse_bridge.errors import UpstreamLost, UpstreamRefused
from sse_bridge.testing import Script

__all__ = ["fill", "made"]


def made(redis_port: int) -> dict[str, SSEBridge]:
    """A bridge for commands, with all that can happen to one; another worker's, which shares them; one for a feed."""
    url = f"redis://127.0.0.1:{redis_port}/0"
    policies: dict[str, Policy] = {"block": Block(256 * 1024), "drop": Drop(64 * 1024), "coalesce": Coalesce()}
    commands = SSEBridge(
        None,
        lambda request: _script(request.query_params["does"], random.Random(int(request.query_params["seed"]))),
        policy=lambda request: policies[request.query_params["policy"]],
        grace=0.5,
        keep=5.0,
        max_runs=8,
        send_timeout=5.0,
        max_frame_size=1000,
        store=RedisStore(url),
    )
    elsewhere = SSEBridge(None, lambda request: Script([]), store=RedisStore(url), grace=0.5, keep=5.0)
    prices = SSEBridge(None, lambda request: Script([f"price {n}" for n in range(10_000)], delay=0.02), grace=2.0)
    return {"commands": commands, "elsewhere": elsewhere, "prices": prices}


def _script(does: str, chance: random.Random) -> Script:
    match does:
        case "builds":
            count = chance.randrange(20, 400)
            return Script([f"step {n}" for n in range(count)], exit=chance.choice([0, 0, 0, 0, 2]), delay=0.01)
        case "prints":
            return Script([f"{n} {'x' * 120}" for n in range(chance.randrange(2_000, 12_000))])
        case "is too long":
            return Script(["short", "x" * 5000], exit=0)
        case "breaks":
            return Script(["a line"], exit=None, error=UpstreamLost("The stream broke off."))
        case "is refused":
            code, status = chance.choice([("not_found", 404), ("busy", 503), ("upstream_unauthorized", 502)])
            return Script(refusal=UpstreamRefused("No.", code=code, status=status, started_nothing=True))
        case _:
            ends = chance.choice([Cancelled.CONFIRMED] * 9 + [Cancelled.ACKNOWLEDGED])
            return _EndsLate(["waiting"], waits=True, ends=ends)


class _EndsLate(Script):
    """A script that takes a moment to end, as a command in a sandbox does."""

    def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
        return _LateWork(super().work(upstream, last_event_id))


class _LateWork:
    def __init__(self, work: Work) -> None:
        self.may_run = True
        self.shape = work.shape
        self._work = work

    def stream(self) -> AbstractAsyncContextManager[Stream]:
        return self._work.stream()

    async def cancel(self, timeout: float) -> Cancelled:
        await anyio.sleep(random.uniform(0.2, 1.5))
        return await self._work.cancel(timeout)


class _Viewer:
    """A client that takes time for all it is sent, and leaves after a while.

    Args:
        pace: seconds for each `send`.
        leaves: seconds after which it leaves.
    """

    def __init__(self, pace: float, leaves: float) -> None:
        self._pace = pace
        self._leaves = leaves
        self._answered = anyio.Event()
        self._run = ""

    async def visit(self, bridge: SSEBridge, query: str = "", path: str = "/") -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await bridge(scope, self._receive, self._send)

    async def is_followed(self, bridge: SSEBridge) -> None:
        """Another client follows the same run at another worker."""
        await self._answered.wait()
        if self._run:
            await _Viewer(0.0, self._leaves).visit(bridge, path=f"/{self._run}")

    async def _receive(self) -> dict[str, Any]:
        await anyio.sleep(self._leaves)
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._run = dict(message["headers"]).get(b"sse-bridge-run", b"").decode()
            self._answered.set()
        if message.get("more_body"):
            await anyio.sleep(self._pace)


_DOES: Final = {"builds": 60, "prints": 25, "waits": 15, "is refused": 4, "breaks": 2, "is too long": 2}


async def fill(bridges: Mapping[str, SSEBridge], seconds: float) -> None:
    """Visits the bridges for some time: more and more, then fewer and fewer. Then it stops them."""
    chance = random.Random(7)
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        while (passed := anyio.current_time() - began) < seconds:
            (does,) = chance.choices(list(_DOES), list(_DOES.values()))
            policy = chance.choice(["block", "drop", "coalesce"])
            query = f"does={does.replace(' ', '+')}&policy={policy}&seed={chance.randrange(10**6)}"
            leaves = chance.uniform(0.5, 4) if does == "waits" else 60.0
            viewer = _Viewer(chance.choice([0.0, 0.001, 0.08] * 9 + [1000.0]), leaves)
            tasks.start_soon(viewer.visit, bridges["commands"], query)
            if chance.random() < 0.3:
                tasks.start_soon(_Viewer(0.0, chance.uniform(2, 20)).visit, bridges["prices"])
                tasks.start_soon(viewer.is_followed, bridges["elsewhere"])
            busy = 1 - abs(2 * passed / seconds - 1)
            await anyio.sleep(chance.uniform(0.1, 0.5) / (0.4 + busy))
        for bridge in bridges.values():
            await bridge.shutdown()
