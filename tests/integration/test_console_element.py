"""`<sse-console>` in use: search, tools, keyboard, screen readers, attributes, and its place in a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, Route

from sse_bridge.testing import Script
from tests.support.accessibility import violations
from tests.support.consoles import Shown, drawn, in_sight, showing, write
from tests.support.modules import ASK_NOW, Scripts, later, scripts_site
from tests.support.servers import Served
from tests.support.waiting import eventually

ESC: Final = "\x1b"
Site = tuple[Served, Scripts]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with scripts_site(max_runs=50, keep=30, retry_ms=20) as made:
        yield made


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1000, "height": 600}, accept_downloads=True) as context:
        yield context.new_page()


@pytest.fixture
def shown(tab: Page, site: Site, problems: list[str]) -> Iterator[Shown]:
    with showing(tab, site[0].url, problems) as show:
        yield show


def height_of_the_row(page: Page) -> float:
    box = page.locator("#output .row").bounding_box()
    assert box is not None
    return box["height"]


# -- search


def test_search_finds_all_lines_and_walks_through_them(shown: Shown) -> None:
    """By keyboard alone, in upper or lower case, around both ends; lines that come are found, too."""
    page = shown()
    write(page, 3_000)
    page.evaluate(f"shown.write({{ type: 'stderr', line: 'LI{ESC}[31mNE 1000 again' }})")
    page.locator("#output").focus()
    page.keyboard.press("Control+f")
    page.keyboard.type("line 100")
    page.get_by_text("12 lines").wait_for()  # 100, 1000 to 1009, and again
    page.keyboard.press("Enter")
    page.get_by_text("12 of 12 lines").wait_for()
    page.keyboard.press("Enter")
    page.get_by_text("1 of 12 lines").wait_for()
    drawn(page)
    assert page.locator("#output .current .text").inner_text() == "line 100"
    assert page.locator("#output .current mark").inner_text() == "line 100"
    page.keyboard.press("Shift+Enter")
    drawn(page)
    assert page.locator("#output .current mark").all_inner_texts() == ["LI", "NE 100"]
    write(page, 1, "a line 1000, and line 1001")
    page.get_by_text("12 of 13 lines").wait_for()
    page.keyboard.press("Escape")
    drawn(page)

    assert page.locator("#output mark").count() == 0
    assert not page.locator("#search").is_visible()
    assert page.locator("#output").evaluate("(output) => output.getRootNode().activeElement === output")


def test_search_begins_at_what_is_in_sight(shown: Shown) -> None:
    """Also in the moment in which the matches are found, and not marked yet."""
    page = shown()
    write(page, 100)
    page.keyboard.press("Control+f")
    top = in_sight(page)[0]
    page.locator("#query").evaluate(
        """(query) => {
            query.value = "line";
            query.dispatchEvent(new InputEvent("input"));
            query.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
        }"""
    )
    place = page.locator("#count").inner_text()

    assert int(place.split()[0]) in {top - 1, top}, place  # the row above may be in sight in part
    assert place.endswith(" of 100 lines")


@pytest.mark.parametrize("query", ["no such text", "[", "(.*)", "\\"])
def test_search_takes_a_query_as_it_is(shown: Shown, query: str) -> None:
    """No character has a meaning of its own."""
    page = shown()
    write(page, 10)
    page.click("#find")
    page.keyboard.type(query)
    page.get_by_text("No match").wait_for()
    write(page, 1, f"with {query} in it")
    page.get_by_text("1 line", exact=True).wait_for()


# -- tools


def test_all_lines_can_be_copied_and_downloaded_as_they_are_shown(shown: Shown, site: Site) -> None:
    """Without escape sequences; gaps are told."""
    page = shown()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site[0].url)
    for event in (
        {"type": "stdout", "line": f"{ESC}[31mred{ESC}[0m"},
        {"type": "gap", "dropped": 2},
        {"type": "stderr", "line": "10%\r100%"},
    ):
        page.evaluate("(event) => shown.write(event)", event)
    drawn(page)
    expected = "red\n2 lines left out here\n100%\n"
    page.click("#copy")
    page.wait_for_function("() => navigator.clipboard.readText().then((text) => text.length > 0)")
    with page.expect_download() as downloading:
        page.click("#download")

    assert page.evaluate("navigator.clipboard.readText()") == expected
    assert downloading.value.suggested_filename == "run-output.txt"
    assert Path(downloading.value.path()).read_text() == expected


def test_times_and_wrapping_are_switched(shown: Shown) -> None:
    """The buttons say so, and so do the attributes."""
    page = shown()
    write(page, 1, "word " * 300)
    assert height_of_the_row(page) == 20
    page.click("#wrap")
    drawn(page)
    assert height_of_the_row(page) >= 60
    assert page.get_attribute("#wrap", "aria-pressed") == "true"
    page.click("#times")
    shown_time = page.locator("#output .row").evaluate("(row) => getComputedStyle(row, '::after').content")
    assert len(shown_time.strip('"').split(":")) == 3
    page.evaluate("shown.removeAttribute('timestamps')")

    assert page.get_attribute("#times", "aria-pressed") == "false"


# -- runs


@pytest.mark.parametrize(
    ("attributes", "is_there"),
    [({}, False), ({"src": "/run-sse/"}, True), ({"src": "/run-sse/", "controls": "stop"}, False)],
)
def test_the_run_button_needs_a_bridge_and_can_be_left_out(
    shown: Shown, attributes: dict[str, str], is_there: bool
) -> None:
    """The empty pane speaks of the button only where there is one."""
    page = shown(**attributes)
    drawn(page)

    assert page.locator("#run").is_visible() is is_there
    assert page.locator("#stop").is_visible()
    assert page.inner_text("#empty") == ("Press Run to start." if is_there else "No output yet.")


def test_the_run_button_comes_and_goes_with_the_attributes(shown: Shown) -> None:
    page = shown()
    seen = []
    for change in (
        "setAttribute('src', '/run-sse/')",
        "setAttribute('controls', 'stop')",
        "removeAttribute('controls')",
        "removeAttribute('src')",
    ):
        page.evaluate(f"shown.{change}")
        drawn(page)
        seen.append((page.locator("#run").is_visible(), page.inner_text("#empty")))

    assert seen == [(is_there, "Press Run to start." if is_there else "No output yet.") for is_there in (1, 0, 1, 0)]


def test_the_buttons_are_right_after_a_move(shown: Shown, site: Site) -> None:
    """Also for attributes that count once the element is in its place, such as `memory` for the link to the run."""
    site[1].by_name["buttons"] = Script(["one"], waits=True)
    page = shown(src="/run-sse/?script=buttons", autostart="")
    page.locator(".row").get_by_text("one").wait_for()
    assert not page.locator("#share").is_visible()
    page.evaluate("shown.setAttribute('memory', 'hash'); document.body.append(shown)")

    assert page.locator("#share").is_visible()


def test_run_stop_and_a_reload_by_the_address(shown: Shown, site: Site) -> None:
    """With `memory="hash"`. The page hears of it, too."""
    played = site[1].by_name["console"] = Script(["one", ("stderr", "two")], waits=True)
    page = shown(src="/run-sse/?script=console", memory="hash")
    page.evaluate("shown.addEventListener('statechange', () => (window.states ??= []).push(shown.state))")
    page.click("#run")
    page.get_by_text("two").wait_for()
    assert page.inner_text("#badge") == "running"
    fragment = "#" + page.url.partition("#")[2]
    assert fragment.startswith("#run=")
    assert page.evaluate("states[0]") == "starting"
    page = shown(fragment, src="/run-sse/?script=console", memory="hash")
    page.get_by_text("two").wait_for()
    assert page.inner_text("#badge") == "watching"
    page.click("#stop")
    page.get_by_text("The script has ended.").wait_for()

    assert played.starts == 1
    eventually(lambda: played.stops == 1)


def test_a_console_that_leaves_the_page_closes_its_connection(shown: Shown, site: Site) -> None:
    """One that is moved keeps it."""
    site[1].by_name["moved"] = Script(["one"], waits=True)
    page = shown(src="/run-sse/?script=moved", autostart="")
    page.locator(".row").get_by_text("one").wait_for()
    page.evaluate("document.body.appendChild(document.createElement('div')).append(shown)")
    assert page.evaluate("shown.state") == "running"
    page.evaluate("(async () => { window.left = shown.run; shown.remove(); await null; await null; })()")

    assert page.evaluate("left.state") == "over"
    page.evaluate("left.stop()")


def test_an_exit_code_is_told_in_words_and_in_colour(shown: Shown, site: Site) -> None:
    """0 is good, others are not."""
    for code in (0, 3):
        site[1].by_name["exits"] = Script(["one"], exit=code)
        page = shown(src="/run-sse/?script=exits", autostart="", method="get")
        page.get_by_text(f"exit code {code}").wait_for()
        assert page.get_attribute("#state", "data-code") == str(code)
        assert page.is_enabled("#run")


def test_a_server_that_fails_is_told_from_one_that_is_gone(shown: Shown) -> None:
    """The application's bug is not the network's, and the end says where to look."""
    page = shown(src="/run-sse/")
    gone = lambda route: route.abort()  # noqa: E731
    fails = lambda route: route.fulfill(status=500, body="Internal Server Error", content_type="text/plain")  # noqa: E731
    page.route("**/run-sse/", fails)
    page.click("#run")
    page.get_by_text("The server answered 500. Trying again.").wait_for()
    assert page.inner_text("#badge") == "waiting"
    page.unroute("**/run-sse/")
    page.route("**/run-sse/", gone)
    page.evaluate(ASK_NOW)
    page.get_by_text("The server cannot be reached. Trying again.").wait_for()
    page.unroute("**/run-sse/")
    page.route("**/run-sse/", fails)
    page.evaluate(ASK_NOW)
    page.get_by_text("The server answered 500. Trying again.").wait_for()
    later(page, 31)
    page.evaluate(ASK_NOW)
    page.locator("#state[data-state=error]").wait_for()

    assert page.inner_text("#message") == (
        "unknown: The server answered 500. Whether a run was started is unknown. See the server's log."
    )
    assert page.is_enabled("#run")


def test_stop_does_not_claim_that_a_failed_start_started_nothing(shown: Shown) -> None:
    """It waits for the run's name, and there is none."""
    page = shown(src="/run-sse/")
    page.route("**/run-sse/", lambda route: route.fulfill(status=500))
    page.click("#run")
    page.get_by_text("The server answered 500. Trying again.").wait_for()
    page.click("#stop")
    page.get_by_text("as soon as the server has named it").wait_for()
    later(page, 31)
    page.evaluate(ASK_NOW)
    page.get_by_text("Whether a run was started is unknown.").wait_for()
    drawn(page)

    assert "The server answered 500. Whether a run was started is unknown." in page.inner_text("#message")
    assert page.is_disabled("#stop")
    assert page.is_enabled("#run")


def stopped_while_lost(shown: Shown, page: Page, **back: Any) -> Route:
    """Presses Stop while a proxy finds no server. Then the run's stream is answered with `back`.

    Returns:
        The request of Stop, which is still to be answered.
    """
    held: list[Route] = []

    def answer(route: Route) -> None:
        if route.request.method == "DELETE":
            held.append(route)
        else:
            route.fulfill(**(back if held else {"status": 502}))

    page.route("**/run-sse/*", answer)
    shown("#run=" + "A" * 16, src="/run-sse/", memory="hash")
    page.get_by_text("The server answered 502.").wait_for()
    page.click("#stop")
    eventually(lambda: page.evaluate("shown.state") == "reconnecting" and len(held) == 1)
    page.evaluate(ASK_NOW)
    return held[0]


def test_stop_says_how_to_go_on_only_where_that_is_possible(shown: Shown) -> None:
    """A run whose stream has ended without a last message cannot be stopped again."""
    page = shown()
    asked = stopped_while_lost(shown, page, status=204)
    page.wait_for_function("() => shown.state === 'over'")
    asked.fulfill(status=500)
    page.get_by_text("The server refused (500).").wait_for()

    assert page.inner_text("#message") == "The server refused (500). Whether the script still runs is unknown."
    assert page.is_disabled("#stop")


@pytest.mark.parametrize("status", [202, 204, 404])
def test_an_exit_says_more_than_the_answer_to_stop(shown: Shown, status: int) -> None:
    """The script ended by itself, before the server could end it."""
    page = shown()
    frames = 'data: {"type":"start","run":"AAAAAAAAAAAAAAAA"}\n\ndata: {"type":"exit","code":3}\n\n'
    asked = stopped_while_lost(shown, page, content_type="text/event-stream", body=frames)
    page.get_by_text("exit code 3").wait_for()
    page.evaluate(
        """() => {
            window.told = [];
            const badge = shown.shadowRoot.getElementById("badge");
            new MutationObserver(() => told.push(badge.textContent)).observe(badge, { childList: true });
        }"""
    )
    asked.fulfill(status=status)
    page.wait_for_function("() => told.length > 0")

    assert page.inner_text("#badge") == "exit code 3"
    assert page.is_disabled("#stop")


def test_a_run_that_is_lost_says_what_the_server_answers(shown: Shown) -> None:
    """While the server restarts, its proxy answers."""
    page = shown()
    page.route("**/run-sse/*", lambda route: route.abort())
    shown("#run=" + "A" * 16, src="/run-sse/", memory="hash")
    page.get_by_text("Connection lost.").wait_for()
    page.unroute("**/run-sse/*")
    page.route("**/run-sse/*", lambda route: route.fulfill(status=502))
    page.evaluate(ASK_NOW)
    page.get_by_text("The server answered 502. Trying again.").wait_for()

    assert page.inner_text("#badge") == "reconnecting"
    page.evaluate("shown.run.close()")


def test_messages_that_are_no_lines_are_the_pages(shown: Shown, site: Site) -> None:
    """Such as events of the upstream's own."""
    site[1].by_name["events"] = Script(["one"])
    page = shown(src="/run-sse/?script=events")
    page.evaluate("shown.addEventListener('message', ({ detail }) => (window.told ??= []).push(detail.type))")
    page.click("#run")
    page.get_by_text("exit code 0").wait_for()

    assert page.evaluate("told") == ["start", "exit"]


# -- for everybody


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 390])
def test_axe_finds_nothing(shown: Shown, theme: Any, width: int) -> None:
    """With all 256 colours, stderr, a gap, a search and its matches. Best practices included."""
    page = shown(src="/run-sse/?script=none")
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    page.evaluate("(ground) => { document.body.style.background = ground; }", "#111" if theme == "dark" else "#fff")
    for colour in range(16):
        line = f"plain {ESC}[38;5;{colour}mcolour {colour}{ESC}[0m {ESC}[2mdim{ESC}[0m {ESC}[7minverse{ESC}[0m"
        page.evaluate("(line) => shown.write({ type: 'stdout', line })", line)
    for first in range(16, 256, 16):
        line = " ".join(f"{ESC}[38;5;{colour}m{colour}" for colour in range(first, first + 16))
        page.evaluate("(line) => shown.write({ type: 'stderr', line })", line)
    page.evaluate("shown.write({ type: 'gap', dropped: 12 })")
    page.click("#times")
    page.click("#find")
    page.keyboard.type("colour")
    page.keyboard.press("Enter")
    drawn(page)
    found = violations(page, "sse-console")
    page.set_viewport_size({"width": 1000, "height": 600})
    page.emulate_media(color_scheme="light")

    assert found == []


def test_all_controls_are_reached_by_keyboard_in_order(shown: Shown) -> None:
    """Each shows its focus, and has a name."""
    page = shown(src="/run-sse/?script=none")
    write(page, 3)
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                """() => {
                    const { activeElement } = document.activeElement.shadowRoot;
                    return [activeElement.id, activeElement.ariaLabel ?? activeElement.textContent];
                }"""
            )
        )

    assert reached == [
        ["run", "Run"],
        ["find", "Find"],
        ["wrap", "Wrap long lines"],
        ["times", "Times of arrival"],
        ["copy", "Copy all lines"],
        ["download", "Download all lines"],
        ["output", "Output"],
    ]


@pytest.mark.slow
def test_new_lines_are_read_out_a_few_at_a_time(shown: Shown) -> None:
    """A screen reader is told the number, and the last line; the log itself is silent, since its rows come and go."""
    page = shown(label="Build")
    assert page.get_attribute("#output", "aria-live") == "off"
    assert page.get_by_role("log", name="Build").count() == 1
    write(page, 500)
    page.wait_for_function("() => shown.shadowRoot.getElementById('announcer').textContent !== ''")

    assert page.inner_text("#announcer") == "500 new lines. line 500"


def test_on_a_touch_screen_buttons_are_large(browser: Browser, site: Site) -> None:
    """44 pixels at least, and lines are wrapped at first."""
    with browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True) as context:
        page = context.new_page()
        page.goto(site[0].url)
        page.evaluate(
            """async () => {
                await import("/modules/sse-console.js");
                const shown = document.createElement("sse-console");
                shown.setAttribute("src", "/run-sse/");
                document.body.append(shown);
            }"""
        )
        for button in page.locator("button:visible").all():
            box = button.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) > 43.99
        assert page.get_attribute("#wrap", "aria-pressed") == "true"
        assert page.inner_text("#elapsed") == "0.0 s"  # there is no room for its name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_theme_and_its_colours_are_the_pages_choice(shown: Shown) -> None:
    """By attribute, and by custom properties."""
    page = shown(theme="dark")
    ground = "(shown) => getComputedStyle(shown.shadowRoot.querySelector('.pane')).backgroundColor"
    assert page.locator("sse-console").evaluate(ground) == "rgb(12, 13, 15)"
    page.evaluate("shown.style.setProperty('--sse-pane', 'rgb(1, 2, 3)')")

    assert page.locator("sse-console").evaluate(ground) == "rgb(1, 2, 3)"
