"""The loop that asks again: how long it waits, and when it gives up."""

from __future__ import annotations

import pytest

from sse_bridge.errors import UpstreamTimeout
from sse_bridge.upstream.refusals import Refusal, refusal
from sse_bridge.upstream.retrying import Backoff, is_temporary, retry
from tests.upstream.platform import recorded_waits

pytestmark = pytest.mark.anyio


class Attempts:
    """Fails with the given statuses, one for each attempt, and then succeeds."""

    def __init__(self, *statuses: int, retry_after: str = "") -> None:
        self.statuses = list(statuses)
        self.retry_after = retry_after
        self.seconds_left: list[float] = []

    async def __call__(self, seconds_left: float) -> str:
        self.seconds_left.append(seconds_left)
        if self.statuses:
            raise refusal(self.statuses.pop(0), {"retry-after": self.retry_after}, b"")
        return "done"


async def test_attempts_go_on_until_one_succeeds(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits double up to the limit, and each attempt learns how much time is left."""
    waits = recorded_waits(monkeypatch)
    attempts = Attempts(429, 429, 429, 429)

    assert await retry(attempts, is_temporary, backoff=Backoff(1, 4), timeout=30) == "done"
    assert waits == [1, 2, 4, 4]
    assert attempts.seconds_left == [30, 29, 27, 23, 19]


async def test_the_upstream_may_ask_for_longer_waits(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter wait would only be refused again."""
    waits = recorded_waits(monkeypatch)
    await retry(Attempts(429, 429, 429, retry_after="3"), is_temporary, backoff=Backoff(1, 8), timeout=30)

    assert waits == [3, 3, 4]


async def test_waits_differ_by_chance_where_many_lose_one_upstream(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait is longer by up to the jitter, so that all of them do not come back at the same moment."""
    waits = recorded_waits(monkeypatch)
    for _ in range(8):
        await retry(Attempts(429), is_temporary, backoff=Backoff(1, 4, jitter=2), timeout=999)

    assert all(1 <= wait <= 3 for wait in waits)
    assert len(set(waits)) == 8


@pytest.mark.parametrize(("timeout", "waits"), [(7, [1, 2]), (7.5, [1, 2, 4])])
async def test_a_wait_beyond_the_timeout_is_not_begun(
    anyio_backend: str, timeout: float, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last refusal is raised at once."""
    recorded = recorded_waits(monkeypatch)
    with pytest.raises(Refusal):
        await retry(Attempts(*[429] * 9), is_temporary, backoff=Backoff(1, 4), timeout=timeout)

    assert recorded == waits


async def test_a_refusal_that_stays_is_raised_at_once(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`may_pass` decides which refusals stay."""
    recorded = recorded_waits(monkeypatch)
    with pytest.raises(Refusal) as caught:
        await retry(Attempts(429, 401), is_temporary, backoff=Backoff(1, 4), timeout=30)

    assert caught.value.upstream_status == 401
    assert recorded == [1]


async def test_other_errors_are_not_retried(anyio_backend: str) -> None:
    """The upstream may have started something."""
    calls = []

    async def attempt(seconds_left: float) -> None:
        calls.append(seconds_left)
        raise UpstreamTimeout("Too late.")

    with pytest.raises(UpstreamTimeout):
        await retry(attempt, is_temporary, backoff=Backoff(1, 4), timeout=30)
    assert len(calls) == 1
