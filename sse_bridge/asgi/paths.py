"""Which part of a request's path is the bridge's own: its mount, or the name of a run below it.

Hosts say so in three ways. A mount adds its path to `root_path`, which is what ASGI means by it. A route matches a
whole path and leaves `root_path` alone; a run's name, or any rest of a path, that it matched by a parameter at the end
is below the mount. And some hosts take the mount out of `path`. Any other path is refused: guards in front of the
bridge may not know it, so a command must not start there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import FrameType
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote
from uuid import UUID

from starlette.routing import Host, Mount, Route

from ..wire.ids import is_token
from .messages import Scope

__all__ = ["below_mount", "below_root", "href"]

#: Whether a route would match a path.
_Matches: TypeAlias = Callable[[str], bool]

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
    path: str = scope["path"]
    if _is_routed(scope):
        matching = [matches for matches in _patterns(scope) if matches(path)]
        if matching:  # else a host behind the route has changed `root_path`, and says more
            yield _behind_parameters(path, scope.get("path_params", {}).items(), matching)
    remaining: str | None = scope.get("path_remaining")  # of Channels' `URLRouter`
    if remaining:
        yield remaining if remaining.startswith("/") else "/" + remaining
    elif remaining is not None:
        matched = scope.get("url_route", {})
        named = [*(("", value) for value in matched.get("args", ())), *matched.get("kwargs", {}).items()]
        yield _behind_parameters(path, named, [matches for matches in _patterns_of_channels(path) if matches(path)])


def _behind_parameters(path: str, parameters: Iterable[tuple[str, object]], patterns: list[_Matches]) -> str:
    """The parameter at the end of a path, with the slashes around it, if it is a run's name or any rest of a path.

    Another parameter belongs to the mount: the application's own route matched it, and it says what to run.
    """
    end = "/" if path.endswith("/") else ""
    for name, value in parameters:
        if isinstance(value, int | float | UUID):  # no token is one
            continue
        text = str(value)
        behind = f"/{text}".removesuffix("/") + end
        if behind == end or not path.endswith(behind):
            continue
        if name == "run" or is_token(text.strip("/")):
            return behind
        shorter, longer = path.removesuffix(text + end) + end, f"{path.removesuffix(end)}/{text}{end}"
        # `{rest:path}` and `.*` match any rest of a path, and some patterns match the mount alone, too.
        if not patterns or any(matches(other) for matches in patterns for other in (shorter, longer)):
            return behind
    return end


def _patterns(scope: Scope) -> list[_Matches]:
    """The patterns of the route that was matched, or of those that may have been."""
    if "route_handler" in scope:  # Litestar's scope leads to no pattern: each may be one of `{rest:path}`
        return [lambda path: True]
    path = scope["path"]
    found = [one for one in _candidates(scope) if hasattr(one, "path_regex")]
    # FastAPI's included routers match behind a prefix.
    starts = [start for start in range(len(path) - len(_after_root(scope)), len(path)) if path[start] == "/"]
    return [partial(_matches, one.path_regex, start) for one in found for start in starts]


def _matches(pattern: re.Pattern[str], start: int, path: str) -> bool:
    return pattern.match(path[start:]) is not None


def _matches_in_channels(pattern: Any, start: int, path: str) -> bool:
    match = pattern.match(path[start:])
    return match is not None and match[0] == ""


def _patterns_of_channels(path: str) -> list[_Matches]:
    """The pattern that Channels has matched. Its scope leads to no route, but a frame that awaits the bridge has it.

    There is no such frame behind middleware that calls the bridge in a task of its own.
    """
    router: Any = getattr(sys.modules.get("channels.routing"), "URLRouter", None)
    frame: FrameType | None = sys._getframe()
    while router is not None and frame is not None:
        if frame.f_code is router.__call__.__code__:
            start = len(path) - len(frame.f_locals["path"])
            return [partial(_matches_in_channels, frame.f_locals["route"].pattern, start)]
        frame = frame.f_back
    return []


def _is_routed(scope: Scope) -> bool:
    """Whether the innermost router has matched the whole path, by a route rather than by a mount."""
    if getattr(scope.get("route_handler"), "is_mount", True) is False:  # Litestar
        return True
    found = _candidates(scope)
    return any(isinstance(one, Route) for one in found) and not any(_may_be_mounted(scope, one) for one in found)


def _candidates(scope: Scope) -> list[Any]:
    """The route that the innermost router of Starlette's kind has matched, or those that lead to the same endpoint."""
    endpoint, route = scope.get("endpoint"), scope.get("route")
    if endpoint is None:
        return []
    if route is not None and _target(route) is endpoint:  # Starlette says so from 1.8 on, FastAPI now and then
        return [route]
    return [one for one in _all_routes(scope.get("router")) if _target(one) is endpoint]


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
