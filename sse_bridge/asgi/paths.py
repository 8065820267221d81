"""Which part of a request's path is the bridge's own: its mount, or the name of a run below it.

Hosts say so in three ways. A mount adds its path to `root_path`, which is what ASGI means by it. A route matches a
whole path and leaves `root_path` alone; what it matched by a parameter at the end of the path is below the mount. And
some hosts take the mount out of `path`. Any other path is refused: guards in front of the bridge may not know it, so a
command must not start there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote, unquote

from starlette.routing import Host, Mount, Route

from .messages import Scope

__all__ = ["below_mount", "below_root", "href"]

_SLASHES: Final = re.compile("/+")


def below_root(scope: Scope) -> str:
    """The path below `root_path`, without a slash at its ends; empty for `root_path` itself.

    Starlette, FastAPI and hypercorn's dispatcher leave the mount's path in `path` and name it in `root_path`;
    Litestar's mounts take it out of both.
    """
    return _trimmed(_after_root(scope))


def below_mount(scope: Scope) -> str:
    """The path below the bridge's own, without a slash at its ends; empty for the mount itself."""
    return _trimmed(_split(scope)[1])


def href(scope: Scope, name: str) -> str:
    """The path, as clients see it, of `name` below the mount. The request is one for the mount itself.

    `root_path` holds the prefix that a proxy has stripped. A host that takes the mount out of `path` without naming it
    there, as Litestar does, leaves it in `raw_path`.
    """
    root = _root(scope) + _split(scope)[0]
    if not scope["path"].strip("/"):
        asked = unquote(_raw_path(scope).decode("latin-1")).rstrip("/")
        if not root.endswith(asked):
            root = asked if asked.startswith(root + "/") else root + asked
    return quote(_SLASHES.sub("/", f"/{root}/{name}"))


def _split(scope: Scope) -> tuple[str, str]:
    """What the path has between `root_path` and the end of the mount, and what it has behind that.

    Of hosts inside each other, the innermost leaves the least of the path behind the mount.
    """
    rest = _after_root(scope)
    if b"//" in _raw_path(scope) and "//" not in scope["path"]:
        return "", "//"  # Litestar has merged the slashes; guards in front of it saw another path
    if rest.strip("/") and "//" not in rest:
        behind = min((one for one in _behind_routes(scope) if rest.endswith(one)), key=len, default=rest)
        return rest.removesuffix(behind), behind
    return "", rest


def _root(scope: Scope) -> str:
    root: str = scope.get("root_path", "")
    return root.rstrip("/")


def _raw_path(scope: Scope) -> bytes:
    """The path as it was sent, still encoded."""
    raw: bytes = scope.get("raw_path") or b""
    return raw.partition(b"?")[0]


def _after_root(scope: Scope) -> str:
    """What follows `root_path` in the path, from its slash on."""
    path: str = scope["path"]
    root, outer = _root(scope), scope.get("app_root_path", "")
    # Behind a proxy that strips a prefix, `path` holds the mount alone and `root_path` holds prefix and mount.
    for prefix in (root, root.removeprefix(outer.rstrip("/")), root.removeprefix(outer)):
        if prefix and (path == prefix or path.startswith(prefix + "/")):
            return path[len(prefix) :]
    return path


# -- what routers say


def _behind_routes(scope: Scope) -> Iterator[str]:
    """What each router has left of the path behind what it matched, from a slash on."""
    if _is_routed(scope):
        yield _behind_parameters(scope, scope.get("path_params", {}).values())
    remaining: str | None = scope.get("path_remaining")  # of Channels' `URLRouter`
    if remaining:
        yield remaining if remaining.startswith("/") else "/" + remaining
    elif remaining is not None:
        matched = scope.get("url_route", {})
        yield _behind_parameters(scope, [*matched.get("args", ()), *matched.get("kwargs", {}).values()])


def _behind_parameters(scope: Scope, values: Iterable[object]) -> str:
    """The parameter at the end of a path, which names a run, with the slashes around it."""
    path: str = scope["path"]
    end = "/" if path.endswith("/") else ""
    ends = (f"/{value}".removesuffix("/") + end for value in values)
    return next((one for one in ends if one != end and path.endswith(one)), end)


def _is_routed(scope: Scope) -> bool:
    """Whether the innermost router has matched the whole path, by a route rather than by a mount."""
    if getattr(scope.get("route_handler"), "is_mount", True) is False:  # Litestar
        return True
    endpoint, route = scope.get("endpoint"), scope.get("route")
    if endpoint is None:
        return False
    if route is not None and _target(route) is endpoint:  # Starlette says so from 1.8 on, FastAPI now and then
        return isinstance(route, Route)
    found = [one for one in _all_routes(scope.get("router")) if _target(one) is endpoint]
    return any(isinstance(one, Route) for one in found) and not any(_may_be_mounted(scope, one) for one in found)


def _target(route: Any) -> object:
    return route.app if isinstance(route, Mount | Host) else getattr(route, "endpoint", None)


def _may_be_mounted(scope: Scope, route: Any) -> bool:
    """Whether the request may have come by this route, and the route leaves a part of the path to its application."""
    if isinstance(route, Mount):
        has_parameters = bool(route.param_convertors.keys() - {"path"})
        return "app_root_path" in scope and (has_parameters or _root(scope).endswith(route.path))
    return isinstance(route, Host)


def _all_routes(router: Any) -> Iterator[Any]:
    """The routes of a router, and those of the routers in it."""
    for route in getattr(router, "routes", None) or ():
        yield route
        yield from _all_routes(getattr(route, "original_router", route))  # FastAPI's included routers


def _trimmed(path: str) -> str:
    """Without one slash at each end. A second one belongs to another path: guards in front of us compare paths, too."""
    path = path.removeprefix("/")
    return path if path == "/" else path.removesuffix("/")
