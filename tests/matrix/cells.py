"""What is tried together: frameworks, servers and proxies, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from tests.matrix.proxies import PROXIES, Proxy
from tests.matrix.table import YES

__all__ = ["CELLS", "Cell", "Server", "Stop"]

APP: Final = "tests.matrix.apps:app"


class Stop(Enum):
    """What becomes of a viewer and its command when the server is told to stop, as the page says it."""

    #: The viewer gets the bridge's last frames and a proper end; the command is ended.
    WHOLE = YES
    #: The same, but for the proper end: the connection is closed.
    TOLD = "told, cut off"


@dataclass(frozen=True)
class Server:
    """A server by its command line.

    Args:
        title: as the page calls it.
        command: the module and its arguments. `{port}`, `{cert}` and `{key}` are filled in.
        is_http2: whether it speaks TLS and HTTP/2.
        stop: how it stops.
    """

    title: str
    command: tuple[str, ...]
    workers: int = 1
    is_http2: bool = False
    stop: Stop = Stop.WHOLE


def _server(title: str, command: str, **options: Any) -> Server:
    return Server(title, tuple(command.format(app=APP, port="{port}", cert="{cert}", key="{key}").split()), **options)


_UVICORN: Final = "uvicorn {app} --host 127.0.0.1 --port {port}"
_GUNICORN: Final = "gunicorn {app} --bind 127.0.0.1:{port} --worker-class uvicorn_worker.UvicornWorker"
_HYPERCORN: Final = "hypercorn {app} --bind 127.0.0.1:{port}"
_GRANIAN: Final = "granian {app} --interface asgi --host 127.0.0.1 --port {port}"
_DAPHNE: Final = "daphne -b 127.0.0.1 -p {port} {app}"

SERVERS: Final = {
    "uvicorn": _server("uvicorn", _UVICORN),
    "uvicorn-h11": _server("uvicorn, h11 and asyncio", _UVICORN + " --http h11 --loop asyncio"),
    "uvicorn-httptools": _server("uvicorn, httptools and asyncio", _UVICORN + " --http httptools --loop asyncio"),
    "uvicorn-uvloop": _server("uvicorn, httptools and uvloop", _UVICORN + " --http httptools --loop uvloop"),
    "uvicorn-workers": _server("uvicorn, two workers", _UVICORN + " --workers 2", workers=2),
    "gunicorn": _server("gunicorn, uvicorn worker", _GUNICORN),
    "gunicorn-workers": _server("gunicorn, two uvicorn workers", _GUNICORN + " --workers 2", workers=2),
    "gunicorn-asgi": _server(
        "gunicorn, its own ASGI worker", "gunicorn {app} --bind 127.0.0.1:{port} --worker-class asgi"
    ),
    "hypercorn": _server("hypercorn, asyncio", _HYPERCORN),
    "hypercorn-workers": _server("hypercorn, two workers", _HYPERCORN + " --workers 2", workers=2),
    "hypercorn-trio": _server("hypercorn, trio", _HYPERCORN + " --worker-class trio"),
    "hypercorn-h2": _server(
        "hypercorn, HTTP/2", _HYPERCORN + " --certfile {cert} --keyfile {key}", is_http2=True, stop=Stop.TOLD
    ),
    "granian": _server("granian", _GRANIAN),
    "granian-workers": _server("granian, two workers", _GRANIAN + " --workers 2", workers=2),
    "granian-h2": _server(
        "granian, HTTP/2", _GRANIAN + " --http 2 --ssl-certificate {cert} --ssl-keyfile {key}", is_http2=True
    ),
    "daphne": _server("daphne", _DAPHNE),
}


@dataclass(frozen=True)
class Cell:
    """A framework on a server, perhaps behind a proxy.

    Args:
        section: the table of the page.
        title: its row.
        is_quick: whether `make test` runs it.
        prefix: of the bridges' paths.
        slash: behind a bridge's path.
    """

    section: str
    name: str
    title: str
    framework: str = "starlette_mount"
    server: Server = field(default_factory=lambda: SERVERS["uvicorn"])
    proxy: Proxy | None = None
    is_quick: bool = False
    prefix: str = ""
    slash: str = "/"

    @property
    def is_http2(self) -> bool:
        """Whether its viewers speak HTTP/2."""
        return self.server.is_http2 if self.proxy is None else self.proxy.is_http2

    @property
    def heartbeats(self) -> int:
        """After how many heartbeats at most the bridge hears that a viewer has left; 0 if it needs none."""
        return 0 if self.proxy is None else self.proxy.heartbeats


def _frameworks() -> list[Cell]:
    rows: list[tuple[str, str, dict[str, Any]]] = [
        ("starlette_mount", "Starlette: `Mount`", {"is_quick": True}),
        ("starlette_nested", "Starlette: `Mount` in a mounted application", {"prefix": "/api"}),
        ("starlette_route", "Starlette: `Route`", {"slash": ""}),
        ("starlette_middleware", "Starlette: `SSEBridgeMiddleware`", {}),
        ("starlette_stack", "Starlette: `Mount` under CORS, GZip, two `BaseHTTPMiddleware`", {}),
        ("fastapi_mount", "FastAPI: `mount`", {}),
        ("fastapi_subapp", "FastAPI: `mount` in a mounted application", {"prefix": "/api"}),
        ("fastapi_router", "FastAPI: `mount`, `include_router` beside it", {}),
        ("fastapi_stack", "FastAPI: `mount` under CORS, GZip, two `BaseHTTPMiddleware`", {"is_quick": True}),
        ("fastapi_middleware", "FastAPI: `add_middleware(SSEBridgeMiddleware)`", {}),
        ("quart_middleware", "Quart: `SSEBridgeMiddleware`", {"is_quick": True}),
        ("quart_dispatcher", "Quart: hypercorn's `DispatcherMiddleware`", {}),
        ("litestar_mount", "Litestar: `asgi(is_mount=True)`", {}),
        ("litestar_middleware", "Litestar: `SSEBridgeMiddleware`", {}),
        ("django_middleware", "Django: `SSEBridgeMiddleware`", {}),
        ("django_starlette", "Django: mounted beside the bridge in Starlette", {}),
        ("django_channels", "Django: Channels' `URLRouter`", {}),
        ("falcon_middleware", "Falcon: `SSEBridgeMiddleware`", {}),
        ("blacksheep_mount", "BlackSheep: `mount`", {}),
        ("blacksheep_middleware", "BlackSheep: `SSEBridgeMiddleware`", {}),
        ("sanic_middleware", "Sanic: `SSEBridgeMiddleware`", {}),
        ("bare_asgi", "no framework: a dispatcher that sets `root_path`", {}),
    ]
    return [Cell("frameworks", name, title, framework=name, **options) for name, title, options in rows]


def _servers() -> list[Cell]:
    quick = {"hypercorn", "granian"}
    return [
        Cell("servers", name, server.title, server=server, is_quick=name in quick)
        for name, server in SERVERS.items()
        if name != "uvicorn"
    ]


def _proxies() -> list[Cell]:
    return [
        Cell("proxies", name, proxy.title, proxy=proxy, is_quick=name == "nginx") for name, proxy in PROXIES.items()
    ]


def _combinations() -> list[Cell]:
    rows = [
        ("FastAPI, gunicorn, nginx", "fastapi_mount", "gunicorn", "nginx"),
        ("FastAPI, uvicorn, nginx with HTTP/2", "fastapi_stack", "uvicorn-uvloop", "nginx-h2"),
        ("FastAPI, two workers of uvicorn, nginx", "fastapi_mount", "uvicorn-workers", "nginx-1.1"),
        ("FastAPI, uvicorn, Caddy", "fastapi_mount", "uvicorn-uvloop", "caddy"),
        ("FastAPI, hypercorn, HAProxy", "fastapi_mount", "hypercorn", "haproxy"),
        ("Starlette, granian, HAProxy", "starlette_mount", "granian", "haproxy"),
        ("Starlette, granian, nginx", "starlette_mount", "granian", "nginx"),
        ("Starlette, gunicorn, Apache", "starlette_mount", "gunicorn", "apache"),
        ("Starlette, hypercorn with trio, nginx", "starlette_mount", "hypercorn-trio", "nginx-1.1"),
        ("Django, daphne, nginx", "django_middleware", "daphne", "nginx"),
        ("Django, uvicorn, Apache", "django_middleware", "uvicorn", "apache"),
        ("Django, gunicorn, nginx with HTTP/2", "django_middleware", "gunicorn", "nginx-h2"),
        ("Django with Channels, daphne, nginx", "django_channels", "daphne", "nginx"),
        ("Quart, hypercorn, Caddy with HTTP/2", "quart_middleware", "hypercorn", "caddy-h2"),
        ("Quart, hypercorn, nginx", "quart_middleware", "hypercorn", "nginx"),
        ("Litestar, granian, nginx", "litestar_mount", "granian", "nginx-1.1"),
        ("Litestar, uvicorn, Caddy", "litestar_mount", "uvicorn", "caddy"),
        ("Falcon, uvicorn, HAProxy", "falcon_middleware", "uvicorn", "haproxy"),
        ("BlackSheep, uvicorn, nginx", "blacksheep_mount", "uvicorn", "nginx"),
        ("Sanic, uvicorn, Varnish", "sanic_middleware", "uvicorn", "varnish"),
    ]
    return [
        Cell(
            "combinations",
            "-".join((framework, server, proxy)),
            title,
            framework=framework,
            server=SERVERS[server],
            proxy=PROXIES[proxy],
        )
        for title, framework, server, proxy in rows
    ]


CELLS: Final = [*_frameworks(), *_servers(), *_proxies(), *_combinations()]
