"""Happy eyeballs: a TCP connection to whichever address of a host answers first (RFC 8305).

asyncio's own `happy_eyeballs_delay` leaks the socket when it is cancelled at the wrong moment (3.11; found by the test
that cancels at every step), and uvloop lacks the option.
"""

from __future__ import annotations

import asyncio
import socket
from itertools import zip_longest
from typing import Any, Final

import anyio

__all__ = ["connected"]

#: Seconds before the next address is tried beside the first (RFC 8305 8).
ATTEMPT_DELAY: Final = 0.25


async def connected(host: str, port: int) -> socket.socket:
    """Opens a socket that is connected to the host.

    Raises:
        OSError: every address failed.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    opened: list[socket.socket] = []
    errors: list[OSError] = []
    winner: list[socket.socket] = []

    async def attempt(family: int, address: Any, failed: anyio.Event) -> None:
        try:
            opened.append(one := socket.socket(family, socket.SOCK_STREAM))
            one.setblocking(False)
            await loop.sock_connect(one, address)
        except OSError as error:
            errors.append(error)
            return failed.set()
        winner.append(one)
        return race.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as race:
            for family, _, _, _, address in _interleaved(found):
                failed = anyio.Event()
                race.start_soon(attempt, family, address, failed)
                with anyio.move_on_after(ATTEMPT_DELAY):
                    await failed.wait()
    except BaseException:
        winner.clear()
        raise
    finally:
        for one in opened:
            if one not in winner[:1]:
                one.close()
    if not winner:
        raise errors[0]
    return winner[0]


def _interleaved(found: list[Any]) -> list[Any]:
    """The address families take turns, beginning with the resolver's favourite (RFC 8305 4)."""
    first = [one for one in found if one[0] == found[0][0]]
    others = [one for one in found if one[0] != found[0][0]]
    pairs = zip_longest(first, others)
    return [one for pair in pairs for one in pair if one is not None]
