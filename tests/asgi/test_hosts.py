"""Hosts of every kind: the bridge finds out which part of the path is its own.

The kind of fault: a host that says in its own way which path it has matched got 404, because the bridge read
`root_path` alone. Whatever the host says, only that path, with or without one slash at its end, and a token below it
may reach a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import django
import pytest
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponseNotFound
from django.urls import path as django_path
from django.urls import re_path
from fastapi import APIRouter, FastAPI
from hypercorn.middleware.dispatcher import AsyncioDispatcherMiddleware
from litestar import Litestar
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.routing import Host, Mount, Route, Router

from sse_bridge import SSEBridge, SSEBridgeMiddleware
from tests.support.asgi import Page, lines
from tests.support.site import site
from tests.support.work import finished

pytestmark = pytest.mark.anyio

#: A token that no run has.
UNKNOWN = "abcdefghijklmnop"


@pytest.fixture
def anyio_backend() -> str:
    """Django, Litestar and hypercorn's dispatcher are asyncio's."""
    return "asyncio"


async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
    """An application that has nothing."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Wrapped:
    """An application around the bridge, as monitoring tools put there."""

    def __init__(self, bridge: SSEBridge) -> None:
        self.bridge = bridge

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.bridge(scope, receive, send)


def returned(bridge: SSEBridge) -> Any:
    async def endpoint(request: Request) -> SSEBridge:
        return bridge

    return Starlette(routes=[Route("/run-sse", endpoint, methods=["GET", "POST"]), Mount("/run-sse", bridge)])


def included(bridge: SSEBridge) -> Any:
    app, router = FastAPI(), APIRouter()
    router.add_route("/run-sse/{rest:path}", bridge)  # type: ignore[arg-type]  # any ASGI application, says Starlette
    app.include_router(router, prefix="/v1")
    return app


def added(bridge: SSEBridge) -> Any:
    app = FastAPI()
    app.add_route("/run-sse", bridge)  # type: ignore[arg-type]
    app.mount("/run-sse", bridge)
    app.mount("/other", FastAPI())
    return app


def in_litestar(bridge: SSEBridge, *, is_mount: bool) -> Any:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await bridge(scope, receive, send)  # type: ignore[arg-type]

    handler = ASGIRouteHandler("/run-sse", is_mount=is_mount, copy_scope=True)(serve)
    return Litestar([handler], openapi_config=None, logging_config=None)  # it would set up the process's own logging


def in_django(bridge: SSEBridge) -> Any:
    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=False)
        django.setup()
    return SSEBridgeMiddleware(get_asgi_application(), "/run-sse", bridge)


def handler404(request: object, exception: Exception) -> HttpResponseNotFound:
    """Django's own needs a template."""
    return HttpResponseNotFound()


urlpatterns: list[Any] = []


def urls(*routes: Any) -> Any:
    return ProtocolTypeRouter({"http": URLRouter([*routes, re_path(r"", elsewhere)])})


def in_quart(bridge: SSEBridge) -> Any:
    return SSEBridgeMiddleware(Quart("site"), "/run-sse", bridge)


def with_root_path(bridge: SSEBridge) -> Any:
    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        named = scope["path"].startswith("/run-sse")
        await bridge({**scope, "root_path": "/run-sse"} if named else scope, receive, send)

    return dispatch


class Kind:
    """A host, and where in it the bridge is.

    Args:
        make: makes the host.
        mount: the path at which runs start.
        slash: whether the path is served with a slash at its end (`True`), without one (`False`), or both (`None`).
        runs: whether the host hands paths below the mount to the bridge.
        roots: whether it understands a `root_path` in front of the path, and one that a proxy has stripped.
    """

    def __init__(
        self,
        make: Callable[[SSEBridge], Any],
        mount: str = "/run-sse",
        *,
        slash: bool | None = None,
        runs: bool = True,
        roots: tuple[str, ...] = ("", "full", "stripped"),
    ) -> None:
        self.make = make
        self.mount = mount
        self.starts = {None: [mount, mount + "/"], True: [mount + "/"], False: [mount]}[slash]
        self.runs = runs
        self.roots = roots


ALL_OF_STARLETTE: dict[str, Kind] = {
    "Mount": Kind(lambda bridge: Starlette(routes=[Mount("/run-sse", bridge)]), slash=True),
    "Route": Kind(lambda bridge: Starlette(routes=[Route("/run-sse", bridge)]), slash=False, runs=False),
    "Route with a slash": Kind(lambda bridge: Starlette(routes=[Route("/a/run-sse/", bridge)]), "/a/run-sse",
                               slash=True, runs=False),
    "Route whose name looks like a token": Kind(lambda bridge: Starlette(routes=[Route("/" + UNKNOWN, bridge)]),
                                                "/" + UNKNOWN, slash=False, runs=False),
    "Route with a rest": Kind(lambda bridge: Starlette(routes=[Route("/run-sse/{rest:path}", bridge)]), slash=True),
    "Route below a parameter": Kind(lambda bridge: Starlette(routes=[Route("/{user}/run-sse", bridge)]),
                                    "/ann/run-sse", slash=False, runs=False),
    "Route and Route with a run": Kind(lambda bridge: Starlette(routes=[Route("/run-sse", bridge),
                                                                        Route("/run-sse/{run}", bridge)]), slash=False),
    "Route and Mount": Kind(lambda bridge: Starlette(routes=[Route("/run-sse", Wrapped(bridge)),
                                                             Mount("/run-sse", bridge)])),
    "Route with middleware": Kind(lambda bridge: Starlette(
        routes=[Route("/run-sse", bridge, middleware=[Middleware(GZipMiddleware)])]), slash=False, runs=False),
    "Route in a Router": Kind(lambda bridge: Router([Route("/run-sse/{rest:path}", bridge)]), slash=True),
    "Route in a Mount": Kind(lambda bridge: Starlette(routes=[Mount("/a b", routes=[Route("/run-sse", bridge)])]),
                             "/a b/run-sse", slash=False, runs=False, roots=("", "full")),
    "Mount in a Mount": Kind(lambda bridge: Starlette(routes=[Mount("/a", routes=[Mount("/run-sse", bridge)])]),
                             "/a/run-sse", slash=True, roots=("", "full")),
    "Mount below a parameter": Kind(lambda bridge: Starlette(routes=[Mount("/run-sse/{user}", bridge)]),
                                    "/run-sse/ann", slash=True),
    "Mount at a host": Kind(lambda bridge: Starlette(routes=[Host("a.example", Mount("/run-sse", bridge))]),
                            slash=True),
    "endpoint that returns the bridge": Kind(returned),
    "FastAPI with a route": Kind(added),
    "FastAPI with a router": Kind(included, "/v1/run-sse", slash=True),
}  # fmt: skip
HOSTS: dict[str, Kind] = {
    **ALL_OF_STARLETTE,
    "Litestar, a mount": Kind(lambda bridge: in_litestar(bridge, is_mount=True), roots=("",)),
    "Litestar, a route": Kind(lambda bridge: in_litestar(bridge, is_mount=False), runs=False, roots=("",)),
    "Channels, a path": Kind(lambda bridge: urls(django_path("run-sse/", bridge)), slash=True, runs=False,
                             roots=("", "full")),
    "Channels, a path with a run": Kind(lambda bridge: urls(django_path("run-sse/", bridge),
                                                            django_path("run-sse/<str:run>", bridge)),
                                        slash=True, roots=("", "full")),
    "Channels, a path with a rest": Kind(lambda bridge: urls(django_path("<str:user>/run-sse/", bridge),
                                                             django_path("<str:user>/run-sse/<path:rest>", bridge)),
                                         "/ann/run-sse", slash=True, roots=("", "full")),
    "Channels, a prefix": Kind(lambda bridge: urls(re_path(r"^run-sse/", bridge)), slash=True, roots=("", "full")),
    "Channels, an open prefix": Kind(lambda bridge: urls(re_path(r"^run-sse", bridge)), roots=("", "full")),
    "Channels, an unnamed group": Kind(lambda bridge: urls(re_path(r"^run-sse/([\w-]*)/?$", bridge)), slash=True,
                                       roots=("", "full")),
    "Channels in Channels": Kind(lambda bridge: urls(django_path("a/", URLRouter([re_path(r"^run-sse/", bridge)]))),
                                 "/a/run-sse", slash=True, roots=("", "full")),
    "Channels, a Mount in it": Kind(lambda bridge: urls(re_path(r"^", Router([Mount("/run-sse", bridge)]))),
                                    slash=True, roots=("", "full")),
    "Channels in a Mount": Kind(lambda bridge: Starlette(routes=[Mount("/a", urls(django_path("run-sse/", bridge)))]),
                                "/a/run-sse", slash=True, runs=False, roots=("", "full")),
    "Channels, middleware in it": Kind(lambda bridge: urls(re_path(r"", SSEBridgeMiddleware(
        elsewhere, "/run-sse", bridge))), roots=("", "full")),
    "middleware around Django": Kind(in_django),
    "middleware around Quart": Kind(in_quart),
    "middleware in a Mount": Kind(lambda bridge: Starlette(routes=[Mount("/a", SSEBridgeMiddleware(
        elsewhere, "/run-sse", bridge))]), "/a/run-sse"),
    "middleware in a Route": Kind(lambda bridge: Starlette(routes=[Route("/{rest:path}", SSEBridgeMiddleware(
        elsewhere, "/run-sse", bridge))])),
    "hypercorn's dispatcher": Kind(lambda bridge: AsyncioDispatcherMiddleware({"/run-sse": bridge}),  # type: ignore[dict-item]
                                   roots=("",)),
    "a dispatcher that names root_path": Kind(with_root_path, roots=("",)),
}  # fmt: skip


async def ask(app: Any, method: str, path: str, root: str, **headers: str) -> Page:
    """Sends a request as a server does that adds `root` to the path (`full`), or behind a proxy that strips it."""
    page = Page(method, path, root_path="/api" if root else "", headers={"Host": "a.example", **headers})
    if root == "full":
        page.scope["path"] = "/api" + path
    page.scope["raw_path"] = page.scope["path"].replace(" ", "%20").encode()
    with anyio.fail_after(5):
        await app(page.scope, page.receive, page.send)
    return page


CASES = [(name, root) for name, kind in HOSTS.items() for root in kind.roots]


@pytest.mark.parametrize(("name", "root"), CASES)
async def test_a_run_starts_at_the_path_that_the_host_has_matched(name: str, root: str) -> None:
    """With the slash, without it, or both, as the host allows."""
    kind = HOSTS[name]
    async with site(*(finished("a") for _ in range(4))) as it:
        app = kind.make(it.bridge)
        for path in kind.starts:
            for method in ("GET", "POST"):
                page = await ask(app, method, path, root)
                assert (page.status, lines(page)) == (200, ["a", "exit"])

    assert it.starts == 2 * len(kind.starts)


@pytest.mark.parametrize(("name", "root"), CASES)
async def test_the_address_of_a_run_is_below_that_path(name: str, root: str) -> None:
    """As clients see it; where the host hands it on, it leads to the run, with a slash at its end, too."""
    kind = HOSTS[name]
    for path in kind.starts:
        async with site(finished("a")) as it:
            app = kind.make(it.bridge)
            made = await ask(app, "POST", path, root, Accept="application/json")
            run = made.headers["sse-bridge-run"]
            prefix = ("/api" if root else "") + kind.mount.replace(" ", "%20")
            assert made.headers["location"] == json.loads(made.content)["href"] == f"{prefix}/{run}"
            if kind.runs:
                page = await ask(app, "GET", f"{kind.mount}/{run}", root)
                assert (page.status, lines(page)) == (200, ["a", "exit"])
                assert (await ask(app, "DELETE", f"{kind.mount}/{run}", root)).status == 204

        assert it.starts == 1


#: Paths by that of the mount.
OTHER_PATHS = [
    "/{}",
    "//{}",
    "{}//",
    "{}///",
    "{}/favicon.ico",
    "{}//x",
    "{}/x/",
    "{}-other",
    "{}/x{}",
    "{}{}",
    "{}/./",
]
OTHER_PATHS += [start + end for start in ("{}/", "{}//", "/{}/", "{}/x/") for end in (UNKNOWN, UNKNOWN + "/x")]


@pytest.mark.parametrize(("name", "root"), CASES)
async def test_a_run_starts_at_no_other_path(name: str, root: str) -> None:
    """Guards in front of the bridge compare paths: one that they may not know must not start a command."""
    kind = HOSTS[name]
    async with site() as it:
        app = kind.make(it.bridge)
        for method in ("GET", "POST"):
            for path in OTHER_PATHS:
                page = await ask(app, method, path.replace("{}", kind.mount), root, Accept="text/html")
                assert page.status in {307, 404, 405}, path
                assert (it.starts, it.bridge.statistics().runs_started) == (0, 0), path


def endpoint_at(path: str, *, fastapi: bool = False) -> Callable[[SSEBridge], Any]:
    def make(bridge: SSEBridge) -> Any:
        async def endpoint(request: Request) -> SSEBridge:
            return bridge

        app = FastAPI() if fastapi else Starlette()
        app.router.routes.append(Route(path, endpoint, methods=["GET", "POST"]))
        return app

    return make


A_UUID = "0b7c7a3e-6f1d-4a52-9d7a-0123456789ab"


def routes_at(*paths: str) -> Callable[[SSEBridge], Any]:
    return lambda bridge: Starlette(routes=[Route(path, bridge) for path in paths])


def urls_at(*routes: Any) -> Callable[[SSEBridge], Any]:
    return lambda bridge: urls(*[one(path, bridge) for one, path in routes])


#: Hosts whose last segment says what to run: a path that they match, and others that they match or do not.
SAYING_WHAT_TO_RUN: dict[str, tuple[Callable[[SSEBridge], Any], str, list[str]]] = {
    "int": (routes_at("/jobs/{id:int}"), "/jobs/5", ["/jobs/x", "/jobs/5/6", "/jobs"]),
    "many digits": (routes_at("/jobs/{id:int}"), "/jobs/1234567890123456", []),
    "float": (routes_at("/jobs/{id:float}"), "/jobs/2.5", ["/jobs/x"]),
    "uuid": (routes_at("/jobs/{id:uuid}"), f"/jobs/{A_UUID}", ["/jobs/5"]),
    "str": (routes_at("/run-sse/{sandbox}"), "/run-sse/sbx_1", ["/run-sse/sbx_1/x", "/run-sse"]),
    "str with a slash": (routes_at("/run-sse/{sandbox}/"), "/run-sse/sbx_1/", ["/run-sse/sbx_1//"]),
    "two": (routes_at("/{user}/{sandbox}"), "/ann/ann", ["/ann/ann/ann"]),
    "beside a rest": (routes_at("/run-sse/{sandbox}", "/other/{sandbox:path}"), "/run-sse/a", ["/other/a"]),
    "with runs": (routes_at("/jobs/{id}", "/jobs/{id}/{run}"), "/jobs/a", ["/jobs/a/b", "/jobs/a/a"]),
    "in a Mount": (lambda bridge: Starlette(routes=[Mount("/a", routes=[Route("/{sandbox}", bridge)])]), "/a/b", []),
    "endpoint": (endpoint_at("/jobs/{id}"), "/jobs/5", ["/jobs/5/6"]),
    "endpoint with an int": (endpoint_at("/jobs/{id:int}"), "/jobs/5", ["/jobs/x"]),
    "FastAPI": (endpoint_at("/jobs/{id}", fastapi=True), "/jobs/5", ["/jobs/5/6"]),
    "Channels, int": (urls_at((django_path, "run-sse/<int:sandbox>/")), "/run-sse/5/", ["/run-sse/x/"]),
    "Channels, str": (urls_at((django_path, "run-sse/<str:sandbox>")), "/run-sse/sbx_1", ["/run-sse/a/b"]),
    "Channels, uuid": (urls_at((django_path, "run-sse/<uuid:sandbox>")), f"/run-sse/{A_UUID}", ["/run-sse/a"]),
    "Channels, a group": (urls_at((re_path, r"^run-sse/(?P<sandbox>\w+)/$")), "/run-sse/a/", ["/run-sse/a/a/"]),
    "Channels, an unnamed group": (urls_at((re_path, r"^run-sse/([^/]+)$")), "/run-sse/a.b", ["/run-sse/a/a"]),
    "Channels, an open group": (urls_at((re_path, r"^run-sse/(?P<sandbox>\w+)")), "/run-sse/a", ["/run-sse/a/b"]),
    "Channels in Channels": (lambda bridge: urls(django_path("a/", URLRouter([django_path("<str:b>", bridge)]))),
                             "/a/b", ["/a/b/c"]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SAYING_WHAT_TO_RUN))
async def test_a_last_segment_may_say_what_to_run(name: str) -> None:
    """The kind of fault: a parameter of the application's own at the end of a path was taken for the name of a run."""
    make, path, others = SAYING_WHAT_TO_RUN[name]
    async with site(*(finished("a") for _ in range(3))) as it:
        app = make(it.bridge)
        for method in ("GET", "POST"):
            page = await ask(app, method, path, "")
            assert (page.status, lines(page)) == (200, ["a", "exit"])
        made = await ask(app, "POST", path, "", Accept="application/json")
        assert made.headers["location"] == f"{path.rstrip('/')}/{made.headers['sse-bridge-run']}"
        for other in others:
            page = await ask(app, "GET", other, "", Accept="text/html")
            assert page.status in {307, 404}, other

    assert it.starts == 3


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (routes_at("/run-sse/{sandbox}"), f"/run-sse/{UNKNOWN}"),
        (routes_at("/run-sse/{run}"), "/run-sse/favicon.ico"),
        (routes_at("/run-sse/{sandbox:path}"), "/run-sse/favicon.ico"),
        (urls_at((django_path, "run-sse/<path:sandbox>")), "/run-sse/favicon.ico"),
        (urls_at((re_path, r"^run-sse/(.+)$")), "/run-sse/favicon.ico"),
        (urls_at((re_path, r"^run-sse/(?P<sandbox>.*)$")), "/run-sse/favicon.ico"),
        (urls_at((re_path, r"^run-sse/([\w.]*)$")), "/run-sse/favicon.ico"),
        (lambda bridge: Starlette(routes=[Route("/{a}/{b:int}", SSEBridgeMiddleware(elsewhere, "/run-sse", bridge))]),
         "/run-sse/5"),
        (lambda bridge: Starlette(routes=[Route("/a/{b:path}", SSEBridgeMiddleware(elsewhere, "/a/b", bridge))]),
         "/a/b/c"),
    ],
)  # fmt: skip
async def test_a_last_segment_that_may_name_a_run_starts_none(make: Callable[[SSEBridge], Any], path: str) -> None:
    """Where the application's route does not say that it is the mount, a guard may not know the path."""
    async with site() as it:
        for method in ("GET", "POST"):
            page = await ask(make(it.bridge), method, path, "", Accept="text/html")
            assert page.status in {404, 405}

    assert it.starts == 0


@pytest.mark.parametrize("path", ["/run-sse", "/run-sse/", "/x", "//", "/index.html", f"/run-sse/{UNKNOWN}"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
@pytest.mark.parametrize(
    "make", [lambda bridge: bridge, lambda bridge: Starlette(routes=[Mount("", bridge)]),
             lambda bridge: Starlette(routes=[Host("a.example", bridge)]),
             lambda bridge: FastAPI(routes=[Host("a.example", bridge)])],
    ids=["alone", "at the root", "at a host", "at a host of FastAPI's"],
)  # fmt: skip
async def test_a_bridge_at_the_root_has_no_other_paths(make: Any, method: str, path: str) -> None:
    """Where the host says no path, the mount is the root. The answer tells how to say another."""
    async with site() as it:
        page = await ask(make(it.bridge), method, path, "")

    assert (page.status, page.error["code"]) == (404, "not_found")
    assert "root_path" in page.error["message"]
    assert it.starts == 0


@pytest.mark.parametrize(
    ("path", "root_path", "mount"),
    [
        ("/run-sse/", "/api/", "/api/run-sse"),  # a slash too many, behind a proxy that strips it
        ("/api//run-sse/", "/api/", "/api/run-sse"),  # the same in uvicorn, which joins both
        ("/run-sse/", "api", "/api/run-sse"),
        ("/run-sse/", "/", "/run-sse"),
        ("/run-sse/", "//evil.example", "/evil.example/run-sse"),  # some servers take it from a header
    ],
)
async def test_odd_root_paths(path: str, root_path: str, mount: str) -> None:
    """The address stays one path of this server."""
    async with site(finished("a")) as it:
        page = Page("POST", path, root_path=root_path, headers={"Accept": "application/json"})
        await Starlette(routes=[Mount("/run-sse", it.bridge)])(page.scope, page.receive, page.send)

    assert page.headers["location"] == f"{mount}/{page.headers['sse-bridge-run']}"


async def test_litestar_merges_slashes() -> None:
    """Guards in front of Litestar saw another path than the one that it hands on."""
    for is_mount in (True, False):
        async with site() as it:
            page = await ask(in_litestar(it.bridge, is_mount=is_mount), "GET", "//run-sse", "")
            assert (page.status, it.starts) == (404, 0)
