"""Following a run from Python, to its exit code, through lost connections and stopped servers.

    async with follow("https://example.org/run-sse/") as run:
        async for event in run:
            print(event.json())
    sys.exit(run.exit_code)

Needs the extra `client`. The rest of the package does without this module.
"""

from __future__ import annotations

from typing import Unpack

import httpx

try:
    from httpx_sse import ServerSentEvent
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'sse_bridge.client needs httpx-sse: pip install "sse_bridge[client]"', name=error.name
    ) from error

from ..upstream.base import Cancelled
from .asynchronous import FollowedRun
from .course import Course
from .errors import EventsMissing, FollowError, KeyRefused, RunFailed, RunLost, RunRefused, RunUnknown
from .lines import Events, Gap, Line, Lines
from .options import Options, settings
from .synchronous import SyncFollowedRun

__all__ = [
    "follow",
    "follow_sync",
    "run_lines",
    "run_lines_sync",
    # what they return and take
    "Cancelled",
    "FollowedRun",
    "Gap",
    "Line",
    "Options",
    "ServerSentEvent",
    "SyncFollowedRun",
    # what can go wrong
    "EventsMissing",
    "FollowError",
    "KeyRefused",
    "RunFailed",
    "RunLost",
    "RunRefused",
    "RunUnknown",
]


def follow(
    url: str | httpx.URL, *, client: httpx.AsyncClient | None = None, **options: Unpack[Options]
) -> FollowedRun[ServerSentEvent]:
    """Starts a run, or follows one, and yields its events: each once, in order, none missing.

    The iteration ends behind the run's exit, and `exit_code` is set then. Every other end raises, behind all events
    that came before it.

    Args:
        url: of a bridge, such as `https://example.org/run-sse/`, which starts a run; or of a run, such as
            `https://example.org/run-sse/Zk3vQ0x9bTnWf2Rq`. A bridge's path of sixteen characters needs its slash.
        client: a client of your own, which stays yours to close. Its timeouts are not used.
        options: see `Options`.

    Raises:
        ConfigurationError: an argument is of the wrong kind. Everything else is raised by the iteration.
    """
    checked = settings(url, options)
    return FollowedRun(checked, Course(checked, Events()), client)


def run_lines(
    url: str | httpx.URL, *, client: httpx.AsyncClient | None = None, **options: Unpack[Options]
) -> FollowedRun[Line | Gap]:
    """Like `follow`, but yields the lines that the command prints. Pieces of an unfinished line are joined."""
    checked = settings(url, options)
    return FollowedRun(checked, Course(checked, Lines(checked.max_event_size)), client)


def follow_sync(
    url: str | httpx.URL, *, client: httpx.Client | None = None, **options: Unpack[Options]
) -> SyncFollowedRun[ServerSentEvent]:
    """`follow` for code without an event loop: `with follow_sync(url) as run: for event in run: ...`."""
    checked = settings(url, options)
    return SyncFollowedRun(checked, Course(checked, Events()), client)


def run_lines_sync(
    url: str | httpx.URL, *, client: httpx.Client | None = None, **options: Unpack[Options]
) -> SyncFollowedRun[Line | Gap]:
    """`run_lines` for code without an event loop."""
    checked = settings(url, options)
    return SyncFollowedRun(checked, Course(checked, Lines(checked.max_event_size)), client)
