"""The files of a sandbox: MIOSA's `fs/*` routes and the older `files` ones, which the SDK falls back to.

MIOSA documents its answers only as far as its SDK reads them. The names here are the SDK's, and ours beyond that.

Commands may leave anything behind: a FIFO blocks a process that opens it, a folder may be closed or vanish, a name may
be any bytes, a file may grow while it is read. So only regular files are read and written, without waiting for them,
and a listing shows what it can find out.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Final

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .errors import ApiError, invalid, missing, not_found
from .paths import WORKSPACE, resolve, shown, virtual
from .requests import MAX_UPLOAD, encoded, json_object, text
from .state import Sandboxes

__all__ = ["routes"]

#: Entries in a listing; a longer one is cut, and says so with `truncated`.
_MAX_ENTRIES: Final = 10_000
#: Levels that a listing descends, whatever the client asks for.
_MAX_DEPTH: Final = 100
#: Bytes of a file that are read at once.
_READ_SIZE: Final = 64 * 1024
#: What `type` says of a path, by the kind in its mode.
_TYPES: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


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
        return _Download(await anyio.to_thread.run_sync(_open, path, "rb", os.O_RDONLY))

    def _folder(self, request: Request) -> Path:
        return self._sandboxes.get(request.path_params["id"]).folder


class _Download(StreamingResponse):
    """A file as it is being read. It has no length: a file that grows or shrinks meanwhile would break its promise."""

    def __init__(self, file: FileIO) -> None:
        super().__init__(self._pieces(), media_type="application/octet-stream")
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file, and closes it however that ends."""
        with self._file:
            await super().__call__(scope, receive, send)

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await anyio.to_thread.run_sync(self._file.read, _READ_SIZE):
            yield piece


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
        with _open(path, "wb", os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]


def _open(path: Path, mode: str, flags: int) -> FileIO:
    """Opens a regular file. To open anything else may block, or change something."""
    with _os_errors():
        with suppress(FileNotFoundError):
            _demand_file(path.stat())
        # The flag is for a path that is replaced by a FIFO meanwhile.
        file = FileIO(path, mode, opener=lambda name, _: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666))
        try:
            _demand_file(os.fstat(file.fileno()))
        except BaseException:
            file.close()
            raise
        return file


def _demand_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise invalid("path is not a file", field="path")


def _stat(path: Path, folder: Path) -> dict[str, object]:
    with _os_errors():
        return _entry(path, folder, path.lstat())


def _entry(path: Path, folder: Path, status: os.stat_result | None) -> dict[str, object]:
    """What is known of a path. The status is missing in a folder that may be read, but not entered."""
    mode = status.st_mode if status else 0
    return {
        "path": virtual(path, folder),
        "name": shown(path.name) if path != folder else Path(WORKSPACE).name,
        "type": _TYPES.get(stat.S_IFMT(mode), "unknown"),
        "is_dir": stat.S_ISDIR(mode),
        "size": status and status.st_size,
        "mode": status and stat.S_IMODE(mode),
        "mtime": status and _iso(status.st_mtime),
    }


def _iso(seconds: float) -> str | None:
    """The time, or `None` outside of the years 1 to 9999: a file system knows more."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def _list(path: Path, folder: Path, depth: int) -> dict[str, object]:
    entries: list[dict[str, object]] = []
    with _os_errors():
        names = _names(path)
    for each in _walk(path, names, depth):
        if len(entries) == _MAX_ENTRIES:
            return {"path": virtual(path, folder), "entries": entries, "truncated": True}
        try:
            entries.append(_entry(each, folder, each.lstat()))
        except FileNotFoundError:  # removed since the folder was read
            continue
        except OSError:
            entries.append(_entry(each, folder, None))
    return {"path": virtual(path, folder), "entries": entries}


def _walk(path: Path, names: list[str], depth: int) -> Iterator[Path]:
    for name in names:
        yield (each := path / name)
        if depth > 1:
            with suppress(OSError):  # closed, removed, or too deep: it is listed, and what is in it is left out
                if stat.S_ISDIR(each.lstat().st_mode):
                    yield from _walk(each, _names(each), depth - 1)


def _names(path: Path) -> list[str]:
    return sorted(os.listdir(path))
