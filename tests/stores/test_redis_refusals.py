"""A run that was refused after its viewers had been told its name: a viewer that comes back to another worker."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest
from starlette.requests import Request

from sse_bridge import RedisStore, SSEBridge
from sse_bridge.errors import UpstreamRefused
from tests.support.asgi import Page
from tests.support.lying_redis import LyingRedis
from tests.support.virtual_time import virtual
from tests.support.work import ScriptedWork

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual("asyncio")


class Expiring(LyingRedis):
    """Tells the truth, and forgets keys when their time is up."""

    def __init__(self) -> None:
        super().__init__(random.Random(1), 0.0)
        self._until: dict[str, float] = {}

    def _expire(self, key: str, seconds: int) -> int:
        self._until[key] = anyio.current_time() + int(seconds)
        return 1

    def _answer(self, command: Any) -> Any:
        for key in [key for key, until in self._until.items() if until <= anyio.current_time()]:
            del self._until[key]
            self._del(key)
        return super()._answer(command)


@pytest.mark.parametrize("away", [0.5, 30])
@pytest.mark.parametrize("path", ["/", "/token"])
async def test_a_viewer_learns_of_a_late_refusal_from_another_worker(away: float, path: str) -> None:
    """However long it was away, within the minute that an ended run is kept. Then it is told that this was all."""
    redis = Expiring()
    refusal = UpstreamRefused("No.", code="not_found", status=404, started_nothing=True)
    work = ScriptedWork(answers=False, refusal=refusal)

    async def resolve(request: Request) -> ScriptedWork:
        return work

    options: dict[str, Any] = {"commit_after": 1.0, "grace": 60.0}
    bridges = [SSEBridge(resolve=resolve, store=RedisStore(redis.client, lease=20.0), **options) for _ in range(2)]
    with anyio.fail_after(600):
        async with anyio.create_task_group() as tasks:

            def visit(bridge: SSEBridge, seen: str | None, path: str = "/") -> Page:
                page = Page(
                    path=path, headers={"accept": "text/event-stream", **({"last-event-id": seen} if seen else {})}
                )
                tasks.start_soon(bridge, page.scope, page.receive, page.send)
                return page

            first = visit(bridges[0], None)
            await first.until(lambda: first.content, 10)
            token = first.headers["sse-bridge-run"]
            first.leave()
            await anyio.sleep(0.1)
            work.answer()
            await anyio.sleep(away)
            back = visit(bridges[1], f"{token}.0", path.replace("token", token))
            await back.until(lambda: back.ended, 20)
            again = visit(bridges[1], back.dispatched[-1].id, path.replace("token", token))
            await again.until(lambda: again.ended, 20)
        for bridge in bridges:
            await bridge.shutdown()

    assert b'"code":"not_found"' in back.content
    assert again.status == 204
