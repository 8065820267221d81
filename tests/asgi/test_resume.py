"""Coming back with the id of the frame seen last."""

from __future__ import annotations

import json
from collections.abc import Callable

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from tests.support.asgi import Page, ids, lines
from tests.support.site import site
from tests.support.work import FollowedStream, ScriptedWork, exit_frame, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def test_a_viewer_comes_back_to_where_it_was() -> None:
    """The run goes on during the grace period. The viewer gets each line once, and the work is started once."""
    work = ScriptedWork()
    async with site(work) as it:
        first = it.open()
        work.feed(stdout("a", "b"))
        await first.until(lambda: len(first.events) == 2)
        run = first.headers["sse-bridge-run"]
        first.leave()
        work.feed(stdout("c"))
        await wait_all_tasks_blocked()

        second = it.open(seen=f"{run}.1")
        await second.until(lambda: len(second.events) == 2)
        work.feed(stdout("d"), exit_frame())
        work.finish()
        await second.until(lambda: second.ended)

    assert lines(second) == ["b", "c", "d", "exit"]
    assert ids(second) == [2, 3, 4, 5]
    assert second.headers["sse-bridge-run"] == run
    assert second.content.startswith(f"retry: 2000\nid: {run}.2\n".encode())
    assert it.starts == 1
    assert work.cancels == 0


async def test_a_viewer_that_has_seen_no_line_comes_back_to_its_run() -> None:
    """The head of the stream carries an id for this case."""
    work = ScriptedWork()
    async with site(work) as it:
        first = it.open()
        await first.until(lambda: first.content)
        run = first.headers["sse-bridge-run"]
        first.leave()
        await wait_all_tasks_blocked()
        second = it.open(seen=f"{run}.0")
        await second.until(lambda: second.content)
        work.feed(stdout("a"), exit_frame())
        work.finish()

    assert lines(second) == ["a", "exit"]
    assert it.starts == 1


async def test_an_end_that_was_lost_is_delivered_again() -> None:
    """What was handed to `send` may have been lost. A viewer that has seen the end gets 204, and stays away."""
    work = ScriptedWork()
    work.feed(stdout("a"), exit_frame())
    work.finish()
    async with site(work) as it:
        first = await it.answer()
        run = first.headers["sse-bridge-run"]

        again = await it.answer(seen=f"{run}.1")
        over = await it.answer(seen=f"{run}.2")

    assert lines(again) == ["exit"]
    assert (over.status, over.content) == (204, b"")
    assert it.starts == 1


async def test_a_viewer_of_a_stream_that_just_ended_stays_away() -> None:
    """No terminal frame says so: 204 does, to a browser that comes back. The state names no error."""
    work = FollowedStream()
    work.feed(stdout("a"))
    work.finish()
    async with site(work, dialect="typed") as it:
        first = await it.answer()
        run = first.headers["sse-bridge-run"]

        over = await it.answer(seen=f"{run}.1")
        state = await it.answer(path=f"/{run}", accept="application/json")

    assert lines(first)[-1:] == ["a"]
    assert (over.status, over.content) == (204, b"")
    assert [json.loads(state.content)[key] for key in ("state", "code", "error")] == ["ended", None, None]
    assert it.starts == 1


async def test_a_run_that_has_expired_is_not_started_again() -> None:
    """A program gets 404. A browser gets a frame that says so, and 204 when it comes back with the id of that frame."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with site(work, within=300) as it:
        first = await it.answer()
        run = first.headers["sse-bridge-run"]
        await anyio.sleep(59)
        assert (await it.answer(seen=f"{run}.0")).status == 200
        await anyio.sleep(59)  # from the last viewer's leaving
        assert (await it.answer(seen=f"{run}.0")).status == 200
        await anyio.sleep(60)

        for path, seen in (("/", f"{run}.0"), (f"/{run}", None)):
            program = await it.answer(path=path, seen=seen)
            browser = await it.answer(path=path, seen=seen, accept="text/event-stream")
            assert (program.status, program.error["code"]) == (404, "run_unknown")
            assert (browser.status, browser.objects[0]["code"]) == (200, "run_unknown")
            assert [event.id for event in browser.events] == [f"{run}.gone"]
            assert (await it.answer(path=path, seen=f"{run}.gone")).status == 204
        assert (await it.answer("DELETE", f"/{run}")).status == 404
    assert it.starts == 1


async def test_a_viewer_that_comes_back_too_late_is_told() -> None:
    """The work was ended after the grace period. What it printed until then can still be read."""
    work = ScriptedWork()
    async with site(work, grace=5) as it:
        first = it.open()
        work.feed(stdout("a"))
        await first.until(lambda: first.events)
        first.leave()
        await anyio.sleep(4.9)
        assert work.cancels == 0
        await anyio.sleep(0.2)
        late = await it.answer(seen=f"{first.headers['sse-bridge-run']}.0")

    assert work.cancels == 1
    assert [said.get("code", said.get("line")) for said in late.objects] == ["a", "abandoned"]


@pytest.mark.parametrize(
    "seen",
    ["RUN.2", "RUN.999999999999999999", "RUN.", "RUN.-1", "RUN.1x", "xxxxxxxxxxxxxxxx.1", "RUN.0000000000000000001",
     "RUN.0 ", "RUN.٣"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_place_that_does_not_exist_starts_nothing(seen: str, method: str) -> None:
    """Ids that are garbled, of another run or ahead of the run are all answered as an unknown run is."""
    work = ScriptedWork()
    async with site(work) as it:
        first = it.open()
        work.feed(stdout("a"))
        await first.until(lambda: first.events)
        forged = await it.answer(method, seen=seen.replace("RUN", first.headers["sse-bridge-run"]))
        work.feed(exit_frame())
        work.finish()

    assert (forged.status, forged.error["code"]) == (404, "run_unknown")
    assert it.starts == 1
    assert lines(first) == ["a", "exit"]


async def test_an_id_that_is_not_utf_8_is_no_place() -> None:
    """Browsers send UTF-8, but any client may send any bytes."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with site(work) as it:
        page = Page()
        page.scope["headers"] = [(b"last-event-id", b"\xff\xfe.1")]
        it.visit(page)
        await page.until(lambda: page.ended)

    assert lines(page) == ["exit"]


@pytest.mark.parametrize("seen", ["7", "ümlaut", "." * 3000, "' OR 1=1 --", "abc.1"])
async def test_an_id_of_another_form_is_no_place(seen: str) -> None:
    """The page had its events from elsewhere before."""
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with site(work) as it:
        page = await it.answer(seen=seen)

    assert lines(page) == ["exit"]
    assert it.starts == 1


@pytest.mark.parametrize("seen", [0, 3])
async def test_a_viewer_is_told_what_is_no_longer_kept(seen: int) -> None:
    """The gap counts exactly, and has the id of the last frame that is gone. It is for new viewers as well."""
    work = ScriptedWork()
    async with site(work, replay=30_000) as it:
        first = it.open()
        for number in range(1, 21):
            work.feed(stdout("x" * 5000))
            await first.until(lambda: len(first.events) == number)  # noqa: B023
        run = first.headers["sse-bridge-run"]
        late = it.open(seen=f"{run}.{seen}") if seen else it.open(path=f"/{run}")
        await late.until(lambda: late.content)
        work.feed(exit_frame())
        work.finish()
        await late.until(lambda: late.ended)

    gap, *rest = late.objects
    assert gap["type"] == "gap"
    assert seen + gap["dropped"] + len(rest) == 21
    assert ids(late) == list(range(seen + gap["dropped"], 22))
    assert late.content.startswith(b"retry: 2000\nid: ")


@pytest.mark.parametrize(
    "request_for",
    [
        lambda run: {"seen": f"{run}.1"},
        lambda run: {"path": f"/{run}"},
        lambda run: {"path": f"/{run}", "seen": f"{run}.1"},
        lambda run: {"path": f"/{run}", "accept": "application/json"},
        lambda run: {"path": f"/{run}", "method": "DELETE"},
    ],
    ids=["resume", "follow", "follow from a place", "state", "cancel"],
)
async def test_an_operator_is_told_once_that_requests_ask_for_unknown_runs(
    request_for: Callable[[str], dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """With several workers this is a matter of routing, which the client cannot know."""
    async with site() as it:
        for number in range(3):
            await it.answer(**request_for(str(number) * 16))

    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "run 000000..." in warning.message
    assert "another worker" in warning.message
