"""`sse-bridge doctor`: good and bad deployments."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sse_bridge import Miosa, SandboxExec, SSEBridge, speedups
from sse_bridge.testing import Script
from tests.cli.conftest import Piped
from tests.redis.keeper import keeper
from tests.support.proxies import Nginx
from tests.support.sandboxes import LocalSandbox
from tests.support.servers import serve

pytestmark = pytest.mark.slow


def waiting() -> tuple[SSEBridge, Script]:
    script = Script(["a"], waits=True)

    async def resolve(request: Request) -> Script:
        return script

    return SSEBridge(None, resolve, heartbeat=0.6), script


def test_a_platform_and_a_key_that_are_right(piped: Piped) -> None:
    done = piped("doctor", COLUMNS="300")
    assert done.returncode == 0
    assert b"wrong" not in done.stdout
    assert b"accepted" in done.stdout
    assert b"httptools" in done.stdout
    assert f"runs in {speedups.REASON}".encode() in done.stdout


@pytest.mark.parametrize(
    ("variables", "remedy"),
    [
        ({"MIOSA_API_KEY": "msk_other"}, "Check the key."),
        ({"MIOSA_API_KEY": ""}, "Set MIOSA_API_KEY"),
        ({"MIOSA_BASE_URL": "http://127.0.0.1:1"}, "Check MIOSA_BASE_URL"),
    ],
)
def test_a_platform_or_a_key_that_is_wrong(variables: dict[str, str], remedy: str, piped: Piped) -> None:
    done = piped("doctor", COLUMNS="200", **variables)
    assert done.returncode == 1
    assert remedy in done.stdout.decode()
    assert b"msk_other" not in done.stdout


def test_a_good_deployment(piped: Piped, tmp_path: Path) -> None:
    """Its run is ended."""
    bridge, script = waiting()
    with serve(bridge) as served, Nginx(tmp_path).serve(served.port, "proxy_set_header Host $http_host;") as url:
        done = piped("doctor", url + "/", COLUMNS="200")
        quick = piped("doctor", url + "/", "--silence", "0", COLUMNS="200")
    assert done.returncode == quick.returncode == 0, done.stdout
    assert b"watching the stream for 2 heartbeats, 32 s at most (--silence 0 leaves that out)" in done.stderr
    assert b"heartbeats came" in done.stdout
    assert quick.stderr == b""
    assert b"heartbeat" not in quick.stdout
    for said in ("a run was started", "came at once", "9 connections found the run", "ended: confirmed"):
        assert said in done.stdout.decode()
    assert (script.starts, script.stops) == (2, 2)


def test_a_proxy_that_buffers(piped: Piped, tmp_path: Path) -> None:
    bridge, script = waiting()
    location = (
        "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; "
        "gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 0;"
    )
    with serve(bridge) as served, Nginx(tmp_path).serve(served.port, location) as url:
        done = piped("doctor", url + "/", COLUMNS="200")
    assert done.returncode == 1
    assert "proxy_buffering off" in done.stdout.decode()
    assert script.stops == 1


def test_workers_that_share_nothing(piped: Piped) -> None:
    class Workers:
        """Requests take turns."""

        def __init__(self, *apps: ASGIApp) -> None:
            self._apps = apps
            self._count = 0

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["headers"] and b"application/json" in dict(scope["headers"]).values():
                self._count += 1
            await self._apps[self._count % len(self._apps)](scope, receive, send)

    with serve(Workers(waiting()[0], waiting()[0])) as served:
        done = piped("doctor", served.url + "/", COLUMNS="200")
    assert done.returncode == 1
    assert "RedisStore" in done.stdout.decode()


def test_a_bridge_whose_key_is_wrong(piped: Piped, sandbox: LocalSandbox) -> None:
    async def resolve(request: Request) -> SandboxExec:
        return SandboxExec(sandbox.id, "true")

    with serve(SSEBridge(Miosa(sandbox.url, "msk_other"), resolve)) as served:
        done = piped("doctor", served.url + "/", COLUMNS="200")
    assert done.returncode == 1
    assert "The bridge's key is wrong" in done.stdout.decode()


def test_a_bridge_that_answers_with_an_error(piped: Piped) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(status_code=500)(scope, receive, send)

    with serve(broken, lifespan="off") as served:
        done = piped("doctor", served.url + "/", COLUMNS="200")
    assert done.returncode == 1
    said = " ".join(done.stdout.decode().split())
    assert (
        "wrong start The server answered 500 Internal Server Error. (http_500) Look at the log of the bridge." in said
    )


def test_redis(piped: Piped, tmp_path: Path) -> None:
    with keeper(tmp_path) as redis:
        assert piped("doctor", "--redis", redis.url).returncode == 0
        redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        evicting = piped("doctor", "--redis", redis.url, COLUMNS="200")
    assert evicting.returncode == 1
    assert b"noeviction" in evicting.stdout
    assert piped("doctor", "--redis", "redis://127.0.0.1:1/0").returncode == 1


def test_a_password_that_makes_the_url_of_redis_unreadable(piped: Piped) -> None:
    done = piped("doctor", "--redis", "redis://:secret#more@127.0.0.1:1/0")
    assert done.returncode == 1
    assert b"secret" not in done.stdout + done.stderr
