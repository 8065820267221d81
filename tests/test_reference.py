"""The table of options in docs/reference/bridge.md agrees with the signature."""

from __future__ import annotations

import inspect
import re

import sse_bridge
from tests.support.documentation import DOCS

PAGE = DOCS / "reference" / "bridge.md"


def test_the_table_has_every_option_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| [^|]+ \|$", PAGE.read_text(), re.MULTILINE)
    listed = {name: eval(default, vars(sse_bridge)) for name, default in rows}
    parameters = inspect.signature(sse_bridge.SSEBridge).parameters

    assert list(listed.items()) == [(name, parameter.default) for name, parameter in parameters.items()]
