"""The causes of a failure, for the log. HTTP clients quote requests and responses in messages; that is cut out."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Final

import anyio

__all__ = ["cleared", "is_our_end", "log_cause"]

logger: Final = logging.getLogger("sse_bridge")

#: What is replaced in messages: bytes as Python writes them, which h11 quotes from headers and bodies; all of a URL
#: behind its host, and the user in front of it; a query on its own; credentials, whole or cut short.
_SECRETS: Final = (
    (re.compile(r"""(?:bytearray\()?\bb(['"])(?:\\.|(?!\1).)*\1\)?""", re.DOTALL), "<bytes>"),
    (re.compile(r"""(\b[a-z][a-z0-9+.-]*://)(?:[^\s/?#'"]*@)?([^\s/?#'"]*)[^\s'"]*""", re.IGNORECASE), r"\1\2/..."),
    (re.compile(r"""\?[^\s'"=]*=[^\s'"]*"""), "?..."),
    (re.compile(r"""\b(Bearer|Basic)\s+[^\s'"]+""", re.IGNORECASE), r"\1 ..."),
    (re.compile(r"""(?:msk_|eyJ)[\w.-]*"""), "..."),  # keys of MIOSA, and JSON web tokens
)


def log_cause(error: BaseException, message: str, *arguments: object) -> None:
    """Logs an exception with its causes at DEBUG. Secrets are cut out of the messages of the exceptions themselves."""
    if logger.isEnabledFor(logging.DEBUG):
        for one in _chain(error):
            one.args = tuple(cleared(argument) if isinstance(argument, str) else argument for argument in one.args)
        logger.debug(message, *arguments, exc_info=error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, its causes, and the members of groups among them."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def cleared(text: str) -> str:
    """The text without what may be a secret."""
    for secret, replacement in _SECRETS:
        text = secret.sub(replacement, text)
    return text


def is_our_end(error: BaseException) -> bool:
    """Whether the error ends this task. A function that awaits a cancelled task of asyncio raises the same one."""
    if not isinstance(error, asyncio.CancelledError) or not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
