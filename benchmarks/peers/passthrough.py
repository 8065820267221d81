"""Bare ASGI over httpx: passes the upstream's bytes on as they come, and misses that a viewer leaves."""

import os
from typing import Any
from urllib.parse import parse_qs

import httpx

client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None), trust_env=False)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    shape = parse_qs(scope["query_string"].decode())["shape"][0]
    async with client.stream("GET", f"{os.environ['UPSTREAM']}/{shape}") as response:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for chunk in response.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
