"""The platform: base URL, key, tenant. Facts from `miosa-wire.md` §1."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

import httpx

from ...errors import ConfigurationError
from ..client import HTTPUpstream, http_url, is_header_value

__all__ = ["Miosa"]

DEFAULT_BASE_URL: Final = "https://api.miosa.ai/api/v1"


class Miosa(HTTPUpstream):
    """The MIOSA platform: where it is and who asks.

    Args:
        base_url: with or without `/api/v1`. `None` takes `MIOSA_BASE_URL`, else the public platform.
        api_key: an `msk_...` key or an access token. `None` takes `MIOSA_ACCESS_TOKEN`, else `MIOSA_API_KEY`,
            the order of the SDK (`miosa-wire.md` §1.1).
        tenant: sent as `X-MIOSA-Tenant`. `None` takes `MIOSA_TENANT`, if there is one.
        client: an `httpx.AsyncClient` of your own (see `HTTPUpstream`); `None` makes one when it is needed.

    Raises:
        ConfigurationError: there is no key, or the base URL is none, or the tenant cannot be sent.
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
        environ = os.environ
        key = api_key or environ.get("MIOSA_ACCESS_TOKEN") or environ.get("MIOSA_API_KEY")
        self.base_url = _normalised(base_url or environ.get("MIOSA_BASE_URL") or DEFAULT_BASE_URL)
        self.tenant = (tenant or environ.get("MIOSA_TENANT") or "").strip() or None
        self._headers = {"Authorization": f"Bearer {_checked_key(key)}"}
        if self.tenant:
            if not is_header_value(self.tenant):
                raise ConfigurationError("The tenant for MIOSA holds characters that a header cannot hold.")
            self._headers["X-MIOSA-Tenant"] = self.tenant

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    def address(self, path: str) -> str:
        """The URL of a path below the base URL."""
        return self.base_url + path

    def headers(self, accept: str) -> Mapping[str, str]:
        """The headers that every request carries. They hold the key: never to be logged or handed on."""
        return {**self._headers, "Accept": accept}

    async def post(self, path: str, body: Any, timeout: float) -> bytes:
        """One short JSON call: the answer's body.

        Raises:
            UpstreamRefused: the answer is not 200.
            UpstreamError: no answer within `timeout` seconds, or none at all.
        """
        headers = self.headers("application/json")
        return await self.ask("POST", self.address(path), headers=headers, json=body, timeout=timeout)


def _normalised(url: str) -> str:
    trimmed = url.strip().rstrip("/")
    parsed = http_url(trimmed)
    # A user in it would replace the key: httpx makes an `Authorization` header of its own from that.
    if parsed is None or parsed.query or parsed.fragment or parsed.userinfo:
        raise ConfigurationError("The base URL of MIOSA must look like https://api.miosa.ai, set it in MIOSA_BASE_URL.")
    return trimmed if re.search(r"/v\d+$", trimmed) else f"{trimmed}/api/v1"


def _checked_key(key: str | None) -> str:
    key = (key or "").strip()
    if not key:
        raise ConfigurationError("No API key for MIOSA: set MIOSA_API_KEY, or pass Miosa(api_key=...).")
    if not is_header_value(key) or " " in key:
        raise ConfigurationError("The API key for MIOSA holds characters that no key has. Is it the right value?")
    return key
