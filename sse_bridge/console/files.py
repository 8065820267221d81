"""The modules for pages, and an application that serves them. Any static server can do that as well."""

from __future__ import annotations

from os import PathLike, stat_result
from pathlib import Path
from typing import Final

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

__all__ = ["STATIC", "static_files"]

#: The folder of the modules: `sse-bridge.js`, `sse-console.js`, and what these import.
STATIC: Final = Path(__file__).parent / "static"

_HEADERS: Final = {
    # `mimetypes` asks the machine, some of which call JavaScript plain text; browsers refuse such a module.
    "Content-Type": "text/javascript; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
    # The names stay the same from one release to the next, so a browser asks each time, and is answered 304.
    "Cache-Control": "no-cache",
}


def static_files() -> StaticFiles:
    """An ASGI application that serves the modules for pages.

    Mount it beside the bridge, such as at `/sse-bridge`. A page then imports `/sse-bridge/sse-console.js`.
    """
    return _Modules(directory=STATIC)


class _Modules(StaticFiles):
    def file_response(
        self, full_path: str | PathLike[str], stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        for name, value in _HEADERS.items():
            if response.status_code != 304 or name == "Cache-Control":
                response.headers[name] = value
        return response
