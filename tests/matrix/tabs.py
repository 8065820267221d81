"""A viewer that reads as far as a test says, over HTTP/1.1 or HTTP/2."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import h2.connection
import h2.events
import httpx

from sse_bridge.wire import events

__all__ = ["LOST", "Http2Tab", "Tab", "opened", "opened_over_http2"]

#: What reading raises when the connection is lost, or the body ends before its end.
LOST = (httpx.TransportError, OSError)


class Tab:
    """One response, read piece by piece."""

    def __init__(self, status: int, headers: Mapping[str, str], pieces: Iterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self.content = b""
        self._pieces = pieces

    @property
    def run(self) -> str:
        """The token of its run."""
        return self.headers["sse-bridge-run"]

    def until(self, piece: bytes) -> None:
        """Reads on until `piece` has arrived."""
        while piece not in self.content:
            more = next(self._pieces, None)
            assert more is not None, self.content
            self.content += more

    def rest(self) -> None:
        """Reads to the end, which has to be a proper one."""
        for more in self._pieces:
            self.content += more

    def json(self) -> Any:
        """A body that is no stream."""
        return json.loads(self.content)

    @property
    def last_id(self) -> str:
        """What a browser would come back with."""
        return [event.id for event in events.parse(self._whole()) if event.id is not None][-1]

    def objects(self) -> list[dict[str, Any]]:
        """The messages so far."""
        return [json.loads(event.data) for event in events.parse(self._whole()) if event.data is not None]

    def _whole(self) -> bytes:
        """Without an unfinished last event."""
        return b"".join(self.content.rpartition(b"\n\n")[:2])


def _headers(place: str | None) -> dict[str, str]:
    return {} if place is None else {"last-event-id": place}


@contextmanager
def opened(method: str, url: str, tls: ssl.SSLContext | None = None, place: str | None = None) -> Iterator[Tab]:
    """Sends a request over a connection of its own, which is closed with the context.

    Args:
        tls: has the request go over HTTP/2.
        place: the id of the last event seen.
    """
    with (
        httpx.Client(http2=tls is not None, verify=tls or True, timeout=30) as client,
        client.stream(method, url, headers=_headers(place)) as response,
    ):
        yield Tab(response.status_code, response.headers, response.iter_bytes())


class Http2Tab(Tab):
    """A stream of HTTP/2. httpx takes a server's GOAWAY for the end of streams that go on, and never resets one."""

    def __init__(self, connection: ssl.SSLSocket, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        head = {
            ":method": "GET",
            ":scheme": "https",
            ":authority": parts.netloc,
            ":path": f"{parts.path}?{parts.query}",
        }
        self._connection = connection
        self._state = h2.connection.H2Connection()
        self._state.initiate_connection()
        self._state.send_headers(1, [*head.items(), *headers.items()], end_stream=True)
        pieces = self._read()
        status = int(next(pieces))
        super().__init__(status, self._head, pieces)

    def _read(self) -> Iterator[bytes]:
        """The status, then the pieces of the body."""
        while True:
            self._connection.sendall(self._state.data_to_send())
            received = self._connection.recv(65536)
            if not received:
                raise ConnectionError("the connection was closed")
            for event in self._state.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    self._head = {name.decode(): value.decode() for name, value in event.headers}
                    yield self._head[":status"].encode()
                elif isinstance(event, h2.events.DataReceived):
                    self._state.acknowledge_received_data(event.flow_controlled_length, 1)
                    yield event.data
                elif isinstance(event, h2.events.StreamReset):
                    raise ConnectionError("the stream was reset")
                elif isinstance(event, h2.events.StreamEnded):
                    return

    def reset(self) -> None:
        """Leaves, and keeps the connection, as browsers do."""
        self._state.reset_stream(1)
        self._connection.sendall(self._state.data_to_send())


@contextmanager
def opened_over_http2(tls: ssl.SSLContext, url: str, place: str | None = None) -> Iterator[Http2Tab]:
    """Opens a stream over a connection of its own, which is closed with the context."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with (
        socket.create_connection((parts.hostname, parts.port or 443), 30) as raw,
        tls.wrap_socket(raw, server_hostname=parts.hostname) as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"
        yield Http2Tab(connection, url, _headers(place))
