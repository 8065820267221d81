"""The pattern of MIOSA's tutorial: FastAPI, the SDK's stream, `json.dumps`, `StreamingResponse`.

It differs in one thing: each request has its own client, closed with its response. The tutorial shares one client,
which holds 20 connections and has no setting for more: with it, 20 streams are served and all others wait.
"""

import json
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from miosa import AsyncMiosa

app = FastAPI()


@app.get("/")
async def run(shape: str) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        async with AsyncMiosa(api_key="msk_bench_key", base_url=os.environ["UPSTREAM"]) as miosa:
            sandbox = await miosa.sandboxes.get(shape)
            async for event in sandbox.exec_stream("run"):
                if event.type == "exit":
                    yield f"data: {json.dumps({'type': 'exit', 'code': event.data['exit_code']})}\n\n"
                else:
                    yield f"data: {json.dumps({'type': event.type, 'line': event.data['line']})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
