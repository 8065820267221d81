"""The addresses that commands print."""

from __future__ import annotations

import socket

import pytest

from sse_bridge.cli.listening import opened, reach_of, url_of
from tests.cli.conftest import Background
from tests.support.programs import banner_of, has_ipv6

EVERYWHERE = "It listens on all interfaces. For other machines, put this machine's name in place of {}."


@pytest.mark.parametrize(
    ("host", "shown", "everywhere"),
    [
        ("127.0.0.1", "127.0.0.1", False),
        ("localhost", "127.0.0.1", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("", "127.0.0.1", True),
        ("::1", "[::1]", False),
        ("::", "[::1]", True),
    ],
)
def test_a_printed_address_can_be_opened(host: str, shown: str, everywhere: bool) -> None:
    """0.0.0.0 stands for all interfaces, and browsers refuse it as an address."""
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    listener = opened(host, 0)
    assert listener is not None
    with listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://{shown}:{port}"
        assert reach_of(listener) == ([EVERYWHERE.format(shown)] if everywhere else [])
        socket.create_connection((shown.strip("[]"), port), timeout=10).close()


@pytest.mark.parametrize("command", [["demo"], ["sandbox"], ["serve", "sbx_1", "true"]])
def test_commands_say_that_they_listen_on_all_interfaces(command: list[str], background: Background) -> None:
    name, *words = command
    server = background(name, "--host", "0.0.0.0", "--port", "0", *words)
    banner = banner_of(server, "Ctrl-C", "interfaces")
    assert EVERYWHERE.format("127.0.0.1") in banner
    assert "0.0.0.0" not in banner
