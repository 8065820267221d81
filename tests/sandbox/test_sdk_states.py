"""MIOSA's own SDK against the states of a sandbox, with the synchronous and the asynchronous client."""

from __future__ import annotations

import miosa
import pytest
from miosa.helpers import stop_and_remove
from miosa.resources.sandboxes import Sandbox

from tests.sandbox.helpers import KEY
from tests.support.servers import Served


def test_a_sandbox_is_paused_and_resumed(client: miosa.Miosa, sandbox: Sandbox) -> None:
    """The SDK refuses to use a paused one by itself; another client of it learns that from the server."""
    other = client.sandboxes.get(sandbox.id)

    assert sandbox.pause().state == "paused"
    with pytest.raises(miosa.MiosaError, match="state is 'paused'"):
        sandbox.exec("true")
    for attempt in (lambda: other.exec("true"), lambda: list(other.exec_stream("true")), other.processes.list):
        with pytest.raises(miosa.MiosaError) as refusal:
            attempt()
        assert (refusal.value.status_code, refusal.value.code) == (409, "SANDBOX_NOT_RUNNING")
        assert refusal.value.retryable is False
    assert not sandbox.wait_until_ready(timeout=0.02, stream=False)
    assert sandbox.resume().state == "running"
    assert sandbox.wait_until_ready(timeout=5)
    assert sandbox.exec("echo ok").stdout == "ok\n"


def test_a_sandbox_is_stopped_and_resumed(client: miosa.Miosa, sandbox: Sandbox) -> None:
    """Its files are still there, its processes are not."""
    sandbox.write_file("/workspace/kept", "1")
    pid = sandbox.processes.start("sleep 1000")["pid"]

    assert sandbox.stop().state == "stopped"
    assert client.sandboxes.get(sandbox.id).state == "stopped"
    assert [each.id for each in client.sandboxes.list(state="stopped")] == [sandbox.id]
    sandbox.resume(env={"A": "1"}, idempotency_key="0f0e0d0c-2222-4222-8333-444455556666")
    assert sandbox.read_file("/workspace/kept") == "1"
    assert sandbox.processes.get(pid)["exit_code"] == 137
    assert sandbox.exec("echo $A").stdout == "1\n"
    assert sandbox.extend(60).state == "running"
    with pytest.raises(miosa.MiosaError) as refusal:
        sandbox.resume()
    assert (refusal.value.code, refusal.value.retryable) == ("SANDBOX_NOT_PAUSED", False)


def test_get_or_create_resumes_a_paused_sandbox(client: miosa.Miosa) -> None:
    """Rather than create another; a stopped one it returns as it is, which is what the SDK does."""
    with client.sandboxes.get_or_create("resting", wait_until_ready=True) as first:
        first.pause()
        again = client.sandboxes.get_or_create("resting")
        assert (again.id, again.state) == (first.id, "running")
        first.refresh()
        first.stop()
        assert client.sandboxes.get_or_create("resting").state == "stopped"


def test_the_sdks_helper_pauses_before_it_destroys(client: miosa.Miosa, sandbox: Sandbox) -> None:
    """A helper of the SDK's, for sandboxes in any state."""
    stop_and_remove(client, sandbox.id, kind="sandbox")

    assert client.sandboxes.get(sandbox.id).state == "destroyed"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_states_asynchronously(server: Served) -> None:
    """All calls of the asynchronous client."""
    async with miosa.AsyncMiosa(api_key=KEY, base_url=server.url) as client:
        sandbox = await client.sandboxes.get_or_create("async-resting", wait_until_ready=True)
        assert (await sandbox.pause()).state == "paused"
        again = await client.sandboxes.get_or_create("async-resting")
        assert (again.id, again.state) == (sandbox.id, "running")
        assert (await sandbox.stop()).state == "stopped"
        with pytest.raises(miosa.MiosaError) as refusal:
            await again.exec("true")
        assert refusal.value.code == "SANDBOX_NOT_RUNNING"
        assert (await sandbox.resume()).state == "running"
        assert (await sandbox.extend(60)).state == "running"
        await sandbox.destroy()
