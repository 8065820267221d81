"""Real proxies in front of a port of this machine. A test that needs a missing one is skipped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.support.skipping import skip
from tests.support.waiting import eventually

__all__ = ["Caddy", "Nginx", "free_port"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Nginx:
    """nginx with one location.

    Args:
        folder: for its files.
        tls: whether it takes TLS connections; `certificates` is then the authority's file.
    """

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        self.folder = folder
        self.tls = tls
        self.certificates = folder / "authority.pem"

    @contextmanager
    def serve(self, port: int, location: str = "") -> Iterator[str]:
        """Hands requests on to `port` until the context ends; yields the URL. `location` are directives."""
        own, folder = free_port(), self.folder
        names = ["client_body_temp_path", "proxy_temp_path", "fastcgi_temp_path", "uwsgi_temp_path", "scgi_temp_path"]
        temporary = " ".join(f"{name} {folder}/{name};" for name in names)
        encrypted = f"ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.pem;" if self.tls else ""
        if self.tls:
            authority = trustme.CA()
            authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
            authority.cert_pem.write_to_path(str(self.certificates))
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"daemon off; {user} pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}"
            f"http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{own}{' ssl' * self.tls}; {encrypted}"
            f"location / {{ proxy_pass http://127.0.0.1:{port}; {location} }} }} }}"
        )
        with _process(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"], own, folder):
            yield f"http{'s' * self.tls}://127.0.0.1:{own}"


class Caddy:
    """Caddy with one site.

    Args:
        folder: for its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def serve(self, port: int, site: str = "") -> Iterator[str]:
        """Hands requests on to `port` until the context ends; yields the URL. `site` are directives."""
        own, file = free_port(), self.folder / "Caddyfile"
        file.write_text(
            "{\n\tadmin off\n\tauto_https off\n}\n"
            f"http://127.0.0.1:{own} {{\n{site}\n\treverse_proxy 127.0.0.1:{port}\n}}\n"
        )
        with _process(["caddy", "run", "--config", str(file), "--adapter", "caddyfile"], own, self.folder):
            yield f"http://127.0.0.1:{own}"


@contextmanager
def _process(command: list[str], port: int, home: Path) -> Iterator[None]:
    """Runs a program until the context ends; enters once it listens."""
    if shutil.which(command[0]) is None:
        skip(f"{command[0]} is missing")
    log = home / f"{command[0]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "HOME": str(home)})
    try:
        eventually(lambda: process.poll() is not None or _listens(port))
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
