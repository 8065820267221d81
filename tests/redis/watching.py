"""A viewer that moves from worker to worker, and checks every frame that it gets."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import httpx

from sse_bridge.wire import events
from sse_bridge.wire.events import Event
from sse_bridge.wire.frames import FrameSplitter
from tests.redis.crew import Worker
from tests.redis.scripts import Flood, Ticker, counting
from tests.support.waiting import eventually

__all__ = [
    "PATIENCE",
    "NewViewer",
    "Seen",
    "Viewer",
    "all_more",
    "come_back",
    "finish",
    "in_step",
    "post_at_once",
    "watch_on",
]

#: Seconds for what takes tenths of a second where no other process is busy.
PATIENCE: Final = 30.0
#: Bytes that the kernel takes for a viewer that reads nothing.
_RECEIVE_BUFFER: Final = 32 * 1024


@dataclass(frozen=True)
class Seen:
    """One frame, as a page sees it."""

    number: int
    object: dict[str, Any]


class Viewer:
    """Reads in a thread of its own. A frame out of order ends the test at the next look.

    Args:
        headers: of all its requests.
    """

    def __init__(self, **headers: str) -> None:
        self.seen: list[Seen] = []
        self.token = ""
        self.last_id = ""
        self.status = 0
        self.headers: httpx.Headers
        #: Milliseconds after which it was told to come back, in this response.
        self.retry: int | None = None
        #: Whether there is no response under way.
        self.is_over = True
        self._headers = {"Accept": "text/event-stream", **headers}
        self._fault: BaseException | None = None
        self._flow = threading.Event()
        self._flow.set()
        self._socket: Any = None
        self._thread: threading.Thread | None = None

    # -- requests

    def start(self, worker: Worker, command: str, key: str | None = None, **query: str) -> Viewer:
        """Has a worker run a command. Returns when the response has begun."""
        headers = {} if key is None else {"Idempotency-Key": key}
        method = "GET" if key is None else "POST"
        return self._open(method, f"{worker.url}/runs/", {"command": command, **query}, headers)

    def follow(self, worker: Worker, token: str, **query: str) -> Viewer:
        """Asks a worker for a run from its beginning."""
        return self._open("GET", f"{worker.url}/runs/{token}", query, {})

    def resume(self, worker: Worker, **query: str) -> Viewer:
        """Comes back to a worker with the last id, to the path of the start, as a browser does."""
        return self._open("GET", f"{worker.url}/runs/", query, {"Last-Event-ID": self.last_id})

    def cut(self) -> None:
        """Loses the connection."""
        self._flow.set()
        if self._thread is not None:
            eventually(lambda: self._socket is not None or self.is_over)
        if self._socket is not None:
            with suppress(OSError):  # it is closed
                self._socket.shutdown(socket.SHUT_RDWR)
        self._join()

    def hold(self) -> None:
        """Reads no more, until `release`."""
        self._flow.clear()

    def release(self) -> None:
        """Reads on."""
        self._flow.set()

    # -- what it has got

    @property
    def lines(self) -> list[int]:
        """The numbers that the script has printed."""
        return [int(each.object["line"]) for each in self.seen if each.object["type"] == "stdout"]

    @property
    def end(self) -> dict[str, Any] | None:
        """The terminal frame."""
        last = self.seen[-1].object if self.seen else {"type": ""}
        return last if last["type"] in ("exit", "error") else None

    @property
    def dropped(self) -> int:
        """How many frames its gaps count."""
        return sum(each.object["dropped"] for each in self.seen if each.object["type"] == "gap")

    def until(self, condition: Callable[[Viewer], object], timeout: float = PATIENCE) -> Viewer:
        """Waits for a condition on itself. Fails at once if a frame was out of order."""

        def holds() -> bool:
            self.check()
            return bool(condition(self))

        try:
            eventually(holds, timeout)
        except AssertionError as error:
            last = self.seen[-1] if self.seen else None
            error.add_note(f"status {self.status}, over: {self.is_over}, {len(self.seen)} frames, the last: {last}")
            raise
        return self

    def until_more(self, lines: int = 1, timeout: float = PATIENCE) -> Viewer:
        """Waits for so many more lines."""
        goal = len(self.lines) + lines
        return self.until(lambda it: len(it.lines) >= goal, timeout)

    def until_over(self, timeout: float = PATIENCE) -> Viewer:
        """Waits for the end of the response."""
        return self.until(lambda it: it.is_over, timeout)

    def check(self) -> None:
        """Fails if a frame was out of order."""
        if self._fault is not None:
            raise self._fault

    def assert_complete(self) -> None:
        """It has got every line once, in order, and the exit code."""
        self.check()
        assert self.end == {"type": "exit", "code": 0}, self.end
        assert self.dropped == 0
        assert self.lines == list(range(1, len(self.lines) + 1))
        # `start` is frame 0, and the exit follows the lines.
        assert [each.number for each in self.seen] == list(range(len(self.lines) + 2))

    # -- its thread

    def _open(self, method: str, url: str, query: dict[str, str], headers: dict[str, str]) -> Viewer:
        assert self.is_over, "it has a response under way"
        self._join()
        self.status, self.retry, self.is_over, self._socket = 0, None, False, None
        both = {**self._headers, **headers}
        request = httpx.Request(method, url, params=query, headers=both, extensions={"trace": self._see})
        self._thread = threading.Thread(target=self._read, args=(request,), daemon=True)
        self._thread.start()
        return self

    def until_begun(self) -> Viewer:
        """Waits for the head of the response."""
        return self.until(lambda it: it.status)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive(), "a viewer's thread is stuck"

    def _see(self, event: str, info: dict[str, Any]) -> None:
        """Takes the socket as soon as it is connected, so that a request can be cut before its response."""
        if event == "connection.connect_tcp.complete":
            self._socket = info["return_value"].get_extra_info("socket")

    def _read(self, request: httpx.Request) -> None:
        options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)]
        transport = httpx.HTTPTransport(socket_options=options)
        try:
            with httpx.Client(transport=transport, timeout=60) as client:
                response = client.send(request, stream=True)
                self.headers = response.headers
                self.status = response.status_code
                self._take_all(response)
        except httpx.TransportError:  # cut, or its worker is dead
            pass
        except BaseException as error:
            self._fault = error
        finally:
            self.is_over = True

    def _take_all(self, response: httpx.Response) -> None:
        splitter = FrameSplitter(None)
        self.token = response.headers.get("SSE-Bridge-Run", self.token)
        try:
            for chunk in response.iter_raw():
                if response.status_code == 200:
                    for event in events.parse(splitter.feed(chunk)):
                        self._take(event)
                self._flow.wait()
            if splitter.lines:  # a `retry:` at the very end has no blank line behind it, and counts
                self.retry = events.parse_frame(splitter.lines).retry
        finally:
            response.close()

    def _take(self, event: Event) -> None:
        if event.retry is not None:
            self.retry = event.retry
        if event.id is not None:
            self.last_id = event.id
        if event.data is None:
            return
        token, _, number = (event.id or "").rpartition(".")
        said = json.loads(event.data)
        if number == "gone":
            self.seen.append(Seen(-1, said))
            return
        assert token == self.token, f"a frame of another run: {event}"
        before = self.seen[-1].number if self.seen else -1
        if not self.seen and said["type"] == "gap":
            before = 0  # the frames before it are counted from 1: `start` is no frame of the run's
        expected = before + (said["dropped"] if said["type"] == "gap" else 1)
        assert int(number) == expected, f"after frame {before}: {event}"
        self.seen.append(Seen(int(number), said))


#: What the fixture `view` is.
NewViewer: TypeAlias = Callable[..., Viewer]


def watch_on(
    view: NewViewer, script: Ticker | Flood, owner: Worker, other: Worker, lines: int = 1
) -> tuple[Viewer, Viewer]:
    """Starts a command on its owner, and follows it there and on another worker. Both have so many lines."""
    local = view().start(owner, script.command).until_more(lines)
    return local, view().follow(other, local.token).until_more(lines)


def finish(ticker: Ticker, *viewers: Viewer) -> None:
    """Ends a command. Each of its viewers has got every line once, and the exit code."""
    ticker.stop()
    for each in viewers:
        each.until_over().assert_complete()
        assert each.seen == viewers[0].seen


def all_more(viewers: Sequence[Viewer], lines: int) -> None:
    """Waits until each has got so many more lines."""
    goals = [len(viewer.lines) + lines for viewer in viewers]
    for viewer, goal in zip(viewers, goals, strict=True):
        viewer.until(lambda it: len(it.lines) >= goal)  # noqa: B023


def come_back(viewer: Viewer, worker: Worker, until: Callable[[], object] | None = None) -> None:
    """Comes back as a browser does, when it is told to. With each hole it is: its owner has forgotten those frames.

    Args:
        viewer: its response is over.
        worker: where it comes back.
        until: it has come back far enough; by default when its run is over.
    """
    is_back = until or (lambda: viewer.end is not None)
    deadline = time.monotonic() + PATIENCE
    while not is_back():
        assert time.monotonic() < deadline
        assert viewer.retry is not None, (viewer.status, viewer.last_id, viewer.seen[-1:])
        time.sleep(viewer.retry / 1000)
        viewer.resume(worker).until(lambda it: it.is_over or is_back())


def in_step(actions: Sequence[Callable[[], object]]) -> None:
    """Begins all in the same moment, each in a thread of its own; returns when all are done. Raises what one raises."""
    gate = threading.Barrier(len(actions))

    def act(action: Callable[[], object]) -> None:
        gate.wait()
        action()

    with ThreadPoolExecutor(len(actions)) as pool:
        for done in [pool.submit(act, action) for action in actions]:
            done.result()


def post_at_once(viewers: Sequence[Viewer], workers: Sequence[Worker]) -> None:
    """Each viewer sends the same key to its worker, in the same moment. All are to see one run, to its end."""
    key = uuid.uuid4().hex
    in_step([partial(viewer.start, worker, counting(20), key) for viewer, worker in zip(viewers, workers, strict=True)])
    for viewer in viewers:
        viewer.until_over()
        assert viewer.status == 200
        viewer.assert_complete()
        assert viewer.token == viewers[0].token
    assert viewers[0].lines == list(range(1, 21))
