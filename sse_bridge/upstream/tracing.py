"""Following one request through its transport, by the `trace` extension that httpcore calls at each step."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Final

import anyio

from .bodies import CLOSE_TIMEOUT

__all__ = ["CONNECTING", "KEEPALIVE", "SENDING", "Trace"]

#: Steps that our own transport reports, too.
CONNECTING: Final = "connection.connect_tcp.started"
SENDING: Final = "http11.send_request_headers.started"

# A stream may be silent for hours, so it has no read timeout. Keep-alive probes find a dead peer within two minutes.
KEEPALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)
    ),
]


class Trace:
    """Knows whether the request went out, keeps the connection alive, and closes it where httpcore 1.0.9 does not.

    httpcore hands socket options to direct connections only; those of a proxy go without. And it leaves a connection
    open if the TLS handshake on it, or a SOCKS proxy's, is cancelled.
    """

    __slots__ = ("_is_connecting", "_is_sending", "_stream")

    def __init__(self) -> None:
        self._is_connecting = False
        self._is_sending = False
        self._stream: Any = None

    @property
    def sent_nothing(self) -> bool:
        """Whether it is certain that no byte of the request went out. `False` if the transport reports no steps."""
        return self._is_connecting and not self._is_sending

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        step = event.partition(".")[2]
        if step == "connect_tcp.started":
            self._is_connecting = True
        elif step == "connect_tcp.complete":
            self._stream = info["return_value"]
            _keep_alive(self._stream.get_extra_info("socket"))
        elif step == "send_request_headers.started":
            self._is_sending = info["request"].method != b"CONNECT"  # which goes to a proxy, and is followed by ours
        elif step in ("start_tls.failed", "setup_socks5_connection.failed") and self._stream is not None:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._stream.aclose()


def _keep_alive(connection: Any) -> None:
    """Leaves alone a connection whose owner has set it up."""
    if connection is not None and not connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        for option in KEEPALIVE:
            connection.setsockopt(*option)
