"""Coming back, coming late, and cancelling: runs found by their tokens (`design.md` §6, §8)."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sse_bridge import SSEBridge
from sse_bridge.errors import UpstreamRefused
from tests.support.asgi import Page
from tests.support.site import site
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio


def lines(page: Page) -> list[Any]:
    return [said.get("line", said["type"]) for said in page.objects]


def ids(page: Page) -> list[int]:
    return [int(str(event.id).rpartition(".")[2]) for event in page.events]


async def test_a_lost_connection_goes_on_where_it_was(anyio_backend: str) -> None:
    """The run goes on for the grace period; nothing is lost, nothing is repeated, nothing is started again."""
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
    assert second.content.startswith(f"retry: 2000\nid: {run}.1\n\n".encode())
    assert it.starts == 1
    assert work.cancels == 0


async def test_who_comes_back_before_the_first_line_does_not_start_again(anyio_backend: str) -> None:
    """The first frame has an id for that."""
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


async def test_an_end_that_was_lost_on_the_way_is_delivered_again(anyio_backend: str) -> None:
    """What was handed to `send` has not arrived. Who has seen the end gets 204, which ends the reconnecting."""
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


async def test_a_run_that_has_expired_is_not_run_again(anyio_backend: str, monkeypatch: Any) -> None:
    """204, and no command."""
    monkeypatch.setattr("sse_bridge.stores.memory.KEEP_FINISHED", 0.0)
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with site(work) as it:
        first = await it.answer()
        run = first.headers["sse-bridge-run"]
        await wait_all_tasks_blocked()

        assert (await it.answer(seen=f"{run}.0")).status == 204
        assert (await it.answer(path=f"/{run}")).status == 204
        assert (await it.answer("DELETE", f"/{run}")).status == 404
    assert it.starts == 1


async def test_a_run_that_nobody_came_back_to_says_so_to_who_comes_too_late(anyio_backend: str) -> None:
    """After the grace period the exec is ended; what was printed until then is still there for a while."""
    work = ScriptedWork()
    async with site(work, grace=0.05) as it:
        first = it.open()
        work.feed(stdout("a"))
        await first.until(lambda: first.events)
        first.leave()
        await work.closed.wait()
        await wait_all_tasks_blocked()
        late = await it.answer(seen=f"{first.headers['sse-bridge-run']}.0")

    assert work.cancels == 1
    assert [said.get("code", said.get("line")) for said in late.objects] == ["a", "abandoned"]


@pytest.mark.parametrize(
    "seen",
    ["RUN.2", "RUN.999999999999999999", "RUN.", "RUN.-1", "RUN.1x", "RUN", "xxxxxxxxxxxxxxxx.1", "ümlaut", "." * 3000,
     "RUN.0000000000000000001", "RUN .0", "RUN.0 ", "' OR 1=1 --", "RUN.٣"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_forged_id_starts_nothing_and_reads_nothing(anyio_backend: str, seen: str, method: str) -> None:
    """Future, garbled or foreign: 204, whatever run is there."""
    work = ScriptedWork()
    async with site(work) as it:
        first = it.open()
        work.feed(stdout("a"))
        await first.until(lambda: first.events)
        forged = await it.answer(method, seen=seen.replace("RUN", first.headers["sse-bridge-run"]))
        work.feed(exit_frame())
        work.finish()

    assert (forged.status, forged.content) == (204, b"")
    assert it.starts == 1
    assert lines(first) == ["a", "exit"]


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


@pytest.mark.parametrize("seen", [0, 3])
async def test_who_comes_late_is_told_what_is_missing(anyio_backend: str, seen: int) -> None:
    """Exactly, under the id of the last frame that is gone: who comes back, and who has seen nothing."""
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
    assert late.content.startswith(f"retry: 2000\nid: {run}.{seen}\n\nid: {run}.{seen + gap['dropped']}\n".encode())


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


async def test_a_repeated_key_attaches_to_the_run_it_started(anyio_backend: str) -> None:
    """A client that sends its `POST` again gets the same run from its beginning. Other keys start others."""
    works = [ScriptedWork(), ScriptedWork()]
    async with site(*works) as it:
        first = it.open("POST", idempotency_key="k1")
        works[0].feed(stdout("a"))
        await first.until(lambda: first.events)
        other = it.open("POST", idempotency_key="k2")
        await other.until(lambda: other.content)
        again = it.open("POST", idempotency_key="k1")
        await again.until(lambda: again.events)
        for work in works:
            work.feed(exit_frame())
            work.finish()

    assert lines(first) == lines(again) == ["a", "exit"]
    assert first.headers["sse-bridge-run"] == again.headers["sse-bridge-run"] != other.headers["sse-bridge-run"]
    assert not any(work.cancels for work in works)


async def test_two_requests_with_one_key_at_the_same_time_start_one_exec(anyio_backend: str) -> None:
    """Whoever resolves first starts it, however long resolving takes."""
    works, gate = [ScriptedWork(), ScriptedWork()], anyio.Event()
    resolved = iter(works)

    async def resolve(request: Request) -> ScriptedWork:
        work = next(resolved)
        await gate.wait()
        return work

    async with site() as it:
        it.bridge = SSEBridge(None, resolve)
        pages = [it.open("POST", idempotency_key="k") for _ in range(2)]
        await wait_all_tasks_blocked()
        gate.set()
        for work in works:
            work.feed(exit_frame())
            work.finish()
        for page in pages:
            await page.until(lambda: page.ended)  # noqa: B023

    assert sorted(work.started.is_set() for work in works) == [False, True]
    assert [lines(page) for page in pages] == [["exit"], ["exit"]]


async def test_a_key_whose_request_was_refused_may_be_used_again(anyio_backend: str) -> None:
    """Nothing was started, so there is nothing to attach to."""
    refused = ScriptedWork(refusal=UpstreamRefused("Busy.", code="not_ready", status=503))
    work = ScriptedWork()
    work.feed(exit_frame())
    work.finish()
    async with site(refused, work) as it:
        first = await it.answer("POST", idempotency_key="k")
        await wait_all_tasks_blocked()
        second = await it.answer("POST", idempotency_key="k")

    assert (first.status, second.status) == (503, 200)


@pytest.mark.parametrize(("method", "key"), [("GET", "k"), ("POST", "")])
async def test_what_is_no_key_means_nothing(anyio_backend: str, method: str, key: str) -> None:
    """`GET` with the same headers twice is two visits, and so are two empty keys."""
    works = [ScriptedWork(), ScriptedWork()]
    for work in works:
        work.feed(exit_frame())
        work.finish()
    async with site(*works) as it:
        for _ in works:
            await it.answer(method, idempotency_key=key)

    assert it.starts == 2


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


async def test_a_second_viewer_of_a_refused_run_gets_the_refusal(anyio_backend: str) -> None:
    """It waits for the same answer."""
    work = ScriptedWork(answers=False, refusal=UpstreamRefused("No.", code="not_found", status=404))
    async with site(work, work, commit_after=None) as it:
        pages = [it.open("POST", idempotency_key="k") for _ in range(2)]
        await wait_all_tasks_blocked()
        work.answer()

    assert [page.status for page in pages] == [404, 404]


async def test_viewers_elsewhere_are_told_when_the_request_that_hosts_their_run_is_ended(anyio_backend: str) -> None:
    """A server that stops cancels requests: the run ends cleanly, and nobody waits for ever."""
    work, host = ScriptedWork(), Page()
    async with site(work) as it:
        async with anyio.create_task_group() as server:
            server.start_soon(it.bridge, host.scope, host.receive, host.send)
            await host.until(lambda: host.content)
            other = it.open(path=f"/{host.headers['sse-bridge-run']}")
            await other.until(lambda: other.content)
            server.cancel_scope.cancel()
        await other.until(lambda: other.ended)

    assert [said["code"] for said in other.objects] == ["bridge_failed"]
    assert work.cancels == 1


async def test_a_bug_behind_one_viewer_is_that_viewers_alone(anyio_backend: str) -> None:
    """It gets out of its own request, and the run goes on for the others."""
    work = ScriptedWork()
    async with site(work) as it:
        first = it.open()
        await first.until(lambda: first.content)

        async def send(message: Any) -> None:
            raise ZeroDivisionError("a bug")

        bad = Page(path=f"/{first.headers['sse-bridge-run']}")
        with pytest.raises(ZeroDivisionError):
            await it.bridge(bad.scope, bad.receive, send)
        work.feed(stdout("a"), exit_frame())
        work.finish()

    assert lines(first) == ["a", "exit"]


@pytest.mark.parametrize(("method", "path"), [("POST", "/xxxxxxxxxxxxxxxx"), ("PUT", "/xxxxxxxxxxxxxxxx")])
async def test_other_methods_on_a_run_are_refused(anyio_backend: str, method: str, path: str) -> None:
    """405 with what would be allowed."""
    async with site() as it:
        page = await it.answer(method, path)

    assert (page.status, page.headers["allow"]) == (405, "GET, DELETE")


async def test_what_cannot_be_a_run_is_not_found(anyio_backend: str) -> None:
    """404: nobody is reconnecting to this."""
    async with site() as it:
        assert (await it.answer(path="/favicon.ico")).status == 404
        assert (await it.answer("DELETE", "/favicon.ico")).status == 404


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio runs tasks in random order
async def test_who_attached_to_a_run_that_never_began_is_told(anyio_backend: str) -> None:
    """The request that would have hosted it was cancelled first; the other one with its key does not wait for ever."""
    work = ScriptedWork()

    async def resolve(request: Request) -> ScriptedWork:
        return work

    bridge = SSEBridge(None, resolve)
    host, other = (Page("POST", headers={"Idempotency-Key": "k"}) for _ in range(2))
    hosting = anyio.CancelScope()

    async def visit() -> None:
        with hosting:
            await bridge(host.scope, host.receive, host.send)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit)
            tasks.start_soon(bridge, other.scope, other.receive, other.send)
            while bridge.statistics().viewers < 2:
                await anyio.lowlevel.checkpoint()
            hosting.cancel()

    assert not work.started.is_set()
    assert other.error["code"] == "cancelled"
