"""A griffe extension: the reference shows the comments above attributes, `#: ...`, as their docstrings."""

from __future__ import annotations

from typing import Any

import griffe


class Comments(griffe.Extension):
    """Reads them from the source, where an attribute has no docstring."""

    def on_attribute(self, *, attr: griffe.Attribute, **others: Any) -> None:
        if attr.docstring is None and attr.lineno is not None and (text := _above(attr, attr.lineno)):
            attr.docstring = griffe.Docstring(text, parent=attr)


def _above(attr: griffe.Attribute, number: int) -> str:
    lines = attr.lines_collection[attr.filepath][: number - 1]
    first = number - 1
    while first and lines[first - 1].lstrip().startswith("#:"):
        first -= 1
    return "\n".join(line.strip()[2:].removeprefix(" ") for line in lines[first:])
