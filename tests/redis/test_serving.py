"""Any worker serves any viewer, while all are well."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from tests.redis.crew import Crew, Worker
from tests.redis.keeper import Keeper
from tests.redis.metered import Platform
from tests.redis.scripts import Ticker, counting
from tests.redis.watching import NewViewer, Viewer, finish, in_step, post_at_once, watch_on

#: Frames are held for a moment of seconds if Redis is away; then the response has to begin.
COMMIT_AFTER = 1.0


@pytest.fixture(scope="module")
def crew(redis_server: Keeper, platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """One crew for all tests of this file: each leaves it as it is."""
    options = {"commit_after": COMMIT_AFTER}
    with Crew(platform, redis_server, tmp_path_factory.mktemp("crew"), options=options) as made:
        yield made


@pytest.fixture(scope="module")
def workers(crew: Crew) -> Sequence[Worker]:
    return crew.hire(3)


@pytest.mark.parametrize("module", ["sse_bridge", "sse_bridge.stores.redis"])
def test_nobody_imports_redis_who_does_not_use_it(module: str) -> None:
    """`RedisStore` itself can be imported without redis-py."""
    program = f"import sys, {module}; from sse_bridge import RedisStore; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_viewer_comes_back_to_another_worker(workers: Sequence[Worker], ticker: Ticker, view: NewViewer) -> None:
    """And goes on where it was, while the owner's own viewer sees nothing of it."""
    a, b, c = workers
    stays, moves = view().start(a, ticker.command).until_more(3), view()
    moves.follow(b, stays.token).until_more(3).cut()
    moves.resume(c).until_more(3)
    finish(ticker, stays, moves)
    assert stays.lines == moves.lines


def test_a_viewer_of_a_whole_run_elsewhere_begins_at_its_beginning(
    workers: Sequence[Worker], ticker: Ticker, view: NewViewer
) -> None:
    """It gets the same frames as a viewer of the owner's, the `start` included."""
    a, b, _ = workers
    first, late = watch_on(view, ticker, a, b, lines=20)
    finish(ticker, first, late)
    assert first.seen == late.seen


def test_lines_of_any_length_travel(workers: Sequence[Worker], view: NewViewer) -> None:
    """Also those that are longer than an entry of Redis holds frames."""
    a, b, c = workers
    sizes = [1, 10, 70_000, 200_000, 0, 150_000, 5]
    command = "; ".join(f"head -c {size} /dev/zero | tr '\\0' x; echo" for size in sizes)
    first = view().start(a, command + "; sleep 0.2; echo over").until(lambda it: len(it.seen) > 3)
    other = view().follow(b, first.token)
    for each in (first, other):
        each.until_over()
    late = view().follow(c, first.token).until_over()
    said = [len(each.object["line"]) for each in first.seen if each.object["type"] == "stdout"]
    assert said == [*sizes, len("over")]
    assert first.seen == other.seen == late.seen


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_moves_to_random_workers_lose_nothing(
    workers: Sequence[Worker], ticker: Ticker, view: NewViewer, seed: int
) -> None:
    dice = random.Random(seed)
    viewer = view().start(dice.choice(workers), ticker.command).until(lambda it: it.seen)
    for _ in range(100):
        viewer.until_more(dice.randint(0, 4))
        viewer.cut()
        viewer.resume(dice.choice(workers)).until_begun()
    viewer.until_more()
    ticker.stop()
    viewer.until_over().assert_complete()


def test_delete_reaches_the_run_from_any_worker(
    workers: Sequence[Worker], crew: Crew, ticker: Ticker, view: NewViewer
) -> None:
    """Row 23: its command is ended, and viewers of all workers are told the same."""
    a, b, c = workers
    viewers = [view().start(a, ticker.command).until_more()]
    viewers.append(view().follow(b, viewers[0].token).until_more())
    answer = c.ask("DELETE", f"/{viewers[0].token}")

    assert answer.status_code == 204
    for each in viewers:
        each.until_over()
        assert each.end is not None
        assert each.end["code"] == "cancelled"
    assert viewers[0].seen == viewers[1].seen
    ticker.until_gone()
    assert not crew.is_sealed(viewers[0].token)  # its owner has ended it


@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_a_key_starts_one_command_wherever_it_is_sent(
    workers: Sequence[Worker], platform: Platform, view: NewViewer, rounds: int
) -> None:
    """Row 24: three workers get it in the same moment."""
    for _ in range(rounds):
        before = platform.starts
        post_at_once([view() for _ in workers], workers)
        assert platform.starts == before + 1


def test_a_key_of_another_command_is_a_conflict_everywhere(workers: Sequence[Worker], view: NewViewer) -> None:
    key = uuid.uuid4().hex
    view().start(workers[0], counting(3), key).until_over().assert_complete()
    for worker in workers:
        answer = worker.ask("POST", headers={"Idempotency-Key": key}, command=counting(4))
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "key_conflict"


def test_a_run_that_is_over_is_read_to_its_end_elsewhere(
    workers: Sequence[Worker], crew: Crew, redis_server: Keeper, ticker: Ticker, view: NewViewer
) -> None:
    """Row 26: the rest and the exit code; after its end 204, also from a worker that never had a viewer of it."""
    a, b, c = workers
    stays, moves = watch_on(view, ticker, a, b)
    moves.cut()
    ticker.stop()
    stays.until_over().assert_complete()
    moves.resume(b).until_over().assert_complete()

    for worker in workers:
        assert moves.resume(worker).until_over().status == 204
    late = view().follow(c, stays.token).until_over()
    late.assert_complete()
    assert late.seen == stays.seen
    assert 0 < redis_server.ask("TTL", crew.stream(stays.token)) <= 60
    assert stays.token.encode() not in crew.runs()


def test_a_run_is_its_owners_on_every_worker(workers: Sequence[Worker], ticker: Ticker, view: NewViewer) -> None:
    """For every other user it does not exist, and they end nothing."""
    a, b, c = workers
    hers = view(user="ann").start(a, ticker.command).until_more()
    for worker in workers:
        for user in ({"user": "bob"}, {}):
            for method in ("GET", "DELETE"):
                answer = worker.ask(method, f"/{hers.token}", headers=user)
                assert answer.status_code == 404
                assert answer.json()["error"]["code"] == "run_unknown"
    state = c.ask("GET", f"/{hers.token}", headers={"user": "ann", "Accept": "application/json"})
    assert state.status_code == 200
    assert state.json()["state"] == "running"
    again = view(user="ann").follow(b, hers.token).until_more()
    hers.until_more()
    finish(ticker, hers, again)


def test_a_run_of_another_version_is_left_alone(
    workers: Sequence[Worker], crew: Crew, redis_server: Keeper, ticker: Ticker, view: NewViewer
) -> None:
    """Row 28: a worker that does not know the format answers as if Redis were away. The owner goes on."""
    a, b, _ = workers
    stays = view().start(a, ticker.command).until_more()
    redis_server.ask("HSET", crew.meta(stays.token), "v", "2")

    answer = b.ask("GET", f"/{stays.token}")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    page = view().follow(b, stays.token).until_over()
    assert (page.status, page.seen) == (200, [])  # 503 or 204 would stop an `EventSource`
    assert page.retry is not None

    redis_server.ask("HSET", crew.meta(stays.token), "v", "1")
    page.follow(b, stays.token).until_more()
    finish(ticker, stays, page)


@pytest.mark.slow
def test_viewers_that_leave_at_any_moment_cost_no_connection(
    workers: Sequence[Worker], redis_server: Keeper, ticker: Ticker, view: NewViewer
) -> None:
    """Row 29: a worker has four, however many viewers come and go, and all that stay see nothing of it."""
    a, b, c = workers
    stays, elsewhere = watch_on(view, ticker, a, b)
    dice = random.Random(3)

    def storm(worker: Worker, delays: list[float]) -> None:
        for delay in delays:
            visitor = Viewer()
            visitor.follow(worker, stays.token)
            threading.Event().wait(delay)
            visitor.cut()

    most = [0, 0, 0]
    is_over = threading.Event()

    def count() -> None:
        while not is_over.is_set():
            now = [each.connections(redis_server.port) for each in workers]
            most[:] = map(max, most, now)

    storms = [partial(storm, dice.choice((b, c)), [dice.random() * 0.02 for _ in range(100)]) for _ in range(10)]
    counter = threading.Thread(target=count)
    counter.start()
    in_step(storms)
    is_over.set()
    counter.join()

    assert max(most) <= 4
    assert min(most) > 0
    finish(ticker, stays, elsewhere)
