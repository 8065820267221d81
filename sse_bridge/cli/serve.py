"""`sse-bridge serve`: a bridge for one command, without writing code."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qs

import typer

from ..errors import BridgeError
from .asking import CommandLine, Cwd, Env, Sandbox, Timeout, Wanted, platform
from .listening import LOOPBACK, Port, notice_frozen_clients, opened, reach_of, url_of
from .saying import fail, missing, words_of

if TYPE_CHECKING:
    from ..upstream.base import Source
    from ..upstream.miosa.client import Miosa

__all__ = ["serve"]

#: Seconds that open responses get at the end: as long as the bridge takes to end its streams and their commands.
_SHUTDOWN_TIMEOUT: Final = 8
#: Where the page's modules are. They are the package's, and need no token: a module's imports could not show it.
_MODULES: Final = "/sse-bridge"
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def serve(
    sandbox: Sandbox,
    command: CommandLine,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on. Other than loopback needs a token.")
    ] = LOOPBACK,
    port: Port = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="SSE_BRIDGE_TOKEN",
            help="What each request has to show. Default: none on loopback, else a random one.",
        ),
    ] = None,
    env: Env = None,
    cwd: Cwd = None,
    timeout: Timeout = None,
    max_runs: Annotated[int, typer.Option(min=1, help="Commands that run at once.")] = 8,
) -> int:
    """Serve a page with a Run button for this one command, and the bridge behind it at /run-sse/.

    Clients choose nothing about the command. The platform and the key are MIOSA_BASE_URL and MIOSA_API_KEY.
    """
    try:
        import uvicorn

        from ..sandbox.server import hangup_stops, server_config
    except ModuleNotFoundError as error:
        return missing(error, "uvicorn", "serve")
    is_local = _is_loopback(host)
    shown = token or (None if is_local else secrets.token_urlsafe(24))
    try:
        source, miosa = Wanted(sandbox, command, env, cwd, timeout).source(), platform()
    except BridgeError as error:
        return fail(words_of(error))
    app = _Door(_application(miosa, source, max_runs), shown, is_local=is_local)
    if (listener := opened(host, port)) is None:
        return 1
    with listener:
        notice_frozen_clients(listener)
        _print_banner(url_of(listener), reach_of(listener), None if token else shown, has_token=shown is not None)
        with suppress(KeyboardInterrupt), hangup_stops():
            uvicorn.Server(server_config(app, _SHUTDOWN_TIMEOUT)).run(sockets=[listener])
    return 0


def _application(miosa: Miosa, source: Source, max_runs: int) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.routing import Mount, Route

    from ..asgi.app import SSEBridge
    from ..console.files import static_files
    from ..console.pages import COMMAND, page_of

    async def resolve(request: Request) -> Source:
        return source

    bridge = SSEBridge(miosa, resolve, max_runs=max_runs, refusals="frame")
    modules = Mount(_MODULES, static_files())
    return Starlette(routes=[Route("/", page_of(COMMAND)), modules, Mount("/run-sse", bridge)])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Door:
    """Lets in requests that show the token, and on loopback those that name it in `Host`.

    A page of another site can have its own name point to 127.0.0.1 (DNS rebinding), and is of the same origin then.
    """

    def __init__(self, app: Any, token: str | None, *, is_local: bool) -> None:
        self._app = app
        self._token = token
        self._is_local = is_local

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            status, words = refusal
            head = {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]}
            await send(head)
            await send({"type": "http.response.body", "body": words})
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Any) -> tuple[int, bytes] | None:
        headers = dict(scope["headers"])
        name = headers.get(b"host", b"").decode("latin-1").lower()
        name = name.partition("]")[0].lstrip("[") if name.startswith("[") else name.partition(":")[0]
        if self._is_local and name not in _LOCAL_NAMES:
            return 421, b"This server answers for localhost only.\n"
        if self._token is None or scope["path"].startswith(f"{_MODULES}/"):
            return None
        query = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        bearer = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        if any(hmac.compare_digest(shown.encode(), self._token.encode()) for shown in (query, bearer)):
            return None
        return 401, b"Show the token: Authorization: Bearer ..., or ?token=... in the address.\n"


def _print_banner(url: str, reach: list[str], new_token: str | None, *, has_token: bool) -> None:
    header = ' -H "Authorization: Bearer $SSE_BRIDGE_TOKEN"' if has_token else ""
    query = f"?token={new_token or '...'}" if has_token else ""
    lines = [
        f"The page with the Run button: {url}/{query}",
        f"Each request to {url}/run-sse/ runs the command and streams its output.",
        *reach,
    ]
    if new_token is not None:
        lines += ["Clients need the token:", f"  export SSE_BRIDGE_TOKEN={new_token}"]
    lines += [
        f"  sse-bridge follow {url}/run-sse/{header}",
        f"  curl -N {url}/run-sse/{header}",
        "Ctrl-C ends the server and its commands.",
    ]
    print(*lines, sep="\n", flush=True)
