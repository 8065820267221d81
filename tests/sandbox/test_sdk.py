"""MIOSA's own SDK against this server: its calls for sandboxes, commands and files work as on the platform.

These calls reach the routes that the server has. The SDK's other resources (deployments, databases, ...) are
outside its scope.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import cast

import miosa
import pytest
from miosa.resources.sandboxes import ExecOptions, Sandbox, SandboxEvent

from sse_bridge.sandbox.state import READY_AFTER
from tests.sandbox.helpers import KEY, eventually
from tests.support.servers import Served

# The actual types of the SDK's streams, which it annotates as plain iterators.
Events = Generator[SandboxEvent, None, None]
AsyncEvents = AsyncGenerator[SandboxEvent, None]

SCRIPT = """
import sys, os
for number in range(3):
    print("line", number, flush=True)
print("warning", file=sys.stderr)
sys.exit(int(os.environ["CODE"]))
"""


def test_the_tutorial_runs(sandbox: Sandbox) -> None:
    """It creates, waits, writes, executes, streams and destroys."""
    sandbox.write_file("/workspace/pipeline.py", SCRIPT)

    result = sandbox.exec("python3 -u /workspace/pipeline.py", {"env": {"CODE": "0"}, "timeout": 30})
    events = [(each.type, each.data) for each in sandbox.exec_stream("python3 -u pipeline.py", {"env": {"CODE": "4"}})]

    assert result.stdout == "line 0\nline 1\nline 2\n"
    assert (result.stderr, result.exit_code) == ("warning\n", 0)
    assert [data for kind, data in events if kind == "stdout"] == [{"line": f"line {number}"} for number in range(3)]
    assert ("stderr", {"line": "warning"}) in events
    assert events[-1] == ("exit", {"exit_code": 4})
    sandbox.destroy()
    assert sandbox.state == "destroyed"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_tutorial_runs_asynchronously(server: Served) -> None:
    """With the asynchronous client."""
    client = miosa.AsyncMiosa(api_key=KEY, base_url=server.url)
    sandbox = await client.sandboxes.create(name="sdk")
    assert await sandbox.wait_until_ready(timeout=5)
    await sandbox.write_file("/workspace/pipeline.py", SCRIPT)

    result = await sandbox.exec("python3 -u pipeline.py", {"env": {"CODE": "3"}, "cwd": "/workspace"})
    generator = cast(AsyncEvents, sandbox.exec_stream("python3 -u pipeline.py", {"env": {"CODE": "0"}}))
    async with contextlib.aclosing(generator) as stream:
        events = [(each.type, each.data) async for each in stream]

    assert (result.stdout, result.exit_code) == ("line 0\nline 1\nline 2\n", 3)
    assert ("stdout", {"line": "line 2"}) in events
    assert events[-1] == ("exit", {"exit_code": 0})
    await sandbox.destroy()
    assert (await client.sandboxes.get(sandbox.id)).state == "destroyed"
    await client.close()


def test_files_go_both_ways(sandbox: Sandbox) -> None:
    """The SDK's `files` namespace writes, reads, lists and stats."""
    sandbox.files.write("/workspace/sub/a.bin", b"\x00\xff")
    written = sandbox.files.write_many([{"path": "/workspace/b.txt", "content": "text"}])

    assert sandbox.files.read("/workspace/sub/a.bin") == b"\x00\xff"
    assert sandbox.read_file("/workspace/b.txt") == "text"
    assert written == {"written": ["/workspace/b.txt"], "failed": []}
    assert [each["path"] for each in sandbox.files.list("/workspace", depth=2)["entries"]] == [
        "/workspace/b.txt",
        "/workspace/sub",
        "/workspace/sub/a.bin",
    ]
    assert sandbox.files.stat("/workspace/b.txt")["size"] == 4
    with pytest.raises(miosa.NotFoundError):
        sandbox.files.read("/workspace/nothing")


def test_the_last_event_reports_a_timeout(sandbox: Sandbox) -> None:
    """As the platform's does."""
    events = list(sandbox.exec_stream("echo begun; sleep 1000", {"timeout_sec": 1}))

    assert [(each.type, each.data) for each in events] == [
        ("stdout", {"line": "begun"}),
        ("exit", {"exit_code": -1, "timed_out": True}),
    ]


def test_closing_a_stream_does_not_kill(sandbox: Sandbox) -> None:
    """The command runs on when the SDK's user stops listening."""
    generator = cast(Events, sandbox.exec_stream("echo begun; sleep 0.2; echo done > /workspace/end"))
    with contextlib.closing(generator) as stream:
        assert next(stream).data == {"line": "begun"}

    eventually(lambda: any(each["name"] == "end" for each in sandbox.files.list()["entries"]))


def test_not_ready_is_an_error_with_its_code(client: miosa.Miosa) -> None:
    """A sandbox that is still starting refuses commands with 409, which the SDK marks as retryable."""
    with client.sandboxes.create(metadata={READY_AFTER: 1}) as sandbox:
        sandbox.refresh()
        for attempt in (lambda: sandbox.exec("true"), lambda: list(sandbox.exec_stream("true"))):
            with pytest.raises(miosa.MiosaError) as refusal:
                attempt()
            assert (refusal.value.status_code, refusal.value.code) == (409, "SANDBOX_NOT_COMMAND_READY")
            assert refusal.value.retryable is True
        assert sandbox.wait_until_ready(timeout=5)
        assert sandbox.exec("echo ok").stdout == "ok\n"


def test_polling_for_readiness_works_too(client: miosa.Miosa) -> None:
    """The SDK polls if told not to stream."""
    with client.sandboxes.create(metadata={READY_AFTER: 0.5}) as sandbox:
        assert not sandbox.wait_until_ready(timeout=0.02, stream=False)
        assert sandbox.wait_until_ready(timeout=5, stream=False)
        assert sandbox.ready


def test_creation_can_wait(client: miosa.Miosa) -> None:
    """`wait=True` returns a sandbox that takes commands at once."""
    with client.sandboxes.create(wait=True, metadata={READY_AFTER: 0.05}) as sandbox:
        assert sandbox.exec("echo ok").stdout == "ok\n"


def test_refusals_are_the_sdks_exceptions(server: Served, client: miosa.Miosa, sandbox: Sandbox) -> None:
    """The SDK finds status, code and request id in each."""
    stranger = miosa.Miosa(api_key="wrong", base_url=server.url)
    with pytest.raises(miosa.AuthenticationError) as unknown:
        stranger.sandboxes.list()
    stranger.close()
    assert unknown.value.code == "invalid_token"
    assert unknown.value.request_id
    with pytest.raises(miosa.NotFoundError):
        client.sandboxes.get("sbx_unknown")
    with pytest.raises(miosa.ValidationError):
        sandbox.exec("")
    with pytest.raises(miosa.errors.InvalidPathError):
        sandbox.files.write("/etc/passwd", "x")
    client.sandboxes.create(name="a", idempotency_key="0f0e0d0c-1111-4222-8333-444455556666").destroy()
    with pytest.raises(miosa.MiosaError) as mismatch:
        client.sandboxes.create(name="b", idempotency_key="0f0e0d0c-1111-4222-8333-444455556666")
    assert mismatch.value.code == "IDEMPOTENCY_PAYLOAD_MISMATCH"


def test_a_prompt_arrives_before_its_line_ends(sandbox: Sandbox) -> None:
    """The SDK passes pieces on as they come."""
    command = "printf 'Name: '; while [ ! -e go ]; do sleep 0.01; done; echo Ann"
    stream = sandbox.exec_stream(command)

    assert next(stream).data == {"data": "Name: "}
    sandbox.write_file("/workspace/go", "")
    assert [each.data for each in stream] == [{"data": "Ann\n"}, {"exit_code": 0}]


@pytest.mark.parametrize("timeout", [0.5, 0, 100_000])
def test_a_timeout_that_the_platform_refuses_is_refused(sandbox: Sandbox, timeout: float) -> None:
    """Whole seconds, a day at most."""
    options = cast(ExecOptions, {"timeout": timeout})
    for attempt in (lambda: sandbox.exec("true", options), lambda: list(sandbox.exec_stream("true", options))):
        with pytest.raises(miosa.MiosaError) as refusal:
            attempt()
        assert (refusal.value.status_code, refusal.value.code) == (400, "INVALID_TIMEOUT")


def test_a_destroyed_sandbox_takes_no_commands_but_has_a_state(client: miosa.Miosa, sandbox: Sandbox) -> None:
    """The SDK refuses by itself if it knows; another client of the same sandbox learns it from the server."""
    other = client.sandboxes.get(sandbox.id)
    sandbox.destroy()
    for attempt in (lambda: other.exec("true"), lambda: list(other.exec_stream("true"))):
        with pytest.raises(miosa.MiosaError) as refusal:
            attempt()
        assert (refusal.value.status_code, refusal.value.code) == (409, "SANDBOX_NOT_RUNNING")
        assert refusal.value.retryable is False
    seen = client.sandboxes.get(sandbox.id)
    assert seen.state == "destroyed"
    assert seen.destroyed_at is not None


def test_get_or_create_finds_what_it_created(client: miosa.Miosa) -> None:
    """By its name, until it is destroyed."""
    first = client.sandboxes.get_or_create("mine/1", wait_until_ready=True)
    assert client.sandboxes.get_or_create("mine/1").id == first.id
    assert first.exec("echo ok").stdout == "ok\n"
    first.destroy()
    again = client.sandboxes.get_or_create("mine/1")
    assert again.id != first.id
    again.destroy()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_get_or_create_finds_it_asynchronously(server: Served) -> None:
    """With the asynchronous client, which also reads pieces and refusals alike."""
    async with miosa.AsyncMiosa(api_key=KEY, base_url=server.url) as client:
        sandbox = await client.sandboxes.get_or_create("async", wait_until_ready=True)
        again = await client.sandboxes.get_or_create("async")
        assert again.id == sandbox.id
        generator = cast(AsyncEvents, sandbox.exec_stream("printf '50%%'; sleep 0.5; printf '\\r100%%\\n'"))
        async with contextlib.aclosing(generator) as stream:
            assert [each.data async for each in stream][:2] == [{"data": "50%"}, {"data": "\r100%\n"}]
        await sandbox.destroy()
        with pytest.raises(miosa.MiosaError) as refusal:
            await again.exec("true")
        assert refusal.value.code == "SANDBOX_NOT_RUNNING"


def test_the_same_sandbox_is_found_again(client: miosa.Miosa, sandbox: Sandbox) -> None:
    """By its id, and in the list."""
    assert client.sandboxes.get(sandbox.id).name == "sdk"
    assert sandbox.id in [each.id for each in client.sandboxes.list()]
