"""One budget of requests for each host, shared by everything in this process that talks to it.

Servers say how many requests are left (`RateLimit`, `RateLimit-Policy`: draft-ietf-httpapi-ratelimit-headers, as the
Hub sends them) and when to come back (`Retry-After`: RFC 9110 section 10.2.3). All of it is untrusted text.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime

from cachetools import LRUCache

from agent.core.retry import REFUSED_WAIT_MIN_S, RESUME_SPACING_S, SERVER_WAIT_MAX_S, UNTOLD_WAIT_S
from agent.errors import Code, WantdError

LOW_SHARE = 0.1  # below a tenth of the quota the rest is spread over the time until the window ends
LOW_COUNT = 10  # the same where the server does not tell its quota
MAX_HOSTS = 1024  # redirects can name any number of hosts
QUOTAS_KEPT = 8  # of one host; the Hub has two
MAX_HEADER = 1024  # characters that are read of one header
_REFUSALS = (429, 503)


@dataclass(frozen=True, slots=True)
class Quota:
    """The quota `name`: `remaining` requests are left for the next `reset_s` seconds, of `limit` (0 = unknown)."""

    remaining: int
    reset_s: float
    limit: int = 0
    name: str = ""

    @property
    def spacing_s(self) -> float:
        """Seconds to leave between requests, 0.0 while there is plenty."""
        low = self.limit * LOW_SHARE if self.limit else LOW_COUNT
        return self.reset_s / self.remaining if 0 < self.remaining < low else 0.0


def parse_quotas(ratelimit: str, policy: str = "") -> list[Quota]:
    """`"api";r=0;t=55` and `"fixed window";"api";q=500;w=300` as quotas; text without any gives none."""
    limits = {name: values["q"] for name, values in _items(policy) if "q" in values}
    return [
        Quota(values["r"], float(min(values["t"], SERVER_WAIT_MAX_S)), limits.get(name, 0), name)
        for name, values in _items(ratelimit)
        if "r" in values and "t" in values
    ]


def parse_retry_after(text: str, now: float) -> float | None:
    """Seconds to wait: the integer, or the HTTP date less `now` (seconds since 1970). None for any other text."""
    text = text.strip()[:MAX_HEADER]
    if text.isascii() and text.isdigit():
        return float(min(int(text[:10]), SERVER_WAIT_MAX_S))
    at = _date(text)
    return None if at is None else min(max(at - now, 0.0), SERVER_WAIT_MAX_S)


def rate_limited(
    who: str,
    wait_s: float,
    hint: str = "wait, or set a token (HF_TOKEN) for a larger quota",
    *,
    model: str | None = None,
    file: str | None = None,
) -> WantdError:
    """`rate_limited`: `who` takes no requests for that many seconds."""
    message = f"rate limited by {who}; retrying in {wait_s:.0f} s"
    return WantdError(Code.RATE_LIMITED, message, hint, retry_after_s=wait_s, model=model, file=file)


def _items(text: str) -> list[tuple[str, dict[str, int]]]:
    """The list members of a header: the last bare item is the quota's name, `key=123` its parameters."""
    found: list[tuple[str, dict[str, int]]] = []
    for member in text[:MAX_HEADER].split(","):
        name, values = "", {}
        for part in member.split(";"):
            key, equals, value = part.strip().partition("=")
            if not equals:
                name = key.strip('"')
            elif value.isascii() and value.isdigit():
                values[key] = int(value[:10])
        found.append((name, values))
    return found


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None


@dataclass(slots=True)
class _Host:
    """Times are of the clock, in seconds."""

    blocked_until: float = 0.0
    spacing_s: float = 0.0
    spacing_until: float = 0.0
    next_at: float = 0.0  # when the last slot was taken, plus the spacing
    resuming: bool = False  # a wait was asked for, and no good response came since it ended
    refusals: int = 0
    quotas: list[Quota] = field(default_factory=list)  # as the last response told them,
    told_at: float = 0.0  # and when that was


class HostBudgets:
    """When the next request to a host may go out. Thread-safe; a host is `host:port`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._hosts: LRUCache[str, _Host] = LRUCache(MAX_HOSTS)

    def observe(self, host: str, status: int, headers: Mapping[str, str]) -> None:
        """Learn from a response, whatever its status; header names are looked up without regard to case."""
        low = {name.lower(): value for name, value in headers.items()}
        quotas = parse_quotas(low.get("ratelimit", ""), low.get("ratelimit-policy", ""))
        refused = status in _REFUSALS
        if not quotas and not refused and host not in self._hosts:
            return
        asked = None
        if retry_after := low.get("retry-after"):
            date = _date(low["date"][:MAX_HEADER]) if "date" in low else None  # spares us the skew of two clocks
            asked = parse_retry_after(retry_after, self._wall() if date is None else date)
        with self._lock:
            state = self._state(host)
            now = self._clock()
            state.refusals = state.refusals + 1 if refused else 0
            wait = self._wait(status, quotas, asked, state.refusals)
            state.blocked_until = max(state.blocked_until, now + wait)
            if wait:
                state.resuming = True
            elif not refused and now >= state.blocked_until:
                state.resuming = False
            if quotas:
                state.quotas, state.told_at = quotas[:QUOTAS_KEPT], now
                state.spacing_s = max(quota.spacing_s for quota in quotas)
                state.spacing_until = now + max(quota.reset_s for quota in quotas)

    @staticmethod
    def _wait(status: int, quotas: list[Quota], asked: float | None, refusals: int) -> float:
        spent = [quota.reset_s + 1 for quota in quotas if quota.remaining == 0]
        if spent:  # one second more than it says: its own count is in whole seconds
            wait = max(spent)
        elif status not in _REFUSALS:
            wait = 0.0
        elif asked is not None:
            wait = max(asked, REFUSED_WAIT_MIN_S)
        elif status == 429:
            wait = UNTOLD_WAIT_S * 2 ** min(refusals - 1, 10)
        else:
            wait = 0.0  # a 503 without a word is a fault of the server, not a limit: the caller retries
        return min(wait, SERVER_WAIT_MAX_S)

    def delay(self, host: str) -> float:
        """Seconds until the next request to the host may go out. 0.0 means now, and takes that slot."""
        with self._lock:
            state = self._hosts.get(host)
            if state is None:
                return 0.0
            now = self._clock()
            spacing = state.spacing_s if now < state.spacing_until else 0.0
            spacing = max(spacing, RESUME_SPACING_S if state.resuming else 0.0)
            due = max(state.blocked_until, state.next_at if spacing else 0.0)
            if now < due:
                return due - now
            state.next_at = now + spacing
            return 0.0

    def quotas(self) -> list[tuple[str, Quota]]:
        """What hosts told of their quotas that has not run out since, with the seconds that are left now."""
        with self._lock:
            now = self._clock()
            return [
                (host, replace(quota, reset_s=quota.reset_s - (now - state.told_at)))
                for host, state in self._hosts.items()
                for quota in state.quotas
                if quota.reset_s > now - state.told_at
            ]

    def _state(self, host: str) -> _Host:
        state = self._hosts.get(host)
        if state is None:
            state = self._hosts[host] = _Host()
        return state
