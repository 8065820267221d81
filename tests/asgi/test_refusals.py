"""Refusals: which HTTP status a run gets that has no stream, and what its body says."""

from __future__ import annotations

import anyio
import pytest
from starlette.exceptions import HTTPException

from sse_bridge import SSEBridge, UpstreamRefused
from sse_bridge.asgi import hosting, refusals
from sse_bridge.relay.ending import Cause
from tests.support.asgi import Page
from tests.support.work import ScriptedWork

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("cause", "status", "retry_after"),
    [
        (Cause.CANCELLED, 410, None),
        (Cause.ABANDONED, 410, None),
        (Cause.SERVER_STOPPED, 503, "2"),
        (Cause.BRIDGE_FAILED, 500, None),
    ],
)
async def test_each_cause_in_the_bridge_has_a_status_of_its_own(
    anyio_backend: str, cause: Cause, status: int, retry_after: str | None
) -> None:
    """The upstream is not to blame, so none of them is a 502."""
    page = Page()
    await refusals.send_refusal(page.send, cause)

    assert (page.status, page.headers.get("retry-after")) == (status, retry_after)
    assert page.error == {"code": cause.code, "message": cause.message, "request_id": None}


async def test_an_upstreams_refusal_carries_its_own_status(anyio_backend: str) -> None:
    """With its request id, and the wait rounded up to whole seconds, at least one."""
    page = Page()
    error = UpstreamRefused("Busy.", code="busy", status=503, retry_after=0.2, request_id="req_1")
    await refusals.send_refusal(page.send, error)

    assert (page.status, page.headers["retry-after"]) == (503, "1")
    assert page.error == {"code": "busy", "message": "Busy.", "request_id": "req_1"}


async def test_a_run_that_is_deleted_before_the_answer_is_gone(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """410 stops an `EventSource`, and says that the bridge ended the run."""
    monkeypatch.setattr(hosting, "new_token", lambda: "t" * 16)
    work = ScriptedWork(answers=False)
    bridge = SSEBridge(None, lambda request: work, commit_after=None)
    page = Page()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            await work.started.wait()
            delete = Page("DELETE", "/" + "t" * 16)
            await bridge(delete.scope, delete.receive, delete.send)

    assert delete.status == 204
    assert (page.status, page.error["code"]) == (410, "cancelled")
    assert work.cancels == 1


@pytest.mark.parametrize(("status", "code"), [(404, "not_found"), (418, "im_a_teapot"), (499, "http_499")])
async def test_an_applications_refusal_keeps_its_status(anyio_backend: str, status: int, code: str) -> None:
    """Also a status that no table knows."""
    page = Page()
    await refusals.send_http_exception(page.send, HTTPException(status, "No.", headers={"X-Why": "because"}))

    assert (page.status, page.headers["x-why"]) == (status, "because")
    assert page.error == {"code": code, "message": "No.", "request_id": None}
