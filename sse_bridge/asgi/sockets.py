"""The sockets of this process: cuts connections of clients that stopped reading, and finds those that listen.

ASGI has no message for either. A server that ends a response waits indefinitely for a client that stopped reading to
take what was written. Shutting the socket down makes the write fail, and the server closes the connection. The socket
is found among those of this process by the two addresses that the request names; if the search fails, the connection
stays.
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
from typing import Final, NamedTuple

from .messages import Receive, Scope

__all__ = ["Descriptor", "Sockets", "listening", "with_own_addresses"]

#: Folders that list the descriptors of this process; the first that exists is used.
_DESCRIPTOR_FOLDERS: Final = ("/proc/self/fd", "/dev/fd")
#: Seconds for which a list of descriptors is used: making one takes some 10 ms for 2,000 connections, and many may
#: stall at once.
_LIST_LIFETIME: Final = 1.0

#: `linux/sockios.h`: bytes still to be sent, excluding those that only await their acknowledgement.
_SIOCOUTQNSD: Final = 0x894B

#: `linux/tcp.h`: the size of `struct tcp_info` up to and with `tcpi_bytes_acked`, which is its last part here.
_TCP_INFO_SIZE: Final = 128

#: The key of a connection: host and port of the client, then of the server. IPv6 addresses have more parts.
_Ends = tuple[tuple[str, int], tuple[str, int]]


class Descriptor(NamedTuple):
    """A descriptor of a socket, and the inode that tells whether the descriptor still belongs to that socket."""

    number: int
    inode: int

    def is_open(self) -> bool:
        """Whether the socket is still open under this descriptor."""
        try:
            return os.fstat(self.number).st_ino == self.inode
        except OSError:
            return False


def listening(host: object, port: object) -> list[Descriptor]:
    """The sockets of this process that accept connections on a port, whatever their host.

    Args:
        host: the path of a Unix socket, if there is no port.
        port: granian's is a string.
    """
    wanted = str(host) if port is None else str(port)
    return [
        Descriptor(number, os.fstat(number).st_ino)
        for number in _descriptors()
        if (copy := _copy(number)) is not None and _accepts_on(copy) == wanted
    ]


def _accepts_on(copy: socket.socket) -> str | None:
    """The port or path on which a socket accepts connections. Closes its argument, a copy of the socket."""
    with copy, suppress(OSError, AttributeError):
        if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            name = copy.getsockname()
            return str(name[1] if isinstance(name, tuple) else name)
    return None


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
        """Shuts down the connection of a request in both directions. Returns whether it was found."""
        with self._found(scope) as found:
            if found is None:
                return False
            with suppress(OSError):  # the client has closed it meanwhile
                found.shutdown(socket.SHUT_RDWR)
            return True

    def unsent(self, scope: Scope) -> int:
        """Bytes that the kernel holds because the request's client has stopped reading; 0 where that is unknown."""
        with self._found(scope) as found:
            return 0 if found is None else _unsent(found)

    def acknowledged(self, scope: Scope) -> int | None:
        """Bytes that the request's client has acknowledged, of all responses on its connection; `None` if unknown."""
        with self._found(scope) as found:
            return None if found is None else _acknowledged(found)

    @contextmanager
    def _found(self, scope: Scope) -> Iterator[socket.socket | None]:
        """A copy of the socket, after a check of its addresses: the descriptor may have been reused since the list."""
        ends = _ends_of(scope)
        copy = None if ends is None else _copy(self._descriptor(ends))
        if copy is None:
            yield None
            return
        with copy:
            yield copy if _ends_of_socket(copy) == ends else None

    def _descriptor(self, ends: _Ends) -> int | None:
        now = self._clock()
        if self._listed_at is None or now >= self._listed_at + _LIST_LIFETIME:
            self._descriptors = dict(_list())
            self._listed_at = now
        return self._descriptors.get(ends)


def with_own_addresses(scope: Scope, receive: Receive) -> Scope:
    """The scope with the addresses of the connection itself, where the server reveals them.

    uvicorn replaces the client's address with what a proxy on the same machine says. Its `receive` is a method of an
    object that also holds the transport, which knows the real address. Behind middleware that wraps `receive` without
    saying so in `__wrapped__`, the scope is returned as it is.
    """
    receive = getattr(receive, "__wrapped__", receive)
    ask = getattr(getattr(getattr(receive, "__self__", None), "transport", None), "get_extra_info", None)
    if ask is None:
        return scope
    with suppress(OSError):  # uvloop asks a socket that may be closed
        return {**scope, "client": ask("peername"), "server": ask("sockname")}
    return scope


def _ends_of(scope: Scope) -> _Ends | None:
    """The addresses that a scope names, or `None` if the connection must not be cut: an HTTP/2 connection carries
    other clients' streams, a proxy's headers hide the client's port (uvicorn names 0), a Unix socket has no address."""
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
    for path in _DESCRIPTOR_FOLDERS:
        with suppress(OSError):
            return [int(name) for name in os.listdir(path)]
    return []


def _copy(descriptor: int | None) -> socket.socket | None:
    """A descriptor of our own for the same socket; `None` if the descriptor is closed or names something else."""
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
    except OSError:  # a listening socket
        return None
    return (client[0], client[1]), (server[0], server[1])


def _unsent(connection: socket.socket) -> int:
    if sys.platform != "linux":
        return 0
    import fcntl

    with suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(connection, _SIOCOUTQNSD, bytes(4)))[0])
    return 0  # the kernel lacks this call


def _acknowledged(connection: socket.socket) -> int | None:
    if sys.platform != "linux":
        return None
    with suppress(OSError):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        if len(info) == _TCP_INFO_SIZE:
            return int.from_bytes(info[-8:], sys.byteorder)
    return None  # the kernel lacks this, as before 4.1
