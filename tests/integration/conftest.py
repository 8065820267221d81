"""One local sandbox for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.sandboxes import LocalSandbox, local_sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[LocalSandbox]:
    with local_sandbox() as made:
        yield made
