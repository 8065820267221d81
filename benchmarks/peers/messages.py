"""The upstream's events as messages for the page, for peers that read with httpx-sse."""

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
from httpx_sse import aconnect_sse

client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None), trust_env=False)


async def messages(shape: str) -> AsyncIterator[dict[str, Any]]:
    async with aconnect_sse(client, "GET", f"{os.environ['UPSTREAM']}/{shape}") as source:
        async for event in source.aiter_sse():
            body = json.loads(event.data)
            if event.event == "exit":
                yield {"type": "exit", "code": body["exit_code"]}
            else:
                yield {"type": event.event, "line": body["line"]}
