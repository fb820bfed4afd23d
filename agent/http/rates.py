"""The rate of the last minutes, so that a page that is opened now shows what went before."""

from __future__ import annotations

from collections import deque

STEP_S = 2.0
STEPS = 150  # five minutes


class Rates:
    """Means of the rate over steps of `STEP_S`. What was not noted was zero: no timer runs while nothing moves."""

    def __init__(self) -> None:
        self._noted: deque[tuple[int, float, int]] = deque(maxlen=STEPS)  # number of the step, sum, how many

    def note(self, rate: float, now: float) -> None:
        """The rate in bytes per second at a monotonic time in seconds."""
        step = int(now // STEP_S)
        if self._noted and self._noted[-1][0] == step:
            _, total, count = self._noted[-1]
            self._noted[-1] = (step, total + rate, count + 1)
        else:
            self._noted.append((step, rate, 1))

    def recent(self, now: float) -> list[int]:
        """Bytes per second of each whole step of the last five minutes, the newest last; no zeros before the first."""
        end = int(now // STEP_S)
        values = [0] * STEPS
        for step, total, count in self._noted:
            if 0 <= (at := step - end + STEPS) < STEPS:
                values[at] = round(total / count)
        first = next((at for at, value in enumerate(values) if value), STEPS)
        return values[first:]
