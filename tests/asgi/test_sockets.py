"""`Sockets`: cuts the connection that a request names, and leaves every other one alone."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sse_bridge.asgi.messages import Inbox
from sse_bridge.asgi.sockets import Sockets, with_own_addresses
from tests.support.connections import Connection, connected
from tests.support.skipping import skip


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def connection() -> Iterator[Connection]:
    with connected() as made:
        yield made


@contextmanager
def refusing(connection: Connection, **changes: Any) -> Iterator[dict[str, Any]]:
    yield {**connection.scope, **changes}
    assert connection.is_open()


def test_the_connection_of_a_request_is_cut(connection: Connection) -> None:
    """Both directions end, other connections live on, and the server still owns its descriptor."""
    with connected() as other:
        assert Sockets().cut(connection.scope)

        assert not connection.is_open()
        assert other.is_open()
        assert connection.server.recv(1) == b""
        os.fstat(connection.server.fileno())


def test_ports_may_be_strings(connection: Connection) -> None:
    """granian 2.8 names ports as strings."""
    client, server = connection.scope["client"], connection.scope["server"]
    assert Sockets().cut(
        {**connection.scope, "client": (client[0], str(client[1])), "server": (server[0], str(server[1]))}
    )


def test_ipv6() -> None:
    """Its addresses have four parts, of which servers name two."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        skip("there is no IPv6 here")
    with connected("::1") as six:
        client, server = six.scope["client"][:2], six.scope["server"][:2]
        assert Sockets().cut({**six.scope, "client": client, "server": server})
        assert not six.is_open()


def test_sockets_without_two_addresses_are_skipped(connection: Connection) -> None:
    """The search goes on past listening sockets and Unix sockets."""
    left, right = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)), left, right:
        assert Sockets().cut(connection.scope)


@pytest.mark.parametrize(
    "changes",
    [
        {"http_version": "2"},
        {"client": ("127.0.0.1", 0)},
        {"client": None},
        {"server": None},
        {"client": ("127.0.0.1", "?")},
        {"server": ("/run/app.sock", None)},
        {"client": ("192.0.2.1", 5)},
        {"server": ("192.0.2.1", 80)},
    ],
    ids=str,
)
def test_an_uncertain_connection_is_left_alone(connection: Connection, changes: dict[str, Any]) -> None:
    """HTTP/2, addresses from a proxy's headers, Unix sockets, and addresses of other processes."""
    with refusing(connection, **changes) as scope:
        found = Sockets()
        assert not found.cut(scope)
        assert found.unsent(scope) == 0


def test_a_request_without_addresses_is_left_alone(connection: Connection) -> None:
    """ASGI makes them optional."""
    assert not Sockets().cut({"http_version": "1.1"})


def test_the_list_is_used_for_a_second(connection: Connection, monkeypatch: Any) -> None:
    """A thousand viewers that stall at once cost one listing of all descriptors."""
    lists = []
    listdir = os.listdir

    def counted(path: str) -> list[str]:
        lists.append(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", counted)
    clock = Clock()
    found = Sockets(clock)

    for _ in range(3):
        found.unsent(connection.scope)
    assert len(lists) == 1
    with connected() as later:
        assert not found.cut(later.scope)
        clock.now += 1
        assert found.cut(later.scope)
    assert len(lists) == 2


def test_a_descriptor_that_was_reused_is_not_cut(connection: Connection) -> None:
    """Its addresses are checked again before the cut."""
    found = Sockets(Clock())
    found.unsent(connection.scope)
    with connected() as other:
        number = connection.server.fileno()
        os.dup2(other.server.fileno(), number)

        assert not found.cut(connection.scope)
        assert other.is_open()


def test_a_descriptor_that_was_closed_or_names_a_file_is_not_cut(connection: Connection, tmp_path: Any) -> None:
    """The list may be older than either."""
    found = Sockets(Clock())
    found.unsent(connection.scope)
    number = connection.server.detach()
    os.close(number)
    assert not found.cut(connection.scope)

    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    try:
        os.dup2(descriptor, number)
        assert not found.cut(connection.scope)
    finally:
        os.close(descriptor)
        os.close(number)


def test_bytes_that_a_client_does_not_take_are_counted(connection: Connection) -> None:
    """Only bytes still in the server's kernel count, rather than those waiting in the client's."""
    found = Sockets()
    connection.server.sendall(b"x" * 1000)
    assert found.unsent(connection.scope) == 0
    connection.fill()
    assert found.unsent(connection.scope) > 0


def test_a_kernel_that_cannot_count_unsent_bytes_reports_none(connection: Connection, monkeypatch: Any) -> None:
    """The client then counts as keeping up."""

    def refuse(*args: object) -> None:
        raise OSError("Inappropriate ioctl for device")

    connection.fill()
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "ioctl", refuse)
        assert Sockets().unsent(connection.scope) == 0
    monkeypatch.setattr(sys, "platform", "plan9")
    assert Sockets().unsent(connection.scope) == 0


def test_bytes_that_a_client_has_acknowledged_are_counted(connection: Connection) -> None:
    """They grow while it reads, although the kernel's buffers may be too full for another write; then they stay."""
    found = Sockets()
    written = connection.fill()
    before = found.acknowledged(connection.scope)
    assert before is not None
    assert 0 < before < written
    assert found.acknowledged(connection.scope) == before
    connection.read(written)
    after = found.acknowledged(connection.scope)
    assert after is not None
    assert after > before


def test_where_acknowledged_bytes_are_unknown_nothing_is_said(connection: Connection, monkeypatch: Any) -> None:
    """Other kernels, old ones, and connections that are not found."""
    assert Sockets().acknowledged({**connection.scope, "http_version": "2"}) is None
    with monkeypatch.context() as patched:
        patched.setattr(socket, "TCP_INFO", socket.TCP_NODELAY)  # has fewer bytes
        assert Sockets().acknowledged(connection.scope) is None
    with monkeypatch.context() as patched:
        patched.setattr(socket, "TCP_INFO", 10**6)
        assert Sockets().acknowledged(connection.scope) is None
    monkeypatch.setattr(sys, "platform", "plan9")
    assert Sockets().acknowledged(connection.scope) is None


def test_a_client_may_close_before_the_cut(connection: Connection, monkeypatch: Any) -> None:
    """The connection counts as cut: it is closed."""

    class Gone(socket.socket):
        def shutdown(self, how: int) -> None:
            raise OSError("Transport endpoint is not connected")

    monkeypatch.setattr(socket, "socket", Gone)
    assert Sockets().cut(connection.scope)


def test_without_a_list_of_descriptors_connections_are_left_alone(connection: Connection, monkeypatch: Any) -> None:
    """As on systems without `/proc` and `/dev/fd`."""

    def refuse(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", refuse)
    with refusing(connection) as scope:
        assert not Sockets().cut(scope)


def test_a_socket_that_python_cannot_open_is_skipped(connection: Connection, monkeypatch: Any) -> None:
    """The descriptor duplicated for it is closed."""
    before = len(os.listdir("/dev/fd"))

    def refuse(**kwargs: Any) -> None:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", refuse)
        assert not Sockets().cut(connection.scope)
    assert len(os.listdir("/dev/fd")) == before


class Cycle:
    """The object behind uvicorn's `receive`, which is a method of it."""

    def __init__(self, connection: Connection, *, is_closed: bool = False) -> None:
        self.transport = self
        self._scope = connection.scope
        self._is_closed = is_closed

    def get_extra_info(self, name: str) -> Any:
        if self._is_closed:
            raise OSError("Transport endpoint is not connected")
        return self._scope[{"peername": "client", "sockname": "server"}[name]]

    async def receive(self) -> Any: ...


def test_a_proxy_does_not_hide_the_connection_from_uvicorns_transport(connection: Connection) -> None:
    """The proxy's `X-Forwarded-For` has replaced the address in the scope; the transport still has the real one."""
    scope = {**connection.scope, "client": ("192.0.2.1", 0)}
    assert not Sockets().cut(scope)
    inbox = Inbox(Cycle(connection).receive, lambda: False)  # what the bridge itself puts around it
    assert with_own_addresses(scope, inbox) == with_own_addresses(scope, Cycle(connection).receive)
    assert Sockets().cut(with_own_addresses(scope, inbox))
    assert not connection.is_open()


def test_without_a_transport_the_scope_is_returned_as_it_is(connection: Connection) -> None:
    """Other servers, a wrapped `receive`, and a closed transport."""

    async def receive() -> Any: ...

    others: list[Any] = [receive, Cycle(connection, is_closed=True).receive, [].append]
    for other in others:
        assert with_own_addresses(connection.scope, other) is connection.scope
