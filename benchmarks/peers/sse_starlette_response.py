"""httpx-sse, and sse-starlette's `EventSourceResponse` on Starlette."""

import json
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from .messages import messages


async def run(request: Request) -> EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, str]]:
        async for message in messages(request.query_params["shape"]):
            yield {"data": json.dumps(message)}

    return EventSourceResponse(events())


app = Starlette(routes=[Route("/", run)])
