"""The options of a bridge as they travel inside it: two frozen values, checked at the edge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from ..wire.dialects import DIALECTS, Dialect
from ..wire.shapes import Shape

__all__ = ["RunOptions", "ViewerOptions"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What holds for every run of a bridge."""

    #: How its frames are spelled. Where the source decides, this one spells what is said without a source.
    dialect: Dialect
    #: Whether frames carry `id:` lines.
    ids: bool
    #: Bytes of an upstream frame; larger frames are discarded. `None` for no limit.
    max_frame_size: int | None
    #: Bytes that every viewer has taken and that are kept for viewers that come late or come back.
    replay: int
    #: Seconds the work goes on after the last viewer has left; `None` lets it run to its end.
    grace: float | None
    #: Seconds that ending the work may take.
    cancel_timeout: float
    #: Seconds that a run may take; infinity for no limit.
    max_run_time: float = inf
    #: Whether the source decides the dialect.
    source_decides: bool = False

    def for_run(self, shape: Shape, grace: float | None) -> RunOptions:
        """The options of one run, with its own dialect and grace."""
        dialect = DIALECTS[shape.dialect] if self.source_decides else self.dialect
        if dialect is self.dialect and grace == self.grace:  # the usual case shares one value among all runs
            return self
        return replace(self, dialect=dialect, grace=grace)


@dataclass(frozen=True, slots=True)
class ViewerOptions:
    """What holds for every viewer of a bridge. An infinite number of seconds switches a limit off."""

    #: Seconds of silence before a comment is sent.
    heartbeat: float
    #: Seconds for which a `send` may hang, while the client takes nothing, before the viewer counts as gone.
    send_timeout: float
    #: Seconds to wait for the upstream's answer before the response starts with 200.
    commit_after: float
    #: Milliseconds a browser waits before it reconnects; `None` leaves that to the browser.
    retry_ms: int | None
    #: Seconds after which a response ends, so that the viewer comes back; infinity for no limit.
    max_viewer_time: float = inf
