"""Commands in the local sandbox are ended through its API, and reported as what they are."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest

from sse_bridge import SandboxExec
from sse_bridge.upstream.base import Cancelled
from tests.support.sandboxes import LocalSandbox, local_sandbox
from tests.support.waiting import eventually
from tests.upstream.sandbox_shells import leaves, remains

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    """One for all tests."""
    with local_sandbox() as made:
        yield made


@pytest.mark.parametrize(
    ("command", "processes", "outcome"),
    [
        ("sleep {mark}; :", 1, Cancelled.CONFIRMED),
        ("env -i sleep {mark} & wait", 1, Cancelled.CONFIRMED),
        ("(env -i setsid sleep {mark} &); sleep {mark}", 2, Cancelled.CONFIRMED),
        ("sleep {mark} & exec env -i sleep {mark}", 2, Cancelled.CONFIRMED),
        ("(nohup setsid sleep {mark} >/dev/null 2>&1 &); sleep {mark}", 2, Cancelled.CONFIRMED),
        ("exec env -i sleep {mark}", 1, Cancelled.ACKNOWLEDGED),
        ("unset SSE_BRIDGE_EXEC; exec sleep {mark}", 1, Cancelled.ACKNOWLEDGED),
        ("(env -i setsid sleep {mark} >/dev/null 2>&1 &); sleep {mark}", 2, Cancelled.ACKNOWLEDGED),
    ],
)
async def test_what_is_confirmed_is_over(
    anyio_backend: str, sandbox: LocalSandbox, command: str, processes: int, outcome: Cancelled
) -> None:
    """The fault: a command that had dropped its marker was confirmed, and ran on."""
    mark = f"300.{secrets.randbelow(10**12):012}"
    work = SandboxExec(sandbox.id, "echo started; " + command.format(mark=mark)).work(sandbox.miosa(), None)
    started = anyio.Event()

    def take(chunk: bytes) -> bool:
        if b"started" in chunk:
            started.set()
        return True

    async def read() -> None:
        async with work.stream() as stream:
            await stream.push(take, anyio.lowlevel.checkpoint)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await started.wait()
            eventually(lambda: leaves()[mark] == processes)
            tasks.cancel_scope.cancel()

        assert await work.cancel(10) is outcome
        assert bool(leaves()[mark]) == (outcome is not Cancelled.CONFIRMED)
    finally:
        for process in remains(mark):
            process.kill()
