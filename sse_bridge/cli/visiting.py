"""The doctor's requests to a deployment. Each has a connection of its own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar
from typing import Final

import anyio
import httpx
from anyio.abc import TaskGroup

from ..client.refusals import is_definite
from ..upstream.checks import is_mapping, is_same_origin
from ..wire.ids import is_token
from .judging import is_shared
from .seeing import Answer, Sight, join

__all__ = ["TIMEOUT", "Patience", "Stream", "Visitor"]

#: Seconds for a short answer.
TIMEOUT: Final = 10.0
#: Connections on which a run is looked for. Of two workers that share nothing, all reach one once in 256 times.
_LOOKS: Final = 9
#: Seconds between two tries to start a run.
_PAUSE: Final = 0.5
_MOST_REDIRECTS: Final = 5
#: Seconds in which a run is ended on the way out.
_LEAVE: Final = 5.0
#: Answers to a `DELETE` after which another is useless.
_ENDED: Final = (202, 204, 404)


@dataclass(frozen=True)
class Patience:
    """Seconds."""

    #: Until a start counts as failed that is asked for again.
    start: float = TIMEOUT
    #: For the first event of a stream.
    first: float = 8.0
    #: What counts as at once.
    at_once: float = 1.0
    #: For which a stream is watched; 0 leaves that out. The bridge's default sends two heartbeats in that time.
    silence: float = 32.0
    #: In which a viewer that left has to be missed.
    leave: float = 5.0
    #: Between two looks at the run's state while its stream is watched.
    look: float = 2.0


class Stream:
    """One connection to the run's stream, read by a task of its own.

    Args:
        run: the run's token.
    """

    def __init__(self, run: str) -> None:
        #: What it has shown so far.
        self.sight = Sight(run, anyio.current_time())
        self._scope = anyio.CancelScope()
        self._news = anyio.Event()

    async def read(self, opening: AbstractAsyncContextManager[httpx.Response]) -> None:
        """Reads the stream to its end, or until it is closed."""
        sight, error = self.sight, ""
        with self._scope:
            try:
                async with opening as response:
                    sight.begin(response.status_code, anyio.current_time())
                    self._tell()
                    async for chunk in response.aiter_bytes():
                        sight.feed(chunk, anyio.current_time())
                        self._tell()
            except httpx.HTTPError as broken:
                error = type(broken).__name__
            sight.finish(anyio.current_time(), is_broken=bool(error), error=error)
            self._tell()

    def close(self) -> None:
        """Closes the connection, as a closed tab does."""
        self._scope.cancel()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    async def until(self, condition: Callable[[Sight], object], seconds: float) -> bool:
        """Waits until the condition holds or the response is over, so many seconds at most. Says whether it holds."""
        with anyio.move_on_after(seconds):
            while not condition(self.sight) and self.sight.end is None:
                await self._news.wait()
        return bool(condition(self.sight))


class Visitor:
    """Starts one run, and asks for it as pages and programs do. Each request has a connection of its own.

    Args:
        url: of the bridge.
        headers: are sent with each request.
        waits: how long to wait for what.
    """

    def __init__(self, url: str, headers: Mapping[str, str], waits: Patience) -> None:
        self.url = httpx.URL(url)
        self.waits = waits
        #: The run's token and its address; empty before it is known.
        self.run = ""
        self.run_url = httpx.URL()
        #: Others use the run, too, so it is not the doctor's to end.
        self.is_shared = False
        #: Whether the answer to the start was understood.
        self.is_known = False
        self._is_over = False
        self._opened = 0
        #: When a run was asked for first, here and by the server's clock.
        self._asked_at: float | None = None
        self._asked_there: float | None = None
        self._headers = httpx.Headers(headers)
        self._key = uuid.uuid4().hex
        self._tls = httpx.create_ssl_context()
        #: A proxy may choose the worker by a cookie of its own, and browsers send it back.
        self._cookies = CookieJar()

    @property
    def names_origin(self) -> bool:
        """Whether the user's headers have an `Origin`."""
        return "origin" in self._headers

    def _client(self, read: float | None = TIMEOUT) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=self._tls, cookies=self._cookies, timeout=httpx.Timeout(TIMEOUT, read=read))

    def _with(self, headers: Mapping[str, str]) -> httpx.Headers:
        merged = self._headers.copy()
        merged.update(headers)
        if own := merged.get("cookie"):  # httpx sends no others then
            names = {part.partition("=")[0].strip() for part in own.split(";")}
            given = [f"{cookie.name}={cookie.value}" for cookie in self._cookies if cookie.name not in names]
            merged["cookie"] = "; ".join([own, *given])
        return merged

    async def ask(self, method: str, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        """Sends one request.

        Raises:
            httpx.HTTPError: the connection failed.
        """
        async with self._client() as client:
            return await client.request(method, url, headers=self._with(headers))

    async def start(self, headers: Mapping[str, str]) -> httpx.Response:
        """Asks for a run; again while a proxy finds no server, or the bridge is busy.

        The idempotency key keeps that from starting two. A 500 is final: `resolve` has raised.

        Raises:
            httpx.HTTPError: the connection failed.
        """
        if self._asked_at is None:
            self._asked_at = anyio.current_time()
        asked = {"Accept": "application/json", "Prefer": "respond-async", "Idempotency-Key": self._key, **headers}
        until = anyio.current_time() + self.waits.start
        while True:
            is_late = anyio.current_time() + _PAUSE >= until
            try:
                answer = await self._start(asked)
            except httpx.TimeoutException:
                raise
            except httpx.TransportError:
                if is_late:
                    raise
            else:
                if is_late or answer.status_code == 500 or is_definite(answer.status_code, answer.content):
                    return answer
            await anyio.sleep(_PAUSE)

    async def _start(self, headers: Mapping[str, str]) -> httpx.Response:
        """Goes along with redirects of the same server that keep the method."""
        for _ in range(_MOST_REDIRECTS):
            answer = await self.ask("POST", self.url, headers)
            target = join(self.url, answer.headers.get("location", ""))
            if answer.status_code not in (307, 308) or not is_same_origin(target, self.url):
                return answer
            self.url = target
        return answer

    def learn(self, answer: httpx.Response) -> bool:
        """Takes the answer to a start; says whether it names a run of this server."""
        try:
            said = answer.json()
        except ValueError:
            said = None
        url = join(self.url, answer.headers.get("location", ""))
        if not url.query and self.url.query:  # it may be what lets the user in
            url = url.copy_with(query=self.url.query)
        run = said.get("run") if is_mapping(said) else None
        if answer.status_code != 201 or not isinstance(run, str) or not is_token(run):
            return False
        self.is_known = url.path.rpartition("/")[2] == run and is_same_origin(url, self.url)
        # Where the Location is wrong, the run is ended where the bridge should have it.
        here = self.url.copy_with(path=f"{self.url.path.rstrip('/')}/{run}")
        self.run, self.run_url = run, url if self.is_known else here
        if self._asked_at is not None:
            self._asked_there = _date_of(answer) - (anyio.current_time() - self._asked_at)
        return self.is_known

    async def state(self) -> Answer:
        """Asks for the run's state on a new connection, which may reach another worker."""
        answer = await self._short("GET", {"Accept": "application/json"})
        self.is_shared = self.is_shared or is_shared(answer, self._opened, self._asked_there)
        return answer

    async def states(self) -> list[Answer]:
        """Asks for it on several connections, within a bounded time."""
        answers: list[Answer] = []
        with anyio.move_on_after(2 * TIMEOUT):
            while len(answers) < _LOOKS:
                answers.append(await self.state())
        return answers or [Answer(0)]

    async def end(self) -> Answer | None:
        """Ends the run, unless others use it: then `None`."""
        if not self.is_shared:
            await self.state()  # another user may have joined it since the last look
        if self.is_shared:
            return None
        answer = await self._short("DELETE", {})
        self._is_over = answer.status in _ENDED
        return answer

    async def leave(self) -> None:
        """Ends the run if that was not done, whatever has happened. Takes a bounded time, and cannot be cancelled."""
        if self.run and not self._is_over:
            with anyio.move_on_after(_LEAVE, shield=True):
                await self.end()

    async def _short(self, method: str, headers: Mapping[str, str]) -> Answer:
        asked_at = anyio.current_time()
        try:
            answer = await self.ask(method, self.run_url, headers)
        except httpx.HTTPError:
            return Answer(0)
        try:
            said = answer.json()
        except ValueError:
            said = None
        seconds = anyio.current_time() - asked_at
        return Answer(answer.status_code, said if is_mapping(said) else {}, seconds, answer.content)

    def look(self, tasks: TaskGroup, place: str | None = None) -> Stream:
        """Opens the run's stream as a browser does, and reads it in a task of its own.

        Args:
            place: the id to resume behind.
        """
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
        if place is not None:
            headers["Last-Event-ID"] = place
        look = Stream(self.run)
        self._opened += 1

        async def read() -> None:
            async with self._client(read=None) as client:
                await look.read(client.stream("GET", self.run_url, headers=self._with(headers)))

        tasks.start_soon(read)
        return look


def _date_of(answer: httpx.Response) -> float:
    """When the server answered, by its own clock; by this one if it does not say."""
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return time.time()
