"""Fixtures for the tests of upstreams."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx
import pytest
import trustme

from sse_bridge.upstream import parsing


@pytest.fixture(scope="session")
def tls_context() -> ssl.SSLContext:
    """A client's TLS context."""
    return httpx.create_ssl_context()


@pytest.fixture(autouse=True)
def one_tls_context(tls_context: ssl.SSLContext) -> Iterator[None]:
    """All clients share one TLS context, since reading the same certificates for each took half of the tests' time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "create_ssl_context", lambda: tls_context)
        yield


@pytest.fixture(scope="session")
def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The TLS contexts of a server, and of a client that trusts it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return context, trusting


@pytest.fixture(params=["llhttp", "h11"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test as if `sse_bridge[fast]` were installed, and as if it were not."""
    if request.param == "h11":
        monkeypatch.setattr(parsing, "httptools", None)
