"""The platform: base URL, key and tenant (`docs/miosa.md` §1)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

import httpx

from ...errors import ConfigurationError
from ..checks import http_url, is_header_value
from ..client import HTTPUpstream

__all__ = ["Miosa"]

DEFAULT_BASE_URL: Final = "https://api.miosa.ai/api/v1"


class Miosa(HTTPUpstream):
    """The MIOSA platform: its address, and the key to use.

    Args:
        base_url: with or without `/api/v1`. `None` takes `MIOSA_BASE_URL`, else the public platform.
        api_key: an `msk_...` key or an access token. `None` takes `MIOSA_ACCESS_TOKEN`, or else `MIOSA_API_KEY`. If
            both are set, the access token wins, as in the SDK.
        tenant: sent as `X-MIOSA-Tenant`. `None` takes `MIOSA_TENANT`, if it is set.
        client: an `httpx.AsyncClient` of your own (see `HTTPUpstream`); `None` makes one when it is needed.

    Raises:
        ConfigurationError: the key is missing, or the key, the tenant or the base URL is malformed.
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
                raise ConfigurationError(
                    "The tenant for MIOSA holds characters that cannot be sent in a header. Use printable ASCII."
                )
            self._headers["X-MIOSA-Tenant"] = self.tenant

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    def address(self, path: str) -> str:
        """The URL of a path below the base URL."""
        return self.base_url + path

    def headers(self, accept: str) -> Mapping[str, str]:
        """The headers of a request. They hold the key: keep them out of logs and errors."""
        return {**self._headers, "Accept": accept}

    async def post(self, path: str, body: Any, timeout: float) -> bytes:
        """Makes a short JSON call, and returns the body of the answer.

        Raises:
            UpstreamRefused: the status is anything but 200.
            UpstreamError: the head of the answer took longer than `timeout` seconds, or the connection failed.
        """
        headers = self.headers("application/json")
        return await self.ask("POST", self.address(path), headers=headers, json=body, timeout=timeout)


def _normalised(url: str) -> str:
    trimmed = url.strip().rstrip("/")
    parsed = http_url(trimmed)
    # httpx would turn user info into an `Authorization` header, which would replace the key.
    if parsed is None or parsed.query or parsed.fragment or parsed.userinfo:
        raise ConfigurationError(
            "The base URL of MIOSA must look like https://api.miosa.ai. Set MIOSA_BASE_URL, or pass "
            "Miosa(base_url=...)."
        )
    return trimmed if re.search(r"/v\d+$", trimmed) else f"{trimmed}/api/v1"


def _checked_key(key: str | None) -> str:
    key = (key or "").strip()
    if not key:
        raise ConfigurationError(
            "No API key for MIOSA: set MIOSA_API_KEY or MIOSA_ACCESS_TOKEN (which wins), or pass Miosa(api_key=...)."
        )
    if not is_header_value(key) or " " in key:
        raise ConfigurationError(
            "The API key for MIOSA holds white space or characters that cannot be sent. Check MIOSA_ACCESS_TOKEN "
            "(which wins) and MIOSA_API_KEY, or Miosa(api_key=...)."
        )
    return key
