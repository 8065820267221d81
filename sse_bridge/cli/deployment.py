"""What `sse-bridge doctor URL` looks at: a bridge, and the proxies in front of it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx
from anyio.abc import TaskGroup
from anyio.streams.tls import TLSAttribute

from . import judging
from .finding import Finding
from .seeing import Answer, Sight, join
from .visiting import TIMEOUT, Patience, Stream, Visitor

__all__ = ["look_at_deployment"]

#: Seconds between two looks at whether a viewer is missed.
_LOOK: Final = 0.25
#: Heartbeats after which silence is proven to do no harm.
_ENOUGH: Final = 2
#: Seconds in which a bridge sends a heartbeat by default.
_BEAT: Final = 15.0
_SIX: Final = (
    "A browser opens six streams to a site over HTTP/1.1, for all tabs together. HTTP/2 needs TLS at the proxy."
)


async def look_at_deployment(
    url: str, headers: Mapping[str, str], waits: Patience, tell: Callable[[str], None]
) -> list[Finding]:
    """Starts a run, looks at it as pages do, and ends it.

    Args:
        url: of the bridge.
        headers: are sent with each request.
        waits: how long to wait for what.
        tell: says what is being waited for.
    """
    visitor = Visitor(url, headers, waits)
    try:
        findings = await _start(visitor)
        if not visitor.is_known:
            return findings
        async with anyio.create_task_group() as tasks:
            seen = await _look_at_run(visitor, tasks, tell)
            tasks.cancel_scope.cancel()
        # These come last, since they may take longer than the bridge keeps a run without a viewer.
        return [*findings, *await _without_slash(visitor), *await _version(visitor.url), *seen]
    finally:
        await visitor.leave()


# -- the start


async def _start(visitor: Visitor) -> list[Finding]:
    """Starts a run as a page does that sends its `Origin`; without it if that is refused."""
    origin = {} if visitor.names_origin else {"Origin": _origin_of(visitor.url)}
    findings = []
    try:
        with anyio.fail_after(visitor.waits.start + TIMEOUT):
            answer = await visitor.start(origin)
            if answer.status_code == 403 and origin:
                refused, answer = answer, await visitor.start({})
                if answer.status_code != 201:
                    answer = refused
                else:
                    findings.append(_foreign(origin["Origin"]))
            elif answer.status_code == 201 and origin:
                findings.append(Finding("Origin", True, f"a page of {origin['Origin']} may start runs"))
    except TimeoutError:
        return [judging.unreachable(httpx.ReadTimeout(""), visitor.waits.start)]
    except httpx.HTTPError as error:
        return [judging.unreachable(error, visitor.waits.start)]
    if answer.status_code != 201 or not visitor.learn(answer):
        location = answer.headers.get("location")
        return [judging.refused(answer.status_code, answer.content, location and join(visitor.url, location))]
    return [Finding("start", True, "a run was started"), *findings]


def _origin_of(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def _foreign(origin: str) -> Finding:
    return Finding(
        "Origin",
        False,
        f"pages of {origin} get 403 for a start, over plain http or in older browsers",
        "Have the proxy pass on the browser's Host. For nginx: proxy_set_header Host $http_host. See docs/users.md.",
    )


# -- addresses


async def _without_slash(visitor: Visitor) -> list[Finding]:
    """Asks for the address without its slash, in a way that starts nothing at a bridge.

    A `POST` goes there only once a `GET` has shown that it is the bridge's.
    """
    path = visitor.url.path.rstrip("/")
    if not path:
        return []
    bare, finding = visitor.url.copy_with(path=path), None
    for method in ("GET", "POST"):
        try:
            answer = await visitor.ask(method, bare, {"Last-Event-ID": f"{visitor.run}.gone"})
        except httpx.HTTPError:
            break
        finding = judging.slash(method, bare, answer.status_code, answer.headers.get("location", ""))
        if not finding.is_good:
            break
    return [finding] if finding else []


async def _version(url: httpx.URL) -> list[Finding]:
    """Which HTTP a browser gets. The doctor's own requests speak HTTP/1.1, so it looks at what TLS negotiates."""
    if url.scheme == "http":
        return [Finding("HTTP version", None, "without TLS, browsers speak HTTP/1.1", _SIX)]
    if not proxy_bypass(url.host) and {"https", "all"} & getproxies().keys():
        return []
    try:
        chosen = await _negotiated(url)
    except (OSError, TimeoutError, anyio.BrokenResourceError, anyio.EndOfStream):
        return []
    if chosen == "h2":
        return [Finding("HTTP version", True, "HTTP/2")]
    return [Finding("HTTP version", None, "HTTP/1.1", _SIX)]


async def _negotiated(url: httpx.URL) -> str | None:
    """Which protocol the server chooses for a browser, by ALPN (RFC 7301). Nothing is sent, so no one is trusted."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with anyio.fail_after(TIMEOUT):
        connection = await anyio.connect_tcp(
            url.host, url.port or 443, ssl_context=context, tls_hostname=url.host, tls_standard_compatible=False
        )
        async with connection:
            return connection.extra(TLSAttribute.alpn_protocol)


# -- the run


def _shows(sight: Sight) -> bool:
    return sight.first_at is not None


async def _look_at_run(visitor: Visitor, tasks: TaskGroup, tell: Callable[[str], None]) -> list[Finding]:
    """Opens its stream twice, looks for it on other connections, and ends it unless others use it."""
    waits = visitor.waits
    await visitor.state()  # before there is a viewer of the doctor's
    first = visitor.look(tasks)
    came = await first.until(_shows, waits.first)
    second = visitor.look(tasks)
    if came:  # opened right behind a flush, it waits for the whole of the next one
        await second.until(_shows, waits.first)
    answers = await visitor.states()
    sights = (first.sight, second.sight)
    lines = judging.lines(sights, answers, waits.at_once, waits.first)
    resume = judging.resume(answers, visitor.run)
    if lines.is_good is False or any(map(judging.is_refused, sights)) or not resume.is_good:
        found = "silence, leaving and place were not checked: they need what is missing above"
        end = judging.end(await visitor.end())
        return [*_shared(visitor), lines, resume, Finding("the rest", None, found), end]
    leaving, silence, state = await _stay(visitor, first, second, answers, tell)
    place, end = await _come_back(visitor, tasks, second.sight, state)
    lines = judging.lines(sights, answers, waits.at_once, waits.first)  # what was held back meanwhile counts
    if visitor.is_shared:
        leaving = Finding("leaving", None, "not checked: other viewers of the run come and go")
    return [*_shared(visitor), lines, *silence, leaving, resume, place, end]


def _shared(visitor: Visitor) -> list[Finding]:
    if not visitor.is_shared:
        return []
    found = "the start led to a run that others use, too: it was left running"
    return [Finding("shared run", None, found, "To check all of a bridge, let the doctor have a run of its own.")]


async def _stay(
    visitor: Visitor, first: Stream, second: Stream, answers: Sequence[Answer], tell: Callable[[str], None]
) -> tuple[Finding, list[Finding], Answer]:
    """Leaves one stream, and stays on the other. Returns what that shows, and the run's state then."""
    waits, before, in_time = visitor.waits, judging.viewers(answers), None
    why = judging.why_unknown(answers, (first.sight, second.sight))
    beats, left_at = second.sight.heartbeats, anyio.current_time()
    first.close()
    if before is not None and before >= 2:
        in_time, last = await _missed(visitor, before)
        why = judging.why_unknown([last], ())
    if not waits.silence:
        return judging.leaving(before, in_time, None, waits.leave, why=why), [], await visitor.state()
    tell(f"watching the stream for {_ENOUGH} heartbeats, {waits.silence:g} s at most (--silence 0 leaves that out)")
    await _watch(visitor, second)
    state = await visitor.state()
    seen, remain = state.number("viewers"), (before or 0) - 1 - (second.sight.end is not None)
    after = None if seen is None or state.body.get("state") == "ended" else max(0, seen - remain)
    silence = judging.silence(second.sight, state, waits.silence)
    has_beaten = second.sight.heartbeats > beats or anyio.current_time() - left_at >= _BEAT
    leaving = judging.leaving(before, in_time, after, waits.leave, why=why, has_beaten=has_beaten)
    return leaving, [silence], state


async def _missed(visitor: Visitor, before: int) -> tuple[bool | None, Answer]:
    """Whether the run's state counts fewer viewers than before soon; `None` if it cannot be seen. With that state."""
    state = Answer(0)
    with anyio.move_on_after(visitor.waits.leave):
        while True:
            state = await visitor.state()
            count = state.number("viewers")
            if count is None or state.body.get("state") == "ended":
                return None, state
            if count < before:
                return True, state
            await anyio.sleep(_LOOK)
    return False, state


async def _watch(visitor: Visitor, look: Stream) -> None:
    """Waits for heartbeats, and looks meanwhile whether the run has more than the stream shows."""

    async def look_on() -> None:
        while True:
            await anyio.sleep(visitor.waits.look)
            frames = (await visitor.state()).number("frames")
            look.sight.owe(frames or 0, anyio.current_time())

    left = look.sight.asked_at + visitor.waits.silence - anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look_on)
        await look.until(lambda sight: sight.heartbeats >= _ENOUGH, left)
        tasks.cancel_scope.cancel()


async def _come_back(visitor: Visitor, tasks: TaskGroup, seen: Sight, state: Answer) -> tuple[Finding, Finding]:
    """Resumes the stream behind the last event, and ends the run, which is what comes next if nothing else does."""
    if seen.place is None:
        return judging.place(seen, None, state), judging.end(await visitor.end())
    number = seen.last
    back = visitor.look(tasks, seen.place)
    await back.until(lambda sight: sight.status, TIMEOUT)
    ended = await visitor.end()
    await back.until(lambda sight: sight.first is not None or sight.is_gone, visitor.waits.leave)
    return judging.place(back.sight, number, state, goes_on=ended is None), judging.end(ended)
