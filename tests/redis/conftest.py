"""One Redis and one sandbox for each file; workers as each test hires them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.redis.crew import Crew, MakeCrew
from tests.redis.keeper import Keeper, keeper
from tests.redis.metered import Platform, a_platform
from tests.redis.scripts import Ticker
from tests.redis.watching import NewViewer, Viewer


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    with keeper(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with a_platform() as made:
        yield made


@pytest.fixture
def make_crew(redis_server: Keeper, platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeCrew]:
    """Makes a crew that ends with the test. `redis` replaces the Redis of the file."""
    with ExitStack() as stack:

        def make(redis: Keeper = redis_server, **settings: Any) -> Crew:
            return stack.enter_context(Crew(platform, redis, tmp_path_factory.mktemp("crew"), **settings))

        yield make


@pytest.fixture
def ticker(tmp_path: Path) -> Iterator[Ticker]:
    """A command; the test has to start it. None of its processes outlives the test."""
    made = Ticker.new(tmp_path)
    yield made
    made.stop()
    made.until_gone()


@pytest.fixture
def view() -> Iterator[NewViewer]:
    """Makes viewers, whose connections end with the test."""
    made: list[Viewer] = []

    def make(**headers: str) -> Viewer:
        made.append(Viewer(**headers))
        return made[-1]

    yield make
    for each in made:
        each.cut()
