"""A clock that a test moves by hand."""

from __future__ import annotations

from math import inf

from sse_bridge.relay.clock import Clock, Clocked, Timer


class HandClock(Clock):
    """A `Clock` whose time stands still until `advance`, which asks every subject that is due by then."""

    def __init__(self) -> None:
        super().__init__()
        self._time = super().now()
        self._timers_by_hand: list[Timer] = []

    def now(self) -> float:
        return self._time

    def start(self, subject: Clocked) -> Timer:
        timer = Timer(self, subject)
        self._timers_by_hand.append(timer)
        timer.hasten(subject.tick(self.now()))
        return timer

    def expect(self, timer: Timer) -> None:
        pass

    def forget(self, timer: Timer) -> None:
        pass

    @property
    def due_in(self) -> float:
        """Seconds until a subject is asked next; infinity for never."""
        dues = [timer.due for timer in self._timers_by_hand if timer.subject is not None]
        return min(dues, default=inf) - self._time

    def advance(self, seconds: float) -> None:
        """Lets time pass, and asks the subjects that are due."""
        self._time += seconds
        for timer in self._timers_by_hand:
            if timer.subject is not None and timer.due <= self._time + 1e-9:
                timer.due = inf
                timer.hasten(timer.subject.tick(self._time))
