"""The course of following one run: what to ask next, what an answer means, when to give up. Sans-IO.

A start is asked for until it is answered, under one idempotency key. From the first sign of a run on, requests go to
that run's own address only, so that none of them can start another. The end is believed where it is certain: an exit
behind all lines, or a 204 that the run's state confirms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import Final, Generic, NamedTuple, NoReturn, TypeVar

import httpx

from ..upstream.base import Cancelled
from ..upstream.checks import is_same_origin, seconds_to_wait
from ..wire.ids import is_token
from ..wire.objects import read_object
from .doubts import START_AGAIN, Doubts
from .errors import EventsMissing, FollowError, RunFailed, RunLost, RunRefused
from .lines import View
from .options import Settings
from .reading import Fault, Item, Reader
from .refusals import is_definite, of_answer, of_error
from .waits import Waits

__all__ = ["MAX_ANSWER", "Ask", "Course"]

T = TypeVar("T")

#: Bytes that are read of an answer that is no stream.
MAX_ANSWER: Final = 64 * 1024
#: Times that a run is followed again behind the same event because what comes next is wrong.
_MOST_FAULTS: Final = 3
_MOST_REDIRECTS: Final = 5
_TEMPORARY_OR_PERMANENT: Final = (307, 308)


class Phase(Enum):
    """What the next request is for."""

    START = "start"
    #: Asks for the state of a run that the caller names: it is one, if it has a state.
    LOOK = "look"
    FOLLOW = "follow"
    #: Asks for the state behind a 204: it confirms that all of the run was seen.
    CONFIRM = "confirm"


_OF_STATE: Final = (Phase.LOOK, Phase.CONFIRM)


class Ask(NamedTuple):
    """A request."""

    method: str
    url: httpx.URL
    headers: dict[str, str]
    content: bytes | None = None


class Exit(NamedTuple):
    """What is known of the command's exit."""

    code: int | None = None
    timed_out: bool = False


class Course(Generic[T]):
    """Follows one run.

    Call `pause` and wait so long, send `ask`, and tell what came of it: `failed`, or `answered` and then `told`, or
    `feed` for each chunk while `reads`, and `cut`. `take` hands out what the reader gets, and raises how it ended.

    Args:
        settings: what the caller said.
        view: what the reader gets.
    """

    def __init__(self, settings: Settings, view: View[T]) -> None:
        self.exit = Exit()
        #: The run has ended, and all of it was read.
        self.is_over = False
        self.reader = Reader(settings.max_event_size)
        self._settings = settings
        self._view = view
        self._ready: deque[T] = deque()
        self._error: FollowError | None = None  # raised once everything before it has been taken
        self._trouble: Exception | None = None  # what the last attempt came to
        last = settings.url.path.rpartition("/")[2]
        self._run_url = settings.url if is_token(last) else None
        if self._run_url is not None:
            self.reader.token = last
        self._doubts = Doubts(settings.method)
        self._phase = Phase.LOOK if self._run_url is not None else Phase.START
        self._waits = Waits(settings.give_up_after)
        self._faults = 0  # since the last good event
        self._redirects = 0
        self._start_url = settings.url

    # -- what the reader gets

    @property
    def reads(self) -> bool:
        """Whether more is wanted from the open stream."""
        return self._error is None and not self.is_over and not self._faulty

    @property
    def _faulty(self) -> bool:
        return isinstance(self._trouble, Fault)

    @property
    def refusal(self) -> RunRefused | None:
        """What the last request was answered, if it was refused and is made again."""
        return self._trouble if isinstance(self._trouble, RunRefused) else None

    @property
    def run_url(self) -> httpx.URL | None:
        """The run's own address; `None` before the run is known."""
        if self._run_url is None and self.reader.token:
            path = self._start_url.path.rstrip("/")
            self._run_url = self._start_url.copy_with(path=f"{path}/{self.reader.token}")
        return self._run_url

    def take(self) -> T | None:
        """The next thing for the reader; `None` if there is none yet, or if it `is_over`.

        Raises:
            FollowError: how it ended, behind everything else.
        """
        if self._ready:
            return self._ready.popleft()
        if self._error is not None:
            raise self._error
        return None

    def rest(self) -> list[T]:
        """What else `take` would hand out before it says `None` or raises: of one chunk at most."""
        rest = list(self._ready)
        self._ready.clear()
        return rest

    # -- asking

    def pause(self, now: float) -> float:
        """Seconds to wait before the next request.

        Raises:
            FollowError: there will be none.
        """
        if self._waits.is_asked:  # the reader was cancelled meanwhile
            self._unsure(now)
        if self._error is not None:
            raise self._error
        seconds = self._waits.next(now, self.reader.retry)
        if self._phase is Phase.START and self._waits.unsure_for(now + (seconds or 0.0)) > START_AGAIN:
            raise self._doubts.error(self._trouble)  # whatever was answered since
        if seconds is None:
            self._give_up()
        return seconds

    def _give_up(self) -> NoReturn:
        if self.refusal is not None:
            raise self.refusal
        what = "The run" if self.run_url is not None else "The server"
        raise RunLost(
            f"{what} could not be reached for {self._settings.give_up_after:g} seconds.",
            code="gave_up",
            run=self.reader.token or None,
        ) from self._trouble

    def ask(self) -> Ask:
        """The next request."""
        self._trouble = None
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Accept-Encoding": "identity"}
        headers |= {name: value for name, value in self._settings.headers.items() if name.lower() != "accept"}
        if self._phase is Phase.START:
            self._waits.is_asked = True
            if self._settings.method == "POST":
                headers["Idempotency-Key"] = self._settings.key
            if self._settings.content is not None:
                headers["Content-Type"] = "application/json"
            return Ask(self._settings.method, self._start_url, headers, self._settings.content)
        if self._phase in _OF_STATE:
            # The id is no matter to a run. At any other address, it keeps the request from starting one.
            headers |= {"Accept": "application/json", "Last-Event-ID": f"{self.reader.token}.0"}
        elif self.reader.place is not None:
            headers["Last-Event-ID"] = self.reader.place
        return Ask("GET", self._known_url(), headers)

    def cancelling(self) -> Ask | None:
        """The request that ends the run; `None` before the run is known."""
        return None if self.run_url is None else Ask("DELETE", self.run_url, dict(self._settings.headers))

    def cancelled(self, status: int, content: bytes) -> Cancelled:
        """What the answer to that says.

        Raises:
            RunRefused: the run is unknown, or is another user's.
        """
        if status == 204:
            return Cancelled.CONFIRMED
        if status != 202:
            raise of_answer(status, content, self.reader.token)
        how_far = (read_object(content.decode("utf-8", "replace")) or {}).get("cancelled")
        return Cancelled.ACKNOWLEDGED if how_far == Cancelled.ACKNOWLEDGED.value else Cancelled.REQUESTED

    def _known_url(self) -> httpx.URL:
        url = self.run_url
        assert url is not None, "a run is followed once it is known"
        return url

    # -- answers

    def failed(self, error: Exception, now: float, *, sent_nothing: bool) -> None:
        """The connection failed before there was an answer."""
        self._trouble = error
        if self._phase is Phase.START and not sent_nothing:
            self._unsure(now)
        self._waits.is_asked = False

    def answered(self, status: int, headers: Mapping[str, str], now: float) -> bool:
        """Takes the head of an answer; says whether a stream follows. If not, read the answer and call `told`."""
        self._waits.is_asked = False
        is_stream = status == 200 and headers.get("content-type", "").lower().startswith("text/event-stream")
        if not is_stream or self._phase in _OF_STATE:
            return False
        token = headers.get("sse-bridge-run", "")
        if self._phase is Phase.START and is_token(token):
            self.reader.token = token
        self._waits.opened(now)
        self.reader.restart()
        return True

    def told(self, status: int, headers: Mapping[str, str], content: bytes, now: float) -> None:
        """Takes an answer that is no stream."""
        if status == 200 and self._phase in _OF_STATE:
            return self._look_at(content)
        if status in _TEMPORARY_OR_PERMANENT and self._phase is Phase.START and self._moves(headers):
            return None
        if status == 201 and self._phase is Phase.START:
            return self._found(headers)
        if status == 204 and self._phase is Phase.FOLLOW:
            self._phase = Phase.CONFIRM
            return self._waits.at_once()
        if 200 <= status < 400:
            self._error = RunRefused(
                f"The server answered {status}, and sent no event stream.",
                code="not_event_stream",
                status=status,
                run=self.reader.token or None,
            )
            return None
        return self._refused(status, headers, content, now)

    def _refused(self, status: int, headers: Mapping[str, str], content: bytes, now: float) -> None:
        refusal = of_answer(status, content, self.reader.token or None)
        self._trouble = refusal
        self._waits.asked_to(seconds_to_wait(headers.get("retry-after")))
        if is_definite(status, content):
            self._error = refusal
        elif self._phase is Phase.START and refusal.code.startswith("http_"):
            self._unsure(now)  # a proxy says so, and may have handed the request on

    def _unsure(self, now: float) -> None:
        """A start may have happened, at the earliest when it was sent."""
        self._doubts.add((self.refusal and self.refusal.status) or 0)
        self._waits.unsure()
        if self._waits.unsure_for(now) > START_AGAIN or self._settings.method == "GET":
            self._error = self._doubts.error(self._trouble)

    def _moves(self, headers: Mapping[str, str]) -> bool:
        """Goes where a redirect of the same server points, such as to the path with a slash."""
        url = self._start_url.join(headers.get("location", ""))
        self._redirects += 1
        if not is_same_origin(url, self._start_url) or self._redirects > _MOST_REDIRECTS:
            return False
        self._start_url = url
        self._waits.at_once()
        return True

    def _found(self, headers: Mapping[str, str]) -> None:
        url = self._start_url.join(headers.get("location", ""))
        if not url.query:  # it may say who is asking
            url = url.copy_with(query=self._start_url.query)
        token = url.path.rpartition("/")[2]
        if not is_token(token) or not is_same_origin(url, self._start_url):
            self._error = RunRefused(
                "The server answered 201, but the Location is no run of the same server.",
                code="no_location",
                status=201,
            )
            return
        self.reader.token, self._run_url = token, url
        self._phase = Phase.FOLLOW
        self._waits.at_once()

    def _look_at(self, content: bytes) -> None:
        """Takes the run's state: it is to be followed, or it confirms that all of it was seen."""
        state = read_object(content.decode("utf-8", "replace"))
        if state is None or state.get("run") != self.reader.token:
            self._error = RunRefused(
                "The server's answer is no state of a run.", code="no_state", status=200, run=self.reader.token
            )
            return
        asked, self._phase = self._phase, Phase.FOLLOW
        if asked is not Phase.CONFIRM:
            self._waits.at_once()
        elif state.get("state") != "ended":  # this worker has yet to hear of the end that another one told
            self._trouble = Fault("The server says that there is no more, but the run goes on.")
        elif state.get("frames") != (self.reader.number or 0):
            self._fault(Fault("The server says that there is no more, but the run has more."))
        elif isinstance(error := state.get("error"), dict):
            self._finish(of_error(error, is_gone=False, run=self.reader.token))
        else:
            code = state.get("code")
            self.exit = Exit(code if isinstance(code, int) else None, state.get("timed_out") is True)
            self._finish(None)

    # -- the stream

    def feed(self, chunk: bytes, now: float) -> None:
        """Takes a part of the stream."""
        try:
            for item in self.reader.feed(chunk):
                self._waits.news(now)
                self._faults = 0
                self._take_in(item)
                if not self.reads:
                    return
        except Fault as fault:
            self._fault(fault)
        except FollowError as error:  # of the view
            self._error = error

    def cut(self, error: Exception | None, now: float) -> None:
        """The stream has ended, or broke off. Without its last event, both are the same."""
        self.reader.end()
        self._waits.closed(now)
        if self._error is not None or self.is_over:
            return
        self._trouble = self._trouble or error
        if self.reader.is_numbered is False:
            self._error = RunLost(
                "The connection ended before the run did, and its events have no ids to go on behind.",
                code="not_resumable",
                run=self.reader.token or None,
            )
            self._error.__cause__ = error
        elif self.reader.token:
            self._phase = Phase.FOLLOW
        elif error is not None or self.reader.retry is None:
            self._unsure(now)  # else it is a refusal that passes

    def _take_in(self, item: Item) -> None:
        if item.kind == "error":
            return self._finish(of_error(item.body, is_gone=item.is_gone, run=self.reader.token or None))
        if item.kind == "gap" and not self._settings.accepts_gaps:
            dropped = item.body.get("dropped")
            count = dropped if isinstance(dropped, int) else None
            words = "Some output is" if count is None else f"{count} events are"
            return self._finish(
                EventsMissing(f"{words} missing.", code="gap", dropped=count, run=self.reader.token or None)
            )
        self._ready.extend(self._view.show(item))
        if item.kind != "exit":
            return None
        code = item.body.get("code")
        if isinstance(code, int):
            self.exit = Exit(code, item.body.get("timed_out") is True)
            return self._finish(None)
        return self._finish(
            RunFailed(
                "The command ended, and the platform did not say with which exit code.",
                code="exit_unknown",
                run=self.reader.token or None,
            )
        )

    def _finish(self, error: FollowError | None) -> None:
        self._ready.extend(self._view.end())
        self._error = error
        self.is_over = error is None

    def _fault(self, fault: Fault) -> None:
        self._trouble = fault
        self._faults += 1
        if self._faults >= _MOST_FAULTS:
            run = self.reader.token or None
            self._error = EventsMissing(str(fault), code="frames_missing", dropped=None, run=run)
