"""httpx-sse, and Litestar's `ServerSentEvent`."""

import json
from collections.abc import AsyncIterator

from litestar import Litestar, get
from litestar.response import ServerSentEvent
from litestar.types import SSEData

from .messages import messages


@get("/")
async def run(shape: str) -> ServerSentEvent:
    async def events() -> AsyncIterator[SSEData]:
        async for message in messages(shape):
            yield {"data": json.dumps(message)}

    return ServerSentEvent(events())


app = Litestar([run], logging_config=None)
