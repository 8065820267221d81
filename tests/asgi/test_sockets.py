"""`Sockets`: the right connection is cut, or none."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sse_bridge.asgi import sockets
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
    """In both directions, and no other, and the descriptor stays the server's to close."""
    with connected() as other:
        assert Sockets().cut(connection.scope)

        assert not connection.is_open()
        assert other.is_open()
        assert connection.server.recv(1) == b""
        os.fstat(connection.server.fileno())


def test_ports_may_be_strings(connection: Connection) -> None:
    """As granian 2.8 has them."""
    client, server = connection.scope["client"], connection.scope["server"]
    assert Sockets().cut(
        {**connection.scope, "client": (client[0], str(client[1])), "server": (server[0], str(server[1]))}
    )


def test_ipv6() -> None:
    """Whose addresses have four parts, of which servers name two."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        skip("there is no IPv6 here")
    with connected("::1") as six:
        client, server = six.scope["client"][:2], six.scope["server"][:2]
        assert Sockets().cut({**six.scope, "client": client, "server": server})
        assert not six.is_open()


def test_sockets_without_two_addresses_are_passed_over(connection: Connection) -> None:
    """Those that listen, and Unix sockets."""
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
def test_nothing_is_cut_where_the_connection_is_not_certain(connection: Connection, changes: dict[str, Any]) -> None:
    """HTTP/2, proxies' headers, Unix sockets, and addresses that nobody here has."""
    with refusing(connection, **changes) as scope:
        found = Sockets()
        assert not found.cut(scope)
        assert found.unsent(scope) == 0


def test_a_request_without_addresses(connection: Connection) -> None:
    """ASGI does not demand them."""
    assert not Sockets().cut({"http_version": "1.1"})


def test_the_list_is_kept_for_a_second(connection: Connection, monkeypatch: Any) -> None:
    """So that a thousand viewers who stall at once cost one."""
    lists = []
    real = sockets._list

    def counted() -> Any:
        lists.append(1)
        return real()

    monkeypatch.setattr(sockets, "_list", counted)
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


def test_a_descriptor_that_is_used_again_is_not_cut(connection: Connection) -> None:
    """What the list says is looked at once more."""
    found = Sockets(Clock())
    found.unsent(connection.scope)
    with connected() as other:
        number = connection.server.fileno()
        os.dup2(other.server.fileno(), number)

        assert not found.cut(connection.scope)
        assert other.is_open()


def test_a_descriptor_that_is_closed_or_no_socket_is_not_cut(connection: Connection, tmp_path: Any) -> None:
    """The same."""
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


def test_what_a_client_does_not_read_is_counted(connection: Connection) -> None:
    """What is on its way does not count."""
    found = Sockets()
    connection.server.sendall(b"x" * 1000)
    assert found.unsent(connection.scope) == 0
    connection.fill()
    assert found.unsent(connection.scope) > 0


def test_where_the_kernel_does_not_say(connection: Connection, monkeypatch: Any) -> None:
    """Then nobody counts as behind."""

    def refuse(*args: object) -> None:
        raise OSError("Inappropriate ioctl for device")

    connection.fill()
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "ioctl", refuse)
        assert Sockets().unsent(connection.scope) == 0
    monkeypatch.setattr(sys, "platform", "plan9")
    assert Sockets().unsent(connection.scope) == 0


def test_a_client_that_is_faster_than_the_cut(connection: Connection, monkeypatch: Any) -> None:
    """It is gone, which is what was wanted."""

    class Gone(socket.socket):
        def shutdown(self, how: int) -> None:
            raise OSError("Transport endpoint is not connected")

    monkeypatch.setattr(socket, "socket", Gone)
    assert Sockets().cut(connection.scope)


def test_where_descriptors_are_not_listed(connection: Connection, monkeypatch: Any) -> None:
    """Then no connection is found."""
    monkeypatch.setattr(sockets, "_LISTS", ("/nowhere",))
    with refusing(connection) as scope:
        assert not Sockets().cut(scope)


def test_a_socket_that_python_cannot_open_is_passed_over(connection: Connection, monkeypatch: Any) -> None:
    """And its copy is closed."""
    before = len(os.listdir("/dev/fd"))

    def refuse(**kwargs: Any) -> None:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", refuse)
        assert not Sockets().cut(connection.scope)
    assert len(os.listdir("/dev/fd")) == before


class Cycle:
    """What uvicorn's `receive` is a method of."""

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
    """Its `X-Forwarded-For` has replaced the address in the scope."""
    scope = {**connection.scope, "client": ("192.0.2.1", 0)}
    assert not Sockets().cut(scope)
    assert Sockets().cut(with_own_addresses(scope, Cycle(connection).receive))
    assert not connection.is_open()


def test_where_nobody_can_be_asked_the_scope_is_what_there_is(connection: Connection) -> None:
    """Other servers, wrapped `receive`s, transports that are closed."""

    async def receive() -> Any: ...

    others: list[Any] = [receive, Cycle(connection, is_closed=True).receive, [].append]
    for other in others:
        assert with_own_addresses(connection.scope, other) is connection.scope
