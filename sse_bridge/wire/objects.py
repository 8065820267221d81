"""JSON objects in and out. What they mean is the business of `shapes`."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

__all__ = ["Body", "read_object", "read_value", "without", "write_json", "write_texts"]

Body = dict[str, Any]

#: Levels of nesting; deeper objects are shown as text.
_MAX_DEPTH: Final = 100


def read_object(text: str) -> Body | None:
    """Reads a JSON object. `None` if `text` is anything else, or if a browser would refuse it."""
    value = read_value(text)
    return value if isinstance(value, dict) and not _is_deep(value) else None


def read_value(text: str) -> Any:
    """Reads JSON. `None` for what a browser would refuse, as for `null`."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None


def write_json(value: Body) -> bytes:
    """Writes JSON in one line. Text beyond ASCII stays as it is, where UTF-8 can carry it."""
    return _written(value, ",")


def write_texts(texts: list[str]) -> list[bytes]:
    """Writes each text as JSON, much faster than one by one.

    They are written as one array, with line feeds between them in place of commas: JSON escapes line feeds in a text,
    so these are all there are.
    """
    return _written(texts, "\n")[1:-1].split(b"\n")


def _written(value: Body | list[str], separator: str) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(separator, ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape
        return json.dumps(value, separators=(separator, ":")).encode()


def without(body: Body, *keys: str) -> Body:
    """A copy that lacks some keys."""
    return {key: value for key, value in body.items() if key not in keys}


def _refuse(constant: str) -> NoReturn:
    """Python reads `NaN` and `Infinity`, and floats too large to be finite. Browsers refuse them."""
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if abs(number) != float("inf") else _refuse(digits)


def _is_deep(value: object) -> bool:
    """Whether writing the value could exhaust the stack. Reading takes less of it."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [child for children in inner for child in children]
        if not level:
            return False
    return True
