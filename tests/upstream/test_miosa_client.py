"""`Miosa`: its arguments, the environment variables behind them, and values that it rejects."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sse_bridge import ConfigurationError, EventStream, HTTPUpstream, Miosa, SandboxExec, SSEBridge
from tests.support.asgi import Page
from tests.support.upstreams import read_all, serve_raw
from tests.upstream.platform import output

KEY = "msk_u_secret"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsets the platform's variables."""
    for name in ("MIOSA_ACCESS_TOKEN", "MIOSA_API_KEY", "MIOSA_BASE_URL", "MIOSA_TENANT"):
        monkeypatch.delenv(name, raising=False)


def authorization(miosa: Miosa) -> str:
    """The header that holds the key."""
    return miosa.headers("x")["Authorization"]


def test_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the SDK, the argument wins, then `MIOSA_ACCESS_TOKEN`, then `MIOSA_API_KEY`."""
    monkeypatch.setenv("MIOSA_API_KEY", "from-key")
    monkeypatch.setenv("MIOSA_BASE_URL", "https://env.example")
    monkeypatch.setenv("MIOSA_TENANT", "env-tenant")
    assert authorization(Miosa()) == "Bearer from-key"
    assert Miosa().base_url == "https://env.example/api/v1"
    assert Miosa().headers("x")["X-MIOSA-Tenant"] == "env-tenant"

    monkeypatch.setenv("MIOSA_ACCESS_TOKEN", "from-token")
    assert authorization(Miosa()) == "Bearer from-token"

    miosa = Miosa("https://arg.example", KEY, tenant="t")
    assert authorization(miosa) == f"Bearer {KEY}"
    assert miosa.base_url == "https://arg.example/api/v1"
    assert miosa.headers("x")["X-MIOSA-Tenant"] == "t"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, "https://api.miosa.ai/api/v1"),
        ("https://h.example/", "https://h.example/api/v1"),
        ("https://h.example/api/v1/", "https://h.example/api/v1"),
        ("http://127.0.0.1:8080/x/v22", "http://127.0.0.1:8080/x/v22"),
    ],
)
def test_the_version_is_added_where_it_is_missing(url: str | None, expected: str) -> None:
    """Both spellings lead to the same URLs (`docs/miosa.md` §1)."""
    assert Miosa(url, KEY).base_url == expected


@pytest.mark.parametrize(
    "url",
    [
        "h.example",
        "ftp://h.example",
        "https://",
        "https://h.example?x=1",
        "https://h.example#x",
        "https://user:word@h.example",  # httpx would send that instead of the key
        "https://h.example:-1",
        "https://h.example:0",
        "https://h.example:99999",
        f"https://{'a' * 64}.example",
        "https://xn--",
        "\x00",
    ],
)
def test_a_malformed_base_url_is_refused_without_quoting_it(url: str) -> None:
    """The message says what it should look like."""
    with pytest.raises(ConfigurationError, match="base URL") as caught:
        Miosa(url, KEY)

    assert KEY not in str(caught.value)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("key", [None, "", "  "])
def test_a_missing_key_is_an_error_when_it_is_needed(key: str | None) -> None:
    """Tests and tools can import a module that makes a bridge. The error names both variables."""
    miosa = Miosa("https://h.example", key)
    SSEBridge(miosa, lambda request: SandboxExec("sbx", "ls"))

    with pytest.raises(ConfigurationError, match="set MIOSA_ACCESS_TOKEN or MIOSA_API_KEY before Miosa") as caught:
        miosa.headers("x")
    assert "MIOSA_ACCESS_TOKEN wins" in str(caught.value)
    with pytest.raises(ConfigurationError, match="MIOSA_ACCESS_TOKEN"):
        SandboxExec("sbx", "ls").work(miosa, None)


def test_the_environment_is_read_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the SDK: later changes come too late."""
    too_early = Miosa()
    monkeypatch.setenv("MIOSA_API_KEY", KEY)
    in_time = Miosa()
    monkeypatch.delenv("MIOSA_API_KEY")

    assert authorization(in_time) == f"Bearer {KEY}"
    with pytest.raises(ConfigurationError):
        too_early.headers("x")


@pytest.mark.anyio
async def test_a_missing_key_leaves_a_request_as_an_exception(anyio_backend: str) -> None:
    """It is a mistake in the program, like those in `resolve`: the host answers 500. The run is never made."""
    bridge = SSEBridge(Miosa("http://127.0.0.1:9"), lambda request: SandboxExec("sbx", "ls"))
    page = Page()
    with pytest.raises(ConfigurationError, match="No API key for MIOSA"):
        await bridge(page.scope, page.receive, page.send)

    assert page.sent == []
    assert bridge.statistics().runs_started == 0


@pytest.mark.anyio
async def test_a_stream_with_headers_of_its_own_needs_no_key(anyio_backend: str) -> None:
    """The key belongs to the platform's own sources."""
    with serve_raw(output) as upstream:
        work = EventStream(upstream.url).work(Miosa(upstream.url), None)
        async with work.stream() as stream:
            assert await read_all(stream) == b"data: 1\n\n"

    assert "authorization" not in upstream.requests[0].headers


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((KEY,), {}, r"base URL .* The key is the second argument"),
        ((httpx.URL("https://h.example"),), {}, r"base_url=\.\.\.\) takes a string or None, not a URL. Write str"),
        ((httpx.AsyncClient(),), {}, "base_url=.* not an AsyncClient"),
        ((7,), {}, "base_url=.* not an int"),
        ((None, KEY.encode()), {}, r"api_key=.* not a bytes object. Decode it first: .decode\(\)"),
        ((None, [KEY]), {}, "api_key=.* not a list"),
        ((None, str), {}, "api_key=.* not the class str"),
        ((), {"tenant": 7}, "tenant=.* not an int"),
        ((), {"tenant": b"secret"}, "tenant=.* not a bytes object"),
        ((), {"tenant": ["secret"]}, "tenant=.* not a list"),
        ((), {"client": httpx.AsyncClient}, r"not the class AsyncClient. Write httpx.AsyncClient\(\.\.\.\)"),
        ((), {"client": httpx.Client()}, r"not a Client. Write httpx.AsyncClient\(\.\.\.\)"),
        ((), {"client": httpx}, "not a module"),
        ((), {"client": KEY}, "not a str"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_refused_without_quoting_it(
    arguments: Any, options: Any, message: str
) -> None:
    """The message says what to write instead."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        Miosa(*arguments, **options)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("client", [httpx.AsyncClient, httpx.Client(), "http://127.0.0.1", object()])
def test_any_upstream_needs_an_async_client(client: Any) -> None:
    """A synchronous one would fail at the first request."""
    with pytest.raises(ConfigurationError, match=r"client must be an httpx\.AsyncClient or None, not"):
        HTTPUpstream(client)


@pytest.mark.parametrize("key", ["a b", "a\nb", "schlüssel"])
def test_a_malformed_key_is_refused_without_quoting_it(key: str) -> None:
    """It may be a password, pasted by mistake."""
    with pytest.raises(ConfigurationError, match="characters") as caught:
        Miosa("https://h.example", key)

    assert key not in str(caught.value)


def test_white_space_around_environment_variables_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values read from files end with a newline."""
    monkeypatch.setenv("MIOSA_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("MIOSA_BASE_URL", "https://h.example/\n")
    monkeypatch.setenv("MIOSA_TENANT", "t\n")
    miosa = Miosa()

    assert miosa.base_url == "https://h.example/api/v1"
    assert miosa.headers("x") == {"Authorization": f"Bearer {KEY}", "X-MIOSA-Tenant": "t", "Accept": "x"}


@pytest.mark.parametrize("tenant", ["", "  ", None])
def test_an_empty_tenant_is_left_out(tenant: str | None) -> None:
    """The platform finds the tenant by the key."""
    miosa = Miosa("https://h.example", KEY, tenant=tenant)

    assert miosa.tenant is None
    assert miosa.headers("x") == {"Authorization": f"Bearer {KEY}", "Accept": "x"}


@pytest.mark.parametrize("tenant", ["büro", "a\r\nX-More: 1"])
def test_a_tenant_that_cannot_be_sent_is_refused(tenant: str) -> None:
    """The mistake shows when the application starts, before the first viewer comes."""
    with pytest.raises(ConfigurationError, match="tenant"):
        Miosa("https://h.example", KEY, tenant=tenant)


def test_repr_leaves_out_the_key() -> None:
    """The same goes for `str`."""
    assert repr(Miosa("https://h.example", KEY)) == "Miosa('https://h.example/api/v1')"
    assert KEY not in f"{Miosa('https://h.example', KEY)}"
