"""Proxies and certificates from the environment: read as httpx reads them, and a fault is named and sends nothing."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from httpx import create_ssl_context  # before a fixture replaces it

from sse_bridge import ConfigurationError, Miosa, SandboxExec, SSEBridge
from sse_bridge.errors import UpstreamUnreachable
from sse_bridge.upstream.bodies import ARRIVING
from sse_bridge.upstream.client import HTTPUpstream
from tests.support.asgi import Page
from tests.support.upstreams import RawUpstream, read_all, serve_raw
from tests.upstream.helpers import EVENT, two_chunks

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine that runs the tests counts."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
            monkeypatch.delenv(name)


@pytest.fixture
def servers() -> Iterator[tuple[RawUpstream, RawUpstream]]:
    """An upstream, and a proxy that answers by itself."""
    with serve_raw(two_chunks) as upstream, serve_raw(two_chunks) as proxy:
        yield upstream, proxy


#: The environment, and whether `http://127.0.0.1` goes through the proxy.
PROXIES: dict[str, tuple[dict[str, str], bool]] = {
    "nothing": ({}, False),
    "NO_PROXY alone": ({"NO_PROXY": "localhost"}, False),
    "NO_PROXY alone, with every form": ({"NO_PROXY": "localhost,.a.example,10.0.0.0/8,::1,b:81,http://c,*.d"}, False),
    "an empty proxy": ({"HTTP_PROXY": ""}, False),
    "http": ({"HTTP_PROXY": "{proxy}"}, True),
    "http, without a scheme": ({"HTTP_PROXY": "{address}"}, True),
    "http, lower case": ({"http_proxy": "{proxy}"}, True),
    "lower case wins": ({"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "{proxy}"}, True),
    "for the other scheme": ({"HTTPS_PROXY": "http://127.0.0.1:1"}, False),
    "all": ({"ALL_PROXY": "{proxy}"}, True),
    "http before all": ({"ALL_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "{proxy}"}, True),
    "NO_PROXY is the host": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "127.0.0.1"}, False),
    "no_proxy is the host": ({"HTTP_PROXY": "{proxy}", "no_proxy": "127.0.0.1"}, False),
    "NO_PROXY has the host": ({"ALL_PROXY": "{proxy}", "NO_PROXY": "a.example, 127.0.0.1 ,::1"}, False),
    "NO_PROXY is another host": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "127.0.0.2,localhost"}, True),
    "NO_PROXY is a suffix": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": ".0.0.1"}, False),
    "NO_PROXY is the port": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "127.0.0.1:{port}"}, False),
    "NO_PROXY is another port": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "127.0.0.1:1"}, True),
    "NO_PROXY is a network": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "127.0.0.0/8"}, True),
    "NO_PROXY is a network of the host": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "127.0.0.1/8"}, False),
    "NO_PROXY is everything": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "*"}, False),
    "NO_PROXY has everything": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "a.example, *"}, False),
    "NO_PROXY is a scheme and a host": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "http://127.0.0.1"}, False),
    "NO_PROXY is another scheme": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "https://127.0.0.1"}, True),
    "NO_PROXY is any scheme": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "all://127.0.0.1"}, False),
    "NO_PROXY is IPv6": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "::1"}, True),
    "NO_PROXY is empty": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": " , "}, True),
    "a broken proxy that does not apply": (
        {"HTTPS_PROXY": "socks://x", "ALL_PROXY": "nonsense://", "NO_PROXY": "127.0.0.1"},
        False,
    ),
}


@pytest.mark.parametrize("name", PROXIES)
async def test_only_a_proxy_that_applies_changes_the_transport(
    anyio_backend: str, name: str, servers: tuple[RawUpstream, RawUpstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind of fault: any variable that ends in `_proxy` had all requests sent through httpx's slow transport.

    Which way a request goes is httpx's own decision, for the same URL in the same environment.
    """
    upstream, proxy = servers
    environment, is_proxied = PROXIES[name]
    address = proxy.url.removeprefix("http://")
    port = upstream.url.rpartition(":")[2]
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value.format(proxy=proxy.url, address=address, port=port))

    async with HTTPUpstream().lease() as client:
        response = await client.get(upstream.url)
    assert [len(upstream.requests), len(proxy.requests)] == [not is_proxied, is_proxied]
    assert (ARRIVING in response.extensions) == (anyio_backend == "asyncio" and not is_proxied)

    if name.startswith("a broken proxy"):  # httpx would fail, whichever URL it is asked for
        return
    async with httpx.AsyncClient() as client:
        await client.get(upstream.url)
    assert [len(upstream.requests), len(proxy.requests)] == [2 * (not is_proxied), 2 * is_proxied]


#: The environment, and the variable to name.
FAULTS: dict[str, tuple[dict[str, str], str]] = {
    "brackets": ({"NO_PROXY": "[::1]"}, "NO_PROXY"),
    "brackets among others": ({"no_proxy": "localhost,[::1],10.0.0.1"}, "no_proxy"),
    "a network of IPv6": ({"NO_PROXY": "::1/128"}, "NO_PROXY"),
    "a bad port": ({"NO_PROXY": "example.org:http"}, "NO_PROXY"),
    "SOCKS without its package": ({"ALL_PROXY": "socks5://127.0.0.1:1080"}, "ALL_PROXY"),
    "SOCKS that resolves names": ({"http_proxy": "socks5h://u:secret@127.0.0.1:1080"}, "http_proxy"),
    "SOCKS of another name": ({"ALL_PROXY": "socks://127.0.0.1:1080"}, "ALL_PROXY"),
    "SOCKS 4": ({"all_proxy": "socks4://127.0.0.1:1080"}, "all_proxy"),
    "a scheme that is none": ({"HTTP_PROXY": "ftp://u:secret@127.0.0.1"}, "HTTP_PROXY"),
    "a proxy without a host": ({"HTTP_PROXY": "http://"}, "HTTP_PROXY"),
    "a proxy with a bad port": ({"HTTP_PROXY": "http://u:secret@127.0.0.1:99999"}, "HTTP_PROXY"),
    "a proxy with a negative port": ({"HTTP_PROXY": "http://u:secret@127.0.0.1:-1"}, "HTTP_PROXY"),
    "a proxy with a large negative port": ({"ALL_PROXY": "http://127.0.0.1:-99999"}, "ALL_PROXY"),
    "a proxy with port 0": ({"http_proxy": "127.0.0.1:0"}, "http_proxy"),
    "a proxy with the first port that is none": ({"HTTP_PROXY": "http://127.0.0.1:65536"}, "HTTP_PROXY"),
    "a proxy with a word for a port": ({"HTTP_PROXY": "http://127.0.0.1:port"}, "HTTP_PROXY"),
    "a proxy with half an address": ({"HTTP_PROXY": "http://[::1"}, "HTTP_PROXY"),
    "a missing file": ({"SSL_CERT_FILE": "/missing/ca.pem"}, "SSL_CERT_FILE"),
    "a missing directory": ({"SSL_CERT_DIR": "/missing/certificates"}, "SSL_CERT_DIR"),
    "a file for a directory": ({"SSL_CERT_DIR": "{file}"}, "SSL_CERT_DIR"),
    "a directory without certificates": ({"SSL_CERT_DIR": "{directory}"}, "SSL_CERT_DIR"),
    "directories without certificates": ({"SSL_CERT_DIR": "{directory}:/missing:{file}"}, "SSL_CERT_DIR"),
    "a directory for a file": ({"SSL_CERT_FILE": "{directory}"}, "SSL_CERT_FILE"),
    "a file without certificates": ({"SSL_CERT_FILE": "{file}"}, "SSL_CERT_FILE"),
    "a log of keys that cannot be written": ({"SSLKEYLOGFILE": "/missing/keys"}, "SSLKEYLOGFILE"),
}


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Sets up a fault, and returns the variable to name."""
    (tmp_path / "file").write_text("secret")
    environment, variable = FAULTS[request.param]
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(directory=tmp_path, file=tmp_path / "file"))
    monkeypatch.setattr(httpx, "create_ssl_context", create_ssl_context)
    monkeypatch.setitem(sys.modules, "socksio", None)  # as if it were not installed
    return variable


async def test_a_fault_is_named_once_and_sends_nothing(
    anyio_backend: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The kind of fault: what httpx raises when a client is made passed for a failure of the platform, on each request.

    Making the upstream does not fail: a module that makes one can be imported on machines that are set up otherwise.
    """
    client = HTTPUpstream()
    with serve_raw(two_chunks) as upstream:
        for _ in range(2):
            with pytest.raises(UpstreamUnreachable) as caught:
                async with client.open("GET", upstream.url, headers={}):
                    pass
            assert (caught.value.code, caught.value.status) == ("upstream_misconfigured", 502)
            assert caught.value.started_nothing
            assert isinstance(caught.value.__cause__, ConfigurationError)
            assert fault in str(caught.value.__cause__)
            assert fault not in str(caught.value)
    assert upstream.requests == []
    assert client.leases == 0
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert [fault in message for message in errors] == [True]
    assert "secret" not in caplog.text


async def test_a_fault_refuses_the_viewer_and_leaves_no_work_to_end(
    anyio_backend: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log does not say that a command may run on, since none was asked for."""
    with serve_raw(two_chunks) as upstream:
        miosa = Miosa(upstream.url, "msk_secret")
        bridge = SSEBridge(miosa, lambda request: SandboxExec("sbx_1", "echo secret"))
        page = Page()
        await bridge(page.scope, page.receive, page.send)

    assert (page.status, page.error["code"]) == (502, "upstream_misconfigured")
    assert upstream.requests == []
    assert "may run on" not in caplog.text
    assert sum(record.levelno >= logging.ERROR for record in caplog.records) == 1
    assert "secret" not in caplog.text


async def test_a_directory_of_certificates_is_used(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One of several is enough. OpenSSL looks certificates up by names that are hashes."""
    (tmp_path / "0a1b2c3d.0").write_text("")
    monkeypatch.setenv("SSL_CERT_DIR", f"/missing:{tmp_path}")
    monkeypatch.setattr(httpx, "create_ssl_context", create_ssl_context)
    with serve_raw(two_chunks) as upstream:
        async with HTTPUpstream().open("GET", upstream.url, headers={}) as stream:
            assert await read_all(stream) == EVENT + b"data: 2\n\n"


async def test_a_fault_that_is_mended_is_over(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment is read again for each client, so that a file may come late."""
    client = HTTPUpstream()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with serve_raw(two_chunks) as upstream:
        with pytest.raises(UpstreamUnreachable):
            async with client.open("GET", upstream.url, headers={}):
                pass
        (tmp_path / "ca.pem").touch()
        async with client.open("GET", upstream.url, headers={}) as stream:
            assert (await read_all(stream)).startswith(EVENT)


async def test_a_client_of_your_own_that_is_closed_is_named_too(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """httpx raises a `RuntimeError` for it, which passed for a bug in the bridge."""
    mine = httpx.AsyncClient()
    await mine.aclose()
    with serve_raw(two_chunks) as upstream, pytest.raises(UpstreamUnreachable) as caught:
        async with HTTPUpstream(mine).open("GET", upstream.url, headers={}):
            pass

    assert caught.value.started_nothing
    assert "HTTPUpstream(client=...) is closed" in caplog.text


@pytest.mark.parametrize("content", ["machine", "machine h login a password", "\0", "default"])
async def test_the_netrc_file_is_not_read(
    anyio_backend: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken one does no harm, and another one adds no password."""
    (tmp_path / ".netrc").write_text(content)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with serve_raw(two_chunks) as upstream:
        async with HTTPUpstream().open("GET", upstream.url, headers={}) as stream:
            await read_all(stream)
    assert "authorization" not in upstream.requests[0].headers
