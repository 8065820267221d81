"""Every exception that a caller can catch.

    BridgeError
     ├── ConfigurationError (also a ValueError)   the bridge was set up wrongly; says what to set
     └── UpstreamError                            no exec, or no more of it
          ├── UpstreamRefused                     the upstream answered, and the answer was no
          ├── UpstreamUnreachable                 no connection, or it broke before there was an answer
          ├── UpstreamTimeout                     no answer in time
          ├── UpstreamMisbehaved                  a success that is no event stream
          └── UpstreamLost                        the stream broke off

What an `UpstreamError` says may be shown to anybody: it never holds a key, a URL or what the upstream wrote.
"""

from __future__ import annotations

__all__ = [
    "BridgeError",
    "ConfigurationError",
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
    """The bridge, or what it is to run, was set up wrongly."""


class UpstreamError(BridgeError):
    """The upstream gives no event stream, or no more of it.

    Args:
        code: one word in snake_case, stable, for programs.
        message: one sentence for people.
        status: the HTTP status a viewer gets for it if nothing was sent yet.
        retry_after: seconds after which trying again makes sense; `None` if unknown.
        request_id: the upstream's id of the failed request, for its support; `None` if it gave none.
        upstream_status: the HTTP status of the upstream's answer; `None` if there was none. Not for viewers.
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
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.status = status or self.default_status
        self.retry_after = retry_after
        self.request_id = request_id
        self.upstream_status = upstream_status


class UpstreamRefused(UpstreamError):
    """The upstream answered, and the answer was no."""

    default_code = "upstream_refused"


class UpstreamUnreachable(UpstreamError):
    """No connection to the upstream, or it broke before there was an answer."""

    default_code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """The upstream did not answer in time."""

    default_code = "upstream_timeout"
    default_status = 504


class UpstreamMisbehaved(UpstreamError):
    """The upstream answered with success, but not with an event stream."""

    default_code = "upstream_not_event_stream"


class UpstreamLost(UpstreamError):
    """The stream broke off."""

    default_code = "upstream_lost"
