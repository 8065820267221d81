"""MIOSA's own SDK beside the bridge: its clients and its sandboxes are taken as they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import miosa
import pytest
from miosa.resources.sandboxes import AsyncSandbox, Sandbox

from sse_bridge import ConfigurationError, Miosa, SandboxExec
from tests.support.upstreams import serve_raw
from tests.upstream.platform import KEY, output, read

SETTINGS = ("MIOSA_ACCESS_TOKEN", "MIOSA_API_KEY", "MIOSA_BASE_URL", "MIOSA_TENANT")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsets the platform's variables."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


CLIENTS = pytest.mark.parametrize("client", [miosa.Miosa, miosa.AsyncMiosa])


@CLIENTS
@pytest.mark.parametrize("secret", ["api_key", "access_token"])
def test_a_client_of_the_sdk_brings_address_key_and_tenant(client: Any, secret: str) -> None:
    """Of both kinds of clients, and both kinds of keys."""
    made = Miosa.from_sdk(client(base_url="https://h.example/", tenant="t", **{secret: KEY}))

    assert made.base_url == "https://h.example/api/v1"
    assert made.headers("x") == {"Authorization": f"Bearer {KEY}", "X-MIOSA-Tenant": "t", "Accept": "x"}
    assert KEY not in repr(made)


@CLIENTS
def test_what_a_client_holds_wins_over_the_environment(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client has read the environment when it was made. A tenant that it lacks is left out."""
    held = client(KEY)
    for name in SETTINGS:
        monkeypatch.setenv(name, "https://elsewhere.example")
    made = Miosa.from_sdk(held)

    assert made.base_url == "https://api.miosa.ai/api/v1"
    assert made.headers("x") == {"Authorization": f"Bearer {KEY}", "Accept": "x"}
    assert made.tenant is None


def test_a_subclass_makes_its_own_kind() -> None:
    """As a class method should."""

    class Ours(Miosa):
        pass

    assert type(Ours.from_sdk(miosa.Miosa(KEY))) is Ours


@pytest.mark.parametrize(
    ("client", "what"),
    [
        (None, "not None"),
        (KEY, "not a str"),
        (miosa.Miosa, "not the class Miosa"),
        (miosa, "not a module"),
        (Miosa("https://h.example", KEY), "not a Miosa"),
        (SimpleNamespace(_transport=None), "not a SimpleNamespace"),
        (SimpleNamespace(_transport=SimpleNamespace(_base_url="https://h.example", _api_key="")), "SimpleNamespace"),
        (SimpleNamespace(_transport=SimpleNamespace(_base_url="", _api_key=KEY)), "SimpleNamespace"),
        (SimpleNamespace(_transport=SimpleNamespace(_base_url=b"x", _api_key=KEY)), "SimpleNamespace"),
        (SimpleNamespace(_transport=SimpleNamespace(_base_url="x", _api_key=KEY, _tenant=7)), "SimpleNamespace"),
    ],
)
def test_anything_else_is_refused_without_quoting_it(client: Any, what: str) -> None:
    """The message says what it takes, and what to write for an SDK that keeps its key elsewhere."""
    with pytest.raises(ConfigurationError, match=rf"miosa\.AsyncMiosa\(\.\.\.\), .*{what}") as caught:
        Miosa.from_sdk(client)

    assert "write Miosa(base_url, api_key)" in str(caught.value)
    assert KEY not in str(caught.value)


def test_what_a_client_holds_is_checked() -> None:
    """The SDK takes any text for a key."""
    with pytest.raises(ConfigurationError, match="The API key for MIOSA holds white space"):
        Miosa.from_sdk(miosa.Miosa("two words"))


@pytest.mark.anyio
@pytest.mark.parametrize(("client", "kind"), [(miosa.Miosa, Sandbox), (miosa.AsyncMiosa, AsyncSandbox)])
async def test_a_sandbox_of_the_sdk_says_where_to_run(anyio_backend: str, client: Any, kind: Any) -> None:
    """The command runs in that sandbox, with the client's key."""
    with serve_raw(output) as upstream:
        held = client(KEY, base_url=upstream.url)
        source = SandboxExec(kind(held._transport, {"id": "sbx_7"}), "ls")
        assert await read(source.work(Miosa.from_sdk(held), None)) == b"data: 1\n\n"

    assert source == SandboxExec("sbx_7", "ls")
    assert upstream.requests[0].path == "/api/v1/sandboxes/sbx_7/exec/stream"
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
