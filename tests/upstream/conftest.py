"""Fixtures for the tests of upstreams."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx
import pytest


@pytest.fixture(scope="session")
def tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@pytest.fixture(autouse=True)
def one_tls_context(tls_context: ssl.SSLContext) -> Iterator[None]:
    """Each test makes clients of its own, and reading the same certificates again and again was half of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "create_ssl_context", lambda: tls_context)
        yield
