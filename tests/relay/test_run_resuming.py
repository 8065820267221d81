"""`Run`: what happens between two streams of one work."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge.errors import UpstreamLost
from sse_bridge.relay.run import FLUSH_AFTER
from sse_bridge.upstream.base import Interruption, Reopened
from tests.support.scene import scene
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio

LOST = UpstreamLost("The connection was lost.")
GAP = {"type": "gap", "dropped": None}


class ResumableWork(ScriptedWork):
    """Work whose stream goes on, once the test allows it, whatever became of it."""

    has_event_ids = False
    may_repeat = True

    def __init__(self) -> None:
        super().__init__()
        self.interruptions: list[Interruption] = []
        self.goes_on: deque[anyio.Event] = deque()
        #: Called in the same step in which the stream is there again.
        self.meanwhile: Callable[[], None] = lambda: None

    def resume(self, interruption: Interruption) -> AbstractAsyncContextManager[Reopened]:
        """See `base.Resumable.resume`."""
        self.interruptions.append(interruption)
        self.goes_on.append(anyio.Event())
        return self._resumed(self.goes_on[-1])

    @asynccontextmanager
    async def _resumed(self, may_go_on: anyio.Event) -> AsyncGenerator[Reopened]:
        await may_go_on.wait()
        self.meanwhile()
        yield Reopened(self, is_exact=False)


async def test_output_that_may_be_a_repeat_is_shown_although_the_next_stream_is_silent(anyio_backend: str) -> None:
    """It has waited for that stream to repeat it. Half a second later it is shown, as any other. What came between
    the two streams is unknown.
    """
    work = ResumableWork()
    async with scene(work, by_hand=True) as it:
        work.feed(stdout("seen"))
        work.fail(LOST)
        await wait_all_tasks_blocked()
        work.goes_on.popleft().set()
        work.feed(stdout("new"))
        work.fail(LOST)
        await wait_all_tasks_blocked()
        it.time.advance(10 * FLUSH_AFTER)
        assert it.take() == [{"type": "stdout", "line": "seen"}, GAP]

        work.goes_on.popleft().set()
        await wait_all_tasks_blocked()
        it.time.advance(FLUSH_AFTER)
        assert it.take() == [{"type": "stdout", "line": "new"}, GAP]
        work.feed(exit_frame())
        await wait_all_tasks_blocked()
        it.time.advance(FLUSH_AFTER)
        work.finish()


@pytest.mark.parametrize("dialect", ["typed", "verbatim"])
async def test_a_run_that_is_ended_as_its_stream_comes_back_ends_quietly(
    anyio_backend: str, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is there in the same step as, say, a `DELETE`: nothing follows the terminal frame."""
    work = ResumableWork()
    async with scene(work, dialect=dialect) as it:
        work.feed(stdout("seen"))
        work.fail(LOST)
        await wait_all_tasks_blocked()
        work.meanwhile = it.run.cancel
        work.goes_on.popleft().set()

    assert it.run.outcome().error == "cancelled"
    assert it.run.audience.log.next == (3 if dialect == "typed" else 2)


async def test_an_exit_that_was_held_back_is_no_failure(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """The stream breaks off behind it, and cannot be opened again: the work has ended well, and so says the log."""
    work = ResumableWork()
    async with scene(work) as it:
        work.feed(stdout("seen"))
        work.fail(LOST)
        await wait_all_tasks_blocked()
        work.goes_on.popleft().set()
        work.feed(stdout("new"), exit_frame(3))
        work.fail(LOST)
        await wait_all_tasks_blocked()
        work.meanwhile = raise_lost
        work.goes_on.popleft().set()

    assert it.take()[-2:] == [{"type": "stdout", "line": "new"}, {"type": "exit", "code": 3}]
    assert it.work.cancels == 0
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def raise_lost() -> None:
    raise LOST
