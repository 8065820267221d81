"""What an operator reads in the log about a run."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from sse_bridge import EventStream, Miosa, SandboxExec
from sse_bridge.errors import (
    UpstreamError,
    UpstreamLost,
    UpstreamMisbehaved,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from sse_bridge.relay import observer
from sse_bridge.relay.ending import Cause
from sse_bridge.relay.info import RunFacts
from sse_bridge.upstream.base import Source, Traceable
from tests.support.scene import Scene, scene
from tests.support.work import FollowedStream, ScriptedWork, exit_frame, stdout

pytestmark = pytest.mark.anyio

START = "run tokent...: started [ScriptedWork]"
SECRET = "s3cret"


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sse_bridge")


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "sse_bridge"]


@pytest.mark.parametrize("dialect", ["typed", "named", "verbatim"])
async def test_a_healthy_run_has_a_line_at_its_start_and_one_at_its_end(
    anyio_backend: str, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The second one has the exit, the duration and the lines, which tell an operator what a run was."""
    async with scene(dialect=dialect, by_hand=True) as it:
        it.work.feed(stdout("a", "b"))
        await wait_all_tasks_blocked()
        it.time.advance(12.34)
        it.work.feed(exit_frame(3))
        it.work.finish()

    assert said(caplog) == [
        ("INFO", START),
        ("INFO", "run tokent...: exit 3 after 12.3 s and 2 lines [ScriptedWork]"),
    ]


@pytest.mark.parametrize("dialect", ["typed", "named", "verbatim"])
@pytest.mark.parametrize(
    ("last", "how"),
    [
        ('event: exit\ndata: {"exit_code":-1,"timed_out":true}\n\n', "timed out"),
        ("event: timeout\ndata: {}\n\n", "timed out"),
        ('data: {"type":"timed_out"}\n\n', "timed out"),
        ('event: exit\ndata: {"exit_code":null,"timed_out":true}\n\n', "timed out"),
        ('event: exit\ndata: {"exit_code":137,"timed_out":true}\n\n', "timed out (exit 137)"),
        ('event: exit\ndata: {"exit_code":-1,"timed_out":false}\n\n', "exit -1"),
        ('event: exit\ndata: {"exit_code":-1}\n\n', "exit -1"),
    ],
)
async def test_a_command_that_timed_out_is_told_from_one_that_exits(
    anyio_backend: str, dialect: str, last: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The kind of fault: the platform's stand-in for an exit code was logged as the command's own."""
    async with scene(dialect=dialect, by_hand=True) as it:
        it.work.feed(last)
        it.work.finish()

    assert said(caplog)[-1] == ("INFO", f"run tokent...: {how} after 0.0 s and 0 lines [ScriptedWork]")
    assert it.run.outcome().timed_out == how.startswith("timed out")


async def test_the_start_names_the_marker_of_a_command(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """If this process is killed, the log is all there is to find the command by."""
    source = SandboxExec("sbx_1", "ls")
    work = source.work(Miosa("https://example.org", "msk_x"), None)
    assert isinstance(work, Traceable)
    observer.started(RunFacts("tokentokentoken", None, source), work)

    ((_, message),) = said(caplog)
    assert "sbx_1" in message
    assert re.search(r"started, marker SSE_BRIDGE_EXEC=[0-9a-f]{24} \[", message)


async def test_a_stream_that_is_no_commands_just_ended(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """Such a stream has no exit."""
    async with scene(FollowedStream(), by_hand=True) as it:
        it.work.feed(stdout("a"))
        it.work.finish()

    start = START.replace("ScriptedWork", "FollowedStream")
    end = "run tokent...: ended after 0.0 s and 1 lines [FollowedStream]"
    assert said(caplog) == [("INFO", start), ("INFO", end)]


@pytest.mark.parametrize("cause", Cause)
async def test_an_end_that_the_bridge_brings_about_is_no_warning(
    anyio_backend: str, cause: Cause, caplog: pytest.LogCaptureFixture
) -> None:
    """Viewers leave and servers stop every day. How ending the work went is part of the line."""
    async with scene(by_hand=True) as it:
        it.run.cancel(cause)

    end = f"run tokent...: {cause.code} after 0.0 s and 0 lines, its work was ended (confirmed) [ScriptedWork]"
    assert said(caplog) == [("INFO", START), ("INFO", end)]


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (UpstreamRefused("No.", code="upstream_rejected", upstream_status=401, request_id="req_1"), "WARNING"),
        (UpstreamRefused("No.", code="upstream_rejected", upstream_status=422), "WARNING"),
        (UpstreamRefused("No.", code="upstream_failed", upstream_status=500), "WARNING"),
        (UpstreamUnreachable("No."), "WARNING"),
        (UpstreamTimeout("No."), "WARNING"),
        (UpstreamMisbehaved("No."), "WARNING"),
        (UpstreamRefused("No.", code="not_found", upstream_status=404), "INFO"),
        (UpstreamRefused("No.", code="not_ready", upstream_status=409), "INFO"),
        (UpstreamRefused("No.", code="not_running", upstream_status=409), "INFO"),
        (UpstreamRefused("No.", code="busy", upstream_status=429), "INFO"),
    ],
)
async def test_a_refusal_is_a_warning_if_somebody_has_to_mend_it(
    anyio_backend: str, error: UpstreamError, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong key or a platform that is down. A sandbox that is unknown or busy is a matter of the request."""
    async with scene(ScriptedWork(refusal=error), by_hand=True):
        pass

    line = f"run tokent...: {error.code} (upstream status {error.upstream_status}, request {error.request_id})"
    assert said(caplog) == [
        (level, line),
        ("INFO", f"run tokent...: {error.code} after 0.0 s and 0 lines [ScriptedWork]"),
    ]


@pytest.mark.parametrize("kind", [UpstreamUnreachable, UpstreamTimeout])
async def test_the_host_that_gave_no_answer_is_named(
    anyio_backend: str, kind: type[UpstreamError], caplog: pytest.LogCaptureFixture
) -> None:
    """Viewers see the message, which leaves it out."""
    async with scene(ScriptedWork(refusal=kind("No.", upstream_host="api.miosa.ai")), by_hand=True):
        pass

    (warning,) = [message for level, message in said(caplog) if level == "WARNING"]
    assert warning == f"run tokent...: {kind.default_code} (no answer from api.miosa.ai)"


async def test_a_stream_that_breaks_off_is_a_warning(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """So is one that ends without an exit."""
    for last in (UpstreamLost("It broke."), None):
        async with scene() as it:
            it.work.feed(stdout("a"))
            if last is None:
                it.work.finish()
            else:
                it.work.fail(last)

    warnings = [message for level, message in said(caplog) if level == "WARNING"]
    assert warnings == [
        f"run tokent...: {code} (upstream status None, request None)" for code in ("upstream_lost", "upstream_ended")
    ]


async def test_in_verbatim_an_exit_is_no_failure(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is found once the stream has ended."""
    async with scene(dialect="verbatim") as it:
        it.work.feed(exit_frame(0))
        it.work.fail(UpstreamLost("It broke."))

    assert {level for level, _ in said(caplog)} == {"INFO"}


@pytest.mark.parametrize("code", ["AGENT_UNAVAILABLE", "two\nlines", "x" * 10_000])
async def test_an_error_that_the_upstream_reports_is_a_warning(
    anyio_backend: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its code is the upstream's, so it is kept to one short line. Its message may quote the command."""
    shown = code.replace("\n", "\\n")
    async with scene() as it:
        it.work.feed(f'event: error\ndata: {{"error":{{"code":"{shown}","message":"{SECRET}"}}}}\n\n')
        it.work.finish()

    (warning,) = [message for level, message in said(caplog) if level == "WARNING"]
    assert shown[:100] in warning
    assert all(len(message) < 300 and "\n" not in message for _, message in said(caplog))
    assert SECRET not in caplog.text


async def test_a_run_that_is_never_read_is_not_logged(anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its client left while the request was resolved."""
    Scene(ScriptedWork()).run.skip()

    assert said(caplog) == []


@dataclass(frozen=True)
class OwnSource:
    """A source of an application's own, which shows its command in `repr`."""

    command: str

    def work(self, upstream: Any, last_event_id: str | None) -> Any:
        return ScriptedWork()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (SandboxExec("sbx_1", f"echo {SECRET}", env={"KEY": SECRET}), "SandboxExec(sandbox_id='sbx_1'"),
        (
            EventStream(f"https://{SECRET}@example.org/a?key={SECRET}", headers={"X-Key": SECRET}, json=SECRET),
            "EventStream('https://example.org/a'",
        ),
        (OwnSource(SECRET), "OwnSource"),
    ],
)
async def test_the_source_is_named_without_its_secrets(
    anyio_backend: str, source: Source, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The class of an application's own source has to do: `repr` of a dataclass shows all of its fields."""
    observer.started(RunFacts("tokentokentoken", None, source), ScriptedWork())

    ((level, message),) = said(caplog)
    assert level == "INFO"
    assert shown in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("owner", "shown"),
    [
        ("ann", "owner ann"),
        ("ann@example.org", "owner 'ann@example.org'"),
        ("a\nrun x: exit 0", r"owner 'a\nrun x"),
        ("", "owner ''"),
    ],
)
async def test_the_owner_is_named_on_one_line(
    anyio_backend: str, owner: str, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Users may choose their names, and a line break would forge a line of the log."""
    observer.started(RunFacts("tokentokentoken", owner, ScriptedWork()), ScriptedWork())

    ((_, message),) = said(caplog)
    assert shown in message
    assert "\n" not in message
    assert "tokentokentoken" not in message
