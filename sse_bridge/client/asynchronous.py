"""Following a run, on asyncio and trio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, Self, TypeVar

import anyio
import httpx

from ..arguments import described, is_a
from ..errors import ConfigurationError
from ..upstream.base import Cancelled
from .course import MAX_ANSWER, Course
from .errors import FollowError
from .followed import Followed
from .options import Settings
from .requests import CONNECT_TIMEOUT, INTERRUPTIONS, SENT_NOTHING, built

__all__ = ["FollowedRun"]

T = TypeVar("T")

#: Seconds for closing a connection.
_CLOSE_TIMEOUT: Final = 2.0
#: Seconds for ending the command on the way out. The bridge answers a `DELETE` after three at the latest.
_CANCEL_TIMEOUT: Final = 10.0


class FollowedRun(Followed[T]):
    """What `follow` and `run_lines` return, on asyncio and trio: iterate it within its `async with` block.

    Leaving the block closes the connection, as closing a browser's tab does. A command whose last viewer has left is
    ended by the bridge after its `grace`; with `cancel_on_exit` it is ended at once.
    """

    def __init__(self, settings: Settings, course: Course[T], client: httpx.AsyncClient | None) -> None:
        if client is not None and not is_a(client, httpx.AsyncClient):
            raise ConfigurationError(
                f"follow(client=...) takes an httpx.AsyncClient, not {described(client)}. "
                "For an httpx.Client there is follow_sync()."
            )
        super().__init__(settings, course)
        self._given = client
        self._client: httpx.AsyncClient | None = None  # within the block
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._client = self._given or httpx.AsyncClient()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        try:
            await self._hang_up()
            if self._settings.cancel_on_exit and not self._course.is_over:
                with (
                    anyio.move_on_after(_CANCEL_TIMEOUT, shield=True),
                    suppress(FollowError, httpx.HTTPError),
                ):
                    await self.cancel()
        finally:
            client, self._client = self._client, None
            if client is not None and client is not self._given:
                with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                    await client.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        client = self._open_client()
        while (item := self._course.take()) is None:
            if self._course.is_over:
                await self._hang_up()
                raise StopAsyncIteration
            if self._chunks is None:
                await self._ask(client)
            else:
                await self._read(self._chunks)
        return item

    async def cancel(self) -> Cancelled | None:
        """Ends the command and the run; says how far that got. Also from another task.

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
        response = await client.send(built(client, ask, self._settings), stream=True)
        return self._course.cancelled(response.status_code, await _content_of(response))

    def _open_client(self) -> httpx.AsyncClient:
        if self._client is None:
            raise RuntimeError("A run is followed within its block: async with follow(url) as run: ...")
        return self._client

    async def _ask(self, client: httpx.AsyncClient) -> None:
        course = self._course
        await anyio.sleep(course.pause(anyio.current_time()))
        ask = course.ask()
        try:
            response = await client.send(built(client, ask, self._settings), stream=True, follow_redirects=False)
            if course.answered(response.status_code, response.headers, anyio.current_time()):
                self._response, self._chunks = response, response.aiter_bytes()
                return
            content = await _content_of(response)
        except INTERRUPTIONS as error:
            course.failed(error, anyio.current_time(), sent_nothing=isinstance(error, SENT_NOTHING))
        else:
            course.told(response.status_code, response.headers, content, anyio.current_time())

    async def _read(self, chunks: AsyncIterator[bytes]) -> None:
        error = None
        try:
            chunk = await anext(chunks, None)
        except INTERRUPTIONS as raised:
            chunk, error = None, raised
        if chunk is not None:
            self._course.feed(chunk, anyio.current_time())
            if self._course.reads:
                return
        await self._hang_up()
        self._course.cut(error, anyio.current_time())

    async def _hang_up(self) -> None:
        """Closes the stream, even while the task is being cancelled.

        Closing the outermost of httpx's generators leaves the inner ones to the garbage collector. A cancellation that
        reaches the innermost one ends them all.
        """
        response, chunks, self._response, self._chunks = self._response, self._chunks, None, None
        if response is None or chunks is None:
            return
        try:
            with anyio.CancelScope(shield=True) as scope, suppress(httpx.HTTPError, httpx.StreamError):
                scope.cancel()
                async for _ in chunks:
                    pass
        finally:
            with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await response.aclose()


async def _content_of(response: httpx.Response) -> bytes:
    """The beginning of a short answer."""
    content = bytearray()
    try:
        with anyio.move_on_after(CONNECT_TIMEOUT):
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_ANSWER:
                    break
    finally:
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            await response.aclose()
    return bytes(content[:MAX_ANSWER])
