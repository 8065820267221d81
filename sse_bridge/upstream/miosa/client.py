"""The platform: base URL, key and tenant (`docs/miosa.md` §1)."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from typing import Any, Final, Self

import httpx

from ...arguments import described, how_to_make_a_text, is_a
from ...errors import ConfigurationError
from ..checks import http_url, is_header_value
from ..client import HTTPUpstream

__all__ = ["Miosa"]

DEFAULT_BASE_URL: Final = "https://api.miosa.ai/api/v1"


class Miosa(HTTPUpstream):
    """The MIOSA platform: its address, and the key to use.

    The environment is read when the object is made. A missing key is reported by the first request that needs it, so
    modules that make a bridge can be imported on machines that lack the key.

    Args:
        base_url: with or without `/api/v1`. `None` takes `MIOSA_BASE_URL`, else the public platform.
        api_key: an `msk_...` key or an access token. `None` takes `MIOSA_ACCESS_TOKEN`, or else `MIOSA_API_KEY`. If
            both are set, the access token wins, as in the SDK.
        tenant: sent as `X-MIOSA-Tenant`. `None` takes `MIOSA_TENANT`, if it is set.
        client: an `httpx.AsyncClient` of your own (see `HTTPUpstream`); `None` makes one when it is needed.

    Raises:
        ConfigurationError: an argument is of the wrong kind, or the key, the tenant or the base URL is malformed.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        tenant: str | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(client)
        for name, value in (("base_url", base_url), ("api_key", api_key), ("tenant", tenant)):
            _check_text(name, value)
        environ = os.environ
        key = _checked_key(api_key or environ.get("MIOSA_ACCESS_TOKEN") or environ.get("MIOSA_API_KEY"))
        self.base_url = _normalised(base_url or environ.get("MIOSA_BASE_URL") or DEFAULT_BASE_URL)
        self.tenant = (tenant or environ.get("MIOSA_TENANT") or "").strip() or None
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        if self.tenant:
            if not is_header_value(self.tenant):
                raise ConfigurationError(
                    "The tenant for MIOSA holds characters that cannot be sent in a header. Use printable ASCII."
                )
            self._headers["X-MIOSA-Tenant"] = self.tenant

    @classmethod
    def from_sdk(cls, client: object) -> Self:
        """The platform that a client of MIOSA's SDK talks to, with the base URL, the key and the tenant that it holds.

        The environment plays no part. The bridge opens connections of its own, so the client may be closed.

        Args:
            client: a `miosa.Miosa` or a `miosa.AsyncMiosa`, as of version 2.19.2 of the SDK.

        Raises:
            ConfigurationError: `client` is something else, or what it holds is malformed.
        """
        transport = inspect.getattr_static(client, "_transport", None)
        base_url, key, tenant = (
            inspect.getattr_static(transport, name, None) for name in ("_base_url", "_api_key", "_tenant")
        )
        is_client = is_a(base_url, str) and is_a(key, str) and bool(base_url and key)
        if not is_client or not (tenant is None or is_a(tenant, str)):
            raise ConfigurationError(
                f"Miosa.from_sdk takes a client of MIOSA's SDK, miosa.Miosa(...) or miosa.AsyncMiosa(...), not "
                f"{described(client)}. For a client of another version, write Miosa(base_url, api_key)."
            )
        return cls(base_url, key, tenant=tenant or " ")  # a blank one is left out, whatever the environment says

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    def address(self, path: str) -> str:
        """The URL of a path below the base URL."""
        return self.base_url + path

    def headers(self, accept: str) -> Mapping[str, str]:
        """The headers of a request. They hold the key: keep them out of logs and errors.

        Raises:
            ConfigurationError: the key is missing.
        """
        self.check_key()
        return {**self._headers, "Accept": accept}

    def check_key(self) -> None:
        """Checks that there is a key, before anything is started that needs it.

        Raises:
            ConfigurationError: the key is missing.
        """
        if "Authorization" not in self._headers:
            raise ConfigurationError(
                "No API key for MIOSA: set MIOSA_ACCESS_TOKEN or MIOSA_API_KEY before Miosa() is made, or pass "
                "Miosa(api_key=...). If both are set, MIOSA_ACCESS_TOKEN wins."
            )

    async def post(self, path: str, body: Any, timeout: float) -> bytes:
        """Makes a short JSON call, and returns the body of the answer.

        Raises:
            UpstreamRefused: the status is anything but 200.
            UpstreamError: the head of the answer took longer than `timeout` seconds, or the connection failed.
        """
        headers = self.headers("application/json")
        return await self.ask("POST", self.address(path), headers=headers, json=body, timeout=timeout)


def _check_text(name: str, value: object) -> None:
    if value is not None and not is_a(value, str):
        raise ConfigurationError(
            f"Miosa({name}=...) takes a string or None, not {described(value)}.{how_to_make_a_text(value)}"
        )


def _normalised(url: str) -> str:
    trimmed = url.strip().rstrip("/")
    parsed = http_url(trimmed)
    # httpx would turn user info into an `Authorization` header, which would replace the key.
    if parsed is None or parsed.query or parsed.fragment or parsed.userinfo:
        raise ConfigurationError(
            "The base URL of MIOSA must look like https://api.miosa.ai. Set MIOSA_BASE_URL, or pass "
            "Miosa(base_url=...). The key is the second argument: Miosa(api_key=...)."
        )
    return trimmed if re.search(r"/v\d+$", trimmed) else f"{trimmed}/api/v1"


def _checked_key(key: str | None) -> str:
    """The key, stripped of white space; empty if it is missing."""
    key = (key or "").strip()
    if key and (not is_header_value(key) or " " in key):
        raise ConfigurationError(
            "The API key for MIOSA holds white space or characters that cannot be sent. Check MIOSA_ACCESS_TOKEN "
            "(which wins) and MIOSA_API_KEY, or Miosa(api_key=...)."
        )
    return key
