"""What `sse-bridge doctor` looks at on this machine. Each look says what it found, and what to do about it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from .. import speedups
from ..errors import BridgeError, UpstreamError
from .asking import platform
from .finding import Finding
from .saying import words_of

__all__ = ["look_at_install", "look_at_platform", "look_at_redis"]

#: Seconds for the platform's answer, and for Redis's.
_TIMEOUT: Final = 10.0


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
    except ValueError:  # it may quote the password
        return [Finding("Redis", False, "the URL cannot be read", "Write --redis redis://host:6379/0.")]
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
