"""`Miosa`: where the platform is and who asks."""

from __future__ import annotations

import pytest

from sse_bridge import ConfigurationError, Miosa

KEY = "msk_u_secret"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MIOSA_ACCESS_TOKEN", "MIOSA_API_KEY", "MIOSA_BASE_URL", "MIOSA_TENANT"):
        monkeypatch.delenv(name, raising=False)


def authorization(miosa: Miosa) -> str:
    return miosa.headers("x")["Authorization"]


def test_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the SDK: argument, `MIOSA_ACCESS_TOKEN`, `MIOSA_API_KEY`."""
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
    """`miosa-wire.md` §1.1."""
    assert Miosa(url, KEY).base_url == expected


@pytest.mark.parametrize(
    "url",
    [
        "h.example",
        "ftp://h.example",
        "https://",
        "https://h.example?x=1",
        "https://h.example#x",
        "https://user:word@h.example",  # httpx would send that in the place of the key
        "https://h.example:99999",
        f"https://{'a' * 64}.example",
        "https://xn--",
        "\x00",
    ],
)
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    """With what it should look like."""
    with pytest.raises(ConfigurationError, match="base URL") as caught:
        Miosa(url, KEY)

    assert KEY not in str(caught.value)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("key", [None, "", "  "])
def test_without_a_key_it_says_where_to_put_one(key: str | None) -> None:
    """When the application starts."""
    with pytest.raises(ConfigurationError, match="set MIOSA_API_KEY"):
        Miosa("https://h.example", key)


@pytest.mark.parametrize("key", ["a b", "a\nb", "schlüssel"])
def test_a_key_that_cannot_be_one_is_refused_without_telling_it(key: str) -> None:
    """It may be a password pasted by mistake."""
    with pytest.raises(ConfigurationError, match="characters") as caught:
        Miosa("https://h.example", key)

    assert key not in str(caught.value)


def test_what_surrounds_a_value_in_the_environment_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that come from files end with a newline."""
    monkeypatch.setenv("MIOSA_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("MIOSA_BASE_URL", "https://h.example/\n")
    monkeypatch.setenv("MIOSA_TENANT", "t\n")
    miosa = Miosa()

    assert miosa.base_url == "https://h.example/api/v1"
    assert miosa.headers("x") == {"Authorization": f"Bearer {KEY}", "X-MIOSA-Tenant": "t", "Accept": "x"}


@pytest.mark.parametrize("tenant", ["", "  ", None])
def test_without_a_tenant_none_is_sent(tenant: str | None) -> None:
    """The platform knows it by the key."""
    miosa = Miosa("https://h.example", KEY, tenant=tenant)

    assert miosa.tenant is None
    assert miosa.headers("x") == {"Authorization": f"Bearer {KEY}", "Accept": "x"}


@pytest.mark.parametrize("tenant", ["büro", "a\r\nX-More: 1"])
def test_a_tenant_that_cannot_be_sent_is_refused(tenant: str) -> None:
    """When the application starts, not when the first viewer comes."""
    with pytest.raises(ConfigurationError, match="tenant"):
        Miosa("https://h.example", KEY, tenant=tenant)


def test_it_does_not_show_its_key() -> None:
    """In no representation."""
    assert repr(Miosa("https://h.example", KEY)) == "Miosa('https://h.example/api/v1')"
    assert KEY not in f"{Miosa('https://h.example', KEY)}"
