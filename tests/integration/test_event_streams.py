"""Event streams of other services, followed through a bridge of the default settings, on real servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route

from sse_bridge import EventStream, Lines, SSEBridge
from sse_bridge.testing import Script
from sse_bridge.wire import events
from sse_bridge.wire.events import Event
from sse_bridge.wire.frames import FrameSplitter
from tests.support.servers import serve


def dispatched(content: bytes) -> list[Event]:
    """What a browser dispatches."""
    return [event for event in events.parse(FrameSplitter(None).feed(content)) if event.data is not None]


def spoken(content: bytes) -> list[tuple[str, str | None]]:
    """The same without its ids."""
    return [(event.type, event.data) for event in dispatched(content)]


def streaming(*chunks: str) -> Callable[[Request], Any]:
    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            for chunk in chunks:
                yield chunk

        return StreamingResponse(body(), media_type="text/event-stream")

    return stream


# -- a language model's


def delta(text: str) -> str:
    return json.dumps({"id": "c1", "object": "chat.completion.chunk", "choices": [{"delta": {"content": text}}]})


ANSWER = [
    delta("Hel"),
    delta("lo\n"),
    delta('{"exit_code": 1}'),
    '{"choices": [], "usage": {"total_tokens": 9}}',
    "[DONE]",
]


def test_a_language_model_s_answer_is_handed_on() -> None:
    """Each event as it is, with an id. `[DONE]` is the end, and no event of it looks like an exit or an error."""
    asked = []

    async def complete(request: Request) -> Response:
        asked.append((await request.json(), request.headers["authorization"]))
        body: Response = await streaming(*(f"data: {data}\n\n" for data in ANSWER))(request)
        return body

    with ExitStack() as stack:
        model = stack.enter_context(serve(Starlette(routes=[Route("/chat", complete, methods=["POST"])])))
        question = {"stream": True, "messages": [{"role": "user", "content": "Greet."}]}
        source = EventStream(
            model.url + "/chat", method="POST", json=question, headers={"Authorization": "Bearer sk-test"}
        )
        bridge = stack.enter_context(serve(SSEBridge(resolve=lambda request: source)))
        answer = httpx.get(bridge.url)
        run = answer.headers["sse-bridge-run"]
        state = httpx.get(f"{bridge.url}/{run}", headers={"Accept": "application/json"}).json()
        back = httpx.get(bridge.url, headers={"Last-Event-ID": f"{run}.{len(ANSWER)}"})

    assert spoken(answer.content) == [("message", data) for data in ANSWER]
    assert [event.id for event in dispatched(answer.content)] == [f"{run}.{at}" for at in range(1, len(ANSWER) + 1)]
    assert (state["state"], state["code"], state["error"]) == ("ended", None, None)
    assert back.status_code == 204
    assert asked == [(question, "Bearer sk-test")]


# -- a bridge's


@pytest.mark.parametrize("dialect", ["typed", "named"])
def test_a_bridge_behind_a_bridge(dialect: Any) -> None:
    """Its page gets what a page of the first bridge gets, but for the ids; its run knows the exit code."""
    script = Script(["a", ("stderr", "b\u2028")], exit=3)
    with ExitStack() as stack:
        first = stack.enter_context(serve(SSEBridge(resolve=lambda request: script, dialect=dialect)))
        second = stack.enter_context(serve(SSEBridge(resolve=lambda request: EventStream(first.url))))
        direct, through = httpx.get(first.url), httpx.get(second.url)
        run = through.headers["sse-bridge-run"]
        state = httpx.get(f"{second.url}/{run}", headers={"Accept": "application/json"}).json()

    _, *rest = spoken(through.content)
    assert rest == spoken(direct.content)[1:]
    assert [json.loads(data or "")["code"] for _, data in rest[-1:]] == [3]
    assert {event.id.partition(".")[0] for event in dispatched(through.content) if event.id} == {run}
    assert state["code"] == 3
    assert b"retry: 2000" in through.content


def test_a_bridge_behind_a_bridge_tells_of_a_failure() -> None:
    """The terminal frame of the first is the last event of the second."""

    async def failing() -> AsyncIterator[str]:
        yield "a"
        raise ValueError

    with ExitStack() as stack:
        first = stack.enter_context(serve(SSEBridge(resolve=lambda request: Lines(failing()))))
        second = stack.enter_context(serve(SSEBridge(resolve=lambda request: EventStream(first.url))))
        through = httpx.get(second.url)

    *_, (_, last) = spoken(through.content)
    assert json.loads(last or "")["code"] == "source_failed"


# -- a hub's


def test_a_hub_with_ids_of_its_own() -> None:
    """A browser's first request may bring one, and begins behind it; from then on it has ids of the bridge's."""
    begun_at = []

    async def hub(request: Request) -> Response:
        begun_at.append(request.headers.get("last-event-id"))
        answer: Response = await streaming(
            ": welcome\n\n", "id: urn:uuid:2\nevent: update\ndata: two\n\n", "id: urn:uuid:3\ndata: three\ndata: 3\n\n"
        )(request)
        return answer

    app = Starlette(routes=[Route("/.well-known/mercure", hub)])
    with serve(app) as upstream:
        bridge = SSEBridge(resolve=lambda request: EventStream(upstream.url + "/.well-known/mercure?topic=a"))
        with serve(Starlette(routes=[Mount("/feed", bridge)])) as site:
            first = httpx.get(site.url + "/feed/", headers={"Last-Event-ID": "urn:uuid:1"})
            run = first.headers["sse-bridge-run"]
            seen = dispatched(first.content)[0].id or ""
            second = httpx.get(site.url + "/feed/", headers={"Last-Event-ID": seen})

    assert begun_at == ["urn:uuid:1"]
    assert spoken(first.content) == [("update", "two"), ("message", "three\n3")]
    assert spoken(second.content) == [("message", "three\n3")]
    assert all((event.id or "").startswith(run) for event in dispatched(first.content))
