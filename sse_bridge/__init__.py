"""Carry a MIOSA sandbox's output to the browser, line by line, as one ASGI application."""

from .asgi.app import SSEBridge
from .asgi.middleware import SSEBridgeMiddleware
from .errors import (
    BridgeError,
    ConfigurationError,
    UpstreamError,
    UpstreamLost,
    UpstreamMisbehaved,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from .flow.policy import Block
from .upstream.eventstream import EventStream
from .upstream.miosa.client import Miosa
from .upstream.miosa.execs import SandboxExec

__all__ = [
    # the application
    "SSEBridge",
    "SSEBridgeMiddleware",
    # what to run or follow, and where
    "EventStream",
    "Miosa",
    "SandboxExec",
    # what happens when a viewer is slow
    "Block",
    # what can go wrong
    "BridgeError",
    "ConfigurationError",
    "UpstreamError",
    "UpstreamLost",
    "UpstreamMisbehaved",
    "UpstreamRefused",
    "UpstreamTimeout",
    "UpstreamUnreachable",
]
