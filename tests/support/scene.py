"""A run that reads a scripted exec, with one viewer that takes only when the test says so."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import anyio
from anyio import wait_all_tasks_blocked

from sse_bridge.flow.policy import Block, Policy
from sse_bridge.relay.clock import Clock
from sse_bridge.relay.info import RunFacts
from sse_bridge.relay.options import RunOptions, ViewerOptions
from sse_bridge.relay.run import Run
from sse_bridge.relay.statistics import Totals
from sse_bridge.relay.viewer import Viewer
from sse_bridge.wire import events
from sse_bridge.wire.dialects import DIALECTS
from tests.support.clocks import HandClock
from tests.support.work import ScriptedWork

PATIENT = ViewerOptions(heartbeat=inf, send_timeout=inf, commit_after=inf, retry_ms=None)


class Scene:
    """A run with one viewer.

    Args:
        work: what the run reads.
        policy: of the viewer; a `Block` with `high_water` unless given.
        by_hand: whether the test moves the time, with `clock.advance`.
        options: of the run, where the test needs other ones.
    """

    def __init__(
        self,
        work: ScriptedWork,
        *,
        policy: Policy | None = None,
        high_water: int = 10**6,
        dialect: str = "typed",
        by_hand: bool = False,
        **options: Any,
    ) -> None:
        self.work = work
        defaults = {"ids": False, "max_frame_size": None, "grace": 0.0, "replay": 0, "cancel_timeout": 5.0}
        self.totals = Totals()
        self.clock: Clock = HandClock() if by_hand else Clock()
        run_options = RunOptions(dialect=DIALECTS[dialect], **{**defaults, **options})
        self.run = Run(RunFacts("tokentokentokent", None, work), work, run_options, self.totals, self.clock)
        self.audience = self.run.audience
        self.viewer = self.view(policy or Block(high_water))

    @property
    def time(self) -> HandClock:
        """The clock that the test moves."""
        assert isinstance(self.clock, HandClock)
        return self.clock

    def view(self, policy: Policy, number: int = 1) -> Viewer:
        return self.audience.view(policy, None, number, PATIENT, self.clock)

    def take(self, limit: int = 10**9, viewer: Viewer | None = None) -> list[dict[str, Any]]:
        """What the viewer takes now, which makes room; the run reads on at its next step."""
        viewer = viewer or self.viewer
        frames = viewer.delivery.cursor.take(limit)
        viewer.took.notify()
        return [json.loads(event.data) for event in events.parse(frames) if event.data is not None]


@asynccontextmanager
async def scene(work: ScriptedWork | None = None, **options: Any) -> AsyncGenerator[Scene]:
    """Reads the run beside the block, and waits for its end after it."""
    made = Scene(work or ScriptedWork(), **options)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run.read)
            await wait_all_tasks_blocked()
            yield made
    assert made.work.closed.is_set()
