"""Every exception that a caller can catch.

    BridgeError
     ├── ConfigurationError (also a ValueError)   the bridge was set up wrongly; says what to set
     ├── BridgeUnavailable                        the bridge is at a limit, its server stops, or its store is away
     ├── KeyConflict                              the key stands for a run with another source
     └── UpstreamError                            the stream failed to open, or broke off
          ├── UpstreamRefused                     the upstream answered with a refusal
          ├── UpstreamUnreachable                 the connection failed, or broke before the answer
          ├── UpstreamTimeout                     the answer took too long
          ├── UpstreamMisbehaved                  the answer was a success, but of the wrong kind
          └── UpstreamLost                        the stream broke off

Viewers see the message of an `UpstreamError`. It must stay free of keys, URLs and text that the upstream wrote.
"""

from __future__ import annotations

__all__ = [
    "BridgeError",
    "BridgeUnavailable",
    "ConfigurationError",
    "KeyConflict",
    "UpstreamError",
    "UpstreamLost",
    "UpstreamMisbehaved",
    "UpstreamRefused",
    "UpstreamTimeout",
    "UpstreamUnreachable",
]


class BridgeError(Exception):
    """Base of all exceptions of this package."""


class ConfigurationError(BridgeError, ValueError):
    """The bridge, or the source it is to run, was set up wrongly."""


class BridgeUnavailable(BridgeError):
    """The bridge starts no run now: it is at one of its limits, its server is stopping, or its store does not answer.

    Args:
        message: one sentence for people.
        code: one word in snake_case for programs.
        retry_after: seconds until another try makes sense.
    """

    def __init__(self, message: str, *, code: str, retry_after: float) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class KeyConflict(BridgeError):
    """The key is known, and stands for a run with another source. Use a new key for each thing to run."""


class UpstreamError(BridgeError):
    """The event stream failed to open, or broke off.

    Every argument is an attribute of the same name.

    Args:
        message: one sentence for people.
        code: one word in snake_case for programs. Codes are stable.
        status: the HTTP status that a viewer gets if its response is still to start.
        retry_after: seconds until another try makes sense; `None` if unknown.
        request_id: the upstream's id of the failed request, for its support; `None` if unknown.
        upstream_status: the HTTP status of the upstream's answer; `None` if the upstream never answered. Kept from
            viewers.
        upstream_code: the code that the upstream's answer gives, in `UPPER_CASE`, such as `SANDBOX_NOT_RUNNING`; `None`
            if it gives none. Kept from viewers.
        upstream_message: what the upstream's answer says, its code first, without the words that stood in the request;
            `None` if it says nothing, or never came. Kept from viewers.
        upstream_host: the host, and its port, that gave no answer; `None` if there was one. Kept from viewers.
        started_nothing: whether it is certain that the request had no effect, because it failed to reach the upstream
            or because the upstream looked at it and refused. `False` means that work may be running.
    """

    default_code = "upstream_failed"
    default_status = 502

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        upstream_status: int | None = None,
        upstream_code: str | None = None,
        upstream_message: str | None = None,
        upstream_host: str | None = None,
        started_nothing: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.status = status or self.default_status
        self.retry_after = retry_after
        self.request_id = request_id
        self.upstream_status = upstream_status
        self.upstream_code = upstream_code
        self.upstream_message = upstream_message
        self.upstream_host = upstream_host
        self.started_nothing = started_nothing


class UpstreamRefused(UpstreamError):
    """The upstream answered with a refusal."""

    default_code = "upstream_refused"


class UpstreamUnreachable(UpstreamError):
    """The connection to the upstream failed, or broke before the answer."""

    default_code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """The upstream took too long to answer."""

    default_code = "upstream_timeout"
    default_status = 504


class UpstreamMisbehaved(UpstreamError):
    """The upstream answered with success, but sent something other than an event stream."""

    default_code = "upstream_not_event_stream"


class UpstreamLost(UpstreamError):
    """The stream broke off."""

    default_code = "upstream_lost"
