"""What all files of the matrix share: a sandbox, a certificate, and what the tests have seen so far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
import trustme

from tests.matrix.table import Results
from tests.support.sandboxes import LocalSandbox, local_sandbox

_RESULTS: Final = pytest.StashKey[Results]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-tables", action="store_true", help="write the tables of docs/compatibility.md")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The page is compared with what the other tests have seen, so its tests come last."""
    items.sort(key=lambda item: item.path.name == "test_page.py")


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Results:
    """What the tests of this session have seen."""
    return request.config.stash.setdefault(_RESULTS, Results())


@pytest.fixture(scope="session")
def sandbox() -> Iterator[LocalSandbox]:
    with local_sandbox() as made:
        yield made


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("localhost", "127.0.0.1")
