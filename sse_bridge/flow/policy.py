"""Policies: what happens when a viewer falls behind. Each viewer has its own.

A policy is a plain value that answers questions; the caller keeps the state. All policies answer the same ones (see
`Policy`), so that no caller has to know which policies there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

__all__ = ["DEFAULT_HIGH_WATER", "Block", "Coalesce", "Drop", "Policy"]

#: Bytes. A burst of some ten thousand lines passes without a pause; two thousand stalled viewers cost 2 GB.
#: Precedents: asyncio's transports 64 KiB, nginx's `proxy_max_temp_file_size` 1 GB, Redis' pub/sub soft limit 8 MB.
DEFAULT_HIGH_WATER: Final = 1024 * 1024
#: The run reads on once a viewer is down to a quarter of the mark, as asyncio's transports and websockets do.
_LOW_WATER_SHARE: Final = 4
#: Events a second: the rate at which screens repaint.
_DEFAULT_MAX_RATE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Block:
    """Delivers every frame: while a viewer is more than `high_water` behind, the run stops reading.

    TCP then holds the sandbox back, and the script waits in its `print`. The run reads on once the viewer is down to a
    quarter of the mark, so that a slow viewer costs one wake-up for many frames.

    Args:
        high_water: bytes waiting to be handed to `send`. The frames of one chunk may exceed it.
        stall_timeout: seconds that a viewer may hold the run up without taking a frame; then the bridge disconnects
            it, and it may come back. `None`: it may hold the run up indefinitely.

    Raises:
        ValueError: an argument is not positive.
    """

    high_water: int = DEFAULT_HIGH_WATER
    stall_timeout: float | None = 30.0
    may_lose: ClassVar[bool] = False
    merges: ClassVar[bool] = False
    max_rate: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        _check_mark(self.high_water)
        if self.stall_timeout is not None and not self.stall_timeout > 0:
            raise ValueError(f"stall_timeout must be seconds above zero or None, not {self.stall_timeout}")

    def holds(self, pending: int, held: bool) -> bool:
        """Whether the run must wait for a viewer with `pending` bytes. `held`: whether it is waiting already."""
        return _is_beyond(self.high_water, pending, held)


@dataclass(frozen=True, slots=True)
class Drop:
    """The run reads on: a viewer that is more than `high_water` behind loses its oldest frames.

    A `gap` with their exact number goes out before the next frame. The terminal frame always arrives.

    Args:
        high_water: bytes waiting to be handed to `send`. The frames of one chunk may exceed it.

    Raises:
        ValueError: `high_water` is not positive.
    """

    high_water: int = DEFAULT_HIGH_WATER
    may_lose: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    max_rate: ClassVar[float | None] = None
    stall_timeout: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        _check_mark(self.high_water)

    def holds(self, pending: int, held: bool) -> bool:
        """The run never waits. See `Block.holds`."""
        return False


@dataclass(frozen=True, slots=True)
class Coalesce:
    """The run reads on, and the browser gets few events: consecutive lines of a stream are merged into one.

    The merged event's `line` holds the lines joined by newlines; its id is that of the last one. Of a line that a
    script overwrites with carriage returns, as progress bars do, it holds the last state. Lossless up to the mark, and
    like `Drop` beyond it.

    Args:
        high_water: bytes waiting to be handed to `send`, measured before merging. The frames of one chunk may exceed
            it.
        max_rate: the most events a second; `None` for unlimited.

    Raises:
        ValueError: an argument is not positive.
    """

    high_water: int = DEFAULT_HIGH_WATER
    max_rate: float | None = _DEFAULT_MAX_RATE
    may_lose: ClassVar[bool] = True
    merges: ClassVar[bool] = True
    stall_timeout: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        _check_mark(self.high_water)
        if self.max_rate is not None and not self.max_rate > 0:
            raise ValueError(f"max_rate must be events a second above zero or None, not {self.max_rate}")

    def holds(self, pending: int, held: bool) -> bool:
        """The run never waits. See `Block.holds`."""
        return False


#: What all of them answer:
#:
#: * `high_water`: bytes that a viewer may be behind before the policy acts;
#: * `may_lose`: whether frames beyond the mark are given up;
#: * `merges`: whether consecutive lines become one event;
#: * `max_rate`: the most events a second, spread evenly; `None` for unlimited;
#: * `holds(pending, held)`: whether the run must wait;
#: * `stall_timeout`: seconds for which a viewer may make it wait; `None` for without limit.
Policy: TypeAlias = Block | Drop | Coalesce


def _is_beyond(high_water: int, pending: int, held: bool) -> bool:
    """Whether a viewer is too far behind. Once the run waits, until the viewer is down to a quarter of the mark."""
    return pending > (high_water // _LOW_WATER_SHARE if held else high_water)


def _check_mark(high_water: int) -> None:
    if not isinstance(high_water, int) or high_water < 1:
        raise ValueError(f"high_water must be a positive number of bytes, not {high_water}")
