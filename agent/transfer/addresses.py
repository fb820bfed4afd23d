"""The addresses of hosts: which are used in turn, and which are left alone for a while."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cachetools import LRUCache

from agent.core.addresses import in_order
from agent.core.retry import BAD_ADDRESS_S, SLOW_ADDRESS_S

MAX_HOSTS = 1024
MAX_ADDRESSES = 64  # of one host; a resolver may name any number


@dataclass(slots=True)
class _Known:
    found: set[str] = field(default_factory=set)  # by the last look-up
    used: dict[str, int] = field(default_factory=dict)
    bad_until: dict[str, float] = field(default_factory=dict)
    speeds: dict[str, float] = field(default_factory=dict)  # bytes per second of the last connection that gave some


class Addresses:
    """Thread-safe. A host is `host:port`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._hosts: LRUCache[str, _Known] = LRUCache(MAX_HOSTS)
        self._numbers = itertools.count(1)

    def order(self, host: str, found: Sequence[tuple[int, str]]) -> list[str]:
        """The addresses in the order to try them; `found` are (family, address) in the resolver's order."""
        found = found[:MAX_ADDRESSES]
        with self._lock:
            known = self._known(host)
            known.found = {address for _, address in found}
            now = self._clock()
            for gone in (known.used.keys() | known.bad_until.keys() | known.speeds.keys()) - known.found:
                for kept in (known.bad_until, known.speeds):
                    kept.pop(gone, None)
                known.used.pop(gone, None)
            for address in [address for address, until in known.bad_until.items() if until <= now]:
                del known.bad_until[address]
                known.speeds.pop(address, None)
            return in_order(found, known.bad_until, known.used)

    def connected(self, host: str, address: str) -> None:
        """A connection was made: the others are due first now."""
        with self._lock:
            self._known(host).used[address] = next(self._numbers)

    def measured(self, host: str, address: str, rate: float) -> None:
        """A connection to it gave that many bytes per second."""
        with self._lock:
            self._known(host).speeds[address] = rate

    def speeds(self, host: str) -> dict[str, list[float]]:
        """What the last connection to each address gave, of those that are not left alone."""
        with self._lock:
            known = self._known(host)
            return {each: [rate] for each, rate in known.speeds.items() if each not in known.bad_until}

    def failed(self, host: str, address: str) -> None:
        """It could not be connected to."""
        with self._lock:
            self._known(host).bad_until[address] = self._clock() + BAD_ADDRESS_S

    def leave(self, host: str, slow: set[str]) -> bool:
        """Leave those alone that give far less than others, or than they did. False where there are no others."""
        with self._lock:
            known = self._known(host)
            if not known.found - known.bad_until.keys() - slow:
                return False
            until = self._clock() + SLOW_ADDRESS_S
            known.bad_until |= dict.fromkeys(slow & known.found, until)
            return True

    def is_bad(self, host: str, address: str) -> bool:
        """Whether it is to be left alone now, and there is another one."""
        with self._lock:
            known = self._known(host)
            bad = known.bad_until.get(address, 0.0) > self._clock()
            return bad and bool(known.found - known.bad_until.keys())

    def _known(self, host: str) -> _Known:
        known = self._hosts.get(host)
        if known is None:
            known = self._hosts[host] = _Known()
        return known
