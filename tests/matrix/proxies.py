"""Proxies before a server: Debian's programs as child processes, without privileges, each in a folder of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from tests.support.programs import free_port, listening

__all__ = ["PROXIES", "Proxy", "behind"]


@dataclass(frozen=True)
class Proxy:
    """A program, its configuration, and what is known of it.

    Args:
        title: as the page calls it.
        file: the configuration's name.
        command: the program and its arguments, in a folder that holds the configuration, `tls.pem` and `tls.key`.
        configuration: `$port` and `$upstream` are filled in.
        heartbeats: after how many of them at most it notices that a viewer has left; 0 if it needs none.
    """

    title: str
    file: str
    command: str
    configuration: str
    is_http2: bool = False
    heartbeats: int = 0


_NGINX: Final = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxied; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server {
    listen 127.0.0.1:$port%s;
    location / { proxy_pass http://127.0.0.1:$upstream; %s }
  }
}
"""
_TLS: Final = " ssl http2; ssl_certificate tls.pem; ssl_certificate_key tls.key"
_HTTP_1_1: Final = 'proxy_http_version 1.1; proxy_set_header Connection "";'
_HOST: Final = "proxy_set_header Host $$http_host; proxy_set_header X-Forwarded-Proto $$scheme;"


def _nginx(title: str, listen: str = "", location: str = "") -> Proxy:
    return Proxy(
        title,
        "nginx.conf",
        "nginx -p . -e stderr -c nginx.conf",
        _NGINX % (listen, location),
        is_http2=bool(listen),
    )


_CADDY: Final = """
{
  admin off
  auto_https off
  storage file_system .
}
%s://:$port {
  bind 127.0.0.1
  %s
}
"""


def _caddy(title: str, site: str, *, scheme: str = "http", heartbeats: int = 0) -> Proxy:
    return Proxy(
        title,
        "Caddyfile",
        "caddy run --config Caddyfile --adapter caddyfile",
        _CADDY % (scheme, site),
        is_http2=scheme == "https",
        heartbeats=heartbeats,
    )


_HAPROXY: Final = """
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  %s
frontend in
  bind 127.0.0.1:$port%s
  default_backend out
backend out
  server one 127.0.0.1:$upstream
"""


def _haproxy(title: str, option: str, bind: str = "", *, heartbeats: int = 0) -> Proxy:
    return Proxy(
        title,
        "haproxy.cfg",
        "haproxy -db -f haproxy.cfg",
        _HAPROXY % (option, bind),
        is_http2=bool(bind),
        heartbeats=heartbeats,
    )


_APACHE: Final = """
ServerRoot $folder
ServerName localhost
PidFile apache.pid
DefaultRuntimeDir $folder
Mutex file:$folder
Listen 127.0.0.1:$port
ErrorLog $folder/errors
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
StartServers 1
%s
ProxyPass / http://127.0.0.1:$upstream/
"""
_APACHE_TLS: Final = """
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so
SSLEngine on
SSLCertificateFile tls.pem
SSLCertificateKeyFile tls.key
Protocols h2 http/1.1
"""


def _apache(title: str, more: str = "") -> Proxy:
    return Proxy(
        title,
        "apache.conf",
        "apache2 -D FOREGROUND -f $folder/apache.conf",
        _APACHE % more,
        is_http2="h2" in more,
        heartbeats=4,
    )


_VARNISH: Final = """
vcl 4.1;
backend one { .host = "127.0.0.1"; .port = "$upstream"; }
sub vcl_recv { %s }
"""


def _varnish(title: str, receive: str, *, heartbeats: int = 0) -> Proxy:
    return Proxy(
        title,
        "default.vcl",
        "varnishd -F -j none -a 127.0.0.1:$port -T none -n $folder/state -s malloc,16m -f $folder/default.vcl",
        _VARNISH % receive,
        heartbeats=heartbeats,
    )


PROXIES: Final = {
    "nginx": _nginx("nginx as it comes, HTTP/1.0 to the server"),
    "nginx-1.1": _nginx("nginx, `proxy_http_version 1.1`", location=_HTTP_1_1),
    "nginx-h2": _nginx("nginx, TLS and HTTP/2", _TLS, _HTTP_1_1 + _HOST),
    "nginx-gzip": _nginx(
        "nginx, `gzip on`", location=_HTTP_1_1 + "gzip on; gzip_types text/event-stream; gzip_min_length 1;"
    ),
    "caddy": _caddy("Caddy, plain `reverse_proxy`", "reverse_proxy 127.0.0.1:$upstream"),
    "caddy-h2": _caddy(
        "Caddy, TLS and HTTP/2", "tls tls.pem tls.key\n  reverse_proxy 127.0.0.1:$upstream", scheme="https"
    ),
    "caddy-flush": _caddy(
        "Caddy, `flush_interval -1`",
        "reverse_proxy 127.0.0.1:$upstream {\n    flush_interval -1\n  }",
        heartbeats=4,
    ),
    "haproxy": _haproxy("HAProxy, `option abortonclose`", "option abortonclose"),
    "haproxy-h2": _haproxy(
        "HAProxy, `option abortonclose`, TLS and HTTP/2",
        "option abortonclose",
        " ssl crt both.pem alpn h2,http/1.1",
    ),
    "haproxy-plain": _haproxy("HAProxy without `option abortonclose`", "", heartbeats=4),
    "apache": _apache("Apache, plain `ProxyPass`"),
    "apache-h2": _apache("Apache, TLS and HTTP/2", _APACHE_TLS),
    "varnish": _varnish("Varnish, `return (pipe)` for the stream's path", 'if (req.url ~ "-sse") { return (pipe); }'),
    "varnish-pass": _varnish("Varnish, `return (pass)`", "return (pass);", heartbeats=4),
}


@contextmanager
def behind(proxy: Proxy, upstream: int, certificate: bytes, key: bytes) -> Iterator[int]:
    """Serves a proxy in front of a port until the context ends. Yields its own port."""
    with tempfile.TemporaryDirectory(prefix="matrix-") as name:
        folder = Path(name)
        port = free_port()
        values = {"port": port, "upstream": upstream, "folder": name}
        (folder / "tls.pem").write_bytes(certificate)
        (folder / "tls.key").write_bytes(key)
        (folder / "both.pem").write_bytes(certificate + key)
        (folder / proxy.file).write_text(Template(proxy.configuration).substitute(values))
        # A proxy that is started as root switches to a user of its own, which cannot read files that root has written.
        # So it runs as Debian's user without rights from the start, and owns its files.
        user = "nobody" if os.geteuid() == 0 else None
        if user is not None:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, user)
        command = [Template(part).substitute(values) for part in proxy.command.split()]
        with listening(command, port, folder, user):
            yield port
