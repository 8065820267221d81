"""Following a run without an event loop: the twin of `asynchronous`, line by line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any, Self, TypeVar

import httpx

from ..arguments import described, is_a
from ..errors import ConfigurationError
from ..upstream.base import Cancelled
from .course import MAX_ANSWER, Course
from .errors import FollowError
from .followed import Followed
from .options import Settings
from .requests import INTERRUPTIONS, SENT_NOTHING, built

__all__ = ["SyncFollowedRun"]

T = TypeVar("T")


class SyncFollowedRun(Followed[T]):
    """`FollowedRun` for code without an event loop: the same names, without `await`."""

    def __init__(self, settings: Settings, course: Course[T], client: httpx.Client | None) -> None:
        if client is not None and not is_a(client, httpx.Client):
            raise ConfigurationError(
                f"follow_sync(client=...) takes an httpx.Client, not {described(client)}. "
                "For an httpx.AsyncClient there is follow()."
            )
        super().__init__(settings, course)
        self._given = client
        self._client: httpx.Client | None = None  # within the block
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None

    def __enter__(self) -> Self:
        self._client = self._given or httpx.Client()
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            self._hang_up()
            if self._settings.cancel_on_exit and not self._course.is_over:
                with suppress(FollowError, httpx.HTTPError):
                    self.cancel()
        finally:
            client, self._client = self._client, None
            if client is not None and client is not self._given:
                client.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        client = self._open_client()
        while (item := self._course.take()) is None:
            if self._course.is_over:
                self._hang_up()
                raise StopIteration
            if self._chunks is None:
                self._ask(client)
            else:
                self._read(self._chunks)
        return item

    def cancel(self) -> Cancelled | None:
        """Ends the command and the run; says how far that got. Also from another thread.

        Returns:
            `None` if the run is not known yet. `Cancelled.CONFIRMED` if the command is gone.

        Raises:
            RunRefused: the bridge refused.
            httpx.HTTPError: the connection failed.
        """
        ask = self._course.cancelling()
        if ask is None:
            return None
        client = self._open_client()
        response = client.send(built(client, ask, self._settings), stream=True)
        return self._course.cancelled(response.status_code, _content_of(response))

    def _open_client(self) -> httpx.Client:
        if self._client is None:
            raise RuntimeError("A run is followed within its block: with follow_sync(url) as run: ...")
        return self._client

    def _ask(self, client: httpx.Client) -> None:
        course = self._course
        time.sleep(course.pause(time.monotonic()))
        ask = course.ask()
        try:
            response = client.send(built(client, ask, self._settings), stream=True, follow_redirects=False)
            if course.answered(response.status_code, response.headers, time.monotonic()):
                self._response, self._chunks = response, response.iter_bytes()
                return
            content = _content_of(response)
        except INTERRUPTIONS as error:
            course.failed(error, time.monotonic(), sent_nothing=isinstance(error, SENT_NOTHING))
        else:
            course.told(response.status_code, response.headers, content, time.monotonic())

    def _read(self, chunks: Iterator[bytes]) -> None:
        error = None
        try:
            chunk = next(chunks, None)
        except INTERRUPTIONS as raised:
            chunk, error = None, raised
        if chunk is not None:
            self._course.feed(chunk, time.monotonic())
            if self._course.reads:
                return
        self._hang_up()
        self._course.cut(error, time.monotonic())

    def _hang_up(self) -> None:
        """Closes the stream."""
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            response.close()


def _content_of(response: httpx.Response) -> bytes:
    """The beginning of a short answer."""
    content = bytearray()
    with closing(response):
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > MAX_ANSWER:
                break
    return bytes(content[:MAX_ANSWER])
