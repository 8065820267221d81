"""`<sse-console>`: text as a terminal shows it. pyte, a terminal in Python, has to agree."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, cast

import pyte
import pytest
from playwright.sync_api import Browser, Page

from tests.support.modules import scripts_site, watching_problems

ESC = "\x1b"


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    """A console, higher than all that these tests write."""
    with scripts_site() as (served, _), browser.new_context(viewport={"width": 1280, "height": 2400}) as context:
        page = context.new_page()
        page.goto(served.url)
        page.evaluate(
            """async () => {
                await import("/modules/sse-console.js");
                window.shown = document.createElement("sse-console");
                shown.style.height = "2300px";
                document.body.append(shown);
            }"""
        )
        yield page


@pytest.fixture
def page(tab: Page, problems: list[str]) -> Iterator[Page]:
    with watching_problems(tab, problems):
        tab.evaluate("shown.clear()")
        yield tab


def output(line: str, *, stream: str = "stdout", partial: bool = False) -> dict[str, Any]:
    return {"type": stream, "line": line, **({"partial": True} if partial else {})}


def show(page: Page, *events: dict[str, Any]) -> None:
    """Writes events, and waits until they are drawn."""
    page.evaluate("(events) => events.forEach((event) => shown.write(event))", list(events))
    page.evaluate("new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")


def texts(page: Page) -> list[str]:
    return page.locator("#output [data-number] .text").all_text_contents()


def spans(page: Page) -> list[tuple[str, str]]:
    """The styled pieces of text, with their styles."""
    found = page.eval_on_selector_all(
        "#output .text span", "spans => spans.map(span => [span.textContent, span.getAttribute('style') ?? ''])"
    )
    return [cast(tuple[str, str], tuple(each)) for each in found]


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
    ("\U0001f600\rx", "x "),
    ("\u4e16\u754c\rx", "x \u754c"),
    (f"\u4e16\u754c{ESC}[2Gx", " x\u754c"),
    ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
    ("&lt;b&gt;", "&lt;b&gt;"),
    (f"{ESC}[31m<script>alert(1)</script>{ESC}[m", "<script>alert(1)</script>"),
]


def test_text_is_shown_as_a_terminal_shows_it(page: Page) -> None:
    """Carriage returns overwrite, what prints nothing is left out, and HTML is text."""
    show(page, *[output(line) for line, _ in TEXTS])

    assert texts(page) == [shown for _, shown in TEXTS]
    assert page.locator("#output :is(img, script, b)").count() == 0


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


def readable(colour: str) -> str:
    """A colour of the script's on the page's own ground, which its theme keeps light or dark enough."""
    return f"color: oklch(from {colour} clamp(var(--sse-darkest), l, var(--sse-lightest)) c h);"


#: A number that overflows to infinity.
HUGE = "9" * 400
#: What "select graphic rendition" is given, and the style that the text after it gets.
STYLES = [
    ("31", "color: var(--sse-colour-1);"),
    ("97", "color: var(--sse-colour-15);"),
    ("38;5;9", "color: var(--sse-colour-9);"),
    ("38;5;208", readable("rgb(255, 135, 0)")),
    ("38;5;244", readable("rgb(128, 128, 128)")),
    ("38;2;1;2;3", readable("rgb(1, 2, 3)")),
    ("38:2::1:2:3", readable("rgb(1, 2, 3)")),
    ("38:5:208", readable("rgb(255, 135, 0)")),
    ("37;41", "background-color: rgb(205, 49, 49); color: rgb(229, 229, 229);"),
    ("48;5;231", "background-color: rgb(255, 255, 255); color: rgb(0, 0, 0);"),
    ("48;2;0;0;99", "background-color: rgb(0, 0, 99); color: rgb(255, 255, 255);"),
    ("1", "font-weight: 700;"),
    ("2", "opacity: 0.75;"),
    ("3", "font-style: italic;"),
    ("4", "text-decoration-line: underline;"),
    ("4:3", "text-decoration-line: underline;"),
    ("4;9", "text-decoration-line: underline line-through;"),
    ("7", "background-color: var(--sse-ink); color: var(--sse-pane);"),
    ("7;32", "background-color: rgb(11, 158, 102); color: var(--sse-pane);"),
    ("31;58;2;1;2;3;1", "color: var(--sse-colour-1); font-weight: 700;"),
    ("1;22;3;23;4;24;7;27;9;29;31;39;41;49", ""),
    ("31;0", ""),
    ("31;", ""),
    ("", ""),
    ("38;5", ""),
    ("38;2;1", ""),
    ("48;2;1;2", ""),
    ("38;9;1", None),
    ("38;2;300;0;1", readable("rgb(255, 0, 1)")),
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

    assert spans(page) == [("one", "color: var(--sse-colour-2);"), ("two", "color: var(--sse-colour-2);")]


def test_a_long_coloured_line_is_cut(page: Page) -> None:
    """As a plain one is, and without its escape sequences in the count."""
    show(page, output(f"{ESC}[31m" + "x" * 9_000), output("y" * 9_000))

    assert [len(text.partition(" …")[0]) for text in texts(page)] == [8_000, 8_000]
    assert all(text.endswith(" … (1,000 more characters)") for text in texts(page))


# -- the same as a terminal


#: What scripts print in progress bars, logs and prompts, one piece behind the other. Without wide characters: of
#: one that is overwritten, pyte leaves a half.
PIECES = [
    *["a", "bc", "100%", " ", "   ", "[####    ]", "\t", "é", "=" * 30],
    *["\r", "\r", "\r", "\b", "\b\b", f"{ESC}[K", f"{ESC}[0K", f"{ESC}[1K", f"{ESC}[2K"],
    *[f"{ESC}[{count}C" for count in ("", 0, 3)],
    *[f"{ESC}[{count}D" for count in ("", 1, 4)],
    *[f"{ESC}[{column}G" for column in ("", 1, 7)],
    *[f"{ESC}[{count}P" for count in ("", 2)],
    *[f"{ESC}[{count}X" for count in ("", 3)],
    *[f"{ESC}[{count}@" for count in ("", 2)],
    *[f"{ESC}[{codes}m" for codes in ("", "0", "1", "3", "4", "7", "31", "42", "39", "49", "22", "1;32", "0;35")],
    *[f"{ESC}]0;title\x07", f"{ESC}[?25l", f"{ESC}[?25h", f"{ESC}(B", "\x07"],
]
NAMES = ["black", "red", "green", "brown", "blue", "magenta", "cyan", "white"]


def on_a_terminal(line: str) -> list[tuple[str, dict[str, Any]]]:
    """The characters of a wide line on pyte, with what is set of their styles, up to the last one that was printed."""
    screen = pyte.Screen(400, 2)
    pyte.Stream(screen).feed(line)
    cells = [screen.buffer[0][column] for column in range(400)]
    found = []
    for cell in cells:
        style = {name: True for name in ("bold", "italics", "underscore", "reverse") if getattr(cell, name)}
        colours = {name: getattr(cell, name) for name in ("fg", "bg") if getattr(cell, name) != "default"}
        if cell.data:
            found.append((cell.data, {**style, **colours}))
    while found and found[-1][0] == " ":
        found.pop()
    return found


def on_the_page(page: Page, lines: list[str]) -> list[list[tuple[str, dict[str, Any]]]]:
    """The same of the page's model of a terminal."""
    parsed = page.evaluate(
        """async (lines) => {
            const { partsOf } = await import("/modules/terminal.js");
            return lines.map((line) => partsOf(line, null).parts);
        }""",
        lines,
    )
    names = {"bold": "bold", "italic": "italics", "underline": "underscore", "inverse": "reverse"}
    found = []
    for parts in parsed:
        cells = []
        for part in parts:
            style = part["style"] or {}
            seen = {theirs: True for ours, theirs in names.items() if style.get(ours)}
            seen |= {key: NAMES[style[ours]] for ours, key in (("ink", "fg"), ("ground", "bg")) if ours in style}
            text = part["text"].expandtabs()  # in a plain line, the style sheet does it
            cells += [(character, seen) for character in text]
        while cells and cells[-1][0] == " ":
            cells.pop()
        found.append(cells)
    return found


def test_lines_look_as_on_a_terminal(page: Page) -> None:
    """Three thousand lines of pieces in random order: the same characters, in the same styles.

    Spaces are compared by their place only: terminals differ in the styles that erasing leaves.
    """
    rng = random.Random(20261127)
    lines = ["".join(rng.choices(PIECES, k=rng.randint(1, 14))) for _ in range(3000)]
    for line, ours in zip(lines, on_the_page(page, lines), strict=True):
        theirs = on_a_terminal(line)
        assert (line, "".join(text for text, _ in ours)) == (line, "".join(text for text, _ in theirs))
        assert (line, [cell for cell in ours if cell[0] != " "]) == (line, [cell for cell in theirs if cell[0] != " "])


def test_a_line_in_pieces_may_be_settled_at_any_time(page: Page) -> None:
    """What was overwritten is let go, and the rest of the line looks the same."""
    rng = random.Random(20261128)
    lines = [rng.choices(PIECES, k=rng.randint(2, 14)) for _ in range(500)]
    settled = page.evaluate(
        """async (lines) => {
            const { TerminalLine } = await import("/modules/terminal.js");
            return lines.map((pieces) => {
              let text = "";
              for (const piece of pieces) text = new TerminalLine(null).write(text + piece).settled();
              return text;
            });
        }""",
        lines,
    )

    assert on_the_page(page, settled) == on_the_page(page, ["".join(line) for line in lines])


def test_a_progress_bar_that_runs_long_stays_small(page: Page) -> None:
    """A hundred thousand states of one line are not kept."""
    page.evaluate(
        """() => {
            for (let n = 0; n < 100_000; n += 1) {
              shown.write({ type: "stdout", line: `\\r\\x1b[32m${n} of 100000`, partial: true });
            }
        }"""
    )
    show(page, output(""))

    assert texts(page) == ["99999 of 100000"]
    assert page.evaluate("shown.text") == "99999 of 100000\n"


# -- links, and what is no link


@pytest.mark.parametrize(
    ("address", "leads_to"),
    [
        ("https://example.org/a?b=c", "https://example.org/a?b=c"),
        ("http://example.org", "http://example.org/"),
        ("javascript:alert(1)", None),
        ("data:text/html,<script>alert(1)</script>", None),
        ("JaVaScRiPt:alert(1)", None),
        (" javascript:alert(1)", None),
        ("file:///etc/passwd", None),
        ("//example.org", None),
        ("https://", None),
        ("", None),
    ],
)
def test_a_link_leads_to_pages_only(page: Page, address: str, leads_to: str | None) -> None:
    """http and https, in a new tab that knows nothing of this one. Anything else is text."""
    show(page, output(f"see {ESC}]8;id=1;{address}{ESC}\\here{ESC}]8;;{ESC}\\ now"))

    assert texts(page) == ["see here now"]
    links = page.locator("#output a")
    assert links.count() == (0 if leads_to is None else 1)
    if leads_to is not None:
        assert links.inner_text() == "here"
        seen = links.evaluate("link => [link.href, link.target, link.rel]")
        assert seen == [leads_to, "_blank", "noopener noreferrer"]


#: What has run scripts in pages that took output for markup.
MARKUP = [
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>parent.hacked = 1</script>'>",
    "</div></template><script>alert(1)</script>",
    "{{constructor.constructor('alert(1)')()}}",
    "<a href=javascript:alert(1)>x</a>",
    "&lt;img src=x onerror=alert(1)&gt;",
]


def test_markup_is_text_everywhere(page: Page) -> None:
    """In lines, in styled lines, in matches, in gaps, in endings."""
    show(page, *map(output, MARKUP), *[output(f"{ESC}[1m{text}") for text in MARKUP])
    page.keyboard.press("Tab")
    page.locator("#output").focus()
    page.keyboard.press("/")
    page.keyboard.type("alert")
    page.locator("#output mark").first.wait_for()
    found = texts(page)
    page.keyboard.press("Escape")

    assert found == MARKUP * 2
    assert page.locator("#output :is(img, script, iframe)").count() == 0
    assert page.evaluate("window.hacked") is None
