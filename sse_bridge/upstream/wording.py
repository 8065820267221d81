"""What an upstream says about a refusal, in words that the log may hold.

An upstream quotes requests, and a request holds keys, command lines and their environment. So every word that message
and request share is cut out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import httpx

from ..causes import cleared

__all__ = ["for_the_log"]

#: Characters of a message that are looked at, and of what is left of it for the log.
_MOST_READ: Final = 1000
_MOST_LOGGED: Final = 300
#: Headers that every request has, with values that any message may hold.
_HARMLESS: Final = frozenset(
    {"accept", "accept-encoding", "cache-control", "connection", "content-length", "content-type", "host", "user-agent"}
)
#: Shorter words than this are cut out only as part of the whole value.
_WORD: Final = re.compile(r"\w{4,}")
#: The folder of every sandbox. MIOSA documents it, so it stays in a message, whatever the request says of folders.
_WORKSPACE: Final = "/workspace"
_IN_PLACE_OF_IT: Final = "\ue000"  # no letter, so it is part of no word


def for_the_log(message: str, request: httpx.Request) -> str:
    """The message in one line, without anything that stood in the request, too."""
    text = " ".join(cleared(message[:_MOST_READ]).split())
    values = [" ".join(value.split()) for value in _values(request)]
    for value in sorted({value for value in values if len(value) > 1}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "...", text)
    text = re.sub(rf"(?<!\w){_WORKSPACE}(?!\w)", _IN_PLACE_OF_IT, text)
    all_values = "\n".join(values).lower()
    lower = text.lower()
    for word in sorted({word for word in _WORD.findall(all_values) if word in lower}, key=len, reverse=True):
        text = re.sub(re.escape(word), "...", text, flags=re.IGNORECASE)
    # What is left may be a part of a word of the request: messages cut short what they quote.
    text = _WORD.sub(lambda word: "..." if word[0].lower() in all_values else word[0], text)
    text = text.replace(_IN_PLACE_OF_IT, _WORKSPACE)
    return "".join(filter(str.isprintable, text))[:_MOST_LOGGED]


def _values(request: httpx.Request) -> Iterator[str]:
    """All texts in a request that its sender chose: in headers, in the URL beside its path, and in the body."""
    yield from (value for name, value in request.headers.items() if name not in _HARMLESS)
    yield from (request.url.username, request.url.password)
    yield from (value for pair in request.url.params.multi_items() for value in pair)
    if request.content:
        yield from _texts(json.loads(request.content))


def _texts(value: Any) -> Iterator[str]:
    """The texts in a JSON value, names left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
