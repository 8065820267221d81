"""httpx-sse, and FastAPI's own event stream: an endpoint that yields."""

from collections.abc import AsyncIterable

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

from .messages import messages

app = FastAPI()


@app.get("/", response_class=EventSourceResponse)
async def run(shape: str) -> AsyncIterable[ServerSentEvent]:
    async for message in messages(shape):
        yield ServerSentEvent(data=message)
