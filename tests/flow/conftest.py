"""Fixtures for the tests of what is kept and who gets it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest


@pytest.fixture
def traced() -> Iterator[None]:
    """Memory that the test allocates is counted by `tracemalloc.get_traced_memory`."""
    tracemalloc.start()
    yield
    tracemalloc.stop()
