"""When a host holds back: it gave much, gives next to nothing, and fewer connections may be what it wants.

Some hosts starve a client that has many connections, after some gigabytes, and serve one that has few. For the client
that looks like a host that became slow, and connections that are each slow are best made up for by more of them. So
the number is tried downwards, and what helped is kept:

- *collapsed*: with all the connections that help at work, and processors to spare, each second of the last
  `COLLAPSE_S` gave less than `COLLAPSED_SHARE` of the best. One that gives nothing is out of reach, not throttled.
- *trying*: half the connections, half of that, … down to one, `TRIAL_S` each, until the rate is back. If none of them
  gives `HELPS` times as much as there was, the host is just slow: all connections are given back.
- *held*: the number that helped is the most there may be for `REMEMBER_S`, then twice as many, and so on.
"""

from __future__ import annotations

from enum import Enum, auto

from agent.core.retry import COLLAPSE_S, REMEMBER_S, TRIAL_S

COLLAPSED_SHARE = 0.2
HELPS = 2.0
WINDOW_S = 1.0
BEST_S = 600.0  # a best that is older says nothing of today's network


class _State(Enum):
    NORMAL = auto()
    TRYING = auto()
    HELD = auto()


class Throttle:
    """One host. Times are seconds of one clock, rates bytes per second."""

    def __init__(self) -> None:
        self.ceiling: int | None = None  # the most connections there may be; None: as many as are configured
        self._state = _State.NORMAL
        self._window: tuple[float, int] | None = None
        self._last = 0.0  # rate of the window before
        self._best, self._best_at = 0.0, 0.0
        self._low: list[float] = []  # rates of the last windows, while they are below the share
        self._tried: dict[int, float] = {}  # connections -> the rate that they gave
        self._collapsed = 0.0
        self._until = 0.0

    @property
    def holds_back(self) -> bool:
        """Whether the host has collapsed and was not found to be just slow."""
        return self._state is not _State.NORMAL

    def update(self, now: float, received: int, lanes: int, *, used: bool, busy: bool) -> bool:
        """Look at the count of bytes that came over so many `lanes`. Returns whether `ceiling` has changed.

        `used`: as many are at work as help. `busy`: the rate is bounded by something else than the host, the processors
        or a cap.
        """
        before = self.ceiling
        if self._state is _State.HELD and now >= self._until:
            self._rise(now)
        if not used or (busy and self._state is not _State.TRYING):
            self._window = None
            self._low.clear()
            return self.ceiling != before
        if self._window is None:
            self._window = (now, received)
        elif now - self._window[0] >= WINDOW_S:
            rate = (received - self._window[1]) / (now - self._window[0])
            self._window = (now, received)
            self._judge(now, rate, lanes)
        return self.ceiling != before

    def allow(self, most: int) -> None:
        """There may be so many connections by configuration: a ceiling that is no lower has had its time."""
        if self._state is _State.HELD and self.ceiling is not None and self.ceiling >= most:
            self.ceiling, self._state = None, _State.NORMAL

    def _judge(self, now: float, rate: float, lanes: int) -> None:
        held = min(rate, self._last)
        self._last = rate
        if self._state is _State.TRYING:
            self._try(now, rate)
            return
        if held > self._best or now - self._best_at > BEST_S:
            self._best, self._best_at = held, now
        if not 0 < rate < self._best * COLLAPSED_SHARE:
            self._low.clear()
            return
        self._low.append(rate)
        if len(self._low) * WINDOW_S >= COLLAPSE_S:
            self._collapsed = sum(self._low) / len(self._low)
            self._tried = {lanes: self._collapsed}
            self._begin(max(lanes // 2, 1))

    def _begin(self, connections: int) -> None:
        self._state, self.ceiling = _State.TRYING, connections
        self._low = []

    def _try(self, now: float, rate: float) -> None:
        assert self.ceiling is not None  # noqa: S101  set by `_begin`
        self._low.append(rate)
        if len(self._low) * WINDOW_S < TRIAL_S:
            return
        rate = max(self._low[1:])  # the first second has the handshakes in it
        self._tried[self.ceiling] = rate
        if rate >= max(self._best * COLLAPSED_SHARE, self._collapsed * HELPS):
            self._hold(now, self.ceiling, rate)
        elif self.ceiling > 1:
            self._begin(self.ceiling // 2)
        else:
            best = max(self._tried, key=lambda connections: self._tried[connections])
            if self._tried[best] >= self._collapsed * HELPS:
                self._hold(now, best, self._tried[best])
            else:
                self.ceiling = None
                self._return_to_normal(now, self._collapsed)

    def _hold(self, now: float, connections: int, rate: float) -> None:
        self._state, self.ceiling, self._until = _State.HELD, connections, now + REMEMBER_S
        self._forget(now, rate)

    def _rise(self, now: float) -> None:
        assert self.ceiling is not None  # noqa: S101  held
        self.ceiling, self._until = self.ceiling * 2, now + REMEMBER_S

    def _return_to_normal(self, now: float, rate: float) -> None:
        self._state = _State.NORMAL
        self._forget(now, rate)

    def _forget(self, now: float, rate: float) -> None:
        self._best, self._best_at = rate, now
        self._low, self._tried, self._last = [], {}, 0.0
