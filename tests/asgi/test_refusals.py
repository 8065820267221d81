"""Refusals: which HTTP status a run gets that has no stream, what its body says, and how it looks as a frame."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from enum import IntEnum
from typing import Any
from uuid import UUID

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sse_bridge import SSEBridge, UpstreamRefused
from sse_bridge.asgi import hosting
from sse_bridge.asgi.refusals import Refusal, send_refusal
from sse_bridge.relay.ending import Cause
from sse_bridge.wire.dialects import DIALECTS, NAMED, TYPED, VERBATIM
from tests.support.asgi import Page
from tests.support.site import site, visit
from tests.support.work import ScriptedWork

pytestmark = pytest.mark.anyio

TOKEN = "t" * 16
BROWSER = {"accept": "text/event-stream"}


@pytest.mark.parametrize(
    ("cause", "status", "retry_after"),
    [
        (Cause.CANCELLED, 410, None),
        (Cause.ABANDONED, 410, None),
        (Cause.TIME_LIMIT, 410, None),
        (Cause.SERVER_STOPPED, 503, "2"),
        (Cause.BRIDGE_FAILED, 500, None),
    ],
)
async def test_each_cause_in_the_bridge_has_a_status_of_its_own(
    anyio_backend: str, cause: Cause, status: int, retry_after: str | None
) -> None:
    """The upstream is not to blame, so none of them is a 502."""
    page = Page()
    await send_refusal(page.send, Refusal.of_run(cause), TOKEN, None)

    assert (page.status, page.headers.get("retry-after")) == (status, retry_after)
    assert page.error == {"code": cause.code, "message": cause.message, "request_id": None}


async def test_an_upstreams_refusal_carries_its_own_status(anyio_backend: str) -> None:
    """With its request id, and the wait rounded up to whole seconds, at least one."""
    page = Page()
    error = UpstreamRefused("Busy.", code="busy", status=503, retry_after=0.2, request_id="req_1")
    await send_refusal(page.send, Refusal.of_run(error), TOKEN, None)

    assert (page.status, page.headers["retry-after"]) == (503, "1")
    assert page.error == {"code": "busy", "message": "Busy.", "request_id": "req_1"}


async def test_a_run_that_is_deleted_before_the_answer_is_gone(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """410 stops an `EventSource`, and says that the bridge ended the run."""
    monkeypatch.setattr(hosting, "new_token", lambda: TOKEN)
    work = ScriptedWork(answers=False)
    bridge = SSEBridge(None, lambda request: work, commit_after=None)
    page = Page()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge, page.scope, page.receive, page.send)
            await work.started.wait()
            delete = Page("DELETE", f"/{TOKEN}")
            await bridge(delete.scope, delete.receive, delete.send)

    assert delete.status == 204
    assert (page.status, page.error["code"]) == (410, "cancelled")
    assert work.cancels == 1


@pytest.mark.parametrize(
    ("status", "code", "detail"),
    [
        (404, "not_found", "No."),
        (418, "im_a_teapot", {"reason": "tea", "cups": 2}),
        (499, "http_499", ["a", "list"]),
    ],
)
async def test_an_applications_refusal_keeps_its_status_and_detail(
    anyio_backend: str, status: int, code: str, detail: Any
) -> None:
    """Also a status that no table knows, and a detail that is no text."""
    page = Page()
    raised = HTTPException(status, detail, headers={"X-Why": "because"})
    await send_refusal(page.send, Refusal.of_exception(raised), TOKEN, None)

    assert (page.status, page.headers["x-why"]) == (status, "because")
    assert page.error == {"code": code, "message": detail, "request_id": None}


@pytest.mark.parametrize(
    ("said", "milliseconds"),
    [
        ("7", 7000),
        ("2.5", 2500),
        ("1", 1000),
        ("0.2", 1000),
        ("0", 2000),
        ("-7", 2000),
        ("soon", 2000),
        ("", 2000),
        ("7 seconds", 2000),
        ("7, 8", 2000),
        ("nan", 2000),
        ("inf", 2000),
        ("1_0", 2000),
        ("9" * 400, 2000),
        ("1" + "0" * 20, 86_400_000),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 2000),
        ("Wed, 21 Oct 9999 07:28:00 GMT", 86_400_000),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 2000),
    ],
)
@pytest.mark.parametrize("name", ["Retry-After", "retry-after"])
async def test_a_wait_that_the_application_names_is_the_one_that_a_page_gets(
    anyio_backend: str, name: str, said: str, milliseconds: int
) -> None:
    """The kind of fault: a wait that stands in a header was lost where there are no headers, in a frame.

    It is a number of seconds or a date (RFC 9110 10.2.3). Garbage and times that are past count as none, and no page
    is asked to come back at once: a browser would do so without a pause.
    """
    page, program = Page(), Page()
    refusal = Refusal.of_exception(HTTPException(503, "Later.", headers={name: said}))
    await send_refusal(page.send, refusal, TOKEN, TYPED)
    await send_refusal(program.send, refusal, TOKEN, None)

    assert page.content == b"retry: %d\n" % milliseconds
    assert [value for name, value in program.sent[0]["headers"] if name == b"retry-after"] == [said.encode()]


async def test_a_wait_that_the_application_names_as_a_date_is_counted_from_now(anyio_backend: str) -> None:
    """A frame holds a time to wait, and no date."""
    page = Page()
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    raised = HTTPException(503, "Later.", headers={"Retry-After": then})
    await send_refusal(page.send, Refusal.of_exception(raised), TOKEN, TYPED)

    assert 25_000 < int(page.content.removeprefix(b"retry: ")) <= 30_000


async def test_no_refusal_lets_a_browser_ask_without_a_pause(anyio_backend: str) -> None:
    """An upstream may say zero."""
    page = Page()
    error = UpstreamRefused("Busy.", code="busy", status=503, retry_after=0.0)
    await send_refusal(page.send, Refusal.of_run(error), TOKEN, TYPED)

    assert page.content == b"retry: 1000\n"


class Color(IntEnum):
    RED = 1


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ({"code": "no_seat", "seats": [1, 2]}, {"code": "no_seat", "seats": [1, 2]}),
        ([{"loc": ["body", 1], "msg": "No."}], [{"loc": ["body", 1], "msg": "No."}]),
        (None, "Forbidden"),  # Starlette's word for it
        ("", ""),
        (7, 7),
        (False, False),
        ({}, {}),
        ((1, "a"), [1, "a"]),
        ({1: Color.RED, None: True}, {"1": 1, "null": True}),
        ({"when": datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "day": date(2026, 1, 2)},
         {"when": "2026-01-02T03:04:00+00:00", "day": "2026-01-02"}),
        ({"id": UUID(int=7), "price": Decimal("1.50"), "tags": {"a"}},
         {"id": "00000000-0000-0000-0000-000000000007", "price": "1.50", "tags": ["a"]}),
        ("half a pair: \ud800", "half a pair: \ud800"),
        # JSON cannot say these, and nothing of Python's own words for them goes out
        (object(), "Forbidden."),
        ({"reason": object()}, "Forbidden."),
        (b"bytes", "Forbidden."),
        ({"quota": math.nan}, "Forbidden."),
        (math.inf, "Forbidden."),
        ({(1, 2): "a"}, "Forbidden."),
        (CIRCLE, "Forbidden."),
        (LookupError("no database"), "Forbidden."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("style", ["status", "frame"])
@pytest.mark.parametrize("dialect", ["typed", "named"])
async def test_a_detail_reaches_clients_as_json(
    anyio_backend: str, detail: Any, expected: object, style: Any, dialect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The kind of fault: a detail that is no text went out as Python's `repr` of it, or as a traceback."""

    async def resolve(request: Request) -> ScriptedWork:
        raise HTTPException(403, detail)

    page = Page(headers={"Accept": "text/event-stream"})
    await visit(SSEBridge(None, resolve, refusals=style, dialect=dialect), page)

    if style == "status":
        assert (page.status, page.error) == (403, {"code": "forbidden", "message": expected, "request_id": None})
    else:
        said = json.loads(page.events[0].data or "")
        assert (said["status"], said["code"], said["message"]) == (403, "forbidden", expected)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * (expected == "Forbidden.")
    assert "database" not in caplog.text


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": 7}, {"retry-after": "7"}),
        ({"Content-Length": "3", "Content-Type": "text/plain", "X-Why": "a"}, {"x-why": "a"}),
        ({"WWW-Authenticate": "Basic"}, {"www-authenticate": "Basic"}),
        (None, {}),
    ],
)
async def test_the_headers_of_a_refusal_fit_its_body(
    anyio_backend: str, headers: Any, expected: dict[str, str]
) -> None:
    """The body is the bridge's, and so are the headers that describe it."""

    async def resolve(request: Request) -> ScriptedWork:
        raise HTTPException(403, "No.", headers)

    page = await visit(SSEBridge(None, resolve))

    names = [name for name, _ in page.sent[0]["headers"]]
    assert len(names) == len(set(names))
    assert page.headers["content-length"] == str(len(page.content))
    assert page.headers["content-type"] == "application/json"
    assert {name: page.headers[name] for name in expected} == expected


@pytest.mark.parametrize("dialect", [TYPED, NAMED], ids=["typed", "named"])
async def test_a_refusal_as_a_frame_tells_the_status_and_sends_the_browser_away(
    anyio_backend: str, dialect: Any
) -> None:
    """The id of the frame is one that gets 204 the next time."""
    page = Page()
    await send_refusal(page.send, Refusal(404, "not_found", "No.", "req_1"), TOKEN, dialect)

    (event,) = page.events
    assert (page.status, page.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert event.id == f"{TOKEN}.gone"
    said = json.loads(event.data or "")
    assert said.pop("type", event.type) == "error"
    assert said == {"code": "not_found", "message": "No.", "status": 404, "request_id": "req_1"}
    assert page.ended


async def test_a_passing_refusal_as_a_frame_only_says_when_to_come_back(anyio_backend: str) -> None:
    """503: the browser asks again by itself, without a place, and so starts anew."""
    page = Page()
    await send_refusal(page.send, Refusal(503, "busy", "Busy.", retry_after=2.5), TOKEN, TYPED)

    assert (page.status, page.content) == (200, b"retry: 2500\n")
    assert page.ended


@pytest.mark.parametrize(("status", "dialect"), [(204, TYPED), (404, VERBATIM)])
async def test_some_refusals_stay_statuses(anyio_backend: str, status: int, dialect: Any) -> None:
    """204 stops an `EventSource` already, and `verbatim` has no frames of the bridge's."""
    page = Page()
    await send_refusal(page.send, Refusal(status, "over", "Over."), TOKEN, dialect)

    assert page.status == status


@pytest.mark.parametrize("dialect", sorted(set(DIALECTS) - {"verbatim"}))
async def test_every_kind_of_refusal_reaches_a_page_as_a_frame(anyio_backend: str, dialect: str) -> None:
    """What the application raises, what the upstream says, and an unknown run. Programs get statuses all the same."""

    async def resolve(request: Request) -> ScriptedWork:
        if "login" not in request.headers:
            raise HTTPException(401, "Log in first.")
        return ScriptedWork(refusal=UpstreamRefused("No.", code="not_found", status=404))

    async with site(resolve=resolve, refusals="frame", dialect=dialect) as it:
        pages = [
            await it.answer(**BROWSER),
            await it.answer(login="1", **BROWSER),
            await it.answer(path=f"/{TOKEN}", **BROWSER),
        ]
        program = await it.answer()
        again = [await it.answer(seen=page.events[0].id, **BROWSER) for page in pages]

    said = [json.loads(page.events[0].data or "") for page in pages]
    assert [(one["status"], one["code"]) for one in said] == [
        (401, "unauthorized"),
        (404, "not_found"),
        (404, "run_unknown"),
    ]
    assert [page.status for page in pages] == [200] * 3
    assert [page.status for page in again] == [204] * 3
    assert program.status == 401
