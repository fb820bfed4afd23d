"""What is known of each host that bytes come from: how many connections help there, and how much has come."""

from __future__ import annotations

from cachetools import LRUCache

from agent.core.shares import HostShare
from agent.transfer.rate import Tuner

MAX_HOSTS = 1024  # locations can name any number of hosts


class Host:
    """One host and port. Guarded by the lock of its owner."""

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.tuner = Tuner(most)
        self.share = HostShare(self.tuner.target, most)
        self.received = 0  # bytes, by all lanes

    def limit(self, most: int) -> None:
        """There may be so many connections."""
        self.tuner.set_limit(most)
        self.share.most, self.share.target = most, self.tuner.target

    def tick(self, now: float, crowded: bool) -> None:
        """Adapt the number of connections to what they have brought since the last call."""
        share = self.share
        share.target = self.tuner.update(now, self.received, share.load >= share.target, crowded, share.load)


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

    def tick(self, now: float, crowded: bool) -> None:
        """To be called several times a second. `crowded`: lanes wait for the processors, not for the network."""
        for host in self._hosts.values():
            host.tick(now, crowded)
