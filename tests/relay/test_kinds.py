"""`kind_of`: an ending in one word of a bounded set."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sse_bridge
from sse_bridge.relay.ending import Cause
from sse_bridge.relay.kinds import KINDS, kind_of

PACKAGE = Path(sse_bridge.__file__).parent
#: How the code of an `UpstreamError` is written.
CODE = re.compile(r'(?:code=|default_code = |_Row\(\d+, )"(\w+)"')


def test_every_ending_of_the_bridges_own_is_a_kind() -> None:
    assert {cause.code for cause in Cause} <= set(KINDS)


def test_every_code_of_an_upstream_error_is_a_kind() -> None:
    """A code that is added to the package is added here, too."""
    sources = [PACKAGE / "errors.py", *(PACKAGE / "upstream").rglob("*.py"), *(PACKAGE / "relay").rglob("*.py")]
    codes = {code for path in sources for code in CODE.findall(path.read_text())}

    assert {"busy", "source_failed", "upstream_ended", "upstream_unauthorized"} <= codes
    assert codes <= set(KINDS)


@pytest.mark.parametrize(
    ("error", "code", "timed_out", "kind"),
    [
        (None, 0, False, "exit_zero"),
        (None, 137, False, "exit_nonzero"),
        (None, -1, True, "timed_out"),
        (None, 0, True, "timed_out"),
        (None, None, False, "ended"),
        ("cancelled", None, False, "cancelled"),
        ("whatever", None, False, "upstream_error"),
        ("exit_zero", None, False, "upstream_error"),
    ],
)
def test_kinds(error: str | None, code: int | None, timed_out: bool, kind: str) -> None:
    """A code of an upstream's that looks like a kind is none."""
    assert kind_of(error, code, timed_out=timed_out) == kind
    assert kind in KINDS
