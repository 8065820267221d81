"""What a request's headers and query say: where to resume, in which form to answer, and who sends it."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from .refusals import accepts

__all__ = ["is_foreign", "is_speculative", "last_event_id", "prefers_json", "wants_no_stream"]

#: Headers by which browsers mark a request that they send before their user has asked for it.
_SPECULATIVE: Final = ("sec-purpose", "purpose", "x-moz", "x-purpose")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def wants_no_stream(request: Request) -> bool:
    """Whether a `POST` asks for the run's address instead of its stream (`Prefer`: RFC 7240 4.1)."""
    if request.method != "POST":
        return False
    preferences = {part.strip().lower() for part in ",".join(request.headers.getlist("prefer")).split(",")}
    return "respond-async" in preferences or prefers_json(request)


def prefers_json(request: Request) -> bool:
    """Whether a request asks for JSON instead of a stream."""
    return accepts(request, "application/json") and not accepts(request, "text/event-stream")


def is_speculative(request: Request) -> bool:
    """Whether a browser sends the request before its user has asked for it."""
    purposes = [request.headers.get(name, "").lower() for name in _SPECULATIVE]
    return any(word in purpose for purpose in purposes for word in ("prefetch", "prerender", "preview"))


def is_foreign(request: Request) -> bool:
    """Whether a page of another site sends the request. Sibling subdomains (`same-site`) count as the same site.

    Browsers say so in `Sec-Fetch-Site`, but over https and to loopback only. Elsewhere `Origin` has to match `Host`.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site.lower() == "cross-site"
    origin = request.headers.get("origin")
    if origin is None:
        return False
    scheme, host = _origin(origin)
    return host != request.headers.get("host", "").lower().removesuffix(_DEFAULT_PORTS.get(scheme, ""))


def _origin(text: str) -> tuple[str, str | None]:
    """Scheme and host of an `Origin`. The host is `None` for `null` and for a malformed origin."""
    try:
        parts = urlsplit(text.lower())
    except ValueError:
        return "", None
    return parts.scheme, parts.netloc.removesuffix(_DEFAULT_PORTS.get(parts.scheme, "")) or None


def last_event_id(request: Request) -> str:
    """The id of the last event that the viewer saw: from the header, or from the query.

    Browsers send the header as UTF-8 (WHATWG HTML 9.2.4), and Starlette reads headers as Latin-1. Polyfills that cannot
    set it everywhere put it into the query, in several spellings.
    """
    header = request.headers.get("last-event-id", "").encode("latin-1").decode("utf-8", "replace")
    if header:
        return header
    for name, value in request.query_params.multi_items():
        if name.lower().replace("-", "").replace("_", "") == "lasteventid" and value:
            return value
    return ""
