"""The demo's page alone: what it says of Stop, what it shows of a terminal's text, and how it fits a phone.

The event streams are written here, so each state of the page is at hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, cast

import httpx
import pytest
from playwright.sync_api import Browser, Error, Page, Route

from sse_bridge.console.app import create_app
from tests.support.sandboxes import LocalSandbox
from tests.support.servers import Served, serve
from tests.support.waiting import eventually

RUN = "A" * 16
ESC = "\x1b"


@pytest.fixture(scope="module")
def served(sandbox: LocalSandbox) -> Iterator[Served]:
    with serve(create_app(sandbox.miosa())) as served:
        yield served


@pytest.fixture
def page(page: Page, served: Served, problems: list[str]) -> Page:
    """The page, idle. A violation of its security policy is a problem."""
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    page.goto(served.url)
    return page


def output(line: str, *, stream: str = "stdout", partial: bool = False) -> dict[str, Any]:
    return {"type": stream, "line": line, **({"partial": True} if partial else {})}


def stream(*events: dict[str, Any]) -> str:
    """A run's frames."""
    numbered = enumerate([{"type": "start", "run": RUN}, *events])
    return "".join(f"id: {RUN}.{number}\ndata: {json.dumps(event)}\n\n" for number, event in numbered)


def frames_for(route: Route, body: str) -> None:
    """Answers a `GET`; `DELETE` is for another handler."""
    if route.request.method == "GET":
        route.fulfill(content_type="text/event-stream", body=body)
    else:
        route.fallback()


def answer_with(page: Page, body: str) -> None:
    """The next run has these frames."""
    page.route("**/run-sse?*", lambda route: route.fulfill(status=201, json={"run": RUN, "href": f"/run-sse/{RUN}"}))
    page.route(f"**/run-sse/{RUN}?*", lambda route: frames_for(route, body))


def show(page: Page, *events: dict[str, Any], ending: dict[str, Any] | None = None) -> None:
    """Presses Run, and answers with a run of these events."""
    answer_with(page, stream(*events, ending or {"type": "exit", "code": 0}))
    page.click("#run")
    page.wait_for_selector("#state[data-state=exit], #state[data-state=error]")
    page.evaluate("new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")


def texts(page: Page) -> list[str]:
    return page.locator("#output [data-number] .text").all_text_contents()


def spans(page: Page) -> list[tuple[str, str]]:
    """The styled pieces of text, with their styles."""
    found = page.eval_on_selector_all(
        "#output .text span", "spans => spans.map(span => [span.textContent, span.getAttribute('style') ?? ''])"
    )
    return [cast(tuple[str, str], tuple(each)) for each in found]


# -- Stop says what is known


def going(page: Page) -> None:
    """Shows a run that goes on: its connection is answered once, and asked for again in an hour."""
    answer_with(page, "retry: 3600000\n" + stream(output("one")))
    page.click("#run")
    page.get_by_text("one").wait_for()


def answer(status: int) -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=status)


@pytest.mark.parametrize(
    ("respond", "badge", "message"),
    [
        (lambda route: route.abort(), "unknown", "did not answer. Whether the script still runs is unknown"),
        (answer(500), "unknown", "refused (500). Whether the script still runs is unknown"),
        (answer(502), "unknown", "refused (502). Whether the script still runs is unknown"),
        (answer(202), "stopping", "was asked to end the script. Its end has not been seen yet"),
        (answer(204), "stopped", "The script has ended."),
        (answer(404), "over", "does not know this run"),
    ],
    ids=["no server", "500", "502", "202", "204", "404"],
)
def test_stop_says_what_is_known(page: Page, respond: Callable[[Route], None], badge: str, message: str) -> None:
    """The page claimed that the script has ended, whatever became of its request."""
    page.route(f"**/run-sse/{RUN}?*", respond)
    going(page)
    page.click("#stop")
    page.get_by_text(message).wait_for()

    assert page.inner_text("#state .badge") == badge
    assert ("has ended" in page.inner_text("#message")) is (badge == "stopped")
    assert page.is_enabled("#stop") is (badge == "unknown")
    assert page.is_enabled("#run")


def stopping(page: Page) -> list[Route]:
    """A run that was just asked to stop. Returns the request, whose answer the test holds back."""
    held: list[Route] = []
    page.route(f"**/run-sse/{RUN}?*", lambda route: held.append(route))
    going(page)
    with page.expect_request(lambda request: request.method == "DELETE"):
        page.click("#stop")
    return held


def test_stop_claims_nothing_while_it_waits_for_the_answer(page: Page) -> None:
    """The server may take seconds."""
    held = stopping(page)

    assert page.inner_text("#message") == "Asking the server to end the script."
    held[0].fulfill(status=204)
    page.get_by_text("The script has ended.").wait_for()


def test_stop_can_be_pressed_again_when_the_server_is_back(page: Page) -> None:
    """What was unknown is known then."""
    answers = iter([lambda route: route.abort(), answer(204)])
    page.route(f"**/run-sse/{RUN}?*", lambda route: next(answers)(route))
    going(page)
    page.click("#stop")
    page.get_by_text("unknown").first.wait_for()
    page.click("#stop")
    page.get_by_text("The script has ended.").wait_for()


def test_an_answer_to_stop_is_for_its_own_run(page: Page) -> None:
    """Another run that is shown by then is left alone."""
    held = stopping(page)
    page.click("#run")
    page.get_by_text("one").wait_for()
    before = page.inner_text("#state")
    held[0].abort()
    page.evaluate("new Promise(resolve => setTimeout(resolve, 50))")

    assert page.inner_text("#state") == before


def test_stop_before_the_run_has_a_name_ends_it_once_it_has_one(page: Page) -> None:
    """Even if the first answer was lost: the start is repeated with its key, which starts nothing a second time."""
    held: list[Route] = []
    page.route("**/run-sse?*", lambda route: held.append(route))
    page.route(f"**/run-sse/{RUN}?*", answer(204))
    with page.expect_request("**/run-sse?*"):
        page.click("#run")
    page.click("#stop")
    assert "as soon as the server has named it" in page.inner_text("#message")
    with page.expect_event("request", lambda request: request.method == "POST"):
        held[0].abort()
    eventually(lambda: len(held) == 2 or page.evaluate("0"))  # which lets Playwright handle the request
    held[1].fulfill(status=201, json={"run": RUN, "href": f"/run-sse/{RUN}"})
    page.get_by_text("The script has ended.").wait_for()

    keys = {route.request.headers["idempotency-key"] for route in held}
    assert len(held) == 2
    assert len(keys) == 1


# -- the run stays in the address


def test_back_leads_to_the_run(page: Page, served: Served) -> None:
    """While it goes on, and after its exit, although the browser kept nothing of the page."""
    page.click("#run")
    page.get_by_text("Batch 1/10").wait_for()
    address = page.url
    assert "#run=" in address
    page.goto("about:blank")
    page.go_back()
    page.get_by_text("Starting data pipeline...").wait_for()
    assert page.inner_text("#state .badge") == "watching"
    run = address.partition("#run=")[2].partition("&")[0]
    httpx.delete(f"{served.url}/run-sse/{run}")
    page.get_by_text("The script was stopped on request.").wait_for()
    page.goto("about:blank")
    page.go_back()
    page.get_by_text("The script was stopped on request.").wait_for()

    assert texts(page)[0] == "Starting data pipeline..."
    assert page.url == address


def test_a_page_that_the_browser_kept_goes_on_where_it_was(page: Page) -> None:
    """Leaving closes the connection and says nothing; coming back asks for what came after the last event."""
    asked: list[str] = []

    def rest(route: Route) -> None:
        asked.append(route.request.headers["last-event-id"])
        body = (
            f"id: {RUN}.2\ndata: {json.dumps(output('two'))}\n\nid: {RUN}.3\ndata: {json.dumps({'type': 'exit'})}\n\n"
        )
        route.fulfill(content_type="text/event-stream", body=body)

    going(page)
    page.route(f"**/run-sse/{RUN}?*", rest)
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert page.inner_text("#state").split()[0] in ("running", "reconnecting")
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    page.get_by_text("two").wait_for()

    assert texts(page) == ["one", "two"]
    assert asked == [f"{RUN}.1"]


# -- counters, words, and the phone


def test_lines_are_counted_and_a_gap_says_how_much_text_is_missing(page: Page) -> None:
    """Frames hold more than text: ids, keys, escapes."""
    dropped = [output(f"line {number:05}") for number in range(1000)]
    frames = sum(len(f"id: {RUN}.{2}\ndata: {json.dumps(each, separators=(',', ':'))}\n\n") for each in dropped)
    gap = {"type": "gap", "dropped": 1000, "bytes": frames}
    show(page, output("grün"), gap, output("50%", partial=True), output(""), output("a\nb"))

    assert page.inner_text("#lines") == "4"
    assert page.inner_text("#output .notice .text") == "1,000 lines left out here (about 11.0 kB of text)"
    assert page.locator(".figures dt").first.inner_text() == "Lines"


@pytest.mark.parametrize(
    ("policy", "slow", "waits"), [("Block", True, True), ("Block", False, False), ("Drop", True, False)]
)
def test_the_page_says_that_the_script_waits(page: Page, policy: str, slow: bool, waits: bool) -> None:
    """Under Block, a slow connection holds the script back."""
    page.get_by_label(policy).check()
    page.get_by_label("Slow").set_checked(slow)
    assert ("the script waits. 200,000 lines take over three minutes" in page.inner_text("#hint")) is waits
    answer_with(page, "retry: 3600000\n" + stream(output("one")))
    page.locator("#run").wait_for()
    page.evaluate(
        """() => {
            window.said = [];
            const root = document.querySelector('sse-console').shadowRoot;
            new MutationObserver(() => said.push(root.getElementById('message').textContent))
                .observe(root.getElementById('state'), { childList: true, subtree: true, attributes: true });
        }"""
    )
    page.click("#run")
    page.get_by_text("one").wait_for()

    assert ("The script waits for this page." in page.evaluate("said")) is waits


@pytest.fixture
def phone(browser: Browser, served: Served) -> Iterator[Page]:
    """The page on a phone, idle."""
    with browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True) as context:
        opened = context.new_page()
        opened.goto(served.url)
        yield opened


def test_on_a_phone_the_output_is_in_sight_while_a_run_is_shown(phone: Page) -> None:
    """The settings fold away, and say in a line what was chosen. They can be opened and closed."""
    assert phone.get_by_label("Script").is_visible()
    show(phone, *[output(f"line {number}") for number in range(100)])
    box = phone.locator("#output").bounding_box()
    assert box is not None
    assert not phone.get_by_label("Script").is_visible()
    assert phone.inner_text("#chosen") == "Data pipeline, ten seconds · block"
    assert box["y"] < 844 / 3
    assert box["y"] + box["height"] <= 844
    assert phone.get_by_text("line 99").is_visible()
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    phone.locator("summary").tap()
    assert phone.get_by_label("Script").is_visible()
    phone.set_viewport_size({"width": 844, "height": 390})
    assert phone.get_by_label("Script").is_visible()


def test_on_a_wide_screen_the_settings_stay(page: Page) -> None:
    """There is room for them, and no need for a summary."""
    show(page, output("one"))
    assert page.get_by_label("Script").is_visible()
    assert not page.locator("summary").is_visible()


def test_the_page_allows_only_its_own_script(page: Page, served: Served, problems: list[str]) -> None:
    """Whatever a script prints, the browser runs nothing of it and sends nothing elsewhere."""
    policy = httpx.get(served.url).headers["content-security-policy"]

    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    with pytest.raises(Error, match="TrustedHTML"):
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<b>')")
    page.evaluate("document.body.append(Object.assign(new Image(), { src: '/x' }))")
    page.evaluate("new Promise(resolve => setTimeout(resolve, 50))")
    assert [problem.partition("'")[0] for problem in problems] == ["Loading the image "]
    problems.clear()


def test_a_gap_of_unknown_size_is_told_in_words(page: Page) -> None:
    """The connection to the platform was lost. It counts no lines, and the ones that follow keep their numbers."""
    show(page, output("one"), {"type": "gap", "dropped": None}, output("two"))

    assert texts(page) == ["one", "two"]
    assert "connection was lost here" in page.inner_text("#output")
    assert "null" not in page.inner_text("body")
    assert "NaN" not in page.inner_text("body")
