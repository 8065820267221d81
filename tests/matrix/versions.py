"""Which versions of everything the matrix has run with."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from typing import Final

from tests.support.programs import find

__all__ = ["versions"]

_PACKAGES: Final = {
    "frameworks": ["starlette", "fastapi", "quart", "litestar", "django", "channels", "falcon", "blacksheep", "sanic"],
    "servers": ["uvicorn", "uvicorn-worker", "gunicorn", "hypercorn", "granian", "daphne"],
    "clients": ["httpx-sse", "httpx", "aiohttp-sse-client", "aiohttp"],
    "beneath": ["httptools", "uvloop", "h11", "anyio", "trio"],
}
#: How each program says it.
_PROGRAMS: Final = {
    "proxies": {
        "nginx": "nginx -v",
        "Caddy": "caddy version",
        "HAProxy": "haproxy -v",
        "Apache": "apache2 -v",
        "Varnish": "varnishd -V",
    },
    "clients": {
        "Chromium": "chromium --version",
        "Firefox": "firefox-esr --version",
        "WebKitGTK": "dpkg-query --show webkit2gtk-driver",
        "Node": "node --version",
        "curl": "curl --version",
    },
}


def versions() -> Iterator[tuple[str, str]]:
    """What it is, and a line of names and versions."""
    for kind in ("frameworks", "servers", "proxies", "clients", "beneath"):
        packages = [f"{name} {version(name)}" for name in _PACKAGES.get(kind, [])]
        programs = [f"{name} {_answer(command)}" for name, command in _PROGRAMS.get(kind, {}).items()]
        yield kind, ", ".join([*packages, *programs])
    yield "Python", platform.python_version()


def _answer(command: str) -> str:
    """The version in what a program prints."""
    name, *arguments = command.split()
    done = subprocess.run([find(name), *arguments], capture_output=True, text=True, check=True)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    assert found is not None, done
    return found[0]
