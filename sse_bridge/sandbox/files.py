"""The files of a sandbox: MIOSA's `fs/*` routes and the older `files` ones, which the SDK falls back to.

MIOSA documents its answers only as far as its SDK reads them. The names here are the SDK's, and ours beyond that.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from .errors import ApiError, invalid, missing, not_found
from .paths import WORKSPACE, resolve, virtual
from .requests import MAX_UPLOAD, encoded, json_object, text
from .state import Sandboxes

__all__ = ["routes"]

#: Entries in a listing; a longer one is cut, and says so with `truncated`.
_MAX_ENTRIES: Final = 10_000
#: Levels that a listing descends, whatever the client asks for.
_MAX_DEPTH: Final = 100


def routes(sandboxes: Sandboxes) -> list[Route]:
    """The routes of this module, relative to the API's root."""
    files = _Files(sandboxes)
    return [
        Route("/sandboxes/{id}/fs/write", files.write, methods=["POST"]),
        Route("/sandboxes/{id}/fs/write-many", files.write_many, methods=["POST"]),
        Route("/sandboxes/{id}/fs/stat", files.stat, methods=["POST"]),
        Route("/sandboxes/{id}/fs/download", files.download, methods=["GET"]),
        Route("/sandboxes/{id}/files/write-many", files.write_many, methods=["POST"]),
        Route("/sandboxes/{id}/files/stat", files.stat, methods=["POST"]),
        Route("/sandboxes/{id}/files", files.write_base64, methods=["POST"]),
        Route("/sandboxes/{id}/files", files.list, methods=["GET"]),
        Route("/sandboxes/{id}/files/{path:path}", files.download, methods=["GET"]),
    ]


class _Files:
    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def write(self, request: Request) -> Response:
        """Writes `content_base64` decoded, or `content` as it is."""
        body = await json_object(request, MAX_UPLOAD)
        return await self._write(request, body, _content(body))

    async def write_base64(self, request: Request) -> Response:
        """The older form, in which `content` is base64."""
        body = await json_object(request, MAX_UPLOAD)
        return await self._write(request, body, _decoded(body.get("content"), "content"))

    async def _write(self, request: Request, body: dict[str, object], content: bytes) -> Response:
        folder = self._folder(request)
        path = resolve(_path(body), folder)
        await anyio.to_thread.run_sync(_write, path, content)
        return JSONResponse({"data": {"path": virtual(path, folder), "size": len(content)}})

    async def write_many(self, request: Request) -> Response:
        """Writes each file that can be written, and lists the failures."""
        folder = self._folder(request)
        files = (await json_object(request, MAX_UPLOAD)).get("files")
        if not isinstance(files, list) or not all(isinstance(each, dict) for each in files):
            raise invalid("files must be a list of objects", field="files")
        written, failed = [], []
        for each in files:
            try:
                path = resolve(_path(each), folder)
                await anyio.to_thread.run_sync(_write, path, _content(each))
                written.append(virtual(path, folder))
            except ApiError as error:
                failed.append({"path": _label(each), "error": error.message})
        return JSONResponse({"data": {"written": written, "failed": failed}})

    async def stat(self, request: Request) -> Response:
        """Kind, size, mode and time of one path."""
        folder = self._folder(request)
        path = resolve(_path(await json_object(request)), folder)
        return JSONResponse({"data": await anyio.to_thread.run_sync(_stat, path, folder)})

    async def list(self, request: Request) -> Response:
        """The entries of a folder, `depth` levels deep."""
        folder = self._folder(request)
        path = resolve(request.query_params.get("path", WORKSPACE), folder)
        depth = request.query_params.get("depth", "1")
        if not (depth.isascii() and depth.isdigit() and depth.strip("0")):
            raise invalid("depth must be a positive number", field="depth")
        levels = min(int(depth[:9]), _MAX_DEPTH)
        return JSONResponse({"data": await anyio.to_thread.run_sync(_list, path, folder, levels)})

    async def download(self, request: Request) -> Response:
        """A file's bytes. `path` stands in the query or, in the older form, in the URL without its first slash."""
        folder = self._folder(request)
        wanted = request.path_params.get("path") or request.query_params.get("path")
        if not wanted:
            raise missing("path")
        path = resolve(wanted if "path" not in request.path_params else f"/{wanted}", folder)
        await anyio.to_thread.run_sync(_demand_file, path)
        return FileResponse(path, media_type="application/octet-stream")

    def _folder(self, request: Request) -> Path:
        return self._sandboxes.get(request.path_params["id"]).folder


def _path(body: dict[str, object]) -> str:
    if not body.get("path"):
        raise missing("path")
    return text(body["path"], "path")


def _label(body: dict[str, object]) -> str:
    """The client's own `path`, even an invalid one, in a form that can be sent back."""
    return str(body.get("path"))[:1000].encode("utf-8", "replace").decode()


def _content(body: dict[str, object]) -> bytes:
    if "content_base64" in body:
        return _decoded(body["content_base64"], "content_base64")
    if "content" in body:
        return encoded(body["content"], "content")
    raise missing("content_base64")


def _decoded(value: object, field: str) -> bytes:
    if value is None:
        raise missing(field)
    try:
        return base64.b64decode(encoded(value, field), validate=True)
    except binascii.Error as error:
        raise invalid(f"{field} must be base64", field=field) from error


@contextmanager
def _os_errors() -> Iterator[None]:
    """Turns errors of the file system into refusals."""
    try:
        yield
    except FileNotFoundError as error:
        raise not_found("file") from error
    except OSError as error:
        raise invalid(f"path: {error.strerror}", field="path") from error


def _write(path: Path, content: bytes) -> None:
    with _os_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _demand_file(path: Path) -> None:
    with _os_errors():
        if not stat.S_ISREG(path.stat().st_mode):
            raise invalid("path is not a file", field="path")


def _stat(path: Path, folder: Path) -> dict[str, object]:
    with _os_errors():
        return _entry(path, folder)


def _entry(path: Path, folder: Path) -> dict[str, object]:
    status = path.lstat()
    is_dir = stat.S_ISDIR(status.st_mode)
    return {
        "path": virtual(path, folder),
        "name": path.name if path != folder else Path(WORKSPACE).name,
        "type": "directory" if is_dir else "symlink" if stat.S_ISLNK(status.st_mode) else "file",
        "is_dir": is_dir,
        "size": status.st_size,
        "mode": status.st_mode & 0o7777,
        "mtime": datetime.fromtimestamp(status.st_mtime, UTC).isoformat(),
    }


def _list(path: Path, folder: Path, depth: int) -> dict[str, object]:
    entries: list[dict[str, object]] = []
    with _os_errors():
        for each in _walk(path, depth):
            if len(entries) == _MAX_ENTRIES:
                return {"path": virtual(path, folder), "entries": entries, "truncated": True}
            with suppress(FileNotFoundError):  # removed since the folder was read
                entries.append(_entry(each, folder))
    return {"path": virtual(path, folder), "entries": entries}


def _walk(path: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        yield Path(entry.path)
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), depth - 1)
