"""`sse-bridge sandbox`: MIOSA's sandbox API over processes of this machine."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
from contextlib import suppress
from typing import Annotated, Final

import typer

from .listening import LOOPBACK, Port, opened, reach_of, url_of
from .saying import fail, missing

__all__ = ["sandbox"]

#: `sandbox.PROFILES`, whose module is imported when the command runs.
_PROFILES: Final = (
    "standard",
    "soma",
    "pieces",
    "legacy-unnamed",
    "legacy-types",
    "legacy-keys",
    "legacy-timeout",
    "no-exit",
    "failed-exit",
    "late-start",
    "slow-headers",
    "silent",
    "cut",
    "cut-inside",
)


def _name(text: str) -> str:
    if not (text and text.isprintable()):
        raise typer.BadParameter(f"not a name: {text!a}")
    return text


def sandbox(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = LOOPBACK,
    port: Port = 8080,
    key: Annotated[
        str | None, typer.Option(help="API key that clients send. Default: $MIOSA_API_KEY, else a random one.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--sandbox",
            parser=_name,
            metavar="NAME",
            help="Create a sandbox with this name, and print its id. Commands take the id, not the name.",
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option(metavar="PROFILE", help=f"How sandboxes behave: {', '.join(_PROFILES)}.")
    ] = "standard",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Leave out the lines on stderr for each command's start and end.")
    ] = False,
) -> int:
    """Serve MIOSA's sandbox API over processes of this machine, without any isolation."""
    from ..sandbox import PROFILES, create_app

    try:
        from ..sandbox.server import serve
    except ModuleNotFoundError as error:
        return missing(error, "uvicorn", "serve")
    if profile not in PROFILES:
        return fail(f"unknown profile {profile!r}; the profiles are {', '.join(PROFILES)}")
    inherited = None if key else os.environ.get("MIOSA_API_KEY")
    used = key or inherited or f"msk_local_{secrets.token_urlsafe(24)}"
    if (listener := opened(host, port)) is None:
        return 1
    with listener:
        app = create_app(key=used, profile=PROFILES[profile])
        sandbox_id = app.state.sandboxes.create({"name": name}).id if name else None
        _print_banner(url_of(listener), reach_of(listener), None if inherited else used, sandbox_id)
        if not quiet:
            logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
        with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped
            serve(app, listener)
    return 0


def _print_banner(url: str, reach: list[str], key: str | None, sandbox_id: str | None) -> None:
    """Says what runs here and how to use it, in lines to be pasted.

    Shows a key that we made up, which only we know, and one of the command line, which this terminal shows already. A
    key of the environment is `None`: users put it there to keep it out of terminals and logs.
    """
    exports = [f"  export MIOSA_BASE_URL={url}"]
    if key is not None:
        exports.append(f"  export MIOSA_API_KEY={shlex.quote(key)}")
    if sandbox_id is not None:
        exports.append(f"  export SANDBOX_ID={sandbox_id}")
    if key is None:
        exports.append("MIOSA_API_KEY is the one in the environment of this server.")
    print(
        f"MIOSA's sandbox API over processes of this machine: {url}",
        *reach,
        "WARNING: there is no isolation. Anyone with the key can run commands on this machine, as you.",
        "",
        "To point a client at it (the SDK adds /api/v1 itself):",
        *exports,
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
