"""What is known of each host that bytes come from: how many connections help there, and how much has come."""

from __future__ import annotations

from cachetools import LRUCache

from agent.core.shares import HostShare
from agent.core.throttle import Throttle
from agent.transfer.rate import Tuner

MAX_HOSTS = 1024  # locations can name any number of hosts


class Host:
    """One host and port. Guarded by the lock of its owner."""

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.tuner = Tuner(most)
        self.throttle = Throttle()
        self.share = HostShare(self.tuner.target, most)
        self.received = 0  # bytes, by all lanes
        self._configured = most

    def limit(self, most: int) -> None:
        """There may be so many connections by configuration."""
        self._configured = most
        self._adopt_ceiling()

    def tick(self, now: float, crowded: bool, capped: bool) -> bool:
        """Adapt the number of connections to what they have brought since the last call.

        Returns whether the host was found to hold back, just now.
        """
        share, before = self.share, self.throttle.holds_back
        used = share.load >= share.target
        if self.throttle.update(now, self.received, share.lanes, used=used, busy=crowded or capped):
            self._adopt_ceiling()
        share.target = self.tuner.update(now, self.received, used, crowded, share.load)
        return self.throttle.holds_back and not before

    def _adopt_ceiling(self) -> None:
        self.throttle.allow(self._configured)
        ceiling = self.throttle.ceiling
        most = self._configured if ceiling is None else min(ceiling, self._configured)
        self.tuner.set_limit(most)
        self.share.most, self.share.target = most, self.tuner.target


class Hosts:
    """All hosts, each with a number of connections of its own; those used last are remembered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._hosts: LRUCache[str, Host] = LRUCache(MAX_HOSTS)

    def get(self, name: str) -> Host:
        """The host, a new one where it is not known."""
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = Host(name, self._most)
        return host

    def limit(self, most: int) -> None:
        """There may be so many connections to each. The same again changes nothing."""
        if most != self._most:
            self._most = most
            for host in self._hosts.values():
                host.limit(most)

    def tick(self, now: float, crowded: bool, cap: int) -> list[Host]:
        """To be called several times a second; returns the hosts that were found to hold back, just now.

        `crowded`: lanes wait for the processors, not for the network. `cap`: of the rate, 0 for none.
        """
        return [host for host in self._hosts.values() if host.tick(now, crowded, bool(cap))]
