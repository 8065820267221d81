"""Ending work of the platform's that a dead process has left behind, by its ticket."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import unquote

import anyio

from ...causes import log_cause
from ...errors import ConfigurationError, UpstreamError
from ..base import Cancelled, Upstream
from ..reaping import add_reaper
from .cancel import Evidence, end_marked
from .client import Miosa
from .host_job import HostJob
from .sandbox_process import SandboxProcess

__all__ = ["end_by_ticket"]

_MARKED: Final = "marked"


async def end_by_ticket(upstream: Upstream, ticket: str, timeout: float, *, has_output: bool) -> Cancelled | None:
    """See `reaping.Reaper`."""
    said = _read(ticket)
    if not isinstance(upstream, Miosa) or said is None:
        return None
    outcome = Cancelled.REQUESTED
    with anyio.move_on_after(timeout):
        try:
            outcome = await _end(upstream, said, timeout, Evidence.OUTPUT if has_output else Evidence.NONE)
        except (UpstreamError, ConfigurationError) as error:
            log_cause(error, "work that was left behind could not be asked to end: the cause")
    return outcome


async def _end(miosa: Miosa, said: dict[str, str], timeout: float, evidence: Evidence) -> Cancelled:
    kind, home = said["kind"], said["home"]
    if kind == _MARKED:
        return (await end_marked(miosa, home, said["marker"], evidence, timeout)).outcome
    place, id = unquote(home.rpartition("/")[2]), said["id"]
    if kind == "process" and id:
        return await SandboxProcess(place, pid=unquote(id)).work(miosa, None).cancel(timeout)
    if kind == "job" and id:
        work = HostJob(place, "-").work(miosa, None)
        work.take_over(id)  # type: ignore[attr-defined]
        return await work.cancel(timeout)
    return Cancelled.REQUESTED


def _read(ticket: str) -> dict[str, str] | None:
    try:
        said: Any = json.loads(ticket)
    except ValueError:
        return None
    return said if isinstance(said, dict) and all(isinstance(value, str) for value in said.values()) else None


add_reaper(end_by_ticket)
