"""What `sse-bridge doctor` looks at. Each look says what it found, and what to do about it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import anyio

from .. import speedups
from ..errors import BridgeError, UpstreamError
from .asking import platform
from .saying import words_of

__all__ = ["Finding", "look_at_deployment", "look_at_install", "look_at_platform", "look_at_redis"]

#: Seconds for the platform's answer, and for Redis's.
_TIMEOUT: Final = 10.0
#: Seconds for the first event beside the start. A bridge sends it at once.
_AT_ONCE: Final = 3.0
#: Connections with which a run is resumed. Of two workers that share nothing, all reach one with a chance of 1 in 256.
_RESUMES: Final = 9


@dataclass(frozen=True)
class Finding:
    """The result of one look."""

    what: str
    #: `None`: neither good nor bad.
    is_good: bool | None
    found: str
    #: What to do; empty if there is nothing to do.
    remedy: str = ""


def look_at_install() -> list[Finding]:
    """The faster parts of this installation."""
    has_parser = importlib.util.find_spec("httptools") is not None
    return [
        Finding(
            "fast HTTP parser",
            has_parser,
            "httptools is in use" if has_parser else "h11 is in use",
            "" if has_parser else 'pip install "sse_bridge[fast]"',
        ),
        Finding("C twin of the fast path", True if speedups.IN_USE else None, f"runs in {speedups.REASON}"),
    ]


async def look_at_platform() -> list[Finding]:
    """Whether the platform answers, and takes the key."""
    try:
        miosa = platform()
        headers = miosa.headers("application/json")
    except BridgeError as error:
        return [Finding("settings", False, words_of(error))]
    where = urlsplit(miosa.base_url).netloc.rpartition("@")[2]
    try:
        url = miosa.address("/sandboxes")
        status, _ = await miosa.call("GET", url, headers=headers, json=None, timeout=_TIMEOUT)
    except UpstreamError as error:
        remedy = "Check MIOSA_BASE_URL, HTTPS_PROXY and the network."
        return [Finding("platform", False, words_of(error), remedy)]
    reached = Finding("platform", True, f"{where} answers")
    if status in (401, 403):
        which = "MIOSA_ACCESS_TOKEN wins over MIOSA_API_KEY, and MIOSA_TENANT counts."
        return [reached, Finding("key", False, f"refused with {status}", f"Check the key. {which}")]
    if status != 200:
        return [reached, Finding("key", False, f"the list of sandboxes was answered {status}", "Check MIOSA_BASE_URL.")]
    return [reached, Finding("key", True, "accepted")]


async def look_at_redis(url: str) -> list[Finding]:
    """Whether the store that workers share answers."""
    try:
        from redis.asyncio import Redis
        from redis.exceptions import RedisError
    except ModuleNotFoundError:
        return [Finding("Redis", False, "redis-py is missing", 'pip install "sse_bridge[redis]"')]
    try:
        client = Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
    except ValueError as error:
        return [Finding("Redis", False, str(error), "Write --redis redis://host:6379/0.")]
    try:
        async with client:
            memory: Mapping[str, Any] = await client.info("memory")
    except (RedisError, OSError) as error:
        return [Finding("Redis", False, type(error).__name__, "Check the URL, the password and the network.")]
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        found = f"answers, and may discard runs that go on ({policy})"
        return [Finding("Redis", False, found, "Set maxmemory-policy to noeviction or volatile-ttl.")]
    return [Finding("Redis", True, "answers")]


async def look_at_deployment(url: str, headers: Mapping[str, str]) -> list[Finding]:
    """Whether a run can be started, seen at once, and resumed on every worker. Starts one, and ends it."""
    import httpx

    from ..client import FollowError, follow

    findings = []
    asked = {**headers, "Prefer": "respond-async", "Accept-Encoding": "gzip"}  # as browsers do
    run = follow(url, headers=asked, give_up_after=_TIMEOUT)
    try:
        async with run:
            first = None
            with anyio.move_on_after(_TIMEOUT + _AT_ONCE):
                first = await anext(run, None)
            if run.token is None:
                remedy = f"{_REMEDIES['gave_up']} If so, their logs say more."
                return [Finding("start", False, f"no answer in {_TIMEOUT + _AT_ONCE:g} seconds", remedy)]
            findings.append(Finding("start", True, "a run was started"))
            findings.append(_first(first is not None))
            findings.append(await _resumed(str(run.url), headers, run.token))
            with anyio.move_on_after(_TIMEOUT):
                how_far = await run.cancel()
                findings.append(Finding("end", True, "it was ended" if how_far is None else f"ended: {how_far.value}"))
    except FollowError as error:
        what = "start" if run.token is None else "run"
        findings.append(Finding(what, False, words_of(error), _REMEDIES.get(error.code, _LOOK_AT_THE_LOG)))
    except httpx.HTTPError as error:
        findings.append(Finding("run", False, type(error).__name__, _REMEDIES["gave_up"]))
    return findings


_LOOK_AT_THE_LOG: Final = "Look at the log of the bridge."
_REMEDIES: Final = {
    "upstream_unauthorized": "The bridge's key is wrong: set MIOSA_API_KEY where it runs.",
    "not_event_stream": "Is this the URL of a bridge? Write the slash at its end.",
    "http_404": "Is this the URL of a bridge? Write the slash at its end.",
    **dict.fromkeys(("gave_up", "http_502", "http_503", "http_504"), "Is the server up, and the proxy pointed at it?"),
    "run_unknown": "Several workers need store=RedisStore(...).",
}


def _first(came: bool) -> Finding:
    if came:
        return Finding("lines one by one", True, "the first event came at once")
    return Finding(
        "lines one by one",
        False,
        "the first event is held back",
        "A proxy buffers or compresses. For nginx: proxy_buffering off; gzip off. See docs/deployment.md.",
    )


async def _resumed(url: str, headers: Mapping[str, str], token: str) -> Finding:
    """Asks for the run's state on new connections: each may reach another worker."""
    import httpx

    missing = 0
    for _ in range(_RESUMES):
        async with httpx.AsyncClient(timeout=_TIMEOUT) as client:
            answer = await client.get(url, headers={**headers, "Accept": "application/json"})
            missing += answer.status_code == 404
    if missing:
        found = f"{missing} of {_RESUMES} requests did not find the run"
        return Finding("resume", False, found, "Several workers need store=RedisStore(...). See docs/many-workers.md.")
    return Finding("resume", True, f"{_RESUMES} connections found the run {token[:6]}...")
