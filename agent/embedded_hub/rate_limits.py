"""How many requests a client may send: a fixed window for the API, one for files, told with every response.

Quotas: https://huggingface.co/docs/hub/rate-limits. Headers: draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

API, RESOLVERS = "api", "resolvers"
WINDOW_S = 300.0
API_QUOTA = 500  # of an anonymous address, September 2025
RESOLVE_QUOTA = 3000


class RateLimits:
    """Counts requests by client in one window for all, which begins with the first request after the last one ended."""

    def __init__(
        self,
        api: int = API_QUOTA,
        resolvers: int = RESOLVE_QUOTA,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.quotas = {API: api, RESOLVERS: resolvers}
        self.window_s = window_s
        self._clock = clock
        self._ends = -math.inf
        self._used: Counter[tuple[str, str]] = Counter()

    def take(self, bucket: str, client: str) -> tuple[bool, dict[str, str]]:
        """Count one request: whether it may pass, and the headers that tell the client what is left.

        As on the Hub a refusal has no `Retry-After`: `t` says how long the window still lasts, in seconds.
        """
        now = self._clock()
        if now >= self._ends:
            self._ends = now + self.window_s
            self._used.clear()
        self._used[bucket, client] += 1
        left = self.quotas[bucket] - self._used[bucket, client]
        seconds = math.ceil(round(self._ends - now, 3))  # rounded: (now + 300) - now may be a little over 300
        return left >= 0, {
            "RateLimit": f'"{bucket}";r={max(0, left)};t={seconds}',
            "RateLimit-Policy": f'"fixed window";"{bucket}";q={self.quotas[bucket]};w={math.ceil(self.window_s)}',
        }
