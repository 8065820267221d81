"""`Reopening`: when a stream that broke off is opened again, how often, and when it is given up. In virtual time."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, cast

import anyio
import pytest

from sse_bridge.errors import UpstreamError, UpstreamLost, UpstreamUnreachable
from sse_bridge.upstream.base import Interruption, Stream
from sse_bridge.upstream.reopening import Opened, Reopening

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

LOST = UpstreamLost("The connection was lost.")
HOUR = 3600.0


def interrupted(*, was_fruitful: bool, lost: UpstreamLost | None = LOST, retry: float | None = None) -> Interruption:
    return Interruption(lost, None, retry, was_fruitful, is_whole=True)


class Upstream:
    """Counts the attempts. `errors` says how each ends; the last one stands for all that follow."""

    def __init__(self, *errors: UpstreamError | None) -> None:
        self.attempts = 0
        self._errors = errors or (None,)

    async def ask(self, seconds_left: float) -> Opened:
        error = self._errors[min(self.attempts, len(self._errors) - 1)]
        self.attempts += 1
        await anyio.lowlevel.checkpoint()
        if error is not None:
            raise error
        return cast(AbstractAsyncContextManager[Stream], nullcontext()), cast(Stream, None)


async def test_the_first_attempt_comes_at_once(anyio_backend: Any) -> None:
    """Behind a stream that brought something, however short it was."""
    began = anyio.current_time()
    await Reopening(60).open(interrupted(was_fruitful=True), Upstream().ask)
    assert anyio.current_time() == began


async def test_a_stream_that_brings_something_each_time_and_breaks_is_not_asked_in_a_hurry(anyio_backend: Any) -> None:
    """Some upstreams greet each connection with an event. One that fails right behind it must not be flooded."""
    reopening, upstream, began = Reopening(60), Upstream(), anyio.current_time()
    for _ in range(100):
        await reopening.open(interrupted(was_fruitful=True), upstream.ask)

    assert anyio.current_time() - began >= 99 * 0.25
    await anyio.sleep(HOUR)
    began = anyio.current_time()
    await reopening.open(interrupted(was_fruitful=True), upstream.ask)
    assert anyio.current_time() == began


@pytest.mark.parametrize("lost", [LOST, None])
async def test_a_quiet_stream_is_opened_again_however_often_it_breaks(anyio_backend: Any, lost: Any) -> None:
    """Proxies cut idle connections after a minute, and a server may say nothing for hours."""
    reopening, upstream = Reopening(60), Upstream()
    for _ in range(5):
        await anyio.sleep(HOUR)
        await reopening.open(interrupted(was_fruitful=False, lost=lost), upstream.ask)

    assert upstream.attempts == 5


async def test_a_stream_that_breaks_off_right_away_is_given_up(anyio_backend: Any) -> None:
    """Although the upstream accepts each time."""
    reopening, upstream, began = Reopening(60), Upstream(), anyio.current_time()

    async def follow() -> None:
        while True:
            await reopening.open(interrupted(was_fruitful=False), upstream.ask)
            await anyio.sleep(1)

    with pytest.raises(UpstreamLost) as raised:
        await follow()

    assert raised.value is LOST
    assert 50 < anyio.current_time() - began <= 61
    assert 10 < upstream.attempts < 60


@pytest.mark.parametrize("lost", [LOST, None])
async def test_an_upstream_that_answers_no_more_is_given_up_in_time(anyio_backend: Any, lost: Any) -> None:
    """The answer to an attempt may take a minute by itself, which is more than is left."""

    async def mute(seconds_left: float) -> Opened:
        await anyio.sleep_forever()
        raise AssertionError

    began = anyio.current_time()
    with pytest.raises(UpstreamLost):
        await Reopening(5).open(interrupted(was_fruitful=True, lost=lost), mute)

    assert anyio.current_time() - began == pytest.approx(5)


async def test_an_upstream_that_is_out_of_reach_is_asked_until_the_time_is_up(anyio_backend: Any) -> None:
    """The error is the last attempt's."""
    away = UpstreamUnreachable("away", started_nothing=True)
    upstream, began = Upstream(away), anyio.current_time()
    with pytest.raises(UpstreamUnreachable):
        await Reopening(60).open(interrupted(was_fruitful=True), upstream.ask)

    assert 50 < anyio.current_time() - began <= 60
    assert 10 < upstream.attempts < 60
