"""Behind real proxies, configured as `docs/deployment.md` says, and as it warns of."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.routing import Mount
from starlette.types import ASGIApp

from sse_bridge import SandboxExec, SSEBridge, SSEBridgeMiddleware
from tests.support.documentation import DOCS, blocks, only_block
from tests.support.programs import find, free_port
from tests.support.proxies import Caddy, Nginx
from tests.support.sandboxes import LocalSandbox, new_mark, running
from tests.support.servers import serve
from tests.support.waiting import eventually

#: What `docs/deployment.md` says: two directives, the location of the bridge, and a server for HTTP/2.
FORWARDED, LOCATION, SERVER = (block.text for block in blocks(DOCS / "deployment.md", "nginx"))
#: The port of the page's application.
UPSTREAM = "127.0.0.1:8000"
#: What many have: the application learns neither the scheme nor the port.
CARELESS = "proxy_set_header Host $host;"


def bridge_for(sandbox: LocalSandbox, command: str, **options: Any) -> SSEBridge:
    work = SandboxExec(sandbox.id, command)
    return SSEBridge(sandbox.miosa(), lambda request: work, **{"grace": 0, "heartbeat": None, **options})


def mounted(bridge: SSEBridge) -> ASGIApp:
    return Starlette(routes=[Mount("/run-sse", bridge)])


def in_middleware(bridge: SSEBridge) -> ASGIApp:
    return Starlette(middleware=[Middleware(SSEBridgeMiddleware, path="/run-sse", bridge=bridge)])


def trusting(nginx: Nginx) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=str(nginx.certificates)) if nginx.tls else True


# -- redirects


@pytest.mark.parametrize("tls", [True, False], ids=["TLS", "another port"])
@pytest.mark.parametrize(
    ("host", "path"), [(mounted, "/run-sse/"), (in_middleware, "/run-sse/"), (in_middleware, "/run-sse")]
)
@pytest.mark.parametrize("location", ["", CARELESS, FORWARDED], ids=["as it comes", "careless", "as documented"])
def test_a_page_needs_no_redirect(
    sandbox: LocalSandbox, tmp_path: Path, tls: bool, host: Callable[[SSEBridge], ASGIApp], path: str, location: str
) -> None:
    """The kind of fault: the server does not know its own scheme, host and port, so a redirect leads elsewhere.

    Neither do the addresses that the bridge itself gives name any of them.
    """
    nginx = Nginx(tmp_path, tls=tls)
    with (
        serve(host(bridge_for(sandbox, "echo a"))) as served,
        nginx.serve(served.port, location) as url,
        httpx.Client(base_url=url, verify=trusting(nginx), timeout=10) as client,
    ):
        page = client.get(path, headers={"Sec-Fetch-Site": "same-origin", "Accept": "text/event-stream"})
        started = client.post(path, headers={"Sec-Fetch-Site": "same-origin", "Accept": "application/json"})
        followed = client.get(started.headers["location"])

    assert (page.status_code, started.status_code, followed.status_code) == (200, 201, 200)
    assert '"line":"a"' in page.text
    assert '"line":"a"' in followed.text
    assert started.headers["location"].startswith("/run-sse/")


@pytest.mark.parametrize("tls", [True, False], ids=["TLS", "another port"])
def test_with_the_documented_directives_starlettes_redirect_stays_on_the_site(
    sandbox: LocalSandbox, tmp_path: Path, tls: bool
) -> None:
    """The bare path of a mount, as the page of MIOSA's tutorial asks for it. Carelessly forwarded, it leads away."""
    nginx = Nginx(tmp_path, tls=tls)
    app = mounted(bridge_for(sandbox, "echo a"))
    answers = []
    with serve(app) as served:
        for location in (CARELESS, FORWARDED):
            with nginx.serve(served.port, location) as url:
                answer = httpx.get(url + "/run-sse", verify=trusting(nginx))
                answers.append((answer.status_code, answer.headers["location"] == url + "/run-sse/"))

    assert answers == [(307, False), (307, True)]


# -- the configurations of the page


def nginx_version() -> tuple[int, ...]:
    said = subprocess.run([find("nginx"), "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(part) for part in re.findall(r"\d+", said)[:3])


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_the_documented_nginx_passes_lines_on(sandbox: LocalSandbox, tmp_path: Path, http2: bool) -> None:
    """At once, and it ends the script with its page. The application learns the scheme and the port."""
    own, mark, heads = free_port(), new_mark(), []

    def resolve(request: Request) -> SandboxExec:
        heads.append((request.scope["http_version"], request.headers["host"], request.headers["x-forwarded-proto"]))
        return SandboxExec(sandbox.id, f"echo first; sleep {mark}")

    nginx = Nginx(tmp_path, tls=http2)
    with serve(mounted(SSEBridge(sandbox.miosa(), resolve, grace=0, heartbeat=None))) as served:
        location = LOCATION.replace(UPSTREAM, f"127.0.0.1:{served.port}")
        server = server_for_http2(location, own) if http2 else f"server {{ listen 127.0.0.1:{own};\n{location} }}"
        url = f"http{'s' * http2}://127.0.0.1:{own}"
        with nginx.run(server, own):
            with (
                httpx.Client(base_url=url, verify=trusting(nginx), http2=http2) as client,
                client.stream("GET", "/run-sse/") as response,
            ):
                lines = response.iter_lines()  # closes the response when it is dropped
                assert any('"line":"first"' in line for line in lines)
                assert running(mark)
            eventually(lambda: not running(mark))

    assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert heads == [("1.1", f"127.0.0.1:{own}", "https" if http2 else "http")]


def server_for_http2(location: str, port: int) -> str:
    """The page's server with the location in it, on another port. For an old nginx, as its comment says."""
    server = SERVER
    if nginx_version() < (1, 25, 1):
        (old,) = re.findall(r"http2 on; .*: (listen 443 ssl http2;)$", SERVER, re.MULTILINE)
        server = re.sub(r"http2 on;.*", "", SERVER).replace("listen 443 ssl;", old)
    filled = re.sub(r"# .*the location above$", lambda _: location, server, flags=re.MULTILINE)
    assert location in filled
    return filled.replace("listen 443", f"listen 127.0.0.1:{port}")


def test_the_documented_caddy_passes_lines_on(sandbox: LocalSandbox, tmp_path: Path) -> None:
    """It compresses, and not the stream."""
    with serve(mounted(bridge_for(sandbox, "echo first; sleep 300"))) as served:
        site = only_block(DOCS / "deployment.md", "caddy").replace(UPSTREAM, f"127.0.0.1:{served.port}")
        with Caddy(tmp_path).run(site) as url:
            assert first_line(url, 10)


# -- compression


NGINX_GZIP = "gzip on; gzip_types *; gzip_proxied any;"
CADDY_ENCODE = "\tencode {\n\t\tgzip\n\t\tminimum_length 1\n\t}"


@contextmanager
def behind(layer: str, app: ASGIApp, folder: Path) -> Iterator[str]:
    """Serves an application behind a layer that compresses; yields its URL."""
    if layer == "starlette":
        with serve(GZipMiddleware(app, minimum_size=1)) as served:
            yield served.url
    elif layer == "caddy":
        with serve(app) as served, Caddy(folder).serve(served.port, CADDY_ENCODE) as url:
            yield url
    else:
        location = NGINX_GZIP + ("proxy_ignore_headers X-Accel-Buffering;" if "ignores" in layer else "")
        with serve(app) as served, Nginx(folder).serve(served.port, location) as url:
            yield url


def first_line(url: str, timeout: float) -> bool:
    """Whether the first line of a script arrives that goes on after it."""
    content = b""
    try:
        with httpx.stream("GET", url + "/run-sse/", timeout=timeout) as response:
            assert response.status_code == 200
            for chunk in response.iter_bytes():
                content += chunk
                if b'"line":"first"' in content:
                    return True
    except httpx.ReadTimeout:
        return False
    raise AssertionError(content)


@pytest.mark.parametrize("layer", ["starlette", "nginx", "nginx that ignores X-Accel-Buffering", "caddy"])
def test_identity_encoding_keeps_compression_from_holding_lines(
    sandbox: LocalSandbox, tmp_path: Path, layer: str
) -> None:
    """The kind of fault: a layer compresses in spite of `no-transform`, and holds back what it has not filled yet."""
    bridge = bridge_for(sandbox, "echo first; sleep 300", identity_encoding=True)
    with behind(layer, mounted(bridge), tmp_path) as url:
        assert first_line(url, 10)


@pytest.mark.parametrize("layer", ["starlette", "nginx"])
def test_well_behaved_layers_need_no_option(sandbox: LocalSandbox, tmp_path: Path, layer: str) -> None:
    """Starlette's middleware leaves event streams alone, and nginx flushes what `X-Accel-Buffering` asks for."""
    with behind(layer, mounted(bridge_for(sandbox, "echo first; sleep 300")), tmp_path) as url:
        assert first_line(url, 10)


@pytest.mark.parametrize("layer", ["nginx that ignores X-Accel-Buffering", "caddy"])
def test_without_the_option_some_layers_hold_lines(sandbox: LocalSandbox, tmp_path: Path, layer: str) -> None:
    """This is why the option exists. Should it fail, the layer has learned, and the page can say so."""
    with behind(layer, mounted(bridge_for(sandbox, "echo first; sleep 300")), tmp_path) as url:
        assert not first_line(url, 2)


def test_other_responses_are_still_compressed(sandbox: LocalSandbox, tmp_path: Path) -> None:
    """The option is about event streams only."""
    bridge = bridge_for(sandbox, "echo first", identity_encoding=True)
    with behind("starlette", mounted(bridge), tmp_path) as url:
        answer = httpx.get(url + "/run-sse/abcdefghijklmnop", headers={"Accept": "application/json"})

    assert (answer.status_code, answer.headers["content-encoding"]) == (404, "gzip")


# -- silence


@pytest.mark.parametrize("version", ["", "proxy_http_version 1.1;"], ids=["HTTP/1.0", "HTTP/1.1"])
def test_a_heartbeat_below_the_proxys_timeout_keeps_a_silent_script_going(
    sandbox: LocalSandbox, tmp_path: Path, version: str
) -> None:
    """With `grace=0`, a proxy that cuts the silent connection ends the script: the bridge sees a viewer that left."""
    bridge = bridge_for(sandbox, "sleep 2.5; echo a", heartbeat=0.2)
    nginx, location = Nginx(tmp_path), version + "proxy_read_timeout 1s;"
    with serve(mounted(bridge)) as served, nginx.serve(served.port, location) as url:
        content = httpx.get(url + "/run-sse/", timeout=10).text

    said = [json.loads(line[6:]) for line in content.splitlines() if line.startswith("data: ")]
    assert [one.get("line", one["type"]) for one in said] == ["start", "a", "exit"]


def test_a_client_that_leaves_a_proxy_ends_its_script(sandbox: LocalSandbox, tmp_path: Path) -> None:
    """nginx as it comes closes its own connection, too."""
    mark = new_mark()
    with serve(mounted(bridge_for(sandbox, f"sleep {mark}"))) as served, Nginx(tmp_path).serve(served.port) as url:
        with httpx.stream("GET", url + "/run-sse/") as response:
            assert response.status_code == 200
            eventually(lambda: running(mark))
        eventually(lambda: not running(mark))
