"""How fast, and over how many connections: the cap on the rate, and the search for the number that helps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from agent.core.retry import HOLD_S, MEASURE_DOUBTS, MEASURE_S

QUANTUM_S = 0.02  # one grant is this much of the cap's second: 16 waiting lanes see a new cap within 0.3 s
QUANTUM_MIN = 1024  # bytes; below it the cost of a system call per grant shows
QUANTUM_MAX = 256 * 1024  # bytes; what a lane reads at once anyway

CONNECTIONS_FIRST = 2  # saturates two cores, with TLS as without, at the least cost; doubled while that helps
CROWDED_SHARE = 0.5  # of all processors' time, taken by this process; the kernel's work for it comes on top
CROWDED_LANE = 0.3  # of one processor, for each lane: a lane that waits for a slow link takes a tenth of that
GAIN = 1.15  # twice the connections must give this much more; less is noise of the measurement
CLEAR_GAIN = 1.5  # as much as this even in the measurement with their handshakes and slow starts is proof enough


class Bucket:
    """A cap in bytes per second over everything, fair to all: grants queue up in the order they were asked for."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0
        self.rate = rate

    def set_rate(self, rate: int) -> None:
        """Set the cap, in bytes per second; 0 is none. The same again changes nothing."""
        if rate == self.rate:
            return
        with self._lock:
            self.rate = rate
            self._next = min(self._next, self._clock() + QUANTUM_S)

    def grant(self) -> tuple[int, float]:
        """The next grant: how many bytes, and in how many seconds they may be read. Without a cap: `(0, 0.0)`."""
        with self._lock:
            if not self.rate:
                return 0, 0.0
            quantum = max(QUANTUM_MIN, min(QUANTUM_MAX, int(self.rate * QUANTUM_S)))
            now = self._clock()
            at = max(self._next, now)
            self._next = at + quantum / self.rate
            return quantum, at - now


class Tuner:
    """Finds how many connections help: doubles them while that gives more bytes, else goes back and holds.

    Fed with the total of bytes received, whether more lanes could have been used, and whether they are `crowded`: it is
    the processors that they wait for. Times are seconds of one clock.
    """

    def __init__(self, limit: int) -> None:
        self.target = min(CONNECTIONS_FIRST, limit)
        self.limit = limit
        self._window: tuple[float, int] | None = None
        self._settled = False
        self._before: tuple[int, float] | None = None  # the number before the last doubling, and its rate
        self._hold_until = 0.0
        self._doubts = 0

    def set_limit(self, limit: int) -> None:
        """Set the most connections there may be. The same again changes nothing."""
        if limit == self.limit:
            return
        self.limit = limit
        self._adopt(min(self.target, limit) if self.target > limit else max(self.target, min(CONNECTIONS_FIRST, limit)))

    def update(self, now: float, received: int, saturated: bool, crowded: bool = False, used: float = 0.0) -> int:
        """Look at the counters; returns the number of connections to use from now on.

        `used` are at work now: more than the target where there are more models than that.
        """
        if not saturated:
            self._window = None
            return self.target
        if self._window is None:
            self._window = (now, received)
            return self.target
        since, base = self._window
        if now - since < MEASURE_S:
            return self.target
        rate = (received - base) / (now - since)
        self._window = (now, received)
        before, settled, self._settled = self._before, self._settled, True
        # The first window after a change has handshakes and slow starts in it.
        if not settled and (before is None or rate < before[1] * CLEAR_GAIN):
            return self.target
        if before is not None and rate < before[1] * GAIN:
            self._doubts += 1
            if self._doubts >= MEASURE_DOUBTS:
                self._adopt(before[0])
                self._hold_until = now + HOLD_S
        elif now >= self._hold_until and self.target < self.limit and not crowded:
            fewer = self.target
            self._adopt(min(max(self.target, int(used)) * 2, self.limit))
            self._before, self._window = (fewer, rate), (now, received)
        else:
            self._before = None
        return self.target

    def _adopt(self, target: int) -> None:
        self.target, self._before, self._window, self._settled, self._doubts = target, None, None, False, 0


class Processors:
    """Whether the lanes have the processors for a limit: then one more only takes time from those that are there.

    Judged by what this process takes. What others take says nothing: a host may be busy and its link slow.
    """

    def __init__(
        self,
        count: int,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self._count = count
        self._clock, self._used = clock, used
        self._before = clock(), used()

    def crowded(self, lanes: int) -> bool:
        """Whether that was so since the last call, with that many lanes."""
        (then, used_then), self._before = self._before, (self._clock(), self._used())
        seconds, used = self._before[0] - then, self._before[1] - used_then
        return used > seconds * max(CROWDED_SHARE * self._count, CROWDED_LANE * lanes)
