"""Policies: what happens when a viewer falls behind. Each viewer has its own (`design.md` §7).

A policy is a plain value that answers questions about numbers; whoever asks keeps the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["DEFAULT_HIGH_WATER", "Block", "Coalesce", "Drop", "Policy"]

#: Bytes. A burst of some ten thousand lines passes without anybody waiting; two thousand stalled viewers cost 2 GB.
#: Precedents: asyncio's transports 64 KiB, nginx's `proxy_max_temp_file_size` 1 GB, Redis' pub/sub soft limit 8 MB.
DEFAULT_HIGH_WATER: Final = 1024 * 1024
#: Reading goes on below a quarter of the mark, as in asyncio's transports and in websockets.
_LOW_WATER_SHARE: Final = 4
#: Events a second: as often as screens are painted.
_DEFAULT_MAX_RATE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Block:
    """Nothing is lost: while a viewer is more than `high_water` behind, the run stops reading.

    TCP then holds the sandbox back, and the script waits in its `print`. Reading goes on once the viewer is
    down to a quarter of the mark, so that a slow viewer does not cost a wake-up a frame.

    Args:
        high_water: bytes not yet handed to `send`; may be overstepped by what one chunk becomes.
        stall_timeout: seconds for which a viewer may take nothing while the run waits for it; then it is disconnected,
            and may come back. `None`: it may hold the run for ever.

    Raises:
        ValueError: an argument is not positive.
    """

    high_water: int = DEFAULT_HIGH_WATER
    stall_timeout: float | None = 30.0

    def __post_init__(self) -> None:
        _check_mark(self.high_water)
        if self.stall_timeout is not None and not self.stall_timeout > 0:
            raise ValueError(f"stall_timeout must be seconds above zero or None, not {self.stall_timeout}")

    @property
    def low_water(self) -> int:
        """Bytes at which a run that waits goes on."""
        return self.high_water // _LOW_WATER_SHARE

    def holds(self, pending: int, held: bool) -> bool:
        """Whether a viewer with `pending` bytes makes the run wait, which it does already if `held`."""
        return pending > (self.low_water if held else self.high_water)


@dataclass(frozen=True, slots=True)
class Drop:
    """The run never waits: a viewer that is more than `high_water` behind loses its oldest frames.

    A `gap` with their exact number goes out before the next frame. The terminal frame is never lost.

    Args:
        high_water: bytes not yet handed to `send`; may be overstepped by what one chunk becomes.

    Raises:
        ValueError: `high_water` is not positive.
    """

    high_water: int = DEFAULT_HIGH_WATER

    def __post_init__(self) -> None:
        _check_mark(self.high_water)


@dataclass(frozen=True, slots=True)
class Coalesce:
    """The run never waits, and a browser gets few events: consecutive lines of a stream are merged into one.

    Its `line` holds them joined by newlines, and its id is that of the last. Of a line that a script overwrote with
    carriage returns, as progress bars do, the last state is kept. Without loss up to the mark, and like `Drop` beyond.

    Args:
        high_water: bytes not yet handed to `send`, as they were before merging; may be overstepped by what one chunk
            becomes.
        max_rate: events a second, at most; `None` for no limit.

    Raises:
        ValueError: an argument is not positive.
    """

    high_water: int = DEFAULT_HIGH_WATER
    max_rate: float | None = _DEFAULT_MAX_RATE

    def __post_init__(self) -> None:
        _check_mark(self.high_water)
        if self.max_rate is not None and not self.max_rate > 0:
            raise ValueError(f"max_rate must be events a second above zero or None, not {self.max_rate}")


Policy: TypeAlias = Block | Drop | Coalesce


def _check_mark(high_water: int) -> None:
    if not isinstance(high_water, int) or high_water < 1:
        raise ValueError(f"high_water must be a positive number of bytes, not {high_water}")
