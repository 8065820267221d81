"""The pane of `<sse-console>`: which rows it holds, where they stand, and what moves them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.consoles import Shown, drawn, in_sight, showing, write
from tests.support.modules import scripts_site


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with scripts_site() as (served, _):
        yield served.url


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1000, "height": 600}) as context:
        yield context.new_page()


@pytest.fixture
def shown(tab: Page, url: str, problems: list[str]) -> Iterator[Shown]:
    tab.set_viewport_size({"width": 1000, "height": 600})
    with showing(tab, url, problems) as show:
        yield show


def scroll_to(page: Page, top: int) -> None:
    """As the scroll bar does."""
    page.locator("#output").evaluate("(output, top) => { output.scrollTop = top; }", top)
    drawn(page)


def size_of(page: Page, name: str) -> int:
    found: int = page.locator("#output").evaluate("(output, name) => output[name]", name)
    return found


def find(page: Page, query: str, count: str) -> None:
    """Goes to the first match."""
    page.click("#find")
    page.keyboard.type(query)
    page.get_by_text(count, exact=True).wait_for()
    page.keyboard.press("Enter")
    drawn(page)


# -- many lines, and the end


@pytest.mark.parametrize("count", [0, 1, 15, 400, pytest.param(200_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("wraps", [False, True])
def test_the_end_is_in_sight_and_the_rows_are_few(shown: Shown, count: int, wraps: bool) -> None:
    """However many lines there are, the pane holds those that fit, and some more."""
    page = shown(**({"wrap": ""} if wraps else {}))
    write(page, count)

    assert page.locator("#output .row").count() <= min(count, 60)
    numbers = in_sight(page)
    assert numbers == list(range(count + 1 - len(numbers), count + 1))
    assert len(numbers) >= min(count, 15)


@pytest.mark.slow
@pytest.mark.parametrize("wraps", [False, True])
def test_each_line_can_be_scrolled_to(shown: Shown, wraps: bool) -> None:
    """From the first to the last, none is left out and none jumps, where lines are of any height."""
    page = shown(**({"wrap": ""} if wraps else {}))
    page.evaluate(
        "for (let n = 1; n <= 300; n += 1) shown.write({ type: 'stdout', line: n + ' x'.repeat((n * 37) % 400) })"
    )
    drawn(page)
    scroll_to(page, 0)
    seen = set(in_sight(page))
    assert 1 in seen
    is_at_end = False
    while not is_at_end:
        is_at_end = page.locator("#output").evaluate(
            "(output) => (output.scrollTop += 150) + output.clientHeight > output.scrollHeight + 100"
        )
        drawn(page)
        seen |= set(in_sight(page))

    assert seen == set(range(1, 301))


def test_scrolling_up_stops_following_and_the_end_takes_it_up_again(shown: Shown) -> None:
    """Lines that come meanwhile move nothing; the button says how many there are."""
    page = shown()
    write(page, 500)
    page.locator("#output").hover()
    page.mouse.wheel(0, -400)
    page.locator("#end").wait_for()
    page.evaluate("new Promise(resolve => setTimeout(resolve, 300))")  # the smooth scroll
    before = in_sight(page)
    assert before[-1] < 500
    write(page, 5_000)
    assert in_sight(page) == before
    more = f"{5_500 - before[-1]:,}"
    assert page.inner_text("#end-words") in (f"Jump to end ({more} more)", f"Jump to end ({5_499 - before[-1]:,} more)")
    page.click("#end")
    drawn(page)
    assert in_sight(page)[-1] == 5_500
    assert not page.locator("#end").is_visible()
    write(page, 10)

    assert in_sight(page)[-1] == 5_510


@pytest.mark.slow
def test_wrapped_lines_stay_in_place_while_others_come(shown: Shown) -> None:
    """The row at the top of the pane stays there."""
    page = shown(wrap="")
    write(page, 400, "word " * 60)
    page.locator("#output").focus()
    page.keyboard.press("PageUp")
    page.keyboard.press("PageUp")
    page.evaluate("new Promise(resolve => setTimeout(resolve, 500))")
    before = in_sight(page)
    write(page, 2_000, "word")

    assert in_sight(page) == before


def test_only_so_many_lines_are_kept(shown: Shown) -> None:
    """The oldest go in blocks, and are counted."""
    page = shown(**{"max-lines": "5000"})
    write(page, 20_000)

    kept = page.evaluate("shown.text").splitlines()
    assert 3_900 < len(kept) <= 5_000
    assert kept[-1] == "line 20000"
    assert page.inner_text("#earlier") == f"{20_000 - len(kept):,} earlier lines not kept"
    assert page.evaluate("shown.lines") == {"received": 20_000, "missing": 0}


def test_lines_that_are_let_go_make_place_for_the_oldest_kept(shown: Shown) -> None:
    """A reader who stands among them is moved, and the pane is never empty."""
    page = shown(**{"max-lines": "5000"})
    write(page, 4_000)
    scroll_to(page, 0)
    assert in_sight(page)[0] == 1
    write(page, 16_000)

    numbers = in_sight(page)
    kept = len(page.evaluate("shown.text").splitlines())
    assert numbers == list(range(20_001 - kept, 20_001 - kept + len(numbers)))
    assert len(numbers) >= 15


def test_a_bar_is_never_longer_than_browsers_bear(shown: Shown) -> None:
    """Both ends are reached, and a place between them."""
    page = shown()
    page.evaluate("shown.style.setProperty('--sse-line', '200px')")
    write(page, 100_000)
    assert size_of(page, "scrollHeight") == 15_000_000
    assert in_sight(page)[-1] == 100_000
    scroll_to(page, 7_500_000)
    assert in_sight(page)[0] == pytest.approx(50_000, abs=3)
    scroll_to(page, 0)

    assert in_sight(page)[0] == 1


def test_rows_are_as_high_as_the_page_wants(shown: Shown) -> None:
    page = shown()
    page.evaluate("shown.style.setProperty('--sse-line', '40px')")
    write(page, 500)
    assert in_sight(page)[-1] == 500
    assert size_of(page, "scrollHeight") == pytest.approx(500 * 40, abs=20)
    scroll_to(page, 4_000)

    assert in_sight(page)[0] == pytest.approx(101, abs=1)


# -- who moves them


@pytest.mark.parametrize("event", ["new WheelEvent('wheel', { deltaY: -1 })"] + [
    f"new KeyboardEvent('keydown', {{ key: '{key}' }})" for key in ("ArrowUp", "PageUp", "Home")
])  # fmt: skip
def test_a_reader_can_leave_the_end_while_lines_come(shown: Shown, event: str) -> None:
    """A smooth scroll begins with less than a pixel. The lines of that frame do not take it back."""
    page = shown()
    write(page, 500)
    page.locator("#output").evaluate(f"(output) => output.dispatchEvent({event})")
    write(page, 500)

    assert page.locator("#end").is_visible()
    assert in_sight(page)[-1] == 500


@pytest.mark.parametrize(
    "event", ["new WheelEvent('wheel', { deltaY: 1 })", "new KeyboardEvent('keydown', { key: 'a' })"]
)
def test_other_ways_do_not_leave_the_end(shown: Shown, event: str) -> None:
    page = shown()
    write(page, 500)
    page.locator("#output").evaluate(f"(output) => output.dispatchEvent({event})")
    write(page, 500)

    assert in_sight(page)[-1] == 1_000


def test_looking_up_where_all_is_in_sight_changes_nothing(shown: Shown) -> None:
    """The end is followed once there is more."""
    page = shown()
    write(page, 3)
    page.locator("#output").focus()
    page.keyboard.press("PageUp")
    page.locator("#output").hover()
    page.mouse.wheel(0, -400)
    drawn(page)
    write(page, 500)

    assert in_sight(page)[-1] == 503


def test_scrolling_back_to_the_end_follows_it_again(shown: Shown) -> None:
    page = shown()
    write(page, 500)
    scroll_to(page, 100)
    assert page.locator("#end").is_visible()
    scroll_to(page, 1_000_000)
    assert not page.locator("#end").is_visible()
    write(page, 50)

    assert in_sight(page)[-1] == 550


@pytest.mark.parametrize(("above", "follows"), [(2, True), (60, False)])
def test_the_end_is_where_the_bar_ends(shown: Shown, above: int, follows: bool) -> None:
    """A fraction of a pixel is forgiven, a line is not."""
    page = shown()
    write(page, 500)
    scroll_to(page, size_of(page, "scrollHeight") - size_of(page, "clientHeight") - above)
    before = in_sight(page)
    write(page, 50)

    assert (in_sight(page)[-1] == 550) is follows
    assert (in_sight(page) == before) is not follows


def test_the_button_counts_the_lines_below_the_pane(shown: Shown) -> None:
    """One that is in sight in part is not below. At the end there is no button, however the reader came there."""
    page = shown()
    write(page, 500)
    scroll_to(page, 2_005)
    last = page.locator("#output").evaluate(
        """(output) => [...output.querySelectorAll("[data-number]")]
            .filter((row) => row.getBoundingClientRect().top < output.getBoundingClientRect().bottom)
            .map((row) => Number(row.dataset.number)).at(-1)"""
    )
    assert page.inner_text("#end-words") == f"Jump to end ({500 - last} more)"
    find(page, "line 500", "1 line")

    assert in_sight(page)[-1] == 500
    assert not page.locator("#end").is_visible()


def test_the_bar_is_measured_once_the_reader_rests(shown: Shown) -> None:
    """Before, it would run from the finger. Wrapped lines are of any height, and those in sight are taken for all."""
    page = shown(wrap="")
    write(page, 200)
    assert size_of(page, "scrollHeight") == pytest.approx(200 * 20, abs=20)
    write(page, 200, "word " * 60)
    at_end = size_of(page, "scrollHeight")
    assert at_end > 400 * 40
    scroll_to(page, 0)
    assert size_of(page, "scrollHeight") == at_end
    page.evaluate("new Promise(resolve => setTimeout(resolve, 200))")
    write(page, 1)

    assert size_of(page, "scrollHeight") == pytest.approx(401 * 20, abs=20)


def test_a_scroll_and_lines_in_the_same_frame(shown: Shown) -> None:
    """The rows are drawn before the browser tells of the scroll, and do not undo it."""
    page = shown()
    write(page, 500)
    page.evaluate(
        """() => new Promise((resolve) => requestAnimationFrame(() => {
            shown.shadowRoot.getElementById("output").scrollTop = 1000;
            resolve();
        }) && shown.write({ type: "stdout", line: "more" }))"""
    )
    drawn(page)

    assert in_sight(page)[0] == pytest.approx(51, abs=1)


def test_a_pane_of_another_height_is_filled(shown: Shown) -> None:
    """At the end it stays there; elsewhere the row at its top does."""
    page = shown()
    write(page, 500)
    page.evaluate("shown.style.blockSize = '300px'")
    drawn(page)
    assert in_sight(page)[-1] == 500
    scroll_to(page, 4_000)
    before = in_sight(page)
    page.evaluate("shown.style.blockSize = '900px'")
    drawn(page)
    numbers = in_sight(page)

    assert numbers == list(range(before[0], before[0] + len(numbers)))
    assert len(numbers) >= len(before) + 28


# -- width


def test_wrapping_in_the_midst_of_a_scroll_keeps_the_place(shown: Shown) -> None:
    """The bar is measured at once: without a length, it would stand at the end."""
    page = shown()
    write(page, 500)
    page.evaluate(
        "() => { const { shadowRoot } = shown; shadowRoot.getElementById('output').scrollTop = 4000;"
        " shadowRoot.getElementById('wrap').click(); }"
    )
    drawn(page)

    assert in_sight(page)[0] == pytest.approx(201, abs=1)
    assert page.locator("#end").is_visible()


def test_the_bar_of_wrapped_lines_is_measured_in_the_midst_of_a_scroll(shown: Shown) -> None:
    """What it was says nothing of lines of another height."""
    page = shown()
    write(page, 500, "word " * 60)
    page.evaluate(
        "() => { const { shadowRoot } = shown; shadowRoot.getElementById('output').scrollTop = 4000;"
        " shadowRoot.getElementById('wrap').click(); }"
    )
    drawn(page)
    height = page.locator("#output .row").first.evaluate("(row) => row.offsetHeight")

    assert height >= 40
    assert size_of(page, "scrollHeight") == pytest.approx(500 * height, rel=0.1)


def test_a_long_line_can_be_read_to_its_end_from_anywhere(shown: Shown) -> None:
    """The pane is as wide as the longest line that was drawn, until there are other lines, or lines are wrapped."""
    page = shown()
    page.evaluate("shown.write({ type: 'stdout', line: 'x'.repeat(1000) })")
    drawn(page)
    write(page, 500)
    assert size_of(page, "scrollWidth") > 5_000
    page.click("#wrap")
    drawn(page)
    assert size_of(page, "scrollWidth") == size_of(page, "clientWidth")
    page.set_viewport_size({"width": 500, "height": 600})
    drawn(page)
    assert size_of(page, "scrollWidth") == size_of(page, "clientWidth")
    page.click("#wrap")
    scroll_to(page, 0)
    assert size_of(page, "scrollWidth") > 5_000
    page.evaluate("shown.clear()")
    write(page, 3)

    assert size_of(page, "scrollWidth") == size_of(page, "clientWidth")


# -- other lines


def test_cleared_lines_leave_no_trace(shown: Shown) -> None:
    """The end of other lines is followed, none is marked as found, and the bar is theirs."""
    page = shown(wrap="")
    write(page, 300, "word " * 300)
    find(page, "word", "300 lines")
    page.locator("#output .current").wait_for()
    page.evaluate("shown.clear()")
    write(page, 300)

    assert in_sight(page)[-1] == 300
    assert page.locator("#output .current").count() == 0
    assert size_of(page, "scrollHeight") == pytest.approx(300 * 20, abs=20)


@pytest.mark.parametrize("has_left", [True, False])
def test_other_lines_are_followed_at_once(shown: Shown, has_left: bool) -> None:
    """Also where they come in the same moment, and the reader had left the end of those before, or is about to."""
    page = shown()
    write(page, 500)
    if has_left:
        scroll_to(page, 2_000)
    page.evaluate(
        "shown.shadowRoot.getElementById('output').scrollTop = 2000;"
        "shown.clear(); for (let n = 1; n <= 400; n += 1) shown.write({ type: 'stdout', line: 'other' })"
    )
    drawn(page)

    assert in_sight(page)[-1] == 400


@pytest.mark.parametrize("number", [1, 2, 999, 1_000])
def test_a_found_line_at_an_end_leaves_no_room_empty(shown: Shown, number: int) -> None:
    """And the bar stands there, too."""
    page = shown()
    page.evaluate("shown.style.blockSize = '1180px'")
    page.evaluate(
        """(number) => {
            for (let n = 1; n <= 1000; n += 1) shown.write({ type: "stdout", line: n === number ? "this" : "line" });
        }""",
        number,
    )
    drawn(page)
    find(page, "this", "1 line")

    numbers = in_sight(page)
    assert number in numbers
    assert len(numbers) >= size_of(page, "clientHeight") // 20 - 1
    below = size_of(page, "scrollHeight") - size_of(page, "clientHeight") - size_of(page, "scrollTop")
    assert (below if number > 500 else size_of(page, "scrollTop")) == pytest.approx(0, abs=30)


def test_few_lines_begin_at_the_top(shown: Shown) -> None:
    page = shown()
    write(page, 3)
    tops = page.locator("#output").evaluate(
        "(output) => [output, output.querySelector('.row')].map((one) => one.getBoundingClientRect().top)"
    )

    assert tops[1] == pytest.approx(tops[0], abs=10)


@pytest.mark.parametrize("step", [-200, 200])
def test_rows_beyond_the_edges_are_ready_and_those_far_beyond_are_gone(shown: Shown, step: int) -> None:
    """A quick scroll shows text before it is drawn anew."""
    page = shown()
    write(page, 1_000)
    for top in range(10_000, 10_000 + 10 * step, step):
        scroll_to(page, top)
    made = page.locator("#output .row").evaluate_all("(rows) => rows.map((row) => Number(row.dataset.number))")
    numbers = in_sight(page)

    assert made == list(range(made[0], made[-1] + 1))
    assert numbers[0] - 9 <= made[0] <= numbers[0] - 7
    assert numbers[-1] + 7 <= made[-1] <= numbers[-1] + 9


def test_a_found_line_is_shown_with_what_is_around_it(shown: Shown) -> None:
    """Also while lines come."""
    page = shown()
    write(page, 1_000)
    find(page, "line 500", "1 line")
    before = in_sight(page)
    assert before.index(500) == pytest.approx(len(before) / 3, abs=2)
    write(page, 1_000)

    assert in_sight(page) == before


def test_a_line_in_pieces_is_drawn_until_it_is_whole(shown: Shown) -> None:
    page = shown()
    for piece, partial in (("one", True), (" two", True), (" three", False)):
        page.evaluate(
            "([line, partial]) => shown.write({ type: 'stdout', line, partial })",
            [piece, partial],
        )
        drawn(page)
    texts = page.locator("#output .row .text").all_inner_texts()

    assert texts == ["one two three"]


def test_rows_that_stay_keep_what_is_selected(shown: Shown) -> None:
    """A row is made once, and its text is left alone once the line is whole."""
    page = shown()
    write(page, 500)
    page.evaluate("window.rows = [...shown.shadowRoot.querySelectorAll('.row')]")
    page.evaluate("window.texts = rows.map((row) => row.lastElementChild.firstChild)")
    write(page, 3)
    kept = page.evaluate(
        "rows.map((row, n) => row.isConnected && row.lastElementChild.firstChild === texts[n]).filter(Boolean).length"
    )

    assert kept == page.evaluate("rows.length") - 3
