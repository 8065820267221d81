"""Commands that no request waits for: `sse_bridge.sandbox.jobs`."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from sse_bridge.sandbox.errors import ApiError
from sse_bridge.sandbox.jobs import Job, Jobs
from sse_bridge.sandbox.kept import KeptOutput
from sse_bridge.sandbox.processes import running
from tests.sandbox.helpers import is_running, soon

pytestmark = pytest.mark.anyio

ENV = {"PATH": os.environ["PATH"]}
STUBBORN = "trap '' TERM; echo begun; while :; do sleep 0.01; done"


async def test_a_stop_kills_what_ignores_it(tmp_path: Path) -> None:
    """After the grace; what was printed is kept, and a second stop returns at once."""
    async with running(STUBBORN, cwd=tmp_path, env=ENV, timeout=None) as command, anyio.create_task_group() as tasks:
        job = Job("1", command, text=STUBBORN, name=None, log=KeptOutput())
        tasks.start_soon(job.run)
        await soon(lambda: job.output.text(1) == "begun\n")
        assert job.outcome is None
        await job.stop(grace=0.02)
        outcome = job.outcome
        await job.stop(grace=1000)

    assert outcome is not None
    assert outcome.exit_code == 137
    assert job.view()["status"] == "exited"
    assert await job.output.next(6) is None


async def test_a_cancelled_stop_kills_at_once(tmp_path: Path) -> None:
    """A server that gives up on the request must not leave half of a stop."""
    async with running(STUBBORN, cwd=tmp_path, env=ENV, timeout=None) as command, anyio.create_task_group() as tasks:
        job = Job("1", command, text=STUBBORN, name=None, log=KeptOutput())
        tasks.start_soon(job.run)
        await soon(lambda: job.output.text(1) == "begun\n")
        with anyio.move_on_after(0.01):
            await job.stop()
        await soon(lambda: job.outcome is not None)

    assert not is_running(job.pid)


async def test_a_job_whose_task_is_cancelled_has_ended(tmp_path: Path) -> None:
    """A server that stops hard cancels the task: readers end, and the process is killed."""
    async with anyio.create_task_group() as tasks:
        jobs = Jobs("process")

        async def start() -> None:
            async with running("sleep 1000", cwd=tmp_path, env=ENV, timeout=None) as command:
                jobs.add(Job("1", command, text="sleep 1000", name=None, log=KeptOutput()))
                await jobs.get("1").run()

        tasks.start_soon(start)
        await soon(lambda: bool(list(jobs)))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()

    job = jobs.get("1")
    assert job.view()["exit_code"] == 137
    assert await job.output.next(0) is None
    assert not is_running(job.pid)


async def test_an_unknown_job_is_refused() -> None:
    """The refusal says what was looked for."""
    with pytest.raises(ApiError, match="process not found"):
        Jobs("process").get("1")


async def test_the_log_of_two_jobs_has_whole_lines(tmp_path: Path) -> None:
    """Although each prints its line in two parts, while the other prints, too. An unfinished last line is ended."""
    log = KeptOutput()
    command = "printf %s; while [ ! -e go ]; do sleep 0.01; done; printf '%s\nend'"

    async def run(name: str) -> None:
        text = command.replace("%s", name)
        async with running(text, cwd=tmp_path, env=ENV, timeout=None) as started:
            job = Job(name, started, text=text, name=None, log=log)
            jobs.append(job)
            await job.run()

    jobs: list[Job] = []
    async with anyio.create_task_group() as tasks:
        for name in ("aaa", "bbb"):
            tasks.start_soon(run, name)
        await soon(lambda: [job.output.text(1) for job in jobs] in (["aaa", "bbb"], ["bbb", "aaa"]))
        assert log.text(9) == ""
        (tmp_path / "go").touch()

    assert sorted(log.text(9).splitlines()) == ["aaaaaa", "bbbbbb", "end", "end"]
