"""MIOSA's own SDK against the routes of commands, with the synchronous and the asynchronous client."""

from __future__ import annotations

import miosa
import pytest
from miosa.errors import CommandTimeoutError, MachineStartingError
from miosa.resources.sandboxes import Sandbox

from sse_bridge.sandbox.state import READY_AFTER
from tests.sandbox.helpers import KEY, eventually
from tests.support.servers import Served


def test_a_command_is_run(client: miosa.Miosa, sandbox: Sandbox) -> None:
    """With an input, in a folder, within a time."""
    sandbox.files.write("/workspace/sub/a.txt", "a")
    result = client.commands.run(sandbox.id, "ls; cat; exit 3", cwd="sub", stdin="input\n", timeout_seconds=30)

    assert (result["stdout"], result["exit_code"], result["timed_out"]) == ("a.txt\ninput\n", 3, False)
    assert client.commands.run(sandbox.id, "sleep 1000", timeout_seconds=1)["timed_out"] is True


def test_a_detached_command_is_listed_read_and_killed(client: miosa.Miosa, sandbox: Sandbox) -> None:
    """The SDK names the argument `pid`, and takes the id."""
    started = client.commands.run(sandbox.id, "echo begun; sleep 1000", detached=True, name="dev")

    assert started["status"] == "running"
    assert [each["id"] for each in client.commands.list(sandbox.id)] == [started["id"]]
    eventually(lambda: client.commands.logs(sandbox.id, started["id"]) == "begun\n")
    assert client.commands.get(sandbox.id, started["id"])["name"] == "dev"
    assert client.commands.kill(sandbox.id, started["id"])["exit_code"] == 143
    assert client.commands.get(sandbox.id, started["id"])["status"] == "exited"


def test_refusals_are_the_sdks_exceptions(client: miosa.Miosa, sandbox: Sandbox) -> None:
    """It has one of its own for each of the two codes of these routes."""
    with pytest.raises(CommandTimeoutError):
        client.commands.run(sandbox.id, "true", timeout_seconds=601)
    with pytest.raises(miosa.ValidationError) as unsupported:
        client.commands.run(sandbox.id, "true", sudo=True)
    assert unsupported.value.code == "UNSUPPORTED_OPTION"
    with pytest.raises(miosa.NotFoundError):
        client.commands.kill(sandbox.id, "cmd_unknown")
    with client.sandboxes.create(metadata={READY_AFTER: 60}) as starting:
        with pytest.raises(MachineStartingError) as refusal:
            client.commands.run(starting.id, "true")
        assert refusal.value.retryable is True
        assert 59_000 < (refusal.value.retry_after_ms or 0) <= 60_000


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_commands_asynchronously(server: Served) -> None:
    """All calls of the asynchronous client."""
    async with miosa.AsyncMiosa(api_key=KEY, base_url=server.url) as client:
        sandbox = await client.sandboxes.create(name="sdk")
        assert await sandbox.wait_until_ready(timeout=5)
        assert (await client.commands.run(sandbox.id, "cat", stdin="input\n"))["stdout"] == "input\n"
        id = (await client.commands.run(sandbox.id, "sleep 1000", detached=True))["id"]
        assert [each["id"] for each in await client.commands.list(sandbox.id)] == [id]
        assert await client.commands.logs(sandbox.id, id) == ""
        assert (await client.commands.kill(sandbox.id, id))["status"] == "exited"
        assert (await client.commands.get(sandbox.id, id))["exit_code"] == 143
        with pytest.raises(CommandTimeoutError):
            await client.commands.run(sandbox.id, "true", timeout_seconds=601)
        await sandbox.destroy()
