"""MIOSA's own SDK against a sandbox's log, with the synchronous and the asynchronous client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import cast

import miosa
import pytest
from miosa.resources.sandboxes import Sandbox, SandboxEvent

from tests.sandbox.helpers import KEY, eventually
from tests.support.servers import Served

WAITS = "echo one; while [ ! -e go ]; do sleep 0.01; done; echo two >&2"


def test_the_log_is_read_and_followed(sandbox: Sandbox) -> None:
    """`logs.get` and `logs.stream`; the SDK passes the lines' stream on."""
    sandbox.processes.start(WAITS)
    eventually(lambda: sandbox.logs.get() == {"lines": ["one"]})
    with contextlib.closing(cast(Generator[SandboxEvent, None, None], sandbox.logs.stream())) as stream:
        first = next(stream)
        sandbox.write_file("/workspace/go", "")
        second = next(stream)

    assert [(each.type, each.data) for each in (first, second)] == [
        ("stdout", {"line": "one"}),
        ("stderr", {"line": "two"}),
    ]
    assert sandbox.logs.get(lines=1) == {"lines": ["two"]}


def test_a_refused_log_is_an_exception(sandbox: Sandbox) -> None:
    """Of the stream, too: here the SDK reads the refusal."""
    sandbox.destroy()
    for attempt in (sandbox.logs.get, lambda: next(iter(sandbox.logs.stream()))):
        with pytest.raises(miosa.MiosaError) as refusal:
            attempt()
        assert refusal.value.code == "SANDBOX_NOT_RUNNING"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_log_asynchronously(server: Served) -> None:
    """With the asynchronous client."""
    async with miosa.AsyncMiosa(api_key=KEY, base_url=server.url) as client:
        sandbox = await client.sandboxes.create(name="sdk")
        assert await sandbox.wait_until_ready(timeout=5)
        await sandbox.processes.start(WAITS)
        generator = cast(AsyncGenerator[SandboxEvent, None], sandbox.logs.stream())
        async with contextlib.aclosing(generator) as stream:
            assert (await anext(stream)).data == {"line": "one"}
            await sandbox.write_file("/workspace/go", "")
            assert (await anext(stream)).data == {"line": "two"}
        assert await sandbox.logs.get(lines=1) == {"lines": ["two"]}
        await sandbox.destroy()
