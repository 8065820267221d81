"""Carry a MIOSA sandbox's output to the browser, line by line, as one ASGI application."""

from .asgi.app import SSEBridge
from .asgi.handle import StartedRun
from .asgi.middleware import SSEBridgeMiddleware
from .errors import (
    BridgeError,
    BridgeUnavailable,
    ConfigurationError,
    KeyConflict,
    UpstreamError,
    UpstreamLost,
    UpstreamMisbehaved,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from .flow.delivery import ViewerStatistics
from .flow.pace import TokenBucket
from .flow.policy import Block, Coalesce, Drop, Policy
from .relay.info import Outcome, RunInfo
from .relay.statistics import (
    BridgeStatistics,
    CancelStatistics,
    RunStatistics,
    StoreStatistics,
    WorkerStatistics,
)
from .relay.watching import Watcher
from .stores.redis.config import RedisStore
from .upstream.base import (
    Cancelled,
    EndAware,
    Interruption,
    Reopened,
    Resumable,
    Shareable,
    Source,
    Stream,
    Traceable,
    Upstream,
    Work,
)
from .upstream.client import HTTPUpstream
from .upstream.eventstream import EventStream
from .upstream.lines import Exit, Lines
from .upstream.miosa import reaping as _reaping  # reads the tickets of dead processes' work  # noqa: F401
from .upstream.miosa.checks import HasId
from .upstream.miosa.client import Miosa
from .upstream.miosa.host_job import HostJob
from .upstream.miosa.sandbox_exec import SandboxExec
from .upstream.miosa.sandbox_process import SandboxProcess
from .upstream.miosa.stream import MiosaStream
from .wire.shapes import EVENT_STREAM, EXEC, HOST_JOB, Shape

__version__ = "0.1.0"

__all__ = [
    # the application
    "SSEBridge",
    "SSEBridgeMiddleware",
    # its runs
    "Outcome",
    "RunInfo",
    "StartedRun",
    # what to run or follow, and where
    "EventStream",
    "Exit",
    "HasId",
    "HostJob",
    "HTTPUpstream",
    "Lines",
    "Miosa",
    "MiosaStream",
    "SandboxExec",
    "SandboxProcess",
    # where several workers share their runs
    "RedisStore",
    # what happens when a viewer is slow
    "Block",
    "Drop",
    "Coalesce",
    "Policy",
    "TokenBucket",
    # what was counted
    "BridgeStatistics",
    "CancelStatistics",
    "RunStatistics",
    "StoreStatistics",
    "WorkerStatistics",
    "ViewerStatistics",
    "Watcher",
    # what a source of your own implements
    "Cancelled",
    "EndAware",
    "EVENT_STREAM",
    "EXEC",
    "HOST_JOB",
    "Interruption",
    "Reopened",
    "Resumable",
    "Shape",
    "Shareable",
    "Source",
    "Stream",
    "Traceable",
    "Upstream",
    "Work",
    # what can go wrong
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
    # which edition this is
    "__version__",
]
