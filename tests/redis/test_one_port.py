"""`uvicorn --workers 4`: four processes behind one port, and no client picks its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis.crew import Crew, Worker
from tests.redis.keeper import Keeper
from tests.redis.metered import Platform
from tests.redis.scripts import Ticker
from tests.redis.watching import NewViewer, Viewer, finish, in_step, post_at_once

WORKERS = 4

pytestmark = pytest.mark.slow  # four workers take longer to start than other tests take


@pytest.fixture(scope="module")
def server(redis_server: Keeper, platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One for all tests of this file."""
    with Crew(platform, redis_server, tmp_path_factory.mktemp("crew")) as crew:
        yield crew.hire_together(WORKERS)


def test_no_resume_loses_a_line_whichever_worker_gets_it(
    server: Worker, platform: Platform, ticker: Ticker, view: NewViewer
) -> None:
    """One command is started, and four viewers get all its lines, on all workers."""
    before = platform.starts
    first = view().start(server, ticker.command).until_more()
    viewers = [view() for _ in range(4)]
    processes: set[str] = set()

    def move(viewer: Viewer) -> None:
        viewer.follow(server, first.token).until(lambda it: it.seen)
        for _ in range(1000 // len(viewers)):
            viewer.cut()
            viewer.resume(server).until_begun()
            processes.add(viewer.headers["process"])

    in_step([lambda viewer=viewer: move(viewer) for viewer in viewers])  # type: ignore[misc]
    finish(ticker, first, *viewers)
    assert platform.starts == before + 1
    assert len(processes) == WORKERS


def test_a_link_works_each_time(server: Worker, platform: Platform, ticker: Ticker, view: NewViewer) -> None:
    """Whichever worker gets it: of one that does not know the run it would be 404."""
    first = view().start(server, ticker.command).until_more()
    before = platform.starts
    processes: set[str] = set()
    for _ in range(50):
        answer = server.ask("GET", f"/{first.token}", headers={"Accept": "application/json"})
        assert (answer.status_code, answer.json()["state"]) == (200, "running")
        processes.add(answer.headers["process"])
    assert len(processes) > 1
    ticker.stop()
    late = view().follow(server, first.token)
    for each in (first, late):
        each.until_over().assert_complete()
    assert late.seen == first.seen
    assert platform.starts == before


def test_a_key_starts_one_command(server: Worker, platform: Platform, view: NewViewer) -> None:
    """Three requests with it arrive in the same moment, at any workers."""
    for _ in range(100):
        before = platform.starts
        post_at_once([view() for _ in range(3)], [server] * 3)
        assert platform.starts == before + 1
