"""`sse-bridge.js` in Chromium: starting, following, coming back, and what it says of every end."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from sse_bridge import UpstreamRefused
from sse_bridge.testing import Script
from tests.support.cutting_proxy import cutting_proxy
from tests.support.modules import ASK_NOW, Scripts, later, scripts_site, watching_problems
from tests.support.servers import Served
from tests.support.waiting import eventually

VECTORS = json.loads((Path(__file__).parents[1] / "wire" / "sse-vectors.json").read_text())
RUN = "A" * 16

#: Follows a run; `window.seen` are its messages, `window.states` its states.
FOLLOW = """
async ([url, options, memory]) => {
  const { follow, inHash, inSession } = await import("/modules/sse-bridge.js");
  if (memory) options.memory = { inHash, inSession }[memory]();
  const run = (window.run = follow(url, options));
  window.seen = [];
  window.ids = [];
  window.states = [];
  window.statuses = [];
  window.finished = false;
  run.addEventListener("statechange", () => {
    window.states.push(run.state);
    window.statuses.push([run.state, run.isBusy, run.status]);
  });
  (async () => {
    for await (const message of run) {
      window.seen.push(message);
      window.ids.push(run.lastEventId);
    }
    window.finished = true;
  })();
}
"""

#: What became of `window.stopped`, if that takes no longer than five seconds.
STOPPED = "Promise.race([stopped, new Promise((settle) => setTimeout(settle, 5_000, 'still waiting'))])"

Site = tuple[Served, Scripts]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with scripts_site(max_runs=50, keep=30, retry_ms=20) as made:
        yield made


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    """One for all tests of this file: a context for each would take most of the time."""
    with browser.new_context() as context:
        yield context.new_page()


@pytest.fixture
def page(tab: Page, site: Site, problems: list[str]) -> Iterator[Page]:
    """An empty page of the site, under its policy."""
    with watching_problems(tab, problems):
        tab.goto("about:blank")
        tab.goto(site[0].url)
        tab.evaluate("sessionStorage.clear()")
        yield tab
        tab.unroute_all()


def follow(page: Page, url: str, memory: str | None = None, **options: Any) -> None:
    page.evaluate(FOLLOW, [url, options, memory])


def finished(page: Page) -> list[dict[str, Any]]:
    """All messages, once the loop has ended."""
    page.wait_for_function("() => window.finished")
    seen: list[dict[str, Any]] = page.evaluate("window.seen")
    return seen


def script(site: Site, name: str, played: Script) -> Script:
    site[1].by_name[name] = played
    return played


def frames(*events: dict[str, Any], first: int = 0) -> str:
    return "".join(f"id: {RUN}.{first + n}\ndata: {json.dumps(event)}\n\n" for n, event in enumerate(events))


def stream(body: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(content_type="text/event-stream", body=body)


def failing(status: int) -> Callable[[Route], None]:
    """As an application that raises, and a proxy in front of a server that is gone."""
    return lambda route: route.fulfill(status=status, body="Something Went Wrong", content_type="text/plain")


def busy(seconds: int = 0) -> Callable[[Route], None]:
    """As the bridge at its limit."""
    headers = {"Retry-After": str(seconds)}
    return lambda route: route.fulfill(
        status=503, headers=headers, json={"error": {"code": "busy", "message": "Full."}}
    )


def hold(routes: list[Route]) -> Callable[[Route], None]:
    """No answer for now."""
    return lambda route: routes.append(route)  # a method of C is none to Playwright


def lost(route: Route) -> None:
    route.abort()


def answers(*each: Callable[[Route], None]) -> Callable[[Route], None]:
    """One answer after the other; the last one goes on."""
    left = list(each)
    return lambda route: (left.pop(0) if len(left) > 1 else left[0])(route)


# -- the parser


def test_the_parser_dispatches_what_the_public_vectors_say(page: Page) -> None:
    """Each of the 165 cases, whole, byte by byte, and cut in two at each place: the same vectors as in Python."""
    cases = [[vector["id"], vector["input_b64"]] for vector in VECTORS]
    seen = page.evaluate(
        """async (cases) => {
            const { EventParser } = await import("/modules/sse-bridge.js");
            function parse(chunks) {
              const events = [];
              const parser = new EventParser({ event: (event, data, id) => events.push({ event, data, id }) });
              for (const chunk of chunks) parser.push(chunk);
              return JSON.stringify([events, parser.retry, parser.lastEventId]);
            }
            return cases.map(([name, encoded]) => {
              const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
              const whole = parse([bytes]);
              const cuts = [[...bytes].map((_, at) => bytes.subarray(at, at + 1))];
              if (bytes.length < 500) bytes.forEach((_, at) => cuts.push([bytes.subarray(0, at), bytes.subarray(at)]));
              return [name, whole, cuts.every((chunks) => parse(chunks) === whole)];
            });
        }""",
        cases,
    )

    for vector, (name, whole, is_the_same) in zip(VECTORS, seen, strict=True):
        events, retry, last_event_id = json.loads(whole)
        expected = [{key: event[key] for key in ("event", "data", "id")} for event in vector["expected"]]
        assert (name, events) == (vector["id"], expected)
        assert (name, retry, last_event_id) == (name, vector["final_retry"], vector["final_last_event_id"])
        assert (name, is_the_same) == (name, True)
    assert base64.b64decode(cases[0][1])  # there are cases


# -- starting


def test_a_post_starts_a_run_and_its_messages_come_in_order(page: Page, site: Site) -> None:
    """201 with the run's address, then its stream. The loop ends after the exit."""
    played = script(site, "three", Script(["one", ("stderr", "two"), "three"], exit=3))
    follow(page, "/run-sse/?script=three")
    seen = finished(page)

    assert seen[0] == {"type": "start", "run": page.evaluate("run.token")}
    assert seen[1:] == [
        {"type": "stdout", "line": "one"},
        {"type": "stderr", "line": "two"},
        {"type": "stdout", "line": "three"},
        {"type": "exit", "code": 3},
    ]
    assert played.starts == 1
    assert page.evaluate("run.outcome") == {"type": "exit", "code": 3}
    assert page.evaluate("states.at(-1)") == "over"
    assert page.evaluate("new Set(ids).size") == 5


def test_a_get_starts_a_run_as_well(page: Page, site: Site) -> None:
    """Such as for a bridge behind a route that knows GET only."""
    script(site, "one", Script(["one"]))
    follow(page, "/run-sse/?script=one", method="GET")

    assert [message["type"] for message in finished(page)] == ["start", "stdout", "exit"]
    assert page.evaluate("run.token")


def test_body_headers_and_key_go_with_the_start(page: Page, site: Site) -> None:
    """A plain object is JSON. Two pages with one key share a run."""
    played = script(site, "keyed", Script(["one"], delay=0.05))
    options: Any = {"body": {"a": 1}, "headers": {"X-Page": "7"}, "key": "build-42"}
    follow(page, "/run-sse/?script=keyed", **options)
    finished(page)
    asked = site[1].asked[-1]
    assert (asked["content-type"], asked["x-page"], asked["idempotency-key"]) == ("application/json", "7", "build-42")
    follow(page, "/run-sse/?script=keyed", **options)

    assert finished(page)[-1]["type"] == "exit"
    assert played.starts == 1


def test_a_start_whose_answer_was_lost_is_repeated_with_its_key(page: Page, site: Site) -> None:
    """The command is started once: the second `POST` joins the run of the first."""
    played = script(site, "lost", Script(["one"], delay=0.2))

    def lose(route: Route) -> None:
        if route.request.method == "POST":
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/run-sse/?script=lost", answers(lose, lambda route: route.continue_()))
    follow(page, "/run-sse/?script=lost")

    assert [message["type"] for message in finished(page)] == ["start", "stdout", "exit"]
    assert played.starts == 1


@pytest.mark.parametrize("options", [{"method": "GET"}, {"key": ""}], ids=["get", "post without a key"])
def test_a_start_without_an_answer_is_given_up_if_it_cannot_be_repeated(page: Page, options: dict[str, Any]) -> None:
    """Asking again might start the command twice."""
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.abort()

    page.route("**/run-sse/**", refuse)
    follow(page, "/run-sse/", **options)
    (message,) = finished(page)

    assert "Whether a run was started is unknown" in message["message"]
    assert len(asked) == 1


@pytest.mark.parametrize("options", [{"method": "GET"}, {"key": ""}], ids=["get", "post without a key"])
def test_a_start_that_was_answered_by_a_failure_says_so(page: Page, options: dict[str, Any]) -> None:
    """Such as an application whose `resolve` raised. The server did answer."""
    page.route("**/run-sse/", failing(500))
    follow(page, "/run-sse/", **options)

    assert finished(page) == [
        {
            "type": "error",
            "code": "unknown",
            "message": "The server answered 500. Whether a run was started is unknown. See the server's log.",
        }
    ]


def test_a_start_that_waits_says_what_it_was_answered(page: Page, site: Site) -> None:
    """Each change is a `statechange`: a server that fails, is gone, is busy, and is well."""
    script(site, "failing", Script(["one"]))
    page.route(
        "**/run-sse/?script=failing",
        answers(
            failing(500),
            lambda route: route.abort(),
            lambda route: route.fulfill(status=429, headers={"Retry-After": "0"}),
            lambda route: route.continue_(),
        ),
    )
    follow(page, "/run-sse/?script=failing")
    for count in (1, 2):
        page.wait_for_function(f"() => statuses.length === {count}")
        page.evaluate(ASK_NOW)
    assert finished(page)[-1] == {"type": "exit", "code": 0}

    waiting = [each for each in page.evaluate("statuses") if each[0] == "waiting"]
    assert waiting[:3] == [["waiting", False, 500], ["waiting", False, None], ["waiting", True, 429]]
    assert page.evaluate("[run.isBusy, run.status]") == [False, None]


@pytest.mark.parametrize(
    ("each", "words"),
    [
        ([failing(502)], "The server answered 502."),
        ([lost], "The server did not answer."),
        ([lost, busy(60)], "The server answered 503."),
        ([failing(503)], "The server answered 503."),
    ],
    ids=["502", "no answer", "no answer, then busy", "a proxy's 503"],
)
def test_a_start_that_may_have_happened_is_given_up_while_its_key_is_known(
    page: Page, each: list[Callable[[Route], None]], words: str
) -> None:
    """After 30 seconds, in the words of its last answer. Later the bridge may have forgotten the key."""
    asked: list[str] = []
    answer = answers(*each)

    def count(route: Route) -> None:
        asked.append(route.request.method)
        answer(route)

    page.route("**/run-sse/", count)
    follow(page, "/run-sse/")
    page.wait_for_function("() => statuses.length >= 1")
    if len(each) > 1:
        page.evaluate(ASK_NOW)
        page.wait_for_function("() => run.isBusy")
    before = len(asked)
    later(page, 31)
    page.evaluate(ASK_NOW)
    (message,) = finished(page)

    assert (message["code"], message["message"].partition(" See")[0]) == (
        "unknown",
        f"{words} Whether a run was started is unknown.",
    )
    assert len(asked) == before


@pytest.mark.parametrize("clock", ["performance", "Date"])
def test_a_start_that_was_put_aside_is_not_sent_with_a_key_that_is_forgotten(page: Page, clock: str) -> None:
    """The page was left before the answer came, and is back five minutes later. Either clock may have stood still."""
    asked: list[Route] = []
    page.route("**/run-sse/", hold(asked))
    follow(page, "/run-sse/")
    eventually(lambda: page.evaluate("run.state") == "starting" and len(asked) == 1)
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    page.evaluate(f"(at => {{ {clock}.now = () => at; }})({clock}.now() + 300_000)")
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")

    assert finished(page)[0]["code"] == "unknown"
    assert len(asked) == 1


def test_a_start_that_only_met_a_busy_server_may_be_lost_later(page: Page, site: Site) -> None:
    """The 30 seconds are those of the start that may have happened."""
    played = script(site, "late", Script(["one"]))
    page.route("**/run-sse/?script=late", answers(lambda route: route.fulfill(status=429), lost, Route.continue_))
    follow(page, "/run-sse/?script=late")
    page.wait_for_function("() => run.isBusy")
    later(page, 60)
    page.evaluate(ASK_NOW)
    page.wait_for_function("() => run.state === 'waiting' && !run.isBusy")
    page.evaluate(ASK_NOW)

    assert finished(page)[-1]["type"] == "exit"
    assert played.starts == 1


def test_a_proxy_names_a_time_as_well(page: Page, site: Site) -> None:
    """Its 503 may come after it handed the start on, so the key goes along."""
    script(site, "proxied", Script(["one"]))
    proxy = lambda route: route.fulfill(status=503, headers={"Retry-After": "0"}, body="no healthy upstream")  # noqa: E731
    page.route("**/run-sse/?script=proxied", answers(proxy, proxy, Route.continue_))
    before = page.evaluate("performance.now()")
    follow(page, "/run-sse/?script=proxied")

    assert finished(page)[-1]["type"] == "exit"
    assert page.evaluate("performance.now()") - before < 2_500  # by themselves, two waits take three seconds
    assert ["waiting", False, 503] in page.evaluate("statuses")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, {"error": {"code": "busy"}}, "wait"),
        (503, {"error": {"code": "service_unavailable", "message": {"why": "maintenance"}}}, "wait"),
        (503, {"error": {"code": "not_shown"}}, "refused"),
        (503, {"error": {"code": 503, "status": "UNAVAILABLE"}}, "lost"),
        (503, {"error": "upstream connect error"}, "lost"),
        (503, {"detail": "maintenance"}, "lost"),
        (500, {"error": "boom"}, "lost"),
        (500, {"error": {"code": "bridge_failed"}}, "refused"),
        (429, {"detail": "slowly"}, "wait"),
        (201, None, "lost"),
    ],
)
def test_only_the_bridge_can_say_that_nothing_was_started(page: Page, status: int, body: object, kind: str) -> None:
    """By its `error.code`. A 201 without the run's name was cut off."""
    found = page.evaluate(
        """async ([status, body]) => {
            const { answerOf } = await import("/modules/answers.js");
            return answerOf(Response.json(body, { status, headers: { "Retry-After": "7" } }));
        }""",
        [status, body],
    )

    assert found["kind"] == kind
    assert found.get("after") == (7_000 if status != 201 and kind != "refused" else None)


def test_a_busy_server_is_asked_again_when_it_says(page: Page, site: Site) -> None:
    """503 has started nothing, and names a time."""
    script(site, "busy", Script(["one"]))
    page.route("**/run-sse/?script=busy", answers(busy(), busy(), lambda route: route.continue_()))
    follow(page, "/run-sse/?script=busy")

    assert finished(page)[-1] == {"type": "exit", "code": 0}
    assert page.evaluate("states")[0] == "waiting"


def test_a_busy_server_that_answers_with_a_frame_is_asked_again(page: Page, site: Site) -> None:
    """`refusals="frame"` says it with `retry:`, and the end of the response."""
    script(site, "busy-frame", Script(["one"]))
    page.route("**/run-sse/?script=busy-frame", answers(stream("retry: 20\n\n"), lambda route: route.continue_()))
    follow(page, "/run-sse/?script=busy-frame", method="GET")

    assert finished(page)[-1] == {"type": "exit", "code": 0}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refusal_is_a_message_with_its_status(page: Page, site: Site, method: str) -> None:
    """In the bridge's words."""
    refusal = UpstreamRefused("The sandbox or stream does not exist.", code="not_found", status=404)
    script(site, "refused", Script(refusal=refusal))
    follow(page, "/run-sse/?script=refused", method=method)
    (message,) = finished(page)

    assert (message["type"], message["code"], message["status"]) == ("error", "not_found", 404)
    assert message["message"]


def test_what_is_no_event_stream_is_refused(page: Page) -> None:
    """A login page, for instance."""
    page.route("**/run-sse/", lambda route: route.fulfill(content_type="text/html", body="<p>Log in"))
    follow(page, "/run-sse/")

    assert finished(page)[0]["code"] == "no_event_stream"


# -- coming back


def test_every_line_arrives_once_through_cuts(page: Page, site: Site) -> None:
    """Connections that are cut in the middle of a frame, and one start."""
    played = script(site, "many", Script([f"line {number}" for number in range(20_000)]))
    with cutting_proxy(site[0].port, cuts=0, most=60_000) as (url, proxy):
        page.goto(url)
        page.evaluate("import('/modules/sse-bridge.js').then(() => {})")
        follow(page, "/run-sse/?script=many")
        page.wait_for_function("() => seen.length > 0")  # and the time to come back is known
        proxy.cuts_left = 6
        proxy.cut()
        page.wait_for_function("() => window.finished", timeout=60_000)
        assert proxy.cuts_left < 5

    lines = page.evaluate("seen.filter(({ type }) => type === 'stdout').map(({ line }) => line)")
    assert lines == [f"line {number}" for number in range(20_000)]
    assert page.evaluate("seen.at(-1).type") == "exit"
    assert played.starts == 1


def test_it_goes_on_behind_the_last_message(page: Page) -> None:
    """With `Last-Event-ID`, at the run's address, with the query of the start."""
    asked: list[tuple[str, str | None]] = []

    def answer(route: Route) -> None:
        request = route.request
        asked.append((request.url.partition("/run-sse/")[2], request.headers.get("last-event-id")))
        if request.method == "POST":
            route.fulfill(status=201, json={"run": RUN, "href": f"/run-sse/{RUN}"})
        elif len(asked) == 2:
            stream("retry: 10\n" + frames({"type": "start", "run": RUN}, {"type": "stdout", "line": "one"}))(route)
        elif len(asked) == 3:
            route.abort()
        else:
            stream(frames({"type": "exit", "code": 0}, first=2))(route)

    page.route("**/run-sse/**", answer)
    follow(page, "/run-sse/?policy=drop")

    assert [message["type"] for message in finished(page)] == ["start", "stdout", "exit"]
    run = f"{RUN}?policy=drop"
    assert asked == [("?policy=drop", None), (run, None), (run, f"{RUN}.1"), (run, f"{RUN}.1")]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_answer_of_something_in_between_is_no_end(page: Page, status: int) -> None:
    """While a server restarts, its proxy answers in its own words."""
    page.route(
        f"**/run-sse/{RUN}",
        answers(
            stream("retry: 10\n" + frames({"type": "start", "run": RUN})),
            lambda route: route.fulfill(status=status, body="<h1>Bad Gateway</h1>", content_type="text/html"),
            stream(frames({"type": "exit", "code": 0}, first=1)),
        ),
    )
    follow(page, "/run-sse/", run=RUN)

    assert [message["type"] for message in finished(page)] == ["start", "exit"]


def test_204_is_the_end(page: Page) -> None:
    """An event stream without a terminal frame has ended, and was seen to its end."""
    page.route(
        f"**/run-sse/{RUN}",
        answers(
            stream("retry: 10\n" + frames({"type": "start", "run": RUN}, {"type": "tick"})),
            lambda route: route.fulfill(status=204),
        ),
    )
    follow(page, "/run-sse/", run=RUN)

    assert [message["type"] for message in finished(page)] == ["start", "tick"]
    assert page.evaluate("[run.state, run.outcome]") == ["over", None]


def test_a_stream_without_ids_is_never_asked_for_again(page: Page) -> None:
    """Its end would start the command once more."""
    asked: list[str] = []
    body = 'event: stdout\ndata: {"line":"one"}\n\n: gap dropped=17 bytes=2048\ndata: [DONE]\n\n'

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        stream(body)(route)

    page.route("**/run-sse/", answer)
    follow(page, "/run-sse/", method="GET")

    assert finished(page) == [
        {"type": "stdout", "line": "one"},
        {"type": "gap", "dropped": 17, "bytes": 2048},
        {"type": "message", "data": "[DONE]"},
    ]
    assert len(asked) == 1


def resuming(later: dict[str | None, str], asked: list[str | None]) -> Callable[[Route], None]:
    """A bridge that knows what follows each place, and says 204 behind the last."""

    def answer(route: Route) -> None:
        place = route.request.headers.get("last-event-id")
        asked.append(place)
        if place in later:
            stream(f"retry: 10\n\n{later[place]}")(route)
        else:
            route.fulfill(status=204)

    return answer


def test_a_run_that_ends_in_a_comment_is_over(page: Page) -> None:
    """`verbatim` numbers what has no data, too. The fault: the last frame was asked for again without end."""
    asked: list[str | None] = []
    later = {None: f"id: {RUN}.1\ndata: a\n\nid: {RUN}.2\n: bye\n\n", f"{RUN}.1": f"id: {RUN}.2\n: bye\n\n"}
    page.route(f"**/run-sse/{RUN}", resuming(later, asked))
    follow(page, "/run-sse/", run=RUN)

    assert finished(page) == [{"type": "message", "data": "a"}]
    assert asked == [None, f"{RUN}.2"]


def test_a_gap_is_told_once(page: Page) -> None:
    """The connection is lost behind it, before anything else has come."""
    gap = f"id: {RUN}.2\n: gap dropped=1 bytes=9\n\n"
    rest = f"id: {RUN}.3\ndata: b\n\n"
    later = {None: f"id: {RUN}.1\ndata: a\n\n{gap}", f"{RUN}.1": gap + rest, f"{RUN}.2": rest}
    page.route(f"**/run-sse/{RUN}", resuming(later, []))
    follow(page, "/run-sse/", run=RUN)

    assert [message["type"] for message in finished(page)] == ["message", "gap", "message"]


def test_the_ids_name_a_run_whose_headers_cannot_be_read(page: Page) -> None:
    """As from another origin. The fault: the end of a `verbatim` stream was answered with another start."""
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url.rpartition("/run-sse/")[2])
        if len(asked) == 1:
            stream("retry: 10\n\n" + frames({"type": "tick"}, first=1))(route)
        else:
            route.fulfill(status=204)

    page.route("**/run-sse/**", answer)
    follow(page, "/run-sse/", method="GET")

    assert [message["type"] for message in finished(page)] == ["tick"]
    assert asked == ["", RUN]


@pytest.mark.parametrize("first", [{"type": "start", "run": RUN}, {"type": "tick"}], ids=["typed", "verbatim"])
def test_a_start_of_the_upstreams_own_names_no_run(page: Page, first: dict[str, Any]) -> None:
    """The fault: the next request, and a press of Stop, went to a run of that name."""
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url.rpartition("/run-sse/")[2])
        if len(asked) == 1:
            stream("retry: 10\n\n" + frames(first, {"type": "start", "run": "other"}, first=1))(route)
        else:
            route.fulfill(status=204)

    page.route("**/run-sse/**", answer)
    follow(page, "/run-sse/", method="GET")

    assert [message["type"] for message in finished(page)] == [first["type"], "start"]
    assert page.evaluate("run.token") == RUN
    assert asked == ["", RUN]


@pytest.mark.parametrize("first", ["tick", "error", "start"])
def test_the_upstreams_own_words_end_no_run(page: Page, first: str) -> None:
    """In `verbatim`. The fault: what came behind an `error` was lost."""
    kinds = [first, "error", "tick", "exit"]
    words: list[dict[str, Any]] = [{"type": kind, "run": RUN} for kind in kinds]
    page.route(f"**/run-sse/{RUN}", resuming({None: frames(*words, first=1)}, []))
    follow(page, "/run-sse/", run=RUN)

    assert finished(page) == words
    assert page.evaluate("[run.state, run.outcome]") == ["over", None]


@pytest.mark.parametrize("id", ["", "cart.gone", "7"])
def test_no_start_of_another_run_is_the_bridges(page: Page, id: str) -> None:
    """In `verbatim` without ids of the bridge's, where an `error` ends nothing."""
    words = [{"type": "start", "run": "job-7"}, {"type": "error", "code": "x"}, {"type": "tick"}]
    line = f"id: {id}\n" if id else ""
    body = "".join(f"{line}data: {json.dumps(word)}\n\n" for word in words)
    page.route("**/run-sse/**", stream(body))
    follow(page, "/run-sse/", method="GET")

    assert finished(page) == words
    assert page.evaluate("run.token") is None


def test_a_verbatim_run_that_is_gone_is_over(page: Page) -> None:
    """The bridge says so in its own words. The page forgets the run."""
    gone = {"type": "error", "code": "run_unknown", "message": "This run is unknown here.", "status": 404}
    later = {None: f"id: {RUN}.1\ndata: a\n\n", f"{RUN}.1": f"id: {RUN}.gone\ndata: {json.dumps(gone)}\n\n"}
    page.route(f"**/run-sse/{RUN}", resuming(later, []))
    follow(page, "/run-sse/", run=RUN)

    assert finished(page)[-1] == gone
    assert page.evaluate("run.outcome") == gone


def test_a_server_that_stays_away_is_given_up(page: Page) -> None:
    """After `patience`."""
    page.route(
        f"**/run-sse/{RUN}",
        answers(stream("retry: 10\n" + frames({"type": "start", "run": RUN})), lambda route: route.abort()),
    )
    follow(page, "/run-sse/", run=RUN, patience=60)

    assert finished(page)[-1] == {"type": "error", "code": "unreachable", "message": "The server cannot be reached."}


@pytest.mark.parametrize("status", [502, 503])
def test_a_run_whose_server_only_fails_is_given_up_with_its_status(page: Page, status: int) -> None:
    """It can be reached. Until then, the page may show that status."""
    page.route(
        f"**/run-sse/{RUN}",
        answers(stream("retry: 10\n" + frames({"type": "start", "run": RUN})), failing(status)),
    )
    follow(page, "/run-sse/", run=RUN)
    page.wait_for_function("(status) => statuses.some((one) => one[2] === status)", arg=status)
    assert ["reconnecting", False, status] in page.evaluate("statuses")
    later(page, 301)
    page.evaluate(ASK_NOW)

    expected = {"type": "error", "code": "unreachable", "message": f"The server answered {status}."}
    assert finished(page)[-1] == expected
    assert page.evaluate("statuses.at(-1)") == ["over", False, None]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "GET"}, "The server is busy."),
        ({"run": RUN}, "The server answers, and sends nothing of this run."),
    ],
    ids=["start", "run"],
)
def test_streams_without_a_word_are_given_up(page: Page, options: dict[str, Any], words: str) -> None:
    """A busy bridge with `refusals="frame"`, and one whose store is away, send `retry:` alone."""
    page.route("**/run-sse/**", stream("retry: 10\n\n"))
    follow(page, "/run-sse/", patience=60, **options)

    assert finished(page) == [{"type": "error", "code": "unreachable", "message": words}]


def test_a_heartbeat_is_a_word_of_the_run(page: Page) -> None:
    """A script may be silent for hours behind a proxy that cuts each connection."""
    beats = [stream("retry: 30\n: heartbeat\n\n")] * 8
    said: list[dict[str, Any]] = [{"type": "start", "run": RUN}, {"type": "exit", "code": 0}]
    page.route(f"**/run-sse/{RUN}", answers(*beats, stream(frames(*said))))
    follow(page, "/run-sse/", run=RUN, patience=60)

    assert finished(page) == said


@pytest.mark.parametrize(
    ("comment", "gap"),
    [
        (" gap dropped=17 bytes=2048", {"type": "gap", "dropped": 17, "bytes": 2048}),
        (" gap dropped=17", {"type": "gap", "dropped": 17}),
        (" gap dropped=unknown", {"type": "gap", "dropped": None}),
        (" gap dropped=", None),
        (" heartbeat", None),
    ],
)
def test_a_comment_tells_of_a_gap(page: Page, comment: str, gap: dict[str, Any] | None) -> None:
    """In each of the forms that the bridge writes."""
    found = page.evaluate("(comment) => import('/modules/messages.js').then(({ gapOf }) => gapOf(comment))", comment)

    assert found == gap


def test_a_silent_connection_is_taken_for_lost(page: Page, site: Site) -> None:
    """Without heartbeats for `silence`, as after a change of networks. The place is kept."""
    script(site, "silent", Script(["one"], waits=True))
    follow(page, "/run-sse/?script=silent", silence=150)
    page.wait_for_function("() => run.reconnects > 0")
    page.evaluate("run.stop()")

    assert [message.get("code") for message in finished(page)] == [None, None, "cancelled"]


def test_a_page_that_the_browser_keeps_goes_on_where_it_was(page: Page, site: Site) -> None:
    """Leaving closes the connection; Back opens it again, behind the last message."""
    script(site, "kept", Script([f"line {n}" for n in range(40)], delay=0.02))
    follow(page, "/run-sse/?script=kept")
    page.wait_for_function("() => seen.length > 3")
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    page.wait_for_function("() => states.at(-1) === 'reconnecting'")
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")

    assert [message["line"] for message in finished(page)[1:-1]] == [f"line {n}" for n in range(40)]


# -- reload and link


@pytest.mark.parametrize("memory", ["inHash", "inSession"])
def test_a_reload_follows_the_run_and_starts_none(page: Page, site: Site, memory: str) -> None:
    """The page keeps the run's name where it wants to."""
    played = script(site, memory, Script(["one"], waits=True))
    follow(page, f"/run-sse/?script={memory}", memory=memory)
    page.wait_for_function("() => seen.length === 2")
    token = page.evaluate("run.token")
    assert (f"run={token}" in page.url) is (memory == "inHash")
    page.reload()
    follow(page, f"/run-sse/?script={memory}", memory=memory)
    page.wait_for_function("() => seen.length === 2")

    assert page.evaluate("run.token") == token
    assert played.starts == 1
    page.evaluate("run.stop()")
    finished(page)


def test_a_link_is_all_that_another_page_needs(page: Page, site: Site) -> None:
    """Other values behind the `#` are kept."""
    played = script(site, "shared", Script(["one"], waits=True))
    page.evaluate("location.hash = 'tab=2'")
    follow(page, "/run-sse/?script=shared", memory="inHash")
    page.wait_for_function("() => seen.length === 2")
    assert page.url.partition("#")[2].startswith("tab=2&run=")
    with page.context.new_page() as other:
        other.goto(page.url)
        follow(other, "/run-sse/?script=shared", memory="inHash")
        other.wait_for_function("() => seen.length === 2")
        assert other.evaluate("run.stop()") == "ended"
        finished(other)

    assert finished(page)[-1]["code"] == "cancelled"
    assert played.starts == 1


def test_a_run_that_is_unknown_is_told_and_forgotten(page: Page, site: Site) -> None:
    """The next page starts one."""
    page.evaluate(f"location.hash = 'run={RUN}'")
    follow(page, "/run-sse/?script=unknown", memory="inHash")

    assert finished(page)[-1]["code"] == "run_unknown"
    assert "#" not in page.url


# -- ending


def test_stop_ends_the_command(page: Page, site: Site) -> None:
    """`ended` once it is gone; the loop goes on to the run's last message."""
    played = script(site, "stopped", Script(["one"], waits=True))
    follow(page, "/run-sse/?script=stopped")
    page.wait_for_function("() => seen.length === 2")

    assert page.evaluate("run.stop()") == "ended"
    assert finished(page)[-1]["code"] == "cancelled"
    assert played.cancels == 1


def test_stop_waits_for_the_name_of_a_run_that_is_about_to_start(page: Page, site: Site) -> None:
    """It may be pressed before the server has answered."""
    played = script(site, "early", Script(["one"], waits=True))
    page.evaluate(
        """async () => {
            const { follow } = await import("/modules/sse-bridge.js");
            const run = follow("/run-sse/?script=early");
            window.codes = [];
            (async () => { for await (const { code } of run) codes.push(code); window.finished = true; })();
            window.stopped = run.stop();
        }"""
    )

    assert page.evaluate("stopped") == "ended"
    eventually(lambda: played.stops == played.starts == 1)


def test_stop_throws_where_a_start_was_given_up(page: Page) -> None:
    """The server may have started a command, and the page was never told the run's name."""
    page.route("**/run-sse/", failing(500))
    follow(page, "/run-sse/", key="")
    finished(page)
    thrown = page.evaluate("run.stop().then(() => null, (error) => error.message)")

    assert thrown == page.evaluate("run.outcome.message")


def test_stop_says_that_nothing_was_started_only_while_nothing_is_asked(page: Page) -> None:
    """A busy server has started nothing; the request that is on its way may."""
    held: list[Route] = []
    deleted: list[str] = []

    def delete(route: Route) -> None:
        deleted.append(route.request.method)
        route.fulfill(status=204)

    page.route("**/run-sse/", answers(busy(), hold(held)))
    page.route(f"**/run-sse/{RUN}", delete)
    follow(page, "/run-sse/")
    eventually(lambda: page.evaluate("run.isBusy") and len(held) == 1)
    page.evaluate("window.stopped = run.stop(), null")
    held[0].fulfill(status=201, json={"run": RUN, "href": f"/run-sse/{RUN}"})
    assert page.evaluate(STOPPED) == "ended"
    assert "DELETE" in deleted

    page.unroute("**/run-sse/")
    page.route("**/run-sse/", busy(60))
    follow(page, "/run-sse/")
    page.wait_for_function("() => run.isBusy")
    assert page.evaluate("run.stop()") == "never started"


def test_a_busy_server_is_not_asked_again_after_stop(page: Page) -> None:
    """It has started nothing, also where Stop was pressed before it said so."""
    held: list[Route] = []
    page.route("**/run-sse/", hold(held))
    follow(page, "/run-sse/")
    eventually(lambda: page.evaluate("run.state") == "starting" and len(held) == 1)
    page.evaluate("window.stopped = run.stop(), null")
    busy()(held[0])

    assert page.evaluate(STOPPED) == "never started"
    assert len(held) == 1


def test_stop_throws_where_a_start_was_lost_before_the_server_was_busy(page: Page) -> None:
    """Or before the server refused the second start. The first may have started a command."""
    page.route("**/run-sse/", answers(lost, busy(60)))
    stop = "run.stop().then(String, (error) => error.message)"
    follow(page, "/run-sse/")
    page.wait_for_function("() => run.state === 'waiting'")
    page.evaluate(ASK_NOW)
    page.wait_for_function("() => run.isBusy")
    page.evaluate(f"window.stopped = {stop}, null")
    later(page, 31)
    page.evaluate(ASK_NOW)
    assert "Whether a run was started is unknown." in page.evaluate(STOPPED)

    page.unroute("**/run-sse/")
    page.route("**/run-sse/", answers(lost, lambda route: route.fulfill(status=401)))
    follow(page, "/run-sse/")
    page.wait_for_function("() => run.state === 'waiting'")
    page.evaluate(ASK_NOW)
    assert finished(page)[-1]["status"] == 401
    assert page.evaluate(stop) == "Whether a run was started is unknown."


@pytest.mark.parametrize(("status", "outcome"), [(202, "requested"), (204, "ended"), (404, "unknown")])
def test_stop_says_how_far_it_got(page: Page, site: Site, status: int, outcome: str) -> None:
    """In a word."""
    script(site, "said", Script(["one"], waits=True))
    follow(page, "/run-sse/?script=said")
    page.wait_for_function("() => seen.length === 2")
    page.route("**/run-sse/*", lambda route: route.fulfill(status=status))
    assert page.evaluate("run.stop()") == outcome
    page.unroute("**/run-sse/*")
    page.evaluate("run.stop()")


def test_stop_throws_where_nothing_is_known(page: Page, site: Site) -> None:
    """The server refuses, or is gone, or shows its login."""
    script(site, "thrown", Script(["one"], waits=True))
    follow(page, "/run-sse/?script=thrown")
    page.wait_for_function("() => seen.length === 2")
    logins = stream("<h1>Log in</h1>")  # 200
    page.route("**/run-sse/*", answers(lambda route: route.fulfill(status=500), logins, lambda route: route.abort()))
    thrown = "run.stop().then(() => null, (error) => [error.name, error.status ?? null])"
    assert page.evaluate(thrown) == ["StopFailed", 500]
    assert page.evaluate(thrown) == ["StopFailed", 200]
    assert page.evaluate(thrown) == ["TypeError", None]
    page.unroute("**/run-sse/*")
    page.evaluate("run.stop()")


def test_leaving_the_loop_closes_the_connection(page: Page, site: Site) -> None:
    """And so does the signal. The run ends after the grace period, if no other page watches it."""
    script(site, "left", Script(["one", "two"], waits=True))
    for way in ("break", "abort"):
        with page.expect_event("requestfailed", predicate=lambda request: "/run-sse/" in request.url):
            state = page.evaluate(
                """async (way) => {
                    const { follow } = await import("/modules/sse-bridge.js");
                    const leaving = new AbortController();
                    const run = follow("/run-sse/?script=left", { signal: leaving.signal });
                    for await (const { type } of run) {
                      if (type !== "stdout") continue;
                      if (way === "break") break;
                      leaving.abort();
                    }
                    return run.state;
                }""",
                way,
            )
        assert state == "over"


def test_batches_bring_the_same_messages(page: Page, site: Site) -> None:
    """In groups, for pages that show thousands of lines a second."""
    script(site, "batches", Script([f"line {n}" for n in range(500)]))
    batches = page.evaluate(
        """async () => {
            const { follow } = await import("/modules/sse-bridge.js");
            const batches = [];
            for await (const batch of follow("/run-sse/?script=batches").batches()) batches.push(batch);
            return batches;
        }"""
    )

    messages = [message for batch in batches for message in batch]
    assert [message["line"] for message in messages if message["type"] == "stdout"] == [f"line {n}" for n in range(500)]
    assert max(map(len, batches)) > 1  # how many come together is the network's affair


@pytest.mark.slow
def test_a_burst_leaves_the_page_its_turns(page: Page, site: Site) -> None:
    """A page that takes a millisecond for each message has other work done every eight milliseconds."""
    script(site, "burst", Script([f"line {n}" for n in range(20_000)]))
    lines, longest = page.evaluate(
        """async () => {
            let now = performance.now();
            performance.now = () => now;
            const { follow } = await import("/modules/sse-bridge.js");
            let turn = 0;
            const other = new MessageChannel();
            other.port1.onmessage = () => { turn += 1; other.port2.postMessage(null); };
            other.port2.postMessage(null);
            let [lines, before, since, longest] = [0, turn, 0, 0];
            for await (const { type } of follow("/run-sse/?script=burst")) {
              if (type !== "stdout") continue;
              lines += 1;
              now += 1;
              if (turn !== before) [before, since] = [turn, 0];
              since += 1;
              longest = Math.max(longest, since);
            }
            other.port1.close();
            return [lines, longest];
        }"""
    )

    assert lines == 20_000
    assert longest <= 9
