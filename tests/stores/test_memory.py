"""`MemoryStore`: runs are found while they go on and for a while afterwards, in bounded memory."""

from __future__ import annotations

from math import inf

import pytest

from sse_bridge.flow.policy import Block
from sse_bridge.relay.clock import Clock
from sse_bridge.relay.info import RunFacts
from sse_bridge.relay.options import RunOptions, ViewerOptions
from sse_bridge.relay.run import Run
from sse_bridge.relay.statistics import Totals
from sse_bridge.relay.viewer import Viewer
from sse_bridge.stores.memory import RUN_SIZE, Key, MemoryStore
from sse_bridge.wire.dialects import TYPED
from tests.support.work import ScriptedWork

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

KEY = Key("ann", "key", is_idempotency_key=True)


def run_of(token: str, size: int = 0) -> Run:
    options = RunOptions(dialect=TYPED, ids=True, max_frame_size=None, replay=10**9, grace=0, cancel_timeout=1)
    work = ScriptedWork()
    run = Run(RunFacts(token, None, work), work, options, Totals(), Clock())
    if size:
        run.audience.append(b"x" * size, 2)
    return run


def ended(run: Run) -> Run:
    run.audience.close()
    run.done.set()
    return run


def viewer_of(run: Run) -> Viewer:
    options = ViewerOptions(heartbeat=inf, send_timeout=inf, commit_after=inf, retry_ms=None)
    return run.audience.view(Block(), None, 1, options, Clock())


async def test_a_run_is_found_by_token_and_key_until_it_expires(anyio_backend: str) -> None:
    """A run stays while it goes on, and for `keep` seconds after it has ended."""
    store, run = MemoryStore(keep=60), run_of("a")
    store.add(run, KEY)

    assert store.get("a", 10**9) is store.started_with(KEY, 10**9) is run
    store.settle(run, 100)
    assert store.get("a", 10**9) is run
    store.settle(ended(run), 100)
    assert store.get("a", 159.9) is run
    assert store.get("a", 160) is None
    assert store.started_with(KEY, 100) is None


async def test_a_run_whose_work_is_being_ended_does_not_expire(anyio_backend: str) -> None:
    """Its log has ended, but a request must still find it to wait for the end of its work."""
    store, run = MemoryStore(keep=0, keep_bytes=0), run_of("a")
    store.add(run, KEY)
    run.audience.close()
    store.settle(run, 100)

    assert store.get("a", 10**9) is store.started_with(KEY, 10**9) is run


async def test_a_run_that_is_read_does_not_expire(anyio_backend: str) -> None:
    """Its time begins when the last viewer has left, and ends while there is a viewer."""
    store, run = MemoryStore(keep=60), run_of("a")
    store.add(run, None)
    store.settle(ended(run), 100)
    viewer = viewer_of(run)
    store.settle(run, 150)
    assert store.get("a", 10**9) is run

    run.audience.leave(viewer)
    store.settle(run, 1000)
    assert store.get("a", 1059.9) is run
    assert store.get("a", 1060) is None


async def test_without_a_limit_on_time_a_run_is_kept(anyio_backend: str) -> None:
    """`keep=None`."""
    store, run = MemoryStore(keep=None), ended(run_of("a"))
    store.add(run, None)
    store.settle(run, 0)

    assert store.get("a", 10**12) is run


async def test_runs_that_rest_share_a_bound_on_bytes(anyio_backend: str) -> None:
    """The oldest go first. Runs that go on, and runs with viewers, are not in the count."""
    store = MemoryStore(keep_bytes=3 * (RUN_SIZE + 200_000))
    going_on, read = run_of("going on", 10**7), run_of("read", 10**7)
    for run in (going_on, ended(read)):
        store.add(run, None)
    viewer_of(read)
    store.settle(read, 0)
    for number in range(5):
        run = ended(run_of(str(number), 199_000))
        store.add(run, None)
        store.settle(run, 0)

    assert [run.token for run in store.runs] == ["going on", "read", "2", "3", "4"]


async def test_a_run_counts_once_however_often_it_settles(anyio_backend: str) -> None:
    """Viewers come and go."""
    store = MemoryStore(keep_bytes=3 * (RUN_SIZE + 200_000))
    for number in range(3):
        run = ended(run_of(str(number), 199_000))
        store.add(run, None)
        for _ in range(10):
            store.settle(run, 0)

    assert len(store.runs) == 3


async def test_the_newest_run_is_kept_however_large_it_is(anyio_backend: str) -> None:
    """A run that filled a large `replay` can still be read by the viewer that lost its end."""
    store = MemoryStore(keep_bytes=1000)
    for token in ("a", "b"):
        run = ended(run_of(token, 10**6))
        store.add(run, None)
        store.settle(run, 0)

    assert [run.token for run in store.runs] == ["b"]


async def test_a_forgotten_run_frees_its_key(anyio_backend: str) -> None:
    """A key whose run was refused may be used again."""
    store, run = MemoryStore(), run_of("a")
    store.add(run, KEY)
    store.forget(run)
    store.forget(run)

    assert store.get("a", 0) is store.started_with(KEY, 0) is None
    assert not store.runs


async def test_a_key_belongs_to_an_identity(anyio_backend: str) -> None:
    """The same word of another identity, or of an anonymous client, is another key."""
    store, run = MemoryStore(), run_of("a")
    store.add(run, KEY)

    assert store.started_with(Key("bob", "key", is_idempotency_key=True), 0) is None
    assert store.started_with(Key(None, "key", is_idempotency_key=True), 0) is None


@pytest.mark.parametrize("is_idempotency_key", [True, False])
async def test_a_feed_that_has_ended_is_started_anew(anyio_backend: str, is_idempotency_key: bool) -> None:
    """A run that is over is shared only by the key of a repeated request."""
    store, run = MemoryStore(), run_of("a")
    key = Key(None, "feed", is_idempotency_key)
    store.add(run, key)
    assert store.started_with(key, 0) is run

    store.settle(ended(run), 0)
    assert store.started_with(key, 0) is (run if is_idempotency_key else None)


async def test_a_newer_run_keeps_the_key_when_the_older_one_expires(anyio_backend: str) -> None:
    """Two runs of one feed, the first of which has ended."""
    store, key = MemoryStore(keep=60), Key(None, "feed", is_idempotency_key=False)
    old, new = ended(run_of("old")), run_of("new")
    store.add(old, key)
    store.settle(old, 0)
    store.add(new, key)

    assert store.get("old", 60) is None
    assert store.started_with(key, 60) is new
