"""MIOSA's own SDK against the stream of a sandbox's events, with the synchronous and the asynchronous client."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Generator
from typing import Any, cast

import anyio
import httpx
import miosa
import pytest
from miosa.helpers import stream_events
from miosa.resources.sandboxes import Sandbox

from sse_bridge.sandbox.state import READY_AFTER
from tests.sandbox.helpers import KEY
from tests.support.servers import Served


def test_events_are_followed(client: miosa.Miosa) -> None:
    """The data is text to the SDK. `sandbox.started` is told to a client that was there before."""
    with client.sandboxes.create(metadata={READY_AFTER: 0.3}) as sandbox:
        stream = cast(Generator[dict[str, Any], None, None], sandbox.events.stream())
        with contextlib.closing(stream) as events:
            assert next(events)["type"] == "sandbox.started"
            sandbox.refresh()
            sandbox.exec("echo out; exit 3")
            seen = [next(events) for _ in range(3)]

    assert [each["type"].removeprefix("sandbox.exec.") for each in seen] == ["started", "stdout", "completed"]
    assert [len(each["id"]) for each in seen] == [26, 26, 26]
    assert json.loads(seen[1]["data"])["line"] == "out"
    assert json.loads(seen[2]["data"])["exit_code"] == 3


def test_the_sdks_helper_follows_to_the_end(client: miosa.Miosa) -> None:
    """The stream ends with the sandbox."""
    sandbox = client.sandboxes.create(metadata={READY_AFTER: 0.3})
    seen = []
    for event in stream_events(client, sandbox.id):
        seen.append(event["type"])
        if event["type"] == "sandbox.started":
            sandbox.destroy()

    assert seen == ["sandbox.started", "sandbox.destroyed"]


def test_a_refusal_shows_as_a_defect_of_the_sdk(sandbox: Sandbox) -> None:
    """It reads the body of a refused stream too late, and never gets to its own exception."""
    sandbox.destroy()
    with pytest.raises(httpx.ResponseNotRead):
        next(iter(sandbox.events.stream()))


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_events_asynchronously(server: Served) -> None:
    """With the asynchronous client."""
    async with miosa.AsyncMiosa(api_key=KEY, base_url=server.url) as client:
        sandbox = await client.sandboxes.create(metadata={READY_AFTER: 0.3})
        stream = cast(AsyncGenerator[dict[str, Any], None], sandbox.events.stream())
        async with contextlib.aclosing(stream) as events, anyio.create_task_group() as tasks:
            assert (await anext(events))["type"] == "sandbox.started"
            await sandbox.refresh()
            tasks.start_soon(sandbox.exec, "echo out")
            seen = [await anext(events) for _ in range(3)]
        assert [json.loads(each["data"]).get("line") for each in seen] == [None, "out", None]
        await sandbox.destroy()
