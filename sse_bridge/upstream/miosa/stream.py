"""Event streams of the platform, by their path: logs, events, runs, deployments, services, databases."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..base import Upstream, Work
from ..client import SSE_ACCEPT
from ..following import Returning
from ..reopening import REOPEN_TIMEOUT
from .checks import check_path, check_platform

__all__ = ["MiosaStream"]

#: The streams for which the platform promises to go on behind a `Last-Event-ID` (MIOSA's documentation).
_GOES_ON_BEHIND_IDS: Final = re.compile(r"/sandboxes/[^/]+/events/?")


@dataclass(frozen=True)
class MiosaStream:
    """Any event stream of the MIOSA platform, by its path, such as `/sandboxes/sbx_1/logs/stream`.

    The request carries the key and the tenant of the bridge's `Miosa`. The end of the stream is the end of the run, and
    ending the run closes the connection. An upstream that is busy or gets ready is asked again for half a minute.
    A stream that breaks off is opened again, with the last event id, for a minute at most. The platform promises to go
    on behind an id for the events of a sandbox only (MIOSA's documentation). Viewers of all others are told, with a
    gap, that events may be missing.

    Args:
        path: where the stream is, below the base URL, and perhaps a query behind it. It begins with one slash. What it
            is made of has to be quoted: `quote(name, safe="")`. `repr` leaves out the query: it may hold credentials.

    Raises:
        ConfigurationError: `path` is no such path, or could lead to another route.
    """

    path: str

    def __post_init__(self) -> None:
        check_path("MiosaStream", self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path.partition('?')[0]!r})"

    def work(self, upstream: Upstream, last_event_id: str | None) -> Work:
        """See `base.Source.work`."""
        miosa = check_platform("MiosaStream", upstream)
        url, headers = miosa.address(self.path), miosa.headers(SSE_ACCEPT)
        return Returning(
            miosa,
            "GET",
            url,
            headers,
            json=None,
            last_event_id=last_event_id,
            timeout=REOPEN_TIMEOUT,
            trusts_ids=_GOES_ON_BEHIND_IDS.fullmatch(self.path.partition("?")[0]) is not None,
            outlasts_streams=False,
        )
