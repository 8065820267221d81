"""An `EventSource` in Python: reconnects by itself, with `Last-Event-ID`, until the server or the caller stops it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from sse_bridge.wire import events
from sse_bridge.wire.events import Event
from sse_bridge.wire.frames import FrameSplitter
from tests.support.asgi import is_start


class EventSource:
    """Follows WHATWG HTML 9.2, except for the reconnection time: it reconnects at once."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.last_event_id = ""
        self.connections = 0

    def events(self) -> Iterator[Event]:
        """The events but `start`, until a status other than 200, or until the caller stops.

        204 means that the stream is over.
        """
        with httpx.Client(timeout=30) as client:
            while True:
                self.connections += 1
                headers = {"Last-Event-ID": self.last_event_id} if self.last_event_id else {}
                try:
                    with client.stream("GET", self._url, headers=headers) as response:
                        if response.status_code != 200:
                            return
                        yield from self._dispatched(response)
                except httpx.TransportError:
                    continue

    def _dispatched(self, response: httpx.Response) -> Iterator[Event]:
        splitter = FrameSplitter(None)
        for chunk in response.iter_raw():
            for event in events.parse(splitter.feed(chunk)):
                if event.id is not None:
                    self.last_event_id = event.id
                if event.data is not None and not is_start(event):
                    yield event
