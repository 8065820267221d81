"""What the doctor makes of what it has seen of a deployment. Sans-IO: each judgement is a function of measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import httpx

from ..client.refusals import of_answer, status_line
from ..upstream.checks import is_same_origin
from .finding import Finding
from .saying import HOW_FAR, words_of
from .seeing import NO_SILENCE, Answer, End, Sight, join, shown

__all__ = [
    "end",
    "is_refused",
    "is_shared",
    "leaving",
    "lines",
    "place",
    "refused",
    "resume",
    "silence",
    "slash",
    "unreachable",
    "viewers",
    "why_unknown",
]

_LOOK_AT_THE_LOG: Final = "Look at the log of the bridge."
_IS_IT_UP: Final = "Is the server up, and the proxy pointed at it?"
_REMEDIES: Final = {
    "upstream_unauthorized": "The bridge's key is wrong: set MIOSA_API_KEY where it runs.",
    **dict.fromkeys(
        ("not_event_stream", "http_404", "http_405", "method_not_allowed"),
        "Is this the URL of a bridge? Write the slash at its end.",
    ),
    "not_found": "Is this the URL of a bridge? If so, the platform does not know the sandbox that resolve names.",
    "no_location": "The proxy changes the Location of answers. For nginx: proxy_redirect off.",
    **dict.fromkeys(("http_502", "http_503", "http_504"), _IS_IT_UP),
}
_BUSY: Final = "Ask again when it is less busy."
_SILENT: Final = "Run the doctor again with a script that prints a line and then is silent, such as: echo a; sleep 60"
_SHARE: Final = "Several workers need store=RedisStore(...). See docs/many-workers.md."
_STREAM_ON: Final = "A proxy buffers or compresses. For nginx: proxy_buffering off; gzip off. See docs/deployment.md."
_HEAR: Final = (
    "Until the bridge hears of it, the command goes on. For nginx: no proxy_ignore_client_abort; for HAProxy: option "
    "abortonclose. See docs/deployment.md."
)
_KEEP_METHOD: Final = "Have pages ask with the slash, or serve the bridge by SSEBridgeMiddleware."
_SAY_SCHEME: Final = (
    f"{_KEEP_METHOD} Or tell the application its address: proxy_set_header Host $http_host; "
    "X-Forwarded-Proto $scheme. See docs/deployment.md."
)
#: Seconds by which clocks may differ, and `Date` be rounded.
_CLOCKS: Final = 3.0


# -- the start


def unreachable(error: httpx.HTTPError, seconds: float) -> Finding:
    """A start without an answer."""
    if isinstance(error, httpx.TimeoutException):
        may_run = "" if isinstance(error, httpx.ConnectTimeout) else ". A run may be going on"
        return Finding("start", False, f"no answer in time{may_run}", f"{_IS_IT_UP} If so, their logs say more.")
    found = f"The server could not be reached for {seconds:g} seconds. ({type(error).__name__})"
    return Finding("start", False, found, _IS_IT_UP)


def refused(status: int, content: bytes, target: httpx.URL | None = None) -> Finding:
    """A start that was answered with something other than a run.

    Args:
        status: of the answer.
        content: of the answer.
        target: where a redirect leads; `None` without a `Location`.
    """
    if status < 300:
        code = "no_location" if status == 201 else "not_event_stream"
        says = "its Location names no run of that server" if status == 201 else "started no run"
        return Finding("start", False, f"The server answered {status_line(status)}, and {says}.", _REMEDIES[code])
    if status < 400:
        found = f"The server redirected ({status_line(status)}) to {shown(target) if target else 'no address'}."
        return Finding("start", False, found, "Run the doctor on that address, and have pages use it.")
    error = of_answer(status, content, None)
    if error.code == "busy":
        return Finding("start", None, words_of(error), _BUSY)
    return Finding("start", False, words_of(error), _REMEDIES.get(error.code, _LOOK_AT_THE_LOG))


# -- what streams show


def lines(sights: Sequence[Sight], answers: Sequence[Answer], at_once: float, first: float) -> Finding:
    """Whether events come when the bridge sends them.

    Args:
        sights: two streams that were opened one after the other. What is flushed every few seconds holds one of them
            back at the least.
        answers: the run's state, asked for on other connections.
        at_once: seconds that are no delay, on top of the time that a request takes here.
        first: seconds for which the first event was waited for.
    """
    what = "lines one by one"
    if bad := next((sight for sight in sights if is_refused(sight)), None):
        status = 404 if bad.is_gone or bad.status is None else bad.status
        error = of_answer(status, bad.content, None)
        if error.code == "busy":
            return Finding(what, None, f"not checked: a viewer was refused. {words_of(error)}", _BUSY)
        return Finding(what, False, f"a viewer got {status_line(status)}", _remedy_of(status, error.code))
    broken = (sight.end for sight in sights if sight.status is None and sight.end is not None)
    if lost := next((ended for ended in broken if not ended.is_whole), None):
        return Finding(what, False, f"a viewer got no connection ({lost.error})", _IS_IT_UP)
    if any(sight.held > at_once for sight in sights):
        held = max(sight.held for sight in sights)
        found = f"lines are held back: none came for {held:.1f} s although the run had more"
        return Finding(what, False, found, f"{_STREAM_ON} The bridge's rate= would look the same.")
    delays = [sight.delay for sight in sights if sight.delay is not None]
    if not delays:
        return _without_event(sights[0], answers)
    if any(sight.first_at is None and sight.end is None for sight in sights):
        found = f"the first event is held back: one of {len(sights)} connections got none in {first:g} s"
        return Finding(what, False, found, _STREAM_ON)
    usual = min((answer.seconds for answer in answers if answer.status), default=0.0)
    if max(delays) - min(usual, at_once) > at_once:
        return Finding(what, False, f"the first event is held back: it took {max(delays):.1f} s", _STREAM_ON)
    return Finding(what, True, f"the first event came at once, after {max(delays):.2f} s")


def is_refused(sight: Sight) -> bool:
    """Whether a viewer got no stream."""
    return sight.is_gone or sight.status not in (None, 200, 204)


def _remedy_of(status: int, code: str = "") -> str:
    """What to do where the run was asked for and not found."""
    return _SHARE if status == 404 else _REMEDIES.get(code or f"http_{status}", _LOOK_AT_THE_LOG)


def _without_event(sight: Sight, answers: Sequence[Answer]) -> Finding:
    what = "lines one by one"
    has_frames = max((answer.number("frames") or 0 for answer in answers), default=0) > 0
    if sight.status is None or has_frames:
        return Finding(what, False, "the first event is held back: none came", _STREAM_ON)
    if sight.end is not None:
        return Finding(what, None, "not checked: the run ended without an event")
    found = "the script has printed nothing yet, and in this dialect its first output is the first event"
    return Finding(what, None, found, "Run the doctor again with a script that prints something.")


def silence(sight: Sight, state: Answer, seconds: float) -> Finding:
    """Whether a silent connection lives.

    Args:
        sight: the stream that was watched.
        state: the run's state after that.
        seconds: for which it was to be watched.
    """
    if sight.end is not None and _is_of_a_cut(sight.end, state):
        return _cut(sight, sight.end)
    longest = max(sight.longest, 0.0 if sight.end else seconds - (sight.last_at - sight.asked_at))
    if sight.heartbeats:
        return Finding("silence", True, f"{_heartbeats(sight.heartbeats)} came, after {sight.longest:.1f} s of silence")
    if sight.end is not None:
        found = f"the run ended after {sight.end.at - sight.asked_at:.1f} s: longer silences were not seen"
        return Finding("silence", None, found, _SILENT)
    if longest < seconds / 2:
        found = f"the script prints: silences above {longest:.1f} s were not seen"
        return Finding("silence", None, found, _SILENT)
    found = f"not cut, but no heartbeat in {longest:.1f} s"
    if seconds < 30:
        return Finding("silence", None, found, "Proxies cut later than that: raise --silence.")
    return Finding("silence", False, found, "Set heartbeat=15. If it is set, a proxy holds heartbeats back.")


def _is_of_a_cut(end: End, state: Answer) -> bool:
    """Whether the stream ended before its run, or took the run with it."""
    error = state.body.get("error")
    is_abandoned = isinstance(error, dict) and error.get("code") == "abandoned"
    return not end.is_whole or state.body.get("state") != "ended" or is_abandoned


def _cut(sight: Sight, end: End) -> Finding:
    silent, lived = end.at - sight.last_at, end.at - sight.asked_at
    if silent < max(NO_SILENCE, sight.longest):  # longer silences were survived
        found = f"the connection ended after {lived:.1f} s, for a reason other than silence"
        remedy = (
            "Does a proxy limit the time of a response, or is max_viewer_time set? Browsers come back by themselves."
        )
        return Finding("silence", None if end.is_whole else False, found, remedy)
    remedy = (
        f"Raise the proxy's read timeout (nginx: proxy_read_timeout), or set heartbeat={max(0.5, silent / 2):.2g} "
        "or less: below half of the shortest timeout on the way."
    )
    if end.is_whole:
        remedy += " max_viewer_time, if set, looks the same."
    return Finding("silence", False, f"the connection was cut after {silent:.1f} s of silence", remedy)


def _heartbeats(count: int) -> str:
    return "a heartbeat" if count == 1 else f"{count} heartbeats"


# -- the run on other connections


def resume(answers: Sequence[Answer], run: str) -> Finding:
    """Whether each connection finds the run, on whichever worker it ends up."""
    good = [answer for answer in answers if answer.status == 200 and answer.body.get("run") == run]
    if len(good) == len(answers):
        return Finding("resume", True, f"{len(good)} connections found the run {run[:6]}...")
    missing = sum(answer.status == 404 for answer in answers)
    if missing:
        found = f"{missing} of {len(answers)} requests did not find the run"
        strips = " If a proxy strips a prefix, name it in root_path." if missing == len(answers) else ""
        return Finding("resume", False, found, _SHARE + strips)
    others = Counter(answer.status for answer in answers if answer not in good)
    status, count = others.most_common(1)[0]
    says = {0: "got no answer", 200: "got something other than its state"}.get(status, f"got {status_line(status)}")
    return Finding("resume", False, f"{count} of {len(answers)} requests for the run {says}", _remedy_of(status or 504))


def is_shared(state: Answer, opened: int, asked_at: float | None) -> bool:
    """Whether the run is not the doctor's alone, because its start joined one, or somebody else has joined it.

    Args:
        state: the run's state.
        opened: how many streams the doctor has opened so far.
        asked_at: when the doctor asked for a run first, by the server's clock; `None` if that is unknown.
    """
    if (state.number("viewers") or 0) > opened:
        return True
    started_at = state.body.get("started_at") if state.status == 200 else None
    if asked_at is None or not isinstance(started_at, int | float):
        return False
    return started_at < asked_at - _CLOCKS


def place(sight: Sight, number: int | None, state: Answer, *, goes_on: bool = False) -> Finding:
    """Whether a stream that was asked for with a `Last-Event-ID` goes on behind it.

    Args:
        sight: that stream, at the end of the run.
        number: of the last frame seen before; `None` without ids.
        state: the run's state before its end.
        goes_on: the run was left running, so nothing has to come.
    """
    what = "place"
    if number is None:
        return Finding(what, None, "not checked: no events came, or they have no ids")
    if sight.is_gone and state.body.get("state") == "ended":
        return Finding(what, None, "not checked: the run is over, and no longer kept")
    if sight.is_gone or sight.status == 404:
        return Finding(what, False, "a resumed connection did not find the run", _SHARE)
    if sight.first is not None and sight.first <= number:
        found = f"a connection resumed after event {number} got event {sight.first} again"
        return Finding(what, False, found, "A proxy or a middleware drops Last-Event-ID: let it pass.")
    if goes_on and sight.status == 200 and sight.first is None and sight.end is None:
        return Finding(what, None, f"not checked: nothing came after event {number}")
    if sight.status == 204 or sight.first is not None:
        return Finding(what, True, f"a resumed connection went on after event {number}")
    if sight.status == 200 and sight.end is not None and sight.end.is_whole:
        return Finding(what, True, f"a resumed connection repeated no event up to {number}")
    if sight.status in (None, 200):
        return Finding(what, False, "a resumed connection got no event", _LOOK_AT_THE_LOG)
    error = of_answer(sight.status, sight.content, None)
    if error.code == "busy":
        return Finding(what, None, f"not checked: a viewer was refused. {words_of(error)}", _BUSY)
    return Finding(what, False, f"a resumed connection got {status_line(sight.status)}", _LOOK_AT_THE_LOG)


def viewers(answers: Sequence[Answer]) -> int | None:
    """The viewers of the run, if all answers name the same number. Each worker counts its own."""
    counts = {answer.number("viewers") for answer in answers}
    return counts.pop() if len(counts) == 1 else None


def why_unknown(answers: Sequence[Answer], sights: Sequence[Sight]) -> str:
    """Why it cannot be seen whether a viewer is missed.

    Args:
        answers: the run's state, asked for on other connections.
        sights: the streams that were to be counted.
    """
    if bad := next((answer for answer in answers if answer.number("viewers") is None), None):
        got = "no answer" if not bad.status else "no count" if bad.status == 200 else status_line(bad.status)
        return f"a request for the run's state got {got}"
    if answers and answers[-1].body.get("state") == "ended":
        return "the run ended meanwhile"
    if any(sight.end is not None for sight in sights):
        return "a stream ended before its run"
    return "several workers answer, and each counts only its own viewers"


def leaving(
    before: int | None, in_time: bool | None, after: int | None, waits: float, *, why: str, has_beaten: bool = True
) -> Finding:
    """Whether the bridge hears that a viewer has left.

    Args:
        before: the viewers while two streams were open.
        in_time: whether one was missed after one stream was closed; `None` if that could not be seen.
        after: how many were counted too many at the end of the watch; `None` if that could not be seen.
        waits: seconds that count as in time.
        why: could it not be seen.
        has_beaten: whether there was time for a heartbeat since, a write that makes it noticed.
    """
    what = "leaving"
    if before is None or before < 2 or in_time is None:
        return Finding(what, None, f"not checked: {why}")
    if in_time:
        return Finding(what, True, "the bridge noticed that a viewer had left")
    if after is None or (after and not has_beaten):
        return Finding(what, None, f"the bridge did not notice within {waits:g} s that a viewer had left", _HEAR)
    if after:
        return Finding(what, False, "the bridge did not notice that a viewer had left", _HEAR)
    return Finding(what, None, f"the bridge noticed after more than {waits:g} s that a viewer had left", _HEAR)


def end(answer: Answer | None) -> Finding:
    """Whether the run was ended; `None` if it was left running."""
    if answer is None:
        return Finding("end", None, "not checked: others use the run")
    if answer.status == 204:
        return Finding("end", True, "ended: confirmed")
    if answer.status == 202:
        how_far = answer.body.get("cancelled")
        return Finding("end", None, HOW_FAR["acknowledged" if how_far == "acknowledged" else "requested"])
    if answer.status == 0:
        return Finding("end", False, "no answer", _IS_IT_UP)
    error = of_answer(answer.status, answer.content, None)
    remedies = {**_REMEDIES, "run_unknown": _SHARE, "http_405": "Does a proxy refuse DELETE? Let it pass."}
    return Finding("end", False, words_of(error), remedies.get(error.code, _LOOK_AT_THE_LOG))


# -- addresses


def slash(method: str, url: httpx.URL, status: int, location: str) -> Finding:
    """Whether the address without the slash at its end serves pages that ask for it."""
    what, target = "without the slash", join(url, location)
    if status == 204:
        return Finding(what, True, "the bridge answers there, too")
    if not 300 <= status < 400 or target.path != f"{url.path}/":
        return Finding(what, None, f"answered {status_line(status)}: have pages ask with the slash")
    if not is_same_origin(target, url):
        leads = f"a redirect leads to {target.scheme}://{target.netloc.decode()}, which browsers do not follow"
        return Finding(what, False, leads, _SAY_SCHEME)
    if method == "POST" and status not in (307, 308):
        return Finding(what, False, f"answered {status_line(status)}, which turns a POST into a GET", _KEEP_METHOD)
    return Finding(what, True, "a redirect keeps the method and the address")
