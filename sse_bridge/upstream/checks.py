"""Checks of upstreams and of values for requests, so that a mistake shows when it is made, rather than in a run.

Also reads `Retry-After`, which both sides of the bridge have to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from json import dumps
from types import FunctionType, MethodType
from typing import Any, Final, TypeGuard

import httpx

from ..arguments import described, is_a, offers, type_name
from ..errors import ConfigurationError

__all__ = [
    "ceil_seconds",
    "check_client",
    "check_upstream",
    "has_usable_port",
    "http_url",
    "is_header_value",
    "is_json",
    "is_mapping",
    "is_same_origin",
    "is_text",
    "is_token",
    "json_bytes",
    "seconds_to_wait",
]

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")
#: A day. Longer waits overflow the timers of browsers, which then ask again at once.
_LONGEST_WAIT: Final = 86_400.0


def http_url(text: str) -> httpx.URL | None:
    """The URL, if a request can be sent there, else `None`. Using a bad one later raises more than httpx's errors."""
    try:
        url = httpx.URL(text)
        url.raw_host.decode("ascii").encode("idna")  # as resolvers do: labels of 1 to 63 bytes
        is_usable = url.scheme in ("http", "https") and url.host and has_usable_port(url)
    except (httpx.InvalidURL, TypeError, UnicodeError):
        return None
    return url if is_usable else None


def is_same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether browsers take both for addresses of one site."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def has_usable_port(url: httpx.URL) -> bool:
    """Whether its port can be connected to. httpx takes any integer; sockets raise `OverflowError` for most of them."""
    return url.port is None or 0 < url.port < 2**16


def is_header_value(value: object) -> bool:
    """Whether a header may hold it (RFC 9110 5.5). Only ASCII is sure to be understood."""
    return is_a(value, str) and value.isascii() and value.isprintable() and value == value.strip()


def is_token(value: object) -> bool:
    """Whether it can be a method or the name of a header (RFC 9110 5.6.2)."""
    return is_a(value, str) and _TOKEN.fullmatch(value) is not None


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
    return is_a(value, str) and is_json(value)


def ceil_seconds(seconds: float) -> int:
    """Whole seconds, rounded up: platforms count in these, and zero would lift the limit."""
    return max(1, math.ceil(seconds))


def seconds_to_wait(said: object) -> float | None:
    """The seconds that a `Retry-After` asks for, from zero to a day.

    Args:
        said: a number, its text, or an HTTP date (RFC 9110 10.2.3).

    Returns:
        `None` for everything else.
    """
    text = str(said)
    seconds = float(text) if _NUMBER.fullmatch(text) else _seconds_until(text)
    return min(max(0.0, seconds), _LONGEST_WAIT) if math.isfinite(seconds) else None


def _seconds_until(date: str) -> float:
    """Seconds until an HTTP date (RFC 9110 5.6.7); `nan` for everything else."""
    try:
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return math.nan


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether it maps keys to values, rather than listing pairs or lines."""
    return issubclass(type(value), Mapping)


def check_client(client: object) -> None:
    """Checks what is to be an `httpx.AsyncClient`, or `None`.

    Raises:
        ConfigurationError: it is something else.
    """
    if client is None or is_a(client, httpx.AsyncClient):
        return
    asynchronous = " Write httpx.AsyncClient(...)." if client is httpx.AsyncClient or is_a(client, httpx.Client) else ""
    raise ConfigurationError(f"client must be an httpx.AsyncClient or None, not {described(client)}.{asynchronous}")


def check_upstream(upstream: object) -> None:
    """Checks what a bridge is to open its sources with, or `None`.

    Raises:
        ConfigurationError: it cannot open streams.
    """
    is_proxy = offers(upstream, "__getattr__")
    if upstream is None or (not is_a(upstream, type) and (offers(upstream, "open") or is_proxy)):
        return
    raise ConfigurationError(
        f"upstream must be Miosa(), HTTPUpstream() or None, not {described(upstream)}.{_instead_of(upstream)}"
    )


def _instead_of(upstream: object) -> str:
    """A sentence that says where the value belongs."""
    if is_a(upstream, type) and offers(upstream, "open"):
        return f" Write {type_name(upstream)}()."
    if is_a(upstream, str, httpx.URL):
        return " Write Miosa(base_url=...) for the address of the platform."
    if is_a(upstream, httpx.AsyncClient, httpx.Client):
        return " Write Miosa(client=...) or HTTPUpstream(client), with an httpx.AsyncClient."
    if offers(upstream, "work"):
        return " A source is what resolve returns: write SSEBridge(Miosa(), lambda request: ...)."
    if is_a(upstream, FunctionType, MethodType):
        return " A function is resolve, which comes second: write SSEBridge(Miosa(), resolve)."
    if type(upstream).__module__.partition(".")[0] == "miosa":
        return " That is the SDK's client: write Miosa.from_sdk(client), with the Miosa of sse_bridge."
    return ""
