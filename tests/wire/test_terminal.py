"""`terminal`: what is left out of a line is what a terminal would no longer show, and nothing else.

The kind of fault: text is taken to be overwritten although the terminal still shows it, because what follows the
carriage return prints nothing, prints less, or is something that the model does not know.
"""

from __future__ import annotations

from typing import Any

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_bridge.wire.terminal import settle

COLUMNS = 400


def shown(text: str, before: str = "") -> list[tuple[Any, ...]]:
    """The cells of a wide terminal, with their colours, and where the cursor ends."""
    screen = pyte.Screen(COLUMNS, 2)
    stream = pyte.Stream(screen)
    stream.feed(before + text)
    cells = [tuple(screen.buffer[0][column]) for column in range(COLUMNS)]
    return [*cells, (screen.cursor.x, screen.cursor.y, tuple(screen.cursor.attrs))]


RED, RESET, ERASE = "\x1b[31m", "\x1b[0m", "\x1b[K"


@pytest.mark.parametrize(
    ("line", "left"),
    [
        # overwritten
        ("10%\r20%\r30%", "30%"),
        ("\r30%", "30%"),
        ("\r\r\r30%", "30%"),
        ("a\rbc", "bc"),
        ("10%\r20%\r", "20%\r"),
        ("20%\r\r", "20%\r\r"),
        # nothing printable follows
        ("windows\r", "windows\r"),
        (f"{RED}text{RESET}\r{RESET}", f"{RED}text{RESET}\r{RESET}"),
        (f"text\r{RESET}{RED}\r", f"text\r{RESET}{RED}\r"),
        ("text\r\x1b]0;title\x07", "text\r\x1b]0;title\x07"),
        ("text\r\x1b]8;;https://example.org\x1b\\", "text\r\x1b]8;;https://example.org\x1b\\"),
        ("text\r\x1b(B", "text\r\x1b(B"),
        ("text\r\x1b[?25h", "text\r\x1b[?25h"),
        ("text\r\x07", "text\r\x07"),
        ("text\r\x00\x7f", "text\r\x00\x7f"),
        ("text\r\x1b=\x0e\x0f", "text\r\x1b=\x0e\x0f"),
        # shorter text follows
        ("100 bytes\r50", "100 bytes\r50"),
        ("100 bytes\r50\r60", "100 bytes\r60"),
        ("abc\r\x1b[1mx", "abc\r\x1b[1mx"),
        ("abcdef\rabcd\rab\rxyz", "abcdef\rabcd\rxyz"),
        # erased
        (f"100 bytes\r50{ERASE}", f"50{ERASE}"),
        (f"10\r{ERASE}\r20{ERASE}", f"20{ERASE}"),
        # erased, and blank in the end
        (f"100 bytes\r{ERASE}", f"100 bytes\r{ERASE}"),
        ("100 bytes\r\x1b[2K", "100 bytes\r\x1b[2K"),
        (f"10\r20\r{ERASE}{RESET}", f"20\r{ERASE}{RESET}"),
        ("100 bytes\r\x1b[0K7", "\x1b[0K7"),
        (f"1{ERASE}\r2{ERASE}\r3{ERASE}", f"3{ERASE}"),
        (f"long{ERASE}\rx", f"long{ERASE}\rx"),
        # colours go on, up to their reset
        (f"{RED}10%\r20%", f"{RED}20%"),
        (f"{RED}10%{RESET}\r{RED}20%{RESET}\r{RED}30%{RESET}", f"{RESET}{RED}30%{RESET}"),
        (f"{RED}1\x1b[0;1m\r2", "\x1b[0;1m2"),
        (f"{RED}1\x1b[m\r2", "\x1b[m2"),
        ("\x1b[?25l1\r\x1b[?25l2", "\x1b[?25l\x1b[?25l2"),
        ("\x1b(B1\r\x1b(B2\r\x1b(B3", "\x1b(B\x1b(B3"),
        ("\x1b]0;1\x07a\r\x1b]0;2\x07b\r\x1b[mc", "\x1b]0;1\x07\x1b]0;2\x07\x1b[mc"),
        # columns
        ("宽\rab", "ab"),
        ("宽宽\rabc", "宽宽\rabc"),
        ("██░░\r███░", "███░"),
        ("██\rabcd", "abcd"),
        ("██\rabc", "██\rabc"),
        ("ab\r█ ", "█ "),
        ("é\rx", "é\rx"),
        ("né\rné", "né"),
        # unknown
        ("a\tb\rcdefghijk", "a\tb\rcdefghijk"),
        ("abc\b\rdef", "abc\b\rdef"),
        ("abc\x1b[2Dx\rdef", "abc\x1b[2Dx\rdef"),
        ("abc\r\x1b[1Kdef", "abc\r\x1b[1Kdef"),
        ("abc\r\x1b[Adef", "abc\r\x1b[Adef"),
        ("abc\rdef\x1b[3", "abc\rdef\x1b[3"),
        ("abc\rdef\x1b", "abc\rdef\x1b"),
        ("abc\r\x1bPq#0\x1b\\", "abc\r\x1bPq#0\x1b\\"),
        ("abc\r\x1bPdef\x1b\\ghi", "abc\r\x1bPdef\x1b\\ghi"),
        ("abc\r\x1b_def\x1b\\", "abc\r\x1b_def\x1b\\"),
        ("abc\r\x1b7def\x1b8", "abc\r\x1b7def\x1b8"),
        ("abc\r\x1b[?1049hdef", "abc\r\x1b[?1049hdef"),
        ("abc\rde\u0301f", "abc\rde\u0301f"),
        ("abc\r👩\u200d💻", "abc\r👩\u200d💻"),
        ("abc\r🇩🇪x", "abc\r🇩🇪x"),
        ("abc\rdef\ud800", "abc\rdef\ud800"),
        ("abc\x85\rdefg", "abc\x85\rdefg"),
        # no return at all
        ("", ""),
        ("plain\x1b[2Dx", "plain\x1b[2Dx"),
    ],
)  # fmt: skip
def test_only_what_a_terminal_no_longer_shows_is_left_out(line: str, left: str) -> None:
    """Text stays unless something printable, or an erasure, took all of its place."""
    assert settle(line, starts=True) == left


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("\r60%", "\r60%"),
        ("\r60%\r70%", "\r70%"),
        ("0%\r60%", "0%\r60%"),
        ("0%\r60%\r70%", "0%\r70%"),
        (f"0%\r60%\r70%{ERASE}\r80%", f"0%\r70%{ERASE}\r80%"),
        (f"\r{RED}60%\r{ERASE}70%", f"\r{RED}{ERASE}70%"),
        ("0%\r", "0%\r"),
        ("0%", "0%"),
    ],
)
def test_a_continuation_keeps_the_return_to_the_first_column(line: str, left: str) -> None:
    """Where it begins is unknown, so what it prints before its first return may be out of reach for what follows."""
    assert settle(line, starts=False) == left
    assert shown(left, "Downloading 5") == shown(line, "Downloading 5")


pieces = st.one_of(
    st.text("ab ", min_size=1, max_size=5),
    st.sampled_from(["\r"] * 8 + ["\r\r", "é", "宽", "█", "░", "a\u0301"]),
    st.sampled_from([RED, RESET, "\x1b[m", "\x1b[1;32m", "\x1b[0;4m", "\x1b[41m"]),
    st.sampled_from([ERASE, "\x1b[0K", "\x1b[1K", "\x1b[2K"]),
    st.sampled_from(["\x1b[?25l", "\x1b]0;title\x07", "\x1b]8;;u\x1b\\", "\x1b(B", "\x1b(0", "\x07", "\x0e", "\x0f"]),
    st.sampled_from(["\t", "\b", "\x1b[2D", "\x1b[5G", "\x1b[C", "\x1b[P"]),
    st.sampled_from(["\x1b7", "\x1b8", "\x1b[3", "\x1bP", "\x1b"]),
)  # fmt: skip
lines = st.lists(pieces, max_size=14).map("".join)


@given(lines)
def test_a_real_terminal_shows_the_same(line: str) -> None:
    """Characters, colours and the cursor are the same for the whole line and for what is left of it."""
    left = settle(line, starts=True)

    assert shown(left) == shown(line)
    assert len(left) <= len(line)
    assert settle(left, starts=True) == left


#: The beginning of a line, with its escape sequences whole.
beginnings = st.lists(st.sampled_from(["ab", "宽", "\r", RED, RESET, ERASE, "\x1b[C"]), max_size=6).map("".join)


@given(lines, beginnings)
def test_a_real_terminal_shows_the_same_behind_a_beginning(line: str, before: str) -> None:
    """A continuation says the same wherever it begins."""
    assert shown(settle(line, starts=False), before) == shown(line, before)


def test_a_long_progress_bar_takes_linear_time() -> None:
    """Of a hundred thousand states the last is left."""
    states = [f"{RED}{number:6}{RESET}" for number in range(100_000)]

    assert settle("\r".join(states), starts=True) == f"{RESET}{states[-1]}"
