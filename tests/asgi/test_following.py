"""Following a run by its token, cancelling it, and the permission to do so."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

import pytest
from anyio import wait_all_tasks_blocked
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sse_bridge import RunInfo
from sse_bridge.asgi.messages import Message
from tests.support.asgi import Page, lines
from tests.support.site import site
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio

_request_name: Final = ContextVar[str]("request_name")


async def test_many_viewers_follow_one_run(anyio_backend: str) -> None:
    """Each gets what is kept, from where it asks, and then what comes. The others go on when one leaves."""
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


class Traced(Page):
    """A page behind a middleware that names its request in a context variable."""

    def __init__(self, name: str, path: str = "/") -> None:
        super().__init__(path=path)
        self.names: set[str] = set()
        _request_name.set(name)

    async def send(self, message: Message) -> None:
        self.names.add(_request_name.get("none"))
        await super().send(message)


async def test_every_send_runs_in_the_context_of_its_own_request(anyio_backend: str) -> None:
    """Middleware that wraps `send` may look there: tracing, logging."""
    work = ScriptedWork()
    async with site(work) as it:
        first = it.visit(Traced("first"))
        await first.until(lambda: first.content)
        other = it.visit(Traced("other", "/" + first.headers["sse-bridge-run"]))
        await other.until(lambda: other.content)
        work.feed(stdout("a"), exit_frame())
        work.finish()

    assert lines(first) == lines(other) == ["a", "exit"]
    assert isinstance(first, Traced)
    assert isinstance(other, Traced)
    assert (first.names, other.names) == ({"first"}, {"other"})


@pytest.mark.parametrize("seen", ["xxxxxxxxxxxxxxxx.1", "garbage", "RUN.77"])
async def test_a_foreign_id_on_a_runs_own_path_is_ignored(anyio_backend: str, seen: str) -> None:
    """The viewer begins at the first frame."""
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
    """All its viewers are told. A second `DELETE` is answered like the first."""
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
async def test_authorize_decides_on_following_and_cancelling(anyio_backend: str, kind: str) -> None:
    """It is asked on every way to an existing run. Whether a run may start is for `resolve` to say."""
    asked = []

    def allows(request: Request, run: RunInfo) -> bool:
        asked.append(run.token)
        return request.headers.get("x-user") == "ada"

    async def allows_later(request: Request, run: RunInfo) -> bool:
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
        assert [page.status for page in refused] == [404] * 4
        assert {page.error["code"] for page in refused} == {"run_unknown"}
        assert asked == [run] * 4
        other = it.open(path=f"/{run}", x_user="ada")
        await other.until(lambda: other.events)
        work.feed(exit_frame())
        work.finish()

    assert lines(other) == ["a", "exit"]


async def test_authorize_may_raise_its_own_answer(anyio_backend: str) -> None:
    """404 hides that there is a run."""

    def allows(request: Request, run: RunInfo) -> bool:
        raise HTTPException(404, "No.")

    work = ScriptedWork()
    async with site(work, authorize=allows) as it:
        first = it.open()
        await first.until(lambda: first.content)
        hidden = await it.answer(path=f"/{first.headers['sse-bridge-run']}")
        work.feed(exit_frame())
        work.finish()

    assert hidden.status == 404
