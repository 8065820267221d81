"""The stream of a sandbox's events over HTTP: `sse_bridge.sandbox.events`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import httpx
import httpx_sse
import pytest

from sse_bridge.sandbox import create_app
from sse_bridge.sandbox.state import READY_AFTER
from tests.sandbox.helpers import KEY, Box
from tests.support.servers import serve

Events = Iterator[httpx_sse.ServerSentEvent]


@contextlib.contextmanager
def following(box: Box, after: str | None = None) -> Iterator[Events]:
    headers = {} if after is None else {"last-event-id": after}
    with httpx_sse.connect_sse(box.http, "GET", f"{box.path}/events", headers=headers) as source:
        assert source.response.headers["content-type"] == "text/event-stream"
        yield source.iter_sse()


def until(events: Events, name: str) -> list[httpx_sse.ServerSentEvent]:
    """All up to the first of that name, with it."""
    seen = []
    for event in events:
        seen.append(event)
        if event.event == name:
            break
    return seen


@pytest.mark.parametrize("form", ["exec", "exec/stream", "commands", "processes"])
def test_what_a_command_does_is_told(box: Box, form: str) -> None:
    """However it was started, with an id of its own; a line comes before the end of its command."""
    with following(box) as events:
        body = {"command": "echo out; echo err >&2; exit 3"}
        starting = threading.Thread(target=lambda: box.http.post(f"{box.path}/{form}", json=body))
        starting.start()
        seen = until(events, "sandbox.exec.completed")
        starting.join()
    exec_id = seen[0].json()["exec_id"]
    facts = {event.event: event.json() for event in seen}

    assert facts.pop("sandbox.exec.completed").items() >= {"exec_id": exec_id, "exit_code": 3}.items()
    assert facts == {
        "sandbox.exec.started": {"exec_id": exec_id, "command": body["command"]},
        "sandbox.exec.stdout": {"exec_id": exec_id, "line": "out"},
        "sandbox.exec.stderr": {"exec_id": exec_id, "line": "err"},
    }
    ids = [event.id for event in seen]
    assert ids == sorted(set(ids))
    assert {len(id) for id in ids} == {26}


def test_the_stream_begins_now_or_behind_an_id(box: Box) -> None:
    """Without an id, what was is left out."""
    with following(box) as events:
        box.exec("echo one")
        seen = until(events, "sandbox.exec.completed")
    box.exec("echo two")
    with following(box) as events:
        box.exec("echo three")
        assert [event.json() for event in until(events, "sandbox.exec.stdout")][1]["line"] == "three"
    with following(box, seen[1].id) as events:
        resumed = [next(events) for _ in range(3)]

    assert [event.json().get("line") for event in seen] == [None, "one", None]
    assert resumed[0].id == seen[2].id
    assert resumed[2].json()["line"] == "two"


@pytest.mark.parametrize("after", ["", "nonsense", "run.7", "7" + "Z" * 25])
def test_an_id_of_none_of_its_events_begins_now(box: Box, after: str) -> None:
    """Also one of a time to come, which would otherwise hide all that follow."""
    box.exec("echo one")
    with following(box, after) as events:
        box.exec("echo two")
        assert until(events, "sandbox.exec.stdout")[1].json()["line"] == "two"


def test_an_id_from_before_all_events_begins_with_the_oldest(box: Box) -> None:
    """As one of an event that is no longer kept."""
    box.exec("true")
    with following(box, "0" * 26) as events:
        assert next(events).event == "sandbox.started"


def test_the_start_of_a_sandbox_is_told(http: httpx.Client) -> None:
    """Once it takes commands; to a client that was there before."""
    box = Box(http, metadata={READY_AFTER: 0.2})
    with following(box) as events:
        event = next(events)
        assert (event.event, event.json()) == ("sandbox.started", {"sandbox_id": box.id, "region": "local"})
        box.exec("true")
        assert next(events).event == "sandbox.exec.started"
    box.destroy()


def test_changes_of_the_state_are_told(http: httpx.Client) -> None:
    """The stream goes on through them, and ends with the sandbox."""
    box = Box(http)
    with following(box) as events:
        for to in ("pause", "resume", "stop"):
            http.post(f"{box.path}/{to}", json={}).raise_for_status()
        box.destroy()
        seen = list(events)

    assert [event.event for event in seen] == [
        "sandbox.paused",
        "sandbox.resumed",
        "sandbox.stopped",
        "sandbox.destroyed",
    ]
    assert all(event.json() == {"sandbox_id": box.id} for event in seen)


@pytest.mark.parametrize("to", ["pause", "stop"])
def test_a_sandbox_at_rest_can_be_followed(box: Box, to: str) -> None:
    """Until it is destroyed; then the route refuses as all do."""
    box.http.post(f"{box.path}/{to}", json={}).raise_for_status()
    with following(box) as events:
        box.http.post(f"{box.path}/resume", json={}).raise_for_status()
        assert next(events).event == "sandbox.resumed"
    box.destroy()
    refusal = box.http.get(f"{box.path}/events")
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (409, "SANDBOX_NOT_RUNNING")
    assert box.http.get("/sandboxes/sbx_unknown/events").status_code == 404


def test_a_silent_stream_sends_comments() -> None:
    """As `exec/stream` does."""
    with serve(create_app(key=KEY, heartbeat=0.02)) as served:
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=f"{served.url}/api/v1", headers=headers, timeout=20) as http:
            box = Box(http)
            with http.stream("GET", f"{box.path}/events") as response:
                assert next(line for line in response.iter_lines() if line) == ": heartbeat"
