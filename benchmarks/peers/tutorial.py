"""The pattern of MIOSA's tutorial: FastAPI, the SDK's stream, `json.dumps`, `StreamingResponse`."""

import json
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from miosa import AsyncMiosa

app = FastAPI()
miosa = AsyncMiosa(api_key="msk_bench_key", base_url=os.environ["UPSTREAM"])


@app.get("/")
async def run(shape: str) -> StreamingResponse:
    sandbox = await miosa.sandboxes.get(shape)

    async def events() -> AsyncIterator[str]:
        async for event in sandbox.exec_stream("run"):
            if event.type == "exit":
                yield f"data: {json.dumps({'type': 'exit', 'code': event.data['exit_code']})}\n\n"
            else:
                yield f"data: {json.dumps({'type': event.type, 'line': event.data['line']})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
