"""The JSON state of a run, and ending it with `DELETE`."""

from __future__ import annotations

import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge.errors import UpstreamLost, UpstreamRefused
from sse_bridge.upstream.base import Cancelled
from tests.support.asgi import Page
from tests.support.site import Site, site
from tests.support.work import ScriptedWork, SlowToEnd, exit_frame, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

JSON = "application/json"


async def state_of(it: Site, token: str) -> dict[str, Any]:
    page = await it.answer(path=f"/{token}", accept=JSON)
    assert (page.status, page.headers["content-type"]) == (200, "application/json")
    said: dict[str, Any] = json.loads(page.content)
    return said


# -- the state


async def test_the_state_from_start_to_exit() -> None:
    """Programs ask for it with `Accept: application/json`. Frames are counted, and viewers while they are there."""
    work = ScriptedWork(answers=False)
    async with site(work, commit_after=0) as it:
        page, run = await it.started()
        starting = await state_of(it, run)
        work.answer()
        work.feed(stdout("a", "b"))
        await page.until(lambda: page.events)
        running = await state_of(it, run)
        work.feed(exit_frame(3))
        work.finish()
        await page.until(lambda: page.ended)
        await wait_all_tasks_blocked()
        ended = await state_of(it, run)

    begun = starting.pop("started_at")
    assert starting == {
        "run": run, "state": "starting", "code": None, "error": None, "ended_at": None, "frames": 0, "viewers": 1,
    }  # fmt: skip
    assert (running["state"], running["frames"], running["viewers"], running["ended_at"]) == ("running", 2, 1, None)
    assert (ended["state"], ended["code"], ended["error"]) == ("ended", 3, None)
    assert (ended["frames"], ended["viewers"]) == (3, 0)
    assert begun == ended["started_at"] <= ended["ended_at"]


async def test_the_state_says_if_the_platform_ended_the_command_because_its_time_was_up() -> None:
    work = ScriptedWork()
    async with site(work) as it:
        page, run = await it.started()
        work.feed(b'event: exit\ndata: {"exit_code":-1,"timed_out":true}\n\n')
        work.finish()
        await page.until(lambda: page.ended)
        ended = await state_of(it, run)

    assert (ended["code"], ended["timed_out"]) == (-1, True)


async def test_the_state_of_a_run_that_failed_names_the_error() -> None:
    """It is the error of the terminal frame."""
    work = ScriptedWork()
    async with site(work) as it:
        page, run = await it.started()
        work.fail(UpstreamLost("It broke."))
        await page.until(lambda: page.ended)
        ended = await state_of(it, run)

    assert (ended["state"], ended["code"], ended["error"]) == (
        "ended", None, {"code": "upstream_lost", "message": "It broke."},
    )  # fmt: skip


async def test_asking_for_the_state_is_different_from_visiting() -> None:
    """A run is abandoned while a script polls for its state, and `max_viewers` counts viewers alone."""
    async with site(grace=5, max_viewers=1) as it:
        page, run = await it.started()
        page.leave()
        await anyio.sleep(4)
        assert (await state_of(it, run))["viewers"] == 0
        await anyio.sleep(1.1)
        assert (await state_of(it, run))["error"]["code"] == "abandoned"

    assert it.bridge.statistics().viewers_seen == 1


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (JSON, "application/json"),
        ("application/json, */*", "application/json"),
        ("text/event-stream, application/json", "text/event-stream; charset=utf-8"),
        ("*/*", "text/event-stream; charset=utf-8"),
        ("text/html", "text/event-stream; charset=utf-8"),
    ],
)
async def test_the_clients_that_get_the_state(accept: str, kind: str) -> None:
    """Clients that can read a stream get the stream."""
    work = ScriptedWork()
    async with site(work) as it:
        _, run = await it.started()
        work.feed(stdout("a"), exit_frame())
        work.finish()
        page = await it.answer(path=f"/{run}", accept=accept)

    assert page.headers["content-type"] == kind


# -- `DELETE`


async def deleted(work: ScriptedWork, **options: Any) -> tuple[Page, float]:
    """Starts the work, deletes its run, and returns the answer and how long it took."""
    async with site(work, within=100, **options) as it:
        run = await it.bridge.start(work)
        before = anyio.current_time()
        page = await it.answer("DELETE", f"/{run.token}")
        return page, anyio.current_time() - before


async def test_delete_answers_204_once_the_command_is_gone() -> None:
    """Its body is empty."""
    page, took = await deleted(ScriptedWork())

    assert (page.status, page.content, took) == (204, b"", 0)


@pytest.mark.parametrize("outcome", [Cancelled.REQUESTED, Cancelled.ACKNOWLEDGED])
async def test_delete_answers_202_if_the_end_is_unconfirmed(outcome: Cancelled) -> None:
    """As when the platform answers every call with 500. The body says how far it got."""
    page, took = await deleted(ScriptedWork(outcome=outcome))

    assert (page.status, json.loads(page.content)["cancelled"], took) == (202, outcome.value, 0)


async def test_delete_answers_202_if_ending_the_command_takes_long() -> None:
    """After three seconds, since callers have timeouts. The ending goes on."""
    work = ScriptedWork(outcome="hang")
    page, took = await deleted(work, cancel_timeout=20)

    assert (page.status, json.loads(page.content)["cancelled"]) == (202, "requested")
    assert took == pytest.approx(3)
    assert work.cancels == 1


async def test_a_second_delete_waits_for_the_same_end() -> None:
    """Both get the same answer."""
    work = SlowToEnd()
    async with site(work) as it:
        run = await it.bridge.start(work)
        pages = [it.open("DELETE", f"/{run.token}") for _ in range(2)]
        await wait_all_tasks_blocked()
        assert [page.status for page in pages] == [None, None]
        work.let_end.set()
        for page in pages:
            await page.until(lambda: page.ended)  # noqa: B023
        pages.append(await it.answer("DELETE", f"/{run.token}"))

    assert [page.status for page in pages] == [204] * 3
    assert work.cancels == 1


@pytest.mark.parametrize("code", [0, 3])
async def test_delete_after_the_runs_own_end_is_204(code: int) -> None:
    """The exit stays as it was."""
    work = ScriptedWork()
    work.feed(exit_frame(code))
    work.finish()
    async with site() as it:
        run = await it.bridge.start(work)
        await run.wait()
        page = await it.answer("DELETE", f"/{run.token}")
        assert (await state_of(it, run.token))["code"] == code

    assert (page.status, work.cancels) == (204, 0)


@pytest.mark.parametrize("rounds", range(0, 60, 3))
async def test_delete_before_the_upstreams_answer(rounds: int) -> None:
    """A page that got its head early knows the token. The command is ended, or stays unstarted."""
    work = ScriptedWork(answers=False)
    async with site(work, commit_after=0) as it:
        page, run = await it.started()
        for _ in range(rounds):
            await anyio.lowlevel.checkpoint()
        deleted = await it.answer("DELETE", f"/{run}")
        await page.until(lambda: page.ended)

    assert deleted.status == 204
    assert page.objects == [{"type": "error", "code": "cancelled", "message": "The run was cancelled."}]
    assert work.cancels == work.started.is_set()
    assert rounds < 50 or work.started.is_set()


async def test_delete_of_a_refused_run_is_404() -> None:
    """A run whose work stayed unstarted is forgotten."""
    seen: list[str] = []

    async def note(run: Any, outcome: Any) -> None:
        seen.append(run.token)

    work = ScriptedWork(refusal=UpstreamRefused("No.", code="not_found", status=404, started_nothing=True))
    async with site(work, on_end=note) as it:
        await it.answer()
        await wait_all_tasks_blocked()
        page = await it.answer("DELETE", f"/{seen[0]}")

    assert (page.status, page.error["code"]) == (404, "run_unknown")
