"""Follows a stream with httpx-sse, asynchronously. Usage: httpx_async.py URL [PLACE]"""

from __future__ import annotations

import asyncio
import sys

import httpx
import httpx_sse


async def main(url: str, place: str = "") -> None:
    headers = {"Last-Event-ID": place} if place else {}
    async with (
        httpx.AsyncClient(timeout=30) as client,
        httpx_sse.aconnect_sse(client, "GET", url, headers=headers) as source,
    ):
        print("status:", source.response.status_code, flush=True)
        if source.response.status_code == 200:
            async for event in source.aiter_sse():
                print(f"id: {event.id}\ndata: {event.data}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
