"""Checks of values that go into requests, so that a mistake shows when a source is made, rather than when it runs."""

from __future__ import annotations

import math
import re
from json import dumps
from typing import Any, Final

import httpx

__all__ = ["ceil_seconds", "http_url", "is_header_value", "is_json", "is_text", "is_token", "json_bytes"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def http_url(text: str) -> httpx.URL | None:
    """The URL, if a request can be sent there, else `None`. Using a bad one later raises more than httpx's errors."""
    try:
        url = httpx.URL(text)
        url.raw_host.decode("ascii").encode("idna")  # as resolvers do: labels of 1 to 63 bytes
        is_usable = url.scheme in ("http", "https") and url.host and (url.port or 0) < 2**16
    except (httpx.InvalidURL, TypeError, UnicodeError):
        return None
    return url if is_usable else None


def is_header_value(value: object) -> bool:
    """Whether a header may hold it (RFC 9110 5.5). Only ASCII is sure to be understood."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip()


def is_token(value: object) -> bool:
    """Whether it can be a method or the name of a header (RFC 9110 5.6.2)."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def json_bytes(value: Any) -> bytes:
    """Encodes the body of a request.

    Raises:
        TypeError, ValueError, RecursionError: `is_json` rejects the value.
    """
    return dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def is_json(value: Any) -> bool:
    """Whether JSON can say it: RFC 8259 excludes `NaN` and infinities (6) and lone surrogates (8.1, UTF-8)."""
    try:
        json_bytes(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def is_text(value: object) -> bool:
    """Whether it is a string that UTF-8 can encode, which excludes lone surrogates."""
    return isinstance(value, str) and is_json(value)


def ceil_seconds(seconds: float) -> int:
    """Whole seconds, rounded up: platforms count in these, and zero would lift the limit."""
    return max(1, math.ceil(seconds))
