"""What a caller of `follow` says, checked."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Literal, TypedDict

import httpx

from ..arguments import described, how_to_make_a_text, is_a, number, shown
from ..errors import ConfigurationError
from ..upstream.checks import http_url, is_header_value, is_json, is_mapping, is_token, json_bytes

__all__ = ["Options", "Settings", "settings"]

#: Seconds without news after which a run is given up. A bridge keeps a run that is over for as long (`keep`).
GIVE_UP_AFTER: Final = 60.0
#: Seconds of silence after which a connection counts as lost. A bridge sends a heartbeat every 15 s.
SILENCE: Final = 45.0
#: Bytes of an event, and characters of a line. A bridge's own events have 1 MiB at most, unless it is told otherwise.
MAX_EVENT_SIZE: Final = 16 * 1024 * 1024


class Options(TypedDict, total=False):
    """What `follow`, `run_lines` and their synchronous twins take beside the URL and the client."""

    #: `POST` starts a run in a way that can be repeated. `GET` starts it as a browser does: if the answer is lost, it
    #: is unknown whether a command runs.
    method: Literal["POST", "GET"]
    #: Sent with each request, such as `Authorization`.
    headers: Mapping[str, str]
    #: The body of the `POST`, as JSON.
    json: Any
    #: The idempotency key of the `POST`. By default a new one.
    key: str
    #: `raise` ends with `EventsMissing` where output is missing; `yield` goes on.
    gaps: Literal["raise", "yield"]
    #: Seconds without news until the run is given up (60); `None` for no limit.
    give_up_after: float | None
    #: Seconds of silence after which a connection counts as lost (45); `None` for no limit, which only a bridge with
    #: `heartbeat=None` needs.
    silence: float | None
    #: Whether leaving the block before the end ends the command.
    cancel_on_exit: bool
    #: Bytes that an event may have (16 MiB).
    max_event_size: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The options, checked and complete."""

    url: httpx.URL
    method: str
    headers: Mapping[str, str]
    content: bytes | None
    key: str
    accepts_gaps: bool
    give_up_after: float
    silence: float | None
    cancel_on_exit: bool
    max_event_size: int


def settings(url: str | httpx.URL, options: Options) -> Settings:
    """Checks what was passed.

    Raises:
        ConfigurationError: an argument is of the wrong kind. It says what to write instead.
    """
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        raise ConfigurationError(f"follow() takes no argument called {sorted(unknown)[0]}.")
    method = options.get("method", "POST")
    if method not in ("GET", "POST"):
        raise ConfigurationError(f"follow(method=...) must be 'POST' or 'GET', not {described(method)}.")
    gaps = options.get("gaps", "raise")
    if gaps not in ("raise", "yield"):
        raise ConfigurationError(f"follow(gaps=...) must be 'raise' or 'yield', not {described(gaps)}.")
    key = options.get("key", uuid.uuid4().hex)
    if not (is_a(key, str) and key and is_header_value(key)):
        raise ConfigurationError(
            f"follow(key=...) takes a string of printable ASCII, not {described(key)}.{how_to_make_a_text(key)}"
        )
    size = options.get("max_event_size", MAX_EVENT_SIZE)
    if not is_a(size, int) or is_a(size, bool) or size < 1:
        raise ConfigurationError(f"follow(max_event_size=...) takes a number of bytes, not {shown(size)}.")
    return Settings(
        _url(url),
        method,
        _headers(options.get("headers")),
        _content(method, options),
        key,
        gaps == "yield",
        _seconds("give_up_after", options.get("give_up_after", GIVE_UP_AFTER)) or inf,
        _seconds("silence", options.get("silence", SILENCE)),
        options.get("cancel_on_exit", False),
        size,
    )


def _url(url: str | httpx.URL) -> httpx.URL:
    if is_a(url, httpx.URL):
        url = str(url)
    if not is_a(url, str) or http_url(url) is None:
        raise ConfigurationError(
            "follow() needs the absolute URL of a bridge or of a run, such as https://example.org/run-sse/, "
            f"not {described(url)}."
        )
    return httpx.URL(url)


def _headers(headers: object) -> Mapping[str, str]:
    if headers is None:
        return {}
    if not is_mapping(headers):
        raise ConfigurationError(f"follow(headers=...) takes a mapping, not {described(headers)}.")
    for name, value in headers.items():
        if not (is_token(name) and is_header_value(value)):
            raise ConfigurationError("follow(headers=...) holds a header that HTTP does not allow.")
    return dict(headers)


def _content(method: str, options: Options) -> bytes | None:
    if "json" not in options:
        return None
    if method == "GET":
        raise ConfigurationError("follow(json=...) is the body of a POST; leave method='GET' out.")
    if not is_json(options["json"]):
        raise ConfigurationError("follow(json=...) takes what JSON can say.")
    return json_bytes(options["json"])


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    seconds = number(value)
    if seconds is None or not seconds > 0:
        raise ConfigurationError(f"follow({name}=...) takes seconds, or None, not {shown(value)}.")
    return seconds
