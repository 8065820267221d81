"""The demo's page alone: what it says of Stop, what it shows of a terminal's text, and how it fits a phone.

The event streams are written here, so each state of the page is at hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, cast

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route

from sse_bridge.console.app import create_app
from tests.support.sandboxes import LocalSandbox
from tests.support.servers import Served, serve

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


def show(page: Page, *events: dict[str, Any], ending: dict[str, Any] | None = None) -> None:
    """Presses Run, and answers with a run of these events."""
    body = stream(*events, ending or {"type": "exit", "code": 0})
    page.route("**/run-sse?*", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.click("#run")
    page.wait_for_selector("#state[data-state=exit], #state[data-state=error]")
    page.evaluate("new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")


def texts(page: Page) -> list[str]:
    return page.locator("#output > [data-number]").all_text_contents()


def spans(page: Page) -> list[tuple[str, str]]:
    """The styled pieces of text, with their styles."""
    found = page.eval_on_selector_all(
        "#output span", "spans => spans.map(span => [span.textContent, span.getAttribute('style') ?? ''])"
    )
    return [cast(tuple[str, str], tuple(each)) for each in found]


# -- Stop says what is known


def going(page: Page) -> None:
    """Shows a run that goes on: its connection is answered once, and asked for again in an hour."""
    body = "retry: 3600000\n" + stream(output("one"))
    page.route("**/run-sse?*", lambda route: route.fulfill(content_type="text/event-stream", body=body))
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
    page.route(f"**/run-sse/{RUN}", respond)
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
    page.route(f"**/run-sse/{RUN}", lambda route: held.append(route))
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
    page.route(f"**/run-sse/{RUN}", lambda route: next(answers)(route))
    going(page)
    page.click("#stop")
    page.get_by_text("unknown").first.wait_for()
    page.click("#stop")
    page.get_by_text("The script has ended.").wait_for()


def test_an_answer_to_stop_is_for_its_own_run(page: Page) -> None:
    """Another run that is shown by then is left alone."""
    held = stopping(page)
    page.click("#run")
    page.wait_for_function("document.querySelectorAll('#output > div').length === 1")
    before = page.inner_text("#state")
    held[0].abort()
    page.evaluate("new Promise(resolve => setTimeout(resolve, 50))")

    assert page.inner_text("#state") == before


def test_stop_before_the_run_has_a_name_says_when_that_name_never_comes(page: Page) -> None:
    """The server is gone before it has answered."""
    held: list[Route] = []
    page.route("**/run-sse?*", lambda route: held.append(route))
    with page.expect_request("**/run-sse?*"):
        page.click("#run")
    page.click("#stop")
    assert "as soon as the server has named it" in page.inner_text("#message")
    held[0].abort()
    page.get_by_text("Whether a script was started is unknown.").wait_for()


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
        asked.append(route.request.url)
        body = (
            f"id: {RUN}.2\ndata: {json.dumps(output('two'))}\n\nid: {RUN}.3\ndata: {json.dumps({'type': 'exit'})}\n\n"
        )
        route.fulfill(content_type="text/event-stream", body=body)

    page.route(f"**/run-sse/{RUN}?*", rest)
    going(page)
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert page.inner_text("#state").split()[0] in ("running", "reconnecting")
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    page.get_by_text("two").wait_for()

    assert texts(page) == ["one", "two"]
    assert [url.partition("lastEventId=")[2] for url in asked] == [f"{RUN}.1"]


@pytest.mark.parametrize("is_left", [True, False])
def test_whether_a_connection_has_ended_is_decided_after_pagehide(page: Page, is_left: bool) -> None:
    """Firefox closes the stream of a page that is left before it says `pagehide`: that is not the run's end."""
    page.evaluate(
        """() => {
            window.EventSource = class { static CLOSED = 2; constructor() { window.made = this; } close() {} };
        }"""
    )
    page.click("#run")
    page.evaluate("made.onmessage({ lastEventId: 'x.0', data: JSON.stringify({ type: 'start', run: 'x' }) })")
    page.evaluate(
        """async (isLeft) => {
            made.readyState = 2;
            made.onerror();
            if (isLeft) window.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }));
            await new Promise(resolve => setTimeout(resolve, 400));
        }""",
        is_left,
    )

    assert page.inner_text("#state .badge") == ("running" if is_left else "over")


# -- text as a terminal shows it


#: A line as a script prints it, and as the page shows it.
TEXTS = [
    ("10%\r 20%\r100%", "100%"),
    ("Downloading 10%\rDone", "Doneloading 10%"),
    (f"Downloading 10%\r{ESC}[KDone", "Done"),
    (f"Downloading{ESC}[2K\rDone", "Done"),
    (f"abcdef{ESC}[3D{ESC}[1KX", "   Xef"),
    ("text\r", "text"),
    ("text\r\r", "text"),
    (f"text\r{ESC}[0m", "text"),
    ("abc\b\bX", "aXc"),
    (f"abc{ESC}[2DX{ESC}[5GY", "aXc Y"),
    (f"{ESC}]0;title\x07a{ESC}]8;;http://x{ESC}\\link{ESC}]8;;{ESC}\\", "alink"),
    (f"a{ESC}[?25lb{ESC}[1Ac{ESC}(Bd{ESC}=e\x07\x00f\x7f", "abcdef"),
    (f"a{ESC}Pq#0{ESC}\\b\u009b31mc{ESC}[m", "abc"),
    (f"cut{ESC}[31", "cut"),
    (f"cut{ESC}]0;never ends", "cut"),
    (f"cut{ESC}", "cut"),
    ("a\tb", "a\tb"),
    ("e\u0301\r\u00e8", "\u00e8"),
    ("\U0001f600\rx", "x"),
    ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
    ("&lt;b&gt;", "&lt;b&gt;"),
    (f"{ESC}[31m<script>alert(1)</script>{ESC}[m", "<script>alert(1)</script>"),
]


def test_text_is_shown_as_a_terminal_shows_it(page: Page) -> None:
    """Carriage returns overwrite, what prints nothing is left out, and HTML is text."""
    show(page, *[output(line) for line, _ in TEXTS])

    assert texts(page) == [shown for _, shown in TEXTS]
    assert page.locator("#output img, #output script, #output b").count() == 0


def test_a_line_in_pieces_looks_like_the_whole_line(page: Page) -> None:
    """However it is cut: in an escape sequence, at a carriage return, behind text that is overwritten."""
    line = f"ab{ESC}[1;31mcd{ESC}]0;t{ESC}\\{ESC}[0m\rX{ESC}[Ky"
    events = []
    for cut in range(1, len(line)):
        events += [output(line[:cut], partial=True), output("beside", stream="stderr"), output(line[cut:])]
    show(page, *events)

    assert texts(page) == ["Xy", "beside"] * (len(line) - 1)


def test_a_progress_bar_is_one_line_that_changes(page: Page) -> None:
    """Its pieces come as they are printed, most with a carriage return in front."""
    pieces = [output(f"\r{ESC}[32m{'#' * (number // 10)}{ESC}[m {number}%", partial=True) for number in range(101)]
    show(page, *pieces, output("\rdone"), output("next"))

    assert texts(page) == ["done###### 100%", "next"]
    assert page.inner_text("#lines") == "2"


#: A number that overflows to infinity.
HUGE = "9" * 400
#: What "select graphic rendition" is given, and the style that the text after it gets.
STYLES = [
    ("31", "color: var(--colour-1);"),
    ("97", "color: var(--colour-15);"),
    ("38;5;9", "color: var(--colour-9);"),
    ("38;5;208", "color: rgb(255, 135, 0);"),
    ("38;5;244", "color: rgb(128, 128, 128);"),
    ("38;2;1;2;3", "color: rgb(1, 2, 3);"),
    ("38:2::1:2:3", "color: rgb(1, 2, 3);"),
    ("38:5:208", "color: rgb(255, 135, 0);"),
    ("37;41", "background-color: rgb(205, 49, 49); color: rgb(229, 229, 229);"),
    ("48;5;231", "background-color: rgb(255, 255, 255); color: rgb(0, 0, 0);"),
    ("48;2;0;0;99", "background-color: rgb(0, 0, 99); color: rgb(255, 255, 255);"),
    ("1", "font-weight: 700;"),
    ("2", "opacity: 0.7;"),
    ("3", "font-style: italic;"),
    ("4", "text-decoration-line: underline;"),
    ("4:3", "text-decoration-line: underline;"),
    ("4;9", "text-decoration-line: underline line-through;"),
    ("7", "background-color: var(--ink); color: var(--pane);"),
    ("7;32", "background-color: rgb(11, 158, 102); color: var(--pane);"),
    ("31;58;2;1;2;3;1", "color: var(--colour-1); font-weight: 700;"),
    ("1;22;3;23;4;24;7;27;9;29;31;39;41;49", ""),
    ("31;0", ""),
    ("31;", ""),
    ("", ""),
    ("38;5", ""),
    ("38;2;1", ""),
    ("48;2;1;2", ""),
    ("38;9;1", None),
    ("38;2;300;0;1", "color: rgb(255, 0, 1);"),
    (f"48;2;{HUGE};{HUGE};{HUGE}", "background-color: rgb(255, 255, 255); color: rgb(0, 0, 0);"),
    (f"48:2::{HUGE}:0:0", "background-color: rgb(255, 0, 0); color: rgb(255, 255, 255);"),
    ("48;2;1000000000000000000000000;0;0", "background-color: rgb(255, 0, 0); color: rgb(255, 255, 255);"),
    (f"48;5;{HUGE}", ""),
    ("48;2;1:2;3;4", ""),
    (HUGE, ""),
    ("999", ""),
    (">4;2", ""),
    ("?4", ""),
]


def test_styles_are_shown(page: Page) -> None:
    """The sixteen colours, the 256, true colours, and what else "select graphic rendition" says.

    The kind of fault: a parameter that is no level of a colour raised, and the page drew no more.
    """
    lines = [f"plain{ESC}[{codes}m{number}{ESC}[0mplain" for number, (codes, _) in enumerate(STYLES)]
    show(page, *map(output, lines), output("plain"))

    assert texts(page) == [f"plain{number}plain" for number in range(len(STYLES))] + ["plain"]
    expected = {str(number): style for number, (_, style) in enumerate(STYLES) if style}
    unsaid = {str(number) for number, (_, style) in enumerate(STYLES) if style is None}
    assert {text: style for text, style in spans(page) if text not in unsaid} == expected


def test_a_style_goes_on_in_the_next_line_of_its_stream(page: Page) -> None:
    """Until it is reset. The other stream keeps its own."""
    show(page, output(f"{ESC}[32mone"), output("err", stream="stderr"), output(f"two{ESC}[m three"), output("four"))

    assert spans(page) == [("one", "color: var(--colour-2);"), ("two", "color: var(--colour-2);")]


def test_a_long_coloured_line_is_cut(page: Page) -> None:
    """As a plain one is, and without its escape sequences in the count."""
    show(page, output(f"{ESC}[31m" + "x" * 9_000), output("y" * 9_000))

    assert [len(text.partition("…")[0]) for text in texts(page)] == [8_000, 8_000]
    assert all(text.endswith("… (1,000 more characters)") for text in texts(page))


# -- counters, words, and the phone


def test_lines_and_bytes_of_text_are_counted(page: Page) -> None:
    """Frames hold more than text: ids, keys, escapes."""
    dropped = [output(f"line {number:05}") for number in range(1000)]
    frames = sum(len(f"id: {RUN}.{2}\ndata: {json.dumps(each, separators=(',', ':'))}\n\n") for each in dropped)
    gap = {"type": "gap", "dropped": 1000, "bytes": frames}
    show(page, output("grün"), gap, output("50%", partial=True), output(""), output("a\nb"))

    assert page.inner_text("#lines") == "4"
    assert page.inner_text("#text") == f"{len('grün 50% a b '.encode())} bytes"
    assert page.inner_text("#output .notice") == "1,000 lines left out here (about 11.0 kB of text)"
    assert page.locator(".figures dt").first.inner_text() == "Lines"


@pytest.mark.parametrize(
    ("policy", "slow", "waits"), [("Block", True, True), ("Block", False, False), ("Drop", True, False)]
)
def test_the_page_says_that_the_script_waits(page: Page, policy: str, slow: bool, waits: bool) -> None:
    """Under Block, a slow connection holds the script back."""
    page.get_by_label(policy).check()
    page.get_by_label("Slow").set_checked(slow)
    assert ("the script waits. 200,000 lines take over three minutes" in page.inner_text("#hint")) is waits
    body = "retry: 3600000\n" + stream(output("one"))
    page.route("**/run-sse?*", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.evaluate(
        """() => {
            window.said = [];
            new MutationObserver(() => said.push(document.getElementById('message').textContent))
                .observe(document.getElementById('state'), { childList: true, subtree: true, attributes: true });
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
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = true\">')")
    page.evaluate("new Promise(resolve => setTimeout(resolve, 50))")
    assert not page.evaluate("window.hacked")
    assert len(problems) == 2  # the image and its handler, refused
    problems.clear()


def test_a_gap_of_unknown_size_is_told_in_words(page: Page) -> None:
    """The connection to the platform was lost. It counts no lines, and the ones that follow keep their numbers."""
    show(page, output("one"), {"type": "gap", "dropped": None}, output("two"))

    assert texts(page) == ["one", "two"]
    assert "connection was lost here" in page.inner_text("#output")
    assert "null" not in page.inner_text("body")
    assert "NaN" not in page.inner_text("body")
