"""Follows a stream with aiohttp-sse-client. It comes back by itself after an end, but not after a cut.

Usage: aiohttp_client.py URL [PLACE]
"""

from __future__ import annotations

import asyncio
import json
import sys

import aiohttp
from aiohttp_sse_client.client import EventSource


async def main(url: str, place: str = "") -> None:
    headers = {"Last-Event-ID": place} if place else {}
    try:
        async with EventSource(url, headers=headers) as source:
            async for event in source:
                print(f"id: {event.last_event_id}\ndata: {event.data}", flush=True)
                if json.loads(event.data)["type"] in ("exit", "error"):
                    break
    except aiohttp.ClientResponseError as error:
        print("status:", error.status, flush=True)
    except ConnectionError as error:
        print("closed:", error, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
