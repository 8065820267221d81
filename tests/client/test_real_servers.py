"""The client and the bridge, with a server and a proxy that cuts between them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from starlette.requests import Request

from sse_bridge import Coalesce, Exit, Lines, SSEBridge
from sse_bridge.client import (
    Cancelled,
    KeyRefused,
    Line,
    RunFailed,
    RunLost,
    RunUnknown,
    follow,
    follow_sync,
    run_lines,
    run_lines_sync,
)
from sse_bridge.testing import Script
from tests.support.cutting_proxy import cutting_proxy
from tests.support.servers import serve

pytestmark = pytest.mark.anyio

LINES = 1000


async def printing() -> AsyncGenerator[Any]:
    for number in range(LINES):
        yield ("stderr" if number % 7 == 3 else "stdout", f"line {number}")
        if number % 100 == 0:
            await anyio.lowlevel.checkpoint()
    yield Exit(3)


def resolve(request: Request) -> Lines:
    return Lines(printing())


EXPECTED = [Line(f"line {number}", "stderr" if number % 7 == 3 else "stdout") for number in range(LINES)]


@pytest.mark.parametrize("options", [{}, {"dialect": "named"}, {"policy": Coalesce(max_rate=5000)}], ids=str)
async def test_every_line_arrives_once_through_cuts(options: dict[str, Any]) -> None:
    with (
        serve(SSEBridge(None, resolve, retry_ms=10, **options)) as served,
        cutting_proxy(served.port, cuts=5, most=8_000) as (url, proxy),
    ):
        async with run_lines(url + "/") as run:
            lines = [line async for line in run]
        assert (lines, run.exit_code) == (EXPECTED, 3)
        assert proxy.cuts_left < 5 or "policy" in options
        assert run.url is not None

        async with run_lines(run.url) as again:
            assert ([line async for line in again], again.exit_code) == (EXPECTED, 3)


async def test_a_verbatim_stream_with_ids_ends_with_its_state() -> None:
    with (
        serve(SSEBridge(None, resolve, retry_ms=10, dialect="verbatim", ids=True)) as served,
        cutting_proxy(served.port, cuts=3, most=8_000) as (url, _),
    ):
        async with follow(url + "/") as run:
            events = [event async for event in run]
    assert [event.json()["line"] for event in events[:-1]] == [line.text for line in EXPECTED]
    assert run.exit_code == 3


async def test_a_verbatim_stream_without_ids_cannot_be_resumed() -> None:
    with serve(SSEBridge(None, resolve, dialect="verbatim")) as served:
        async with follow(served.url) as run:
            with pytest.raises(RunLost) as raised:
                async for _ in run:
                    pass
    assert raised.value.code == "not_resumable"


def test_the_synchronous_twin() -> None:
    with (
        serve(SSEBridge(None, resolve, retry_ms=10)) as served,
        cutting_proxy(served.port, cuts=5, most=8_000) as (url, _),
        run_lines_sync(url) as run,
    ):
        assert (list(run), run.exit_code) == (EXPECTED, 3)


@pytest.mark.parametrize("refusals", ["status", "frame"])
async def test_refusals_of_the_bridge(refusals: Any) -> None:
    scripts = {"a": Script(["a"]), "b": Script(["b"])}

    def choose(request: Request) -> Script:
        return scripts[request.query_params["script"]]

    with serve(SSEBridge(None, choose, refusals=refusals)) as served:
        async with follow(f"{served.url}/?script=a", key="k") as run:
            assert len([event async for event in run]) == 3
        async with follow(f"{served.url}/?script=b", key="k") as run:
            with pytest.raises(KeyRefused):
                await anext(run)
        async with follow(f"{served.url}/no-run-has-this0") as run:
            with pytest.raises(RunUnknown):
                await anext(run)
    assert (scripts["a"].starts, scripts["b"].starts) == (1, 0)


async def test_a_run_that_is_cancelled() -> None:
    script = Script(["a"], waits=True)
    with serve(SSEBridge(None, lambda request: script)) as served:
        async with follow(served.url) as run:
            await anext(run)
            await anext(run)
            assert await run.cancel() is Cancelled.CONFIRMED
            with pytest.raises(RunFailed) as raised:
                await anext(run)
    assert raised.value.code == "cancelled"
    assert script.stops == 1


@pytest.mark.parametrize("ends", [True, False])
async def test_leaving_ends_the_command_only_if_it_is_to(ends: bool) -> None:
    script = Script(["a"], waits=True)
    with serve(SSEBridge(None, lambda request: script, grace=None)) as served:
        with anyio.CancelScope() as scope:
            async with follow(served.url, cancel_on_exit=ends) as run:
                await anext(run)
                scope.cancel()
                await anyio.sleep_forever()
        async with httpx.AsyncClient() as client:
            said = await client.get(run.url or "", headers={"Accept": "application/json"})
        assert said.json()["state"] == ("ended" if ends else "running")


def test_two_clients_with_one_key_share_a_run() -> None:
    script = Script(["a"])
    with serve(SSEBridge(None, lambda request: script)) as served:
        for _ in range(2):
            with follow_sync(served.url, key="build-42") as run:
                assert len(list(run)) == 3
    assert script.starts == 1
