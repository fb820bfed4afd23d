"""How long to wait before the next try: exponential with full jitter, or not at all.

Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/) spreads a thousand hosts that
lost one server at the same moment. An attempt is counted from the last byte of progress, by whoever calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import WantdError

_MAX_DOUBLINGS = 32  # 2**32 s is past every ceiling; keeps the power a small number


@dataclass(frozen=True, slots=True)
class Backoff:
    """Bounds in seconds; `attempts` is how many failures in a row are borne, None for any number."""

    min_s: float = 1.0
    max_s: float = 300.0
    attempts: int | None = None

    def delay(self, attempt: int, error: WantdError, random: float) -> float | None:
        """Seconds until the next try after failure number `attempt` (1 is the first) without progress between.

        `random` is in [0, 1). None means give up: the error is not one that time mends, or there were enough. What a
        server asked for (`error.retry_after_s`) is never undercut, and spread upwards by the jitter of the first
        attempt, so that those it sent away do not come back in one moment.
        """
        if not error.retryable or (self.attempts is not None and attempt >= self.attempts):
            return None
        if error.retry_after_s is not None:
            return max(error.retry_after_s, 0.0) + random * self.min_s
        ceiling = min(self.max_s, self.min_s * 2.0 ** min(max(attempt, 1), _MAX_DOUBLINGS))
        return self.min_s + random * max(ceiling - self.min_s, 0.0)


# How often the agent looks, in seconds, and why so often.
LOCK_POLL_S = 0.25  # portalocker's own interval; a waiter starts at most this late
CATALOG_CHECK_S = 2.0  # an editor's save takes effect while its author watches
DISK_CHECK_S = 5.0  # a statvfs; a person who makes room sees the download continue
SWEEP_S = 3600.0  # partials expire after days: once an hour is often enough
SLOTS_CHECK_S = 1.0  # a larger transfer.jobs takes effect
BALANCER_S = 2.0  # a person who watches a dashboard sees it move
BALANCER_AGAIN_S = 30.0  # the same is reported again after so long: the balancer may have been restarted
SYSTEMD_S = 1.0  # `systemctl status` is read by people: once a second is often enough
STOP_S = 4.0  # of the 5 s that stopping may take in all
