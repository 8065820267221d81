"""The command line. Each subcommand has one function that adds it to the parser and one that runs it.

A subcommand imports its parts when it runs, so that applications can mount the bridge without uvicorn or the sandbox.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    Args:
        argv: the arguments after the program's name; `None` takes the process's.
    """
    parser = argparse.ArgumentParser(prog="sse-bridge", description="Sandbox output as Server-Sent Events.")
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)
    for add in (_add_demo, _add_sandbox):
        add(commands)
    arguments = parser.parse_args(argv)
    result: int = arguments.run(arguments)
    return result


def _add_demo(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="serve a page that shows a script's output as it is printed",
        description="Serves a page with a Run button, and a local sandbox in which its script runs.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="0 picks a free one (default: %(default)s)")
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from .console.server import serve
    except ModuleNotFoundError as error:
        return _without_server(error)
    try:
        listener = _listen(arguments.host, arguments.port)
    except OSError as error:
        return _fail(f"cannot listen on {arguments.host}, port {arguments.port}: {error}")
    with listener:
        _notice_frozen_clients(listener)
        print(f"The demo is at {_url(listener)} (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            serve(listener)
    return 0


def _add_sandbox(commands: Commands) -> None:
    parser = commands.add_parser(
        "sandbox",
        help="serve a MIOSA-compatible sandbox API over processes of this machine",
        description="Serves MIOSA's sandbox API over processes of this machine, without any isolation.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8080, help="0 picks a free one (default: %(default)s)")
    parser.add_argument("--key", help="API key that clients send (default: $MIOSA_API_KEY, else a random one)")
    parser.add_argument("--sandbox", type=_name, metavar="NAME", help="create a sandbox with this name, and say its id")
    parser.add_argument("--profile", default="standard", help="how sandboxes behave (default: %(default)s)")
    parser.set_defaults(run=_sandbox)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"not a port: {text}")
    return int(text)


def _name(text: str) -> str:
    if not (text and text.isprintable()):
        raise argparse.ArgumentTypeError(f"not a name: {text!a}")
    return text


def _sandbox(arguments: argparse.Namespace) -> int:
    from .sandbox import PROFILES, create_app

    try:
        from .sandbox.server import serve
    except ModuleNotFoundError as error:
        return _without_server(error)
    if arguments.profile not in PROFILES:
        return _fail(f"unknown profile {arguments.profile!r}; the profiles are {', '.join(PROFILES)}")
    known = arguments.key or os.environ.get("MIOSA_API_KEY")
    key = known or f"msk_local_{secrets.token_urlsafe(24)}"
    try:
        listener = _listen(arguments.host, arguments.port)
    except OSError as error:
        return _fail(f"cannot listen on {arguments.host}, port {arguments.port}: {error}")
    with listener:
        app = create_app(key=key, profile=PROFILES[arguments.profile])
        sandbox_id = app.state.sandboxes.create({"name": arguments.sandbox}).id if arguments.sandbox else None
        _print_banner(_url(listener), None if known else key, sandbox_id)
        with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped
            serve(app, listener)
    return 0


def _without_server(error: ModuleNotFoundError) -> int:
    if error.name != "uvicorn":
        raise error
    return _fail('serving needs uvicorn: pip install "sse_bridge[serve]"')


def _fail(message: str) -> int:
    print(f"sse-bridge: {message}", file=sys.stderr)
    return 1


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Binding before the banner is printed makes the port known, and ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def _notice_frozen_clients(listener: socket.socket) -> None:
    """Sets options that connections inherit. Without them a client that vanished silently looks alive for minutes: the
    kernel takes up to some 4 MB before a `send` hangs."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)  # ms until an acknowledgement
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 16 * 1024)  # bytes waiting in the kernel


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _print_banner(url: str, new_key: str | None, sandbox_id: str | None) -> None:
    """Says what runs here and how to use it. Shows the key only if we made it up, and only once."""
    key = "MIOSA_API_KEY=<the key this server was given>" if new_key is None else f"MIOSA_API_KEY={new_key}"
    print(
        f"MIOSA's sandbox API over processes of this machine: {url}",
        "WARNING: there is no isolation. Anyone with the key can run commands on this machine, as you.",
        "",
        "To point a client at it (the SDK adds /api/v1 itself):",
        f"  export MIOSA_BASE_URL={url}",
        f"  export {key}",
        "",
        *([] if sandbox_id is None else _usage(url, sandbox_id)),
        "Ctrl-C ends the server and every command that runs in it.",
        sep="\n",
        flush=True,
    )


def _usage(url: str, sandbox_id: str) -> list[str]:
    """How to run a command in the sandbox, in a shell that has the key from the lines above."""
    body = '{"command":"for i in 1 2 3; do echo $i; sleep 1; done"}'
    return [
        f"To run a command in the sandbox {sandbox_id}:",
        f"  curl -N {url}/api/v1/sandboxes/{sandbox_id}/exec/stream"
        f""" -H "Authorization: Bearer $MIOSA_API_KEY" -H "Content-Type: application/json" -d '{body}'""",
        "",
    ]
