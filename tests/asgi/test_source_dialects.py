"""The dialect of a run: the bridge's, or else its source's own."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sse_bridge.relay.ending import Cause
from tests.support.site import site
from tests.support.work import FollowedStream, ScriptedWork, stdout

pytestmark = pytest.mark.anyio

#: A frame that the typed dialect would rewrite.
TICK = b'event: tick\ndata: {"price":1.5}\n\n'


async def content_of(work: ScriptedWork, chunk: bytes, **options: Any) -> tuple[bytes, str]:
    """The body of the response to a page that follows `work`, and the run's token."""
    work.feed(chunk)
    work.finish()
    async with site(work, **options) as it:
        page = await it.answer()
    return page.content, page.headers["sse-bridge-run"]


async def test_an_event_stream_is_handed_on_as_it_is() -> None:
    """With ids, so that a browser can resume it."""
    content, run = await content_of(FollowedStream(), TICK)

    assert content == b": heartbeat\n" + f"id: {run}.1\n".encode() + TICK


async def test_a_command_is_typed() -> None:
    """With the bridge's own frames around its output."""
    content, run = await content_of(ScriptedWork(), stdout("a"))

    assert f'id: {run}.0\ndata: {{"type":"start","run":"{run}"}}'.encode() in content
    assert f'id: {run}.1\ndata: {{"type":"stdout","line":"a"}}'.encode() in content


@pytest.mark.parametrize("work", [FollowedStream, ScriptedWork])
@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("typed", b'data: {"type":"tick","price":1.5}\n\n'),
        ("named", b'event: tick\ndata: {"price":1.5}\n\n'),
        ("verbatim", TICK),
    ],
)
async def test_the_dialect_of_the_bridge_goes_before_the_source_s(
    work: type[ScriptedWork], dialect: str, expected: bytes
) -> None:
    """For every source. In `verbatim` the frames are without ids then, as they have always been."""
    content, _ = await content_of(work(), TICK, dialect=dialect)

    assert expected in content
    assert (b"id: " in content) == (dialect != "verbatim")


async def test_ids_can_be_left_out_by_hand() -> None:
    """Of a source's own dialect, too."""
    content, _ = await content_of(FollowedStream(), TICK, ids=False)

    assert content == b": heartbeat\n" + TICK


async def test_a_viewer_resumes_a_run_in_its_own_dialect() -> None:
    """Though the bridge has runs of others."""
    work = FollowedStream()
    work.feed(TICK + b"data: 2\n\n")
    async with site(work) as it:
        first = it.open()
        await first.until(lambda: b"data: 2" in first.content)
        run = first.headers["sse-bridge-run"]
        second = it.open(seen=f"{run}.1")
        await second.until(lambda: b"data: 2" in second.content)
        work.finish()
        await second.until(lambda: second.ended)

    assert second.content.endswith(f"id: {run}.2\ndata: 2\n\n".encode())
    assert b"event: tick" not in second.content


async def test_what_is_said_before_there_is_a_source_is_typed() -> None:
    """A page that asks for frames gets one."""

    async def refuse(request: Request) -> ScriptedWork:
        raise HTTPException(403, "Not you.")

    async with site(resolve=refuse, refusals="frame") as it:
        page = await it.answer(accept="text/event-stream")

    assert [body["type"] for body in page.objects] == ["error"]


@pytest.mark.parametrize(("work", "told"), [(ScriptedWork, True), (FollowedStream, False)])
async def test_each_viewer_is_told_of_a_stop_in_the_dialect_of_its_run(work: type[ScriptedWork], told: bool) -> None:
    """`verbatim` has no frame for it, and no `retry`."""
    source = work()
    source.feed(stdout("a"))
    async with site(source) as it:
        page = it.open()
        await page.until(lambda: b'"a"' in page.content)
        await it.bridge.shutdown()
        await page.until(lambda: page.ended)

    assert (Cause.SERVER_STOPPED.code.encode() in page.content) is told
    assert (b"retry: " in page.content) is told
