"""A run as its first viewer sees it: the head, the frames, heartbeats, and refusals."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge import Block
from sse_bridge.errors import UpstreamLost, UpstreamMisbehaved, UpstreamRefused, UpstreamTimeout, UpstreamUnreachable
from sse_bridge.wire.events import Event
from tests.support.site import visiting
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def test_a_run_from_start_to_exit() -> None:
    """Each line goes out numbered as it is printed, and the exit ends the response."""
    work = ScriptedWork()
    async with visiting(work) as page:
        for number, line in enumerate(("Starting data pipeline...", "batch 1"), 1):
            work.feed(stdout(line))
            await page.until(lambda: len(page.events) == number)  # noqa: B023
        work.feed(exit_frame())
        work.finish()

    run = page.headers["sse-bridge-run"]
    assert page.status == 200
    assert page.content.decode() == (
        f'retry: 2000\nid: {run}.0\ndata: {{"type":"start","run":"{run}"}}\n\n'
        f'id: {run}.1\ndata: {{"type":"stdout","line":"Starting data pipeline..."}}\n\n'
        f'id: {run}.2\ndata: {{"type":"stdout","line":"batch 1"}}\n\n'
        f'id: {run}.3\ndata: {{"type":"exit","code":0}}\n\n'
    )
    assert page.ended
    assert work.cancels == 0


async def test_the_headers_of_the_stream() -> None:
    """They tell proxies and caches to pass everything on at once. The run's token is short and different each time."""
    runs = []
    for _ in range(2):
        work = ScriptedWork()
        work.feed(exit_frame())
        work.finish()
        async with visiting(work) as page:
            pass
        runs.append(page.headers.pop("sse-bridge-run"))
        assert {name: value for name, value in page.headers.items() if name != "sse-bridge-run"} == {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store, no-transform",
            "x-accel-buffering": "no",
        }

    assert runs[0] != runs[1]
    assert all(len(run) == 16 for run in runs)


async def test_the_head_goes_out_with_the_upstreams_answer() -> None:
    """It waits for that answer, and then goes out before the first line."""
    work = ScriptedWork(answers=False)
    async with visiting(work) as page:
        await wait_all_tasks_blocked()
        assert page.sent == []
        work.answer()
        await page.until(lambda: page.content)
        assert page.events == []
        work.feed(exit_frame())
        work.finish()


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("typed", [Event("message", '{"type":"stdout","line":"a"}'), Event("message", '{"type":"exit","code":0}')]),
        ("named", [Event("stdout", '{"line":"a"}'), Event("exit", '{"code":0}')]),
        ("verbatim", [Event("stdout", '{"line":"a"}'), Event("exit", '{"exit_code":0}')]),
    ],
)
@pytest.mark.parametrize("ids", [None, True, False])
async def test_dialects_and_ids(dialect: str, expected: list[Event], ids: bool | None) -> None:
    """Ids are on by default except in `verbatim`, and `ids` switches them in each dialect."""
    work = ScriptedWork()
    work.feed(stdout("a"), exit_frame())
    work.finish()
    async with visiting(work, dialect=dialect, ids=ids) as page:
        pass

    with_ids = ids if ids is not None else dialect != "verbatim"
    run = page.headers["sse-bridge-run"]
    assert page.events == [
        Event(event.type, event.data, f"{run}.{number}" if with_ids else None)
        for number, event in enumerate(expected, 1)
    ]
    assert (b"retry:" in page.content) == (dialect != "verbatim")


async def test_verbatim_adds_only_comments() -> None:
    """Its first bytes are a comment: some servers wait for a body before they send the head."""
    work = ScriptedWork()
    work.feed(b"retry: 5\nid: 7\ndata: x\r\n\r\n")
    work.finish()
    async with visiting(work, dialect="verbatim") as page:
        pass

    assert page.content == b": heartbeat\nretry: 5\nid: 7\ndata: x\n\n"


async def test_heartbeats_go_out_in_silence() -> None:
    """The first comes 15 seconds after the head, and each later one 15 seconds after the last frame or heartbeat."""
    work = ScriptedWork()
    async with visiting(work, within=100) as page:
        await page.until(lambda: page.content)
        times = []
        for number in range(1, 4):
            before = anyio.current_time()
            await page.until(lambda: page.content.count(b": heartbeat\n") == number, 20)  # noqa: B023
            times.append(anyio.current_time() - before)
        work.feed(stdout("a"))
        await page.until(lambda: page.events)
        before = anyio.current_time()
        await page.until(lambda: page.sent[-1]["body"] == b": heartbeat\n", 20)
        times.append(anyio.current_time() - before)
        page.leave()

    assert times == pytest.approx([15] * 4, abs=0.2)


@pytest.mark.parametrize("retry_ms", [None, 500])
async def test_the_reconnection_time(retry_ms: int | None) -> None:
    """With `None` the browser decides."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with visiting(work, retry_ms=retry_ms) as page:
        pass

    assert page.content.startswith(b"retry: 500\nid: " if retry_ms else b"id: ")


async def test_a_slow_viewer_gets_every_line() -> None:
    """Under `Block` the run waits at the mark until the viewer reads on."""
    lines = [f"line {number}" for number in range(500)]
    work = ScriptedWork()
    async with visiting(work, policy=Block(1000)) as page:
        await page.until(lambda: page.content)
        page.stall()
        work.feed(*map(stdout, lines))
        await wait_all_tasks_blocked()
        assert work.unread > 450
        page.resume()
        await page.until(lambda: len(page.events) == 500)
        work.feed(exit_frame())
        work.finish()

    assert [said.get("line") for said in page.objects] == [*lines, None]


@pytest.mark.parametrize(
    ("error", "status", "code", "wait"),
    [
        (UpstreamRefused("No.", code="not_found", status=404, request_id="req_1"), 404, "not_found", None),
        (UpstreamRefused("Busy.", code="not_ready", status=503, retry_after=2.2), 503, "not_ready", "3"),
        (UpstreamUnreachable("Down."), 502, "upstream_unreachable", None),
        (UpstreamMisbehaved("HTML."), 502, "upstream_not_event_stream", None),
        (UpstreamTimeout("Slow."), 504, "upstream_timeout", None),
    ],
)
async def test_a_refusal_before_the_first_frame_is_an_http_error(
    error: Any, status: int, code: str, wait: str | None
) -> None:
    """The viewer gets an ordinary status with a JSON body, which an `EventSource` does not retry."""
    async with visiting(ScriptedWork(refusal=error)) as page:
        pass

    assert page.status == status
    assert page.headers["content-type"] == "application/json"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers.get("retry-after") == wait
    assert page.error == {"code": code, "message": error.message, "request_id": error.request_id}
    assert page.ended


async def test_an_upstreams_204_is_handed_on() -> None:
    """The upstream says by it that reconnecting should stop."""
    error = UpstreamRefused("Nothing.", code="upstream_finished", status=204)
    async with visiting(ScriptedWork(refusal=error)) as page:
        pass

    assert page.status == 204
    assert page.content == b""


async def test_a_late_refusal_is_an_error_frame() -> None:
    """After `commit_after` the response has begun, with heartbeats. The refusal is its terminal frame."""
    work = ScriptedWork(answers=False, refusal=UpstreamRefused("No.", code="not_found", status=404))
    async with visiting(work, commit_after=5, heartbeat=2) as page:
        await anyio.sleep(4.9)
        assert page.sent == []
        await anyio.sleep(0.2)
        assert page.status == 200
        await page.until(lambda: b": heartbeat" in page.content)
        work.answer()

    assert page.objects == [{"type": "error", "code": "not_found", "message": "No."}]
    assert page.ended


async def test_without_commit_after_the_response_waits_for_the_answer() -> None:
    """A refusal is an HTTP error then, however late it comes."""
    work = ScriptedWork(answers=False, refusal=UpstreamRefused("No.", code="not_found", status=404))
    async with visiting(work, commit_after=None, within=100) as page:
        await anyio.sleep(60)
        assert page.sent == []
        work.answer()

    assert page.status == 404


async def test_a_stream_that_breaks_ends_with_an_error_frame() -> None:
    """The response is complete, and says that the run is not."""
    work = ScriptedWork()
    work.feed(stdout("a"))
    work.fail(UpstreamLost("It broke."))
    async with visiting(work) as page:
        pass

    assert [said["type"] for said in page.objects] == ["stdout", "error"]
    assert page.ended
