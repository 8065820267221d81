"""Real proxies in front of a port of this machine. A test that needs a missing one is skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.support.programs import free_port, listening

__all__ = ["Caddy", "Nginx"]


class Nginx:
    """nginx, with one location or servers of a test's own.

    Args:
        folder: for its files.
        tls: whether it takes TLS connections; `certificates` is then the authority's file.
    """

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        self.folder = folder
        self.tls = tls
        self.certificates = folder / "authority.pem"

    @contextmanager
    def serve(self, port: int, location: str = "", *, http2: bool = False) -> Iterator[str]:
        """Hands requests on to `port` until the context ends; yields the URL. `location` are directives."""
        own = free_port()
        listen = f"listen 127.0.0.1:{own}{' ssl' * self.tls}{' http2' * http2};"
        location = f"location / {{ proxy_pass http://127.0.0.1:{port}; {location} }}"
        with self.run(f"server {{ {listen} {location} }}", own):
            yield f"http{'s' * self.tls}://127.0.0.1:{own}"

    @contextmanager
    def run(self, servers: str, port: int) -> Iterator[None]:
        """Runs it with these `server` blocks, one of which listens on `port`, until the context ends."""
        folder = self.folder
        names = ["client_body_temp_path", "proxy_temp_path", "fastcgi_temp_path", "uwsgi_temp_path", "scgi_temp_path"]
        temporary = " ".join(f"{name} {folder}/{name};" for name in names)
        encrypted = f"ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.pem;" if self.tls else ""
        if self.tls:
            authority = trustme.CA()
            authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
            authority.cert_pem.write_to_path(str(self.certificates))
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"daemon off; {user} pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}\n"
            f"http {{ access_log off; {temporary} {encrypted}\n{servers} }}\n"
        )
        with listening(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"], port, folder):
            yield


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
        with self.run(f"{site}\n\treverse_proxy 127.0.0.1:{port}") as url:
            yield url

    @contextmanager
    def run(self, site: str) -> Iterator[str]:
        """Runs it with these directives until the context ends; yields the URL."""
        own, file = free_port(), self.folder / "Caddyfile"
        file.write_text(f"{{\n\tadmin off\n\tauto_https off\n}}\nhttp://127.0.0.1:{own} {{\n{site}\n}}\n")
        with listening(["caddy", "run", "--config", str(file), "--adapter", "caddyfile"], own, self.folder):
            yield f"http://127.0.0.1:{own}"
