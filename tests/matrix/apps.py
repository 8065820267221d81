"""The application of the matrix in every framework, as a module for any server's command line.

Each has the same bridges: `/run-sse`, `/quiet-sse` without heartbeats, and `/kept-sse`, whose runs wait for a viewer
to come back. `/` of the first framework is a page that opens one of them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from sse_bridge import Miosa, SandboxExec, SSEBridge, SSEBridgeMiddleware
from sse_bridge.asgi.messages import AnyASGIApp

__all__ = ["FRAMEWORKS", "LINES", "app"]

#: Lines that the script prints after its release.
LINES: Final = 200
#: Seconds. Short, so that a test waits little for one, and long against what sending one takes.
HEARTBEAT: Final = 0.25
#: Names the script among the machine's processes; a client's command line holds the mark alone.
_SCRIPT: Final = (
    "echo started >> starts-{mark}; echo first; echo warning >&2; until [ -e go-{mark} ]; do sleep 0.05; done; "
    "seq -f 'line %g' " + str(LINES) + "; exit 3"
)
_PAGE: Final = (Path(__file__).parent / "page.html").read_text()


def _work(request: Request) -> SandboxExec:
    """What the query asks for."""
    if "denied" in request.query_params:
        raise HTTPException(401, "Log in first.")
    sandbox = "sbx_unknown" if "unknown" in request.query_params else _SETTINGS["sandbox"]
    command = _SCRIPT.format(mark=request.query_params["mark"])
    return SandboxExec(sandbox, command, cwd="/workspace", timeout=60)


def _bridge(**options: Any) -> SSEBridge:
    return SSEBridge(
        Miosa(_SETTINGS["url"], _SETTINGS["key"]),
        _work,
        retry_ms=100,
        **{"heartbeat": HEARTBEAT, "grace": 0, **options},
    )


def _bridges() -> dict[str, SSEBridge]:
    """The bridges by their paths."""
    return {"/run-sse": _bridge(), "/quiet-sse": _bridge(heartbeat=None), "/kept-sse": _bridge(grace=30)}


def _health(request: Request) -> Response:
    return PlainTextResponse("ok")


def _wrapped(app: Any) -> Any:
    """Around an application of any framework."""
    for path, bridge in _bridges().items():
        app = SSEBridgeMiddleware(app, path, bridge)
    return app


async def _pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


#: As applications commonly stack them.
_STACK: Final = [
    Middleware(CORSMiddleware, allow_origins=["*"]),
    Middleware(GZipMiddleware, minimum_size=1),
    Middleware(BaseHTTPMiddleware, dispatch=_pass_on),
    Middleware(BaseHTTPMiddleware, dispatch=_pass_on),
]


# -- Starlette


def _mounts() -> list[Mount]:
    return [Mount(path, bridge) for path, bridge in _bridges().items()]


def _page(request: Request) -> Response:
    return HTMLResponse(_PAGE)


def starlette_mount() -> Any:
    return Starlette(routes=[Route("/", _page), *_mounts()])


def starlette_nested() -> Any:
    return Starlette(routes=[Mount("/api", Starlette(routes=_mounts()))])


def starlette_route() -> Any:
    bridges = _bridges().items()
    return Starlette(
        routes=[
            *(Route(path, bridge) for path, bridge in bridges),
            *(Route(path + "/{run}", bridge) for path, bridge in bridges),
        ]
    )


def starlette_middleware() -> Any:
    return _wrapped(Starlette(routes=[Route("/", _health)]))


def starlette_stack() -> Any:
    return Starlette(routes=_mounts(), middleware=_STACK)


# -- FastAPI


def fastapi_mount() -> Any:
    from fastapi import FastAPI

    app = FastAPI()
    for path, bridge in _bridges().items():
        app.mount(path, bridge)
    return app


def fastapi_subapp() -> Any:
    from fastapi import FastAPI

    app = FastAPI()
    app.mount("/api", fastapi_mount())
    return app


def fastapi_router() -> Any:
    from fastapi import APIRouter

    router = APIRouter(prefix="/run-sse-router")
    router.add_api_route("/", lambda: {"ok": True})
    app = fastapi_mount()
    app.include_router(router)
    return app


def fastapi_stack() -> Any:
    app = fastapi_mount()
    for layer in reversed(_STACK):
        app.add_middleware(layer.cls, *layer.args, **layer.kwargs)
    return app


def fastapi_middleware() -> Any:
    from fastapi import FastAPI

    app = FastAPI()
    for path, bridge in _bridges().items():
        app.add_middleware(SSEBridgeMiddleware, path=path, bridge=bridge)
    return app


# -- others


def quart_middleware() -> Any:
    from quart import Quart

    app = Quart("matrix")
    app.asgi_app = _wrapped(app.asgi_app)  # type: ignore[method-assign]
    return app


def quart_dispatcher() -> Any:
    from hypercorn.middleware import DispatcherMiddleware
    from quart import Quart

    mounts: dict[str, Any] = {**_bridges(), "/": Quart("matrix")}
    return DispatcherMiddleware(mounts)


def litestar_mount() -> Any:
    from litestar import Litestar, asgi

    return Litestar([asgi(path, is_mount=True, copy_scope=True)(bridge) for path, bridge in _bridges().items()])


def litestar_middleware() -> Any:
    from litestar import Litestar

    return _wrapped(Litestar([]))


def _django() -> Any:
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import path

    urls = [path("", lambda request: HttpResponse("ok"))]
    settings.configure(ROOT_URLCONF=type("urls", (), {"urlpatterns": urls}), ALLOWED_HOSTS=["*"], SECRET_KEY="test")
    django.setup()
    return get_asgi_application()


def django_middleware() -> Any:
    return _wrapped(_django())


def django_starlette() -> Any:
    return Starlette(routes=[*_mounts(), Mount("/", _django())])


def django_channels() -> Any:
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.urls import re_path

    django = _django()
    routes = [re_path(rf"^{path.strip('/')}/", bridge) for path, bridge in _bridges().items()]
    return ProtocolTypeRouter({"http": URLRouter([*routes, re_path("", django)])})


def falcon_middleware() -> Any:
    import falcon.asgi

    return _wrapped(falcon.asgi.App())


def blacksheep_mount() -> Any:
    from blacksheep import Application

    app = Application()
    for path, bridge in _bridges().items():
        app.mount(path, bridge)
    return app


def blacksheep_middleware() -> Any:
    from blacksheep import Application

    return _wrapped(Application())


def sanic_middleware() -> Any:
    from sanic import Sanic
    from sanic.response import text

    app = Sanic("matrix")
    app.add_route(lambda request: text("ok"), "/")
    return _wrapped(app)


def bare_asgi() -> Any:
    """A dispatcher as the ASGI specification describes mounts."""
    bridges = _bridges()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        for path, bridge in bridges.items():
            if scope["path"].startswith(path + "/"):
                await bridge({**scope, "root_path": scope.get("root_path", "") + path}, receive, send)
                return
        await PlainTextResponse("not found", 404)(scope, receive, send)

    return app


#: What the matrix names, by the name in `BRIDGE`.
FRAMEWORKS: Final[dict[str, Callable[[], Any]]] = {
    made.__name__: made
    for made in (
        starlette_mount,
        starlette_nested,
        starlette_route,
        starlette_middleware,
        starlette_stack,
        fastapi_mount,
        fastapi_subapp,
        fastapi_router,
        fastapi_stack,
        fastapi_middleware,
        quart_middleware,
        quart_dispatcher,
        litestar_mount,
        litestar_middleware,
        django_middleware,
        django_starlette,
        django_channels,
        falcon_middleware,
        blacksheep_mount,
        blacksheep_middleware,
        sanic_middleware,
        bare_asgi,
    )
}


class HeartbeatCount:
    """Around an application. Counts the heartbeats that the server was given, and shows how many at `/heartbeats/`.

    Args:
        app: of any framework.
    """

    def __init__(self, app: AnyASGIApp) -> None:
        self._app = app
        #: By the mark of the script.
        self._counts: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request, or whatever else the server sends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        mark = Request(scope).query_params.get("mark", "")
        if scope["path"] == "/heartbeats/":
            await JSONResponse(self._counts[mark])(scope, receive, send)
            return

        async def counted(message: Any) -> None:
            self._counts[mark] += message.get("body", b"").count(b": heartbeat\n")
            await send(message)

        await self._app(scope, receive, counted)


def _made() -> Any:
    made = FRAMEWORKS[_SETTINGS["framework"]]()
    return HeartbeatCount(made) if _SETTINGS["counts_heartbeats"] else made


_SETTINGS: Final[dict[str, Any]] = json.loads(os.environ.get("BRIDGE", "{}"))
app: Final = _made() if _SETTINGS else None
