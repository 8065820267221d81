"""`MemoryStore`: runs are found while they run and for a while afterwards, in bounded memory."""

from __future__ import annotations

import pytest

from sse_bridge.relay.clock import Clock
from sse_bridge.relay.options import RunOptions
from sse_bridge.relay.run import Run
from sse_bridge.relay.statistics import Totals
from sse_bridge.stores import memory
from sse_bridge.stores.memory import MemoryStore
from sse_bridge.wire.dialects import TYPED
from tests.support.work import ScriptedWork

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


def run_of(token: str, size: int = 0) -> Run:
    options = RunOptions(dialect=TYPED, ids=True, max_frame_size=None, replay=10**9, grace=0, cancel_timeout=1)
    run = Run(token, ScriptedWork(), options, Totals(), Clock())
    if size:
        run.audience.append(b"x" * size, 2)
    return run


async def test_a_run_is_found_by_token_and_key_until_it_expires(anyio_backend: str) -> None:
    """A run stays while it goes on, and for `KEEP_FINISHED` seconds after it finished."""
    store, run = MemoryStore(), run_of("a")
    store.add(run, "key")

    assert store.get("a", 10**9) is store.started_with("key", 10**9) is run
    store.finish(run, 100)
    assert store.get("a", 100 + memory.KEEP_FINISHED - 1) is run
    assert store.get("a", 100 + memory.KEEP_FINISHED) is None
    assert store.started_with("key", 100) is None


async def test_finished_runs_share_a_bound(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store forgets the one that finished first, whatever its size. Runs that go on are exempt."""
    monkeypatch.setattr(memory, "MAX_FINISHED_BYTES", 1000 + 2 * memory.RUN_SIZE)
    store = MemoryStore()
    runs = [run_of(f"r{number}", 400) for number in range(5)]
    for run in runs:
        store.add(run, None)
    for run in runs[:4]:
        store.finish(run, 0)

    assert [store.get(run.token, 1) is run for run in runs] == [False, False, True, True, True]


async def test_a_run_is_forgotten_with_its_key(anyio_backend: str) -> None:
    """A request may start another run with the key."""
    store, run = MemoryStore(), run_of("a")
    store.add(run, "key")
    store.forget(run)

    assert store.get("a", 0) is store.started_with("key", 0) is store.get("b", 0) is None


async def test_finished_runs_without_output_are_bounded_too(anyio_backend: str) -> None:
    """Each run counts with what it holds besides its log."""
    store = MemoryStore()
    for number in range(5000):
        run = run_of(str(number))
        store.add(run, str(number))
        store.finish(run, 0)

    assert 1000 < len(store.runs) <= memory.MAX_FINISHED_BYTES / memory.RUN_SIZE
