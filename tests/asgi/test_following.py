"""Following a run by its token, cancelling it, and who may."""

from __future__ import annotations

import pytest
from anyio import wait_all_tasks_blocked
from starlette.exceptions import HTTPException
from starlette.requests import Request

from tests.support.asgi import lines
from tests.support.site import site
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio


async def test_many_viewers_each_at_their_own_pace(anyio_backend: str) -> None:
    """`GET /{run}` replays what is kept and then follows; who leaves is noticed by nobody else."""
    work = ScriptedWork()
    async with site(work) as it:
        first = it.open()
        work.feed(stdout("a", "b"))
        await first.until(lambda: len(first.events) == 2)
        run = first.headers["sse-bridge-run"]
        others = [it.open(path=f"/{run}") for _ in range(5)] + [it.open(path=f"/{run}", seen=f"{run}.1")]
        for other in others:
            await other.until(lambda: other.events)  # noqa: B023
        others[0].leave()
        first.leave()
        await wait_all_tasks_blocked()
        assert not work.closed.is_set()
        work.feed(stdout("c"), exit_frame())
        work.finish()

    assert [lines(other) for other in others] == [["a", "b"], *[["a", "b", "c", "exit"]] * 4, ["b", "c", "exit"]]
    assert it.starts == 1
    assert work.cancels == 0


@pytest.mark.parametrize("seen", ["xxxxxxxxxxxxxxxx.1", "garbage", "RUN.77"])
async def test_a_foreign_id_on_a_runs_own_path_begins_at_the_beginning(anyio_backend: str, seen: str) -> None:
    """It says nothing about this run."""
    work = ScriptedWork()
    async with site(work) as it:
        first = it.open()
        work.feed(stdout("a"))
        await first.until(lambda: first.events)
        run = first.headers["sse-bridge-run"]
        other = it.open(path=f"/{run}", seen=seen.replace("RUN", run))
        await other.until(lambda: other.events)
        work.feed(exit_frame())
        work.finish()

    assert lines(other) == ["a", "exit"]


async def test_delete_ends_the_run_at_once(anyio_backend: str) -> None:
    """All who follow are told; a second time there is nothing to end, and no harm."""
    work = ScriptedWork()
    async with site(work) as it:
        first = it.open()
        await first.until(lambda: first.content)
        run = first.headers["sse-bridge-run"]
        other = it.open(path=f"/{run}")
        await other.until(lambda: other.content)
        deleted = [await it.answer("DELETE", f"/{run}") for _ in range(2)]

    assert [page.status for page in deleted] == [204, 204]
    assert [said["code"] for said in first.objects] == [said["code"] for said in other.objects] == ["cancelled"]
    assert work.cancels == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_authorize_decides_who_may_follow_or_cancel(anyio_backend: str, kind: str) -> None:
    """It is asked for every way to somebody's run, and not for starting one."""
    asked = []

    def allows(request: Request, run: str) -> bool:
        asked.append(run)
        return request.headers.get("x-user") == "ada"

    async def allows_later(request: Request, run: str) -> bool:
        return allows(request, run)

    work = ScriptedWork()
    async with site(work, authorize=allows if kind == "sync" else allows_later) as it:
        first = it.open("POST", idempotency_key="k")
        work.feed(stdout("a"))
        await first.until(lambda: first.events)
        run = first.headers["sse-bridge-run"]
        assert asked == []
        refused = [
            await it.answer(path=f"/{run}"),
            await it.answer(seen=f"{run}.0"),
            await it.answer("DELETE", f"/{run}"),
            await it.answer("POST", idempotency_key="k"),
        ]
        assert [page.status for page in refused] == [403] * 4
        assert asked == [run] * 4
        other = it.open(path=f"/{run}", x_user="ada")
        await other.until(lambda: other.events)
        work.feed(exit_frame())
        work.finish()

    assert lines(other) == ["a", "exit"]


async def test_authorize_may_answer_for_itself(anyio_backend: str) -> None:
    """404 hides that there is a run."""

    def allows(request: Request, run: str) -> bool:
        raise HTTPException(404, "No.")

    work = ScriptedWork()
    async with site(work, authorize=allows) as it:
        first = it.open()
        await first.until(lambda: first.content)
        hidden = await it.answer(path=f"/{first.headers['sse-bridge-run']}")
        work.feed(exit_frame())
        work.finish()

    assert hidden.status == 404
