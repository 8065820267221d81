"""Every profile of the local sandbox through the bridge, by one table, with MIOSA's SDK beside it.

What the frames of each are, byte by byte: `tests/sandbox/test_profiles.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.to_thread
import httpx
import miosa
import pytest

from sse_bridge import SandboxExec, SSEBridge
from sse_bridge.sandbox import PROFILES
from tests.support.asgi import Page
from tests.support.sandboxes import KEY, LocalSandbox, running

SCRIPT: Final = "printf 'first line\\n\\nanother \"€\" line\\nunfinished'; echo oops >&2; exit 3"
STDOUT: Final = 'first line\n\nanother "€" line\nunfinished'
STDERR: Final = "oops"

EXIT: Final = {"type": "exit", "code": 3}
TIMEOUT: Final = {"type": "exit", "code": -1, "timed_out": True}
ENDED: Final = {"type": "error", "code": "upstream_ended"}
FAILED: Final = {"type": "error", "code": "STREAM_FAILED"}
LOST: Final = {"type": "error", "code": "upstream_lost"}


@dataclass(frozen=True)
class Case:
    """One profile, and what pages and the SDK's users get."""

    profile: str
    #: The last object of a page: of the script, and of a command whose time is up.
    end: Mapping[str, object]
    end_of_timeout: Mapping[str, object]
    #: Whether stderr is told from stdout: by the bridge, and by the SDK.
    tells_streams: bool = True
    sdk_tells_streams: bool = True
    #: What the SDK holds in its exit; `None` if it ends without one, which it takes for a good end.
    sdk_exit: Mapping[str, object] | None = None


CODE: Final = {"exit_code": 3}
FAILED_EXIT: Final = {
    "exit_code": -2,
    "error": {"code": "STREAM_FAILED", "message": "the stream failed", "retryable": True},
}
CASES: Final = (
    Case("standard", EXIT, TIMEOUT, sdk_exit=CODE),
    Case("soma", EXIT, {"type": "error", "code": "EXEC_TIMEOUT"}, sdk_exit=CODE),
    Case("pieces", EXIT, TIMEOUT, sdk_exit=CODE),
    Case("legacy-unnamed", EXIT, TIMEOUT, tells_streams=False, sdk_tells_streams=False, sdk_exit=CODE),
    # The SDK does not look for a stream in the object.
    Case("legacy-types", EXIT, TIMEOUT, sdk_tells_streams=False, sdk_exit={"type": "exit", **CODE}),
    # It hands the other key on, so `exit_code` is missing.
    Case("legacy-keys", EXIT, TIMEOUT, sdk_exit={"exitCode": 3}),
    Case("legacy-timeout", EXIT, TIMEOUT, sdk_exit=CODE),
    Case("no-exit", ENDED, ENDED),
    Case("failed-exit", FAILED, FAILED, sdk_exit=FAILED_EXIT),
    Case("late-start", EXIT, TIMEOUT, sdk_exit=CODE),
    Case("slow-headers", EXIT, TIMEOUT, sdk_exit=CODE),
    Case("silent", EXIT, TIMEOUT, sdk_exit=CODE),
)
CUTS: Final = ("cut", "cut-inside")

by_profile = pytest.mark.parametrize("case", CASES, ids=lambda case: case.profile)


def test_every_profile_is_in_the_table() -> None:
    """So a new one has to say what pages get."""
    assert {*(case.profile for case in CASES), *CUTS} == set(PROFILES)


def bridge_of(source: SandboxExec, sandbox: LocalSandbox, **options: Any) -> SSEBridge:
    return SSEBridge(sandbox.miosa(), lambda request: source, **options)


async def read(source: SandboxExec, sandbox: LocalSandbox) -> list[dict[str, Any]]:
    bridge, page = bridge_of(source, sandbox), Page()
    with anyio.fail_after(30):
        await bridge(page.scope, page.receive, page.send)
        await bridge.shutdown()
    assert page.ended
    return page.objects


def text(objects: Iterable[dict[str, Any]], stream: str) -> str:
    """What a page shows of a stream."""
    said = [each for each in objects if each["type"] == stream]
    return "".join(each["line"] + ("" if each.get("partial") else "\n") for each in said).removesuffix("\n")


def without_message(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key in ("type", "code", "timed_out")}


def shuffled(*texts: str) -> list[str]:
    """The lines of streams whose order among each other is open."""
    return sorted(line for each in texts for line in each.split("\n"))


@by_profile
@pytest.mark.anyio
async def test_a_page_gets_the_same_text_and_the_same_exit(
    anyio_backend: str, sandbox: LocalSandbox, case: Case
) -> None:
    """Or an error that says what is missing."""
    it = await anyio.to_thread.run_sync(lambda: sandbox.another(runtime_profile=case.profile))
    objects = await read(SandboxExec(it.id, SCRIPT), sandbox)

    if case.tells_streams:
        assert (text(objects, "stdout"), text(objects, "stderr")) == (STDOUT, STDERR)
    else:
        assert shuffled(text(objects, "stdout")) == shuffled(STDOUT, STDERR)
    assert without_message(objects[-1]) == case.end


@pytest.mark.slow
@by_profile
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # each of them takes the second that is up
async def test_a_page_is_told_that_the_time_is_up(anyio_backend: str, sandbox: LocalSandbox, case: Case) -> None:
    """In every spelling that says so."""
    it = await anyio.to_thread.run_sync(lambda: sandbox.another(runtime_profile=case.profile))
    objects = await read(SandboxExec(it.id, "sleep 1000", timeout=1), sandbox)

    assert [without_message(each) for each in objects] == [case.end_of_timeout]


@pytest.mark.parametrize("profile", CUTS)
@pytest.mark.anyio
async def test_a_page_is_told_of_a_cut(anyio_backend: str, sandbox: LocalSandbox, profile: str) -> None:
    """Behind the two lines that arrived whole."""
    it = await anyio.to_thread.run_sync(lambda: sandbox.another(runtime_profile=profile))
    await anyio.to_thread.run_sync(it.write, "out", "one\ntwo\nthree\n")
    objects = await read(SandboxExec(it.id, "cat out; sleep 1000"), sandbox)

    assert text(objects, "stdout") == "one\ntwo"
    assert without_message(objects[-1]) == LOST


@pytest.mark.anyio
async def test_a_page_gets_characters_whole_that_came_in_halves(anyio_backend: str, sandbox: LocalSandbox) -> None:
    """Wherever the cuts fall in a line of emoji."""
    it = await anyio.to_thread.run_sync(lambda: sandbox.another(runtime_profile="pieces"))
    emoji = "\N{GRINNING FACE}" * 20
    objects = await read(SandboxExec(it.id, f"echo {emoji}; echo x{emoji}"), sandbox)

    assert text(objects, "stdout") == f"{emoji}\nx{emoji}"


# -- what is special about runners


@pytest.mark.anyio
async def test_the_leaving_of_a_viewer_ends_nothing_on_a_runner(
    anyio_backend: str, sandbox: LocalSandbox, mark: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A runner has no cancel, and no second command that could search. The bridge says so, and claims nothing."""
    it = await anyio.to_thread.run_sync(lambda: sandbox.another(runtime_profile="soma"))
    bridge, page = bridge_of(SandboxExec(it.id, f"sleep {mark}"), sandbox, grace=0, cancel_timeout=5), Page()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            await page.until(lambda: page.status)
            page.leave()
        await bridge.shutdown()
    left = running(mark)
    for process in left:
        process.kill()

    assert left
    cancels = bridge.statistics().cancels
    assert (cancels.requested, cancels.acknowledged, cancels.confirmed) == (1, 0, 0)
    assert "the sandbox runs one command at a time, so the search for it could not run" in caplog.text


@pytest.mark.anyio
async def test_a_second_command_waits_for_its_turn_on_a_runner(anyio_backend: str, sandbox: LocalSandbox) -> None:
    """The bridge asks again, because the refusal proves that nothing has started."""
    it = await anyio.to_thread.run_sync(lambda: sandbox.another(runtime_profile="soma"))
    sources = [SandboxExec(it.id, command) for command in ("until [ -e go ]; do sleep 0.01; done", "echo second")]
    first, second = Page(), Page()
    bridges = [bridge_of(source, sandbox) for source in sources]
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridges[0], first.scope, first.receive, first.send)
            await first.until(lambda: first.status)
            tasks.start_soon(bridges[1], second.scope, second.receive, second.send)
            await anyio.sleep(0.5)  # long enough for a refusal, on which the result does not depend
            assert second.status is None
            await anyio.to_thread.run_sync(it.write, "go", "")
        for bridge in bridges:
            await bridge.shutdown()

    assert first.objects == [{"type": "exit", "code": 0}]
    assert second.objects == [{"type": "stdout", "line": "second"}, {"type": "exit", "code": 0}]


@pytest.mark.anyio
async def test_a_runner_takes_no_working_directory(anyio_backend: str, sandbox: LocalSandbox) -> None:
    """Before the first frame."""
    it = await anyio.to_thread.run_sync(lambda: sandbox.another(runtime_profile="soma"))
    bridge, page = bridge_of(SandboxExec(it.id, "true", cwd="/workspace"), sandbox), Page()
    await bridge(page.scope, page.receive, page.send)
    await bridge.shutdown()

    assert (page.status, page.error["code"]) == (502, "upstream_rejected")


# -- the SDK


def events_of(sandbox: LocalSandbox, profile: str, command: str) -> list[tuple[str, dict[str, Any]]]:
    with miosa.Miosa(api_key=KEY, base_url=sandbox.url) as client:
        it = client.sandboxes.get(sandbox.another(runtime_profile=profile).id)
        assert it.wait_until_ready(timeout=10)
        return [(each.type, each.data) for each in it.exec_stream(command)]


def text_of(events: list[tuple[str, dict[str, Any]]], stream: str) -> str:
    """The SDK hands every spelling of a text on."""
    said = [body for kind, body in events if kind == stream]
    pieces = [
        body["line"] + "\n" if "line" in body else body.get("text", body.get("data", body.get("output")))
        for body in said
    ]
    return "".join(map(str, pieces)).removesuffix("\n")


@by_profile
def test_the_sdk_reads_the_same(sandbox: LocalSandbox, case: Case) -> None:
    """Where the table has no other word for it."""
    events = events_of(sandbox, case.profile, SCRIPT)
    ending = [body for kind, body in events if kind == "exit"]
    output = [(kind, body) for kind, body in events if kind != "exit"]

    if case.sdk_tells_streams:
        assert (text_of(output, "stdout"), text_of(output, "stderr")) == (STDOUT, STDERR)
    else:
        assert {kind for kind, _ in output} == {"stdout"}
        assert sorted(text_of(output, "stdout").replace("\n", "")) == sorted((STDOUT + STDERR).replace("\n", ""))
    assert ending == ([] if case.sdk_exit is None else [case.sdk_exit])


@pytest.mark.parametrize("profile", CUTS)
def test_the_sdk_hands_a_cut_on(sandbox: LocalSandbox, profile: str) -> None:
    """As httpx's exception."""
    with pytest.raises(httpx.RemoteProtocolError):
        events_of(sandbox, profile, "echo one; echo two; echo three")


@pytest.mark.parametrize(("runtime", "key"), [("soma", "text"), ("firecracker", "line"), ("auto", "line")])
def test_the_sdk_chooses_the_profile(sandbox: LocalSandbox, runtime: Any, key: str) -> None:
    """By `runtime=`."""
    with (
        miosa.Miosa(api_key=KEY, base_url=sandbox.url) as client,
        client.sandboxes.create(runtime=runtime, wait=True) as it,
    ):
        assert key in next(each.data for each in it.exec_stream("echo ok") if each.type == "stdout")
