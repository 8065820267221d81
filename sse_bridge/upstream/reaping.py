"""Ending work that a dead process has left behind, by its ticket (see `base.Ticketed`).

A platform's room adds what it takes to read its tickets. The package imports that room, so a ticket can be read
wherever the package is.
"""

from __future__ import annotations

from typing import Protocol

from .base import Cancelled, Upstream

__all__ = ["Reaper", "add_reaper", "end_left_behind"]


class Reaper(Protocol):
    """Ends work by its ticket."""

    async def __call__(self, upstream: Upstream, ticket: str, timeout: float, *, has_output: bool) -> Cancelled | None:
        """Ends it. Takes at most `timeout` seconds and never raises `UpstreamError`.

        Args:
            upstream: the bridge's.
            ticket: see `Ticketed.ticket`.
            timeout: seconds.
            has_output: whether the work is known to have printed anything.

        Returns:
            How far that got; `None` if the ticket, or the upstream, is another platform's.
        """
        ...


_reapers: list[Reaper] = []


def add_reaper(reaper: Reaper) -> None:
    """Adds what reads the tickets of one platform."""
    _reapers.append(reaper)


async def end_left_behind(upstream: Upstream, ticket: str, timeout: float, *, has_output: bool) -> Cancelled:
    """Ends work by its ticket. See `Reaper`."""
    for reaper in _reapers:
        if (outcome := await reaper(upstream, ticket, timeout, has_output=has_output)) is not None:
            return outcome
    return Cancelled.REQUESTED
