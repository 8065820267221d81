"""Requests and failures, as httpx has them."""

from __future__ import annotations

from typing import Final

import httpx

from .course import Ask
from .options import Settings

__all__ = ["CONNECT_TIMEOUT", "INTERRUPTIONS", "SENT_NOTHING", "built"]

#: Seconds for a TCP and TLS handshake, and for a short answer.
CONNECT_TIMEOUT: Final = 10.0
#: What httpx raises when a connection fails, breaks, or brings what cannot be unpacked.
INTERRUPTIONS: Final = (httpx.TransportError, httpx.DecodingError)
#: What httpx raises before a request goes out.
SENT_NOTHING: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


def built(client: httpx.Client | httpx.AsyncClient, ask: Ask, settings: Settings) -> httpx.Request:
    """The request."""
    timeout = httpx.Timeout(CONNECT_TIMEOUT, read=settings.silence)
    return client.build_request(ask.method, ask.url, headers=ask.headers, content=ask.content, timeout=timeout)
