"""A harness follows a long job through a proxy that cuts, and through two restarts of workers."""

from __future__ import annotations

import shlex
import sys
import threading
from pathlib import Path
from urllib.parse import urlencode

import pytest

from sse_bridge.client import Line, run_lines_sync
from tests.client.balancer import balancer
from tests.redis.crew import Crew, Worker
from tests.redis.keeper import keeper
from tests.redis.metered import a_platform
from tests.support.programs import end

LINES = 10_000
#: Prints for some twelve seconds, so that there are some fifteen cuts, and exits with a code that is no accident.
JOB = f"""
import sys, time
for number in range(1, {LINES} + 1):
    print("line", number, file=sys.stderr if number % 10 == 0 else sys.stdout, flush=True)
    if number % 100 == 0: time.sleep(0.12)
sys.exit(43)
"""


@pytest.mark.slow
def test_a_harness_can_trust_each_line_and_the_exit_code(tmp_path: Path) -> None:
    """The workers share their runs. The first that is stopped has the run."""
    command = "exec " + shlex.join([sys.executable, "-c", JOB])
    with (
        keeper(tmp_path) as redis,
        a_platform() as platform,
        Crew(platform, redis, tmp_path, options={"drain": 60.0}) as crew,
    ):
        owner, second, third = crew.hire(3)
        ports = {worker: int(worker.url.rpartition(":")[2]) for worker in (owner, second, third)}
        with balancer([ports[owner]], (0.3, 1.2)) as between:
            leaving: list[threading.Thread] = []

            def restart(old: Worker) -> None:
                """As a deploy does: the balancer forgets a worker, and then it is told to stop."""
                (new,) = crew.hire(1)
                between.ports = [port for port in between.ports if port != ports[old]]
                between.ports.append(int(new.url.rpartition(":")[2]))
                leaving.append(threading.Thread(target=end, args=(old.process, 90)))
                leaving[-1].start()

            lines: list[Line] = []
            url = f"{between.url}/runs/?{urlencode({'command': command})}"
            with run_lines_sync(url) as run:
                for line in run:
                    assert isinstance(line, Line)
                    lines.append(line)
                    if len(lines) == 1:
                        between.ports = list(ports.values())
                    if len(lines) in (2000, 5000):
                        restart(owner if len(lines) == 2000 else second)
            for thread in leaving:
                thread.join()
        assert between.cuts > 5
        assert platform.starts == 1
    assert run.exit_code == 43
    printed = {
        stream: [int(line.text.split()[1]) for line in lines if line.stream == stream]
        for stream in ("stdout", "stderr")
    }
    assert printed["stderr"] == list(range(10, LINES + 1, 10))
    assert printed["stdout"] == [number for number in range(1, LINES + 1) if number % 10]
