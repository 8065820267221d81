"""Sockets that commands serve on."""

from __future__ import annotations

import errno
import socket
from typing import Annotated, Final

import typer

from .saying import say

__all__ = ["LOOPBACK", "Port", "notice_frozen_clients", "opened", "reach_of", "url_of"]

#: The default: only programs of this machine can connect.
LOOPBACK: Final = "127.0.0.1"
#: By the address that stands for all interfaces: the one at which this machine reaches itself.
_LOOPBACK_OF: Final = {"0.0.0.0": LOOPBACK, "::": "::1"}


def _port_of(given: str | int) -> int:
    """A port from the command line, or the default; 0 picks a free one."""
    text = str(given)
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        raise typer.BadParameter(f"not a port: {text}")
    return int(text)


Port = Annotated[int, typer.Option(parser=_port_of, metavar="PORT", help="0 picks a free one.")]


def opened(host: str, port: int) -> socket.socket | None:
    """A listening socket; `None` if there can be none, which is said. Binding before the banner is printed makes the
    port known, and ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (while")[0]
        remedy = ". --port 0 picks a free one" if error.errno == errno.EADDRINUSE else ""
        say(f"cannot listen on {host}, port {port}: {reason}{remedy}")
        return None


def notice_frozen_clients(listener: socket.socket) -> None:
    """Sets options that connections inherit. Without them a client that vanished silently looks alive for minutes: the
    kernel takes up to some 4 MB before a `send` hangs."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)  # ms until an acknowledgement
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 16 * 1024)  # bytes waiting in the kernel


def url_of(listener: socket.socket) -> str:
    """Where programs of this machine reach the socket. Browsers refuse 0.0.0.0, so all interfaces are loopback's."""
    host, port = listener.getsockname()[:2]
    host = _LOOPBACK_OF.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def reach_of(listener: socket.socket) -> list[str]:
    """A line that says how other machines reach the socket, if it listens on all interfaces."""
    host = _LOOPBACK_OF.get(listener.getsockname()[0])
    if host is None:
        return []
    shown = f"[{host}]" if ":" in host else host
    return [f"It listens on all interfaces. For other machines, put this machine's name in place of {shown}."]
