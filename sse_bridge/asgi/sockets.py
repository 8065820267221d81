"""Cutting connections whose clients do not read, for which ASGI has no word.

A server that ends such a response waits until the client has taken what was written: for ever. Shutting the socket
down makes that writing fail, and the server closes the connection. The socket is found among those of this process by
the two addresses that the request names; where it cannot be found, nothing happens.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from .messages import Receive, Scope

__all__ = ["Sockets", "with_own_addresses"]

#: Where the descriptors of this process are listed.
_LISTS: Final = ("/proc/self/fd", "/dev/fd")
#: Seconds for which a list is not made again: it takes some 10 ms for 2,000 connections, and many may stall at once.
_KEEP: Final = 1.0

#: `linux/sockios.h`: bytes that were not sent yet. What was sent and not acknowledged does not count.
_SIOCOUTQNSD: Final = 0x894B

#: What a connection is found by: host and port of the client, then of the server. IPv6 addresses have more parts.
_Ends = tuple[tuple[str, int], tuple[str, int]]


class Sockets:
    """The TCP connections of this process, by their ends.

    Args:
        clock: seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._descriptors: dict[_Ends, int] = {}
        self._listed_at: float | None = None

    def cut(self, scope: Scope) -> bool:
        """Ends the connection of a request in both directions; says whether it was found."""
        with self._found(scope) as found:
            if found is None:
                return False
            with suppress(OSError):  # the client was faster
                found.shutdown(socket.SHUT_RDWR)
            return True

    def unsent(self, scope: Scope) -> int:
        """Bytes that the kernel holds because the client of this request takes no more; 0 where nobody can tell."""
        with self._found(scope) as found:
            return 0 if found is None else _unsent(found)

    @contextmanager
    def _found(self, scope: Scope) -> Iterator[socket.socket | None]:
        """A copy of the socket. The descriptor may have been used again since it was listed, so it is asked."""
        ends = _ends_of(scope)
        copy = None if ends is None else _copy(self._descriptor(ends))
        if copy is None:
            yield None
            return
        with copy:
            yield copy if _ends_of_socket(copy) == ends else None

    def _descriptor(self, ends: _Ends) -> int | None:
        now = self._clock()
        if self._listed_at is None or now >= self._listed_at + _KEEP:
            self._descriptors = dict(_list())
            self._listed_at = now
        return self._descriptors.get(ends)


def with_own_addresses(scope: Scope, receive: Receive) -> Scope:
    """The scope with the addresses that the connection itself has, where they can be asked for.

    uvicorn believes what a proxy on the same machine says about the client. Its `receive` belongs to an object that has
    the transport, which knows better. Middleware that wraps `receive` hides that; then the scope is what there is.
    """
    ask = getattr(getattr(getattr(receive, "__self__", None), "transport", None), "get_extra_info", None)
    if ask is None:
        return scope
    with suppress(OSError):  # uvloop asks the socket, which may be closed
        return {**scope, "client": ask("peername"), "server": ask("sockname")}
    return scope


def _ends_of(scope: Scope) -> _Ends | None:
    """`None` where nothing may be cut: HTTP/2 connections carry others' streams, proxies' headers hide a client's port
    (uvicorn names 0), and Unix sockets have no addresses."""
    if not scope.get("http_version", "").startswith("1"):
        return None
    try:
        (client, client_port, *_), (server, server_port, *_) = scope["client"], scope["server"]
        ends = (client, int(client_port)), (server, int(server_port))  # granian's ports are strings
    except (KeyError, TypeError, ValueError):
        return None
    return ends if ends[0][1] > 0 else None


def _list() -> Iterator[tuple[_Ends, int]]:
    for descriptor in _descriptors():
        copy = _copy(descriptor)
        if copy is not None:
            with copy:
                ends = _ends_of_socket(copy)
            if ends is not None:
                yield ends, descriptor


def _descriptors() -> list[int]:
    for path in _LISTS:
        with suppress(OSError):
            return [int(name) for name in os.listdir(path)]
    return []


def _copy(descriptor: int | None) -> socket.socket | None:
    """A second descriptor of the same socket, which nobody else closes; `None` if it is no socket."""
    if descriptor is None:
        return None
    with suppress(OSError):
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            copy = os.dup(descriptor)
            try:
                return socket.socket(fileno=copy)
            except OSError:
                os.close(copy)
    return None


def _ends_of_socket(connection: socket.socket) -> _Ends | None:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        client, server = connection.getpeername(), connection.getsockname()
    except OSError:  # it listens
        return None
    return (client[0], client[1]), (server[0], server[1])


def _unsent(connection: socket.socket) -> int:
    if sys.platform != "linux":
        return 0
    import fcntl

    with suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(connection, _SIOCOUTQNSD, bytes(4)))[0])
    return 0  # another kernel
