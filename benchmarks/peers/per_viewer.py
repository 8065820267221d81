"""A connection to Redis for each viewer, as most recipes have it: `XADD MAXLEN` for each event, and `XREAD BLOCK`."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from secrets import token_hex
from typing import Any

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from .messages import messages

redis: Any = Redis.from_url(os.environ["STORE"], max_connections=5000, socket_timeout=None)
running: set[asyncio.Task[None]] = set()


async def publish(run: str, shape: str) -> None:
    async for message in messages(shape):
        await redis.xadd(f"run:{run}", {"data": json.dumps(message)}, maxlen=10_000, approximate=True)


async def follow(run: str) -> AsyncIterator[str]:
    last = "0-0"
    while True:
        for _, entries in await redis.xread({f"run:{run}": last}, block=5000, count=100):
            for number, fields in entries:
                last = number
                yield f"id: {number.decode()}\ndata: {fields[b'data'].decode()}\n\n"


async def start(request: Request) -> StreamingResponse:
    run = token_hex(12)
    task = asyncio.create_task(publish(run, request.query_params["shape"]))
    running.add(task)
    return answer(run)


async def resume(request: Request) -> StreamingResponse:
    return answer(request.path_params["run"])


def answer(run: str) -> StreamingResponse:
    return StreamingResponse(follow(run), media_type="text/event-stream", headers={"sse-bridge-run": run})


app = Starlette(routes=[Route("/", start), Route("/{run}", resume)])
