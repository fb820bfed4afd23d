"""Ports for servers that must know theirs before they listen, or come back where they were."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

RANGE_FILE = "/proc/sys/net/ipv4/ip_local_port_range"
LOWEST = 10_000
ATTEMPTS = 1_000


def free_ports(count: int) -> list[int]:
    """Distinct ports of loopback that nobody listens on, chosen at random below those that the kernel gives out.

    A port that `bind` to port 0 gave may, once it is closed, be given to the next client or server of any process. One
    from below that range (ip(7), ip_local_port_range) is taken only by those who ask for it by number.
    Raises RuntimeError where there are none.
    """
    chance = random.SystemRandom()
    ports: list[int] = []
    for _ in range(ATTEMPTS):
        port = chance.randrange(LOWEST, _given_out_from())
        if port not in ports and _is_free(port):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError(f"no {count} free ports from {LOWEST} to {_given_out_from()}")


def _given_out_from() -> int:
    """The first port that the kernel gives out itself; where that leaves no room below, any port may be chosen."""
    with suppress(OSError), open(RANGE_FILE, encoding="ascii") as file:
        first = int(file.read().split()[0])
        return first if first > LOWEST + 2 * ATTEMPTS else 65_536
    return 32_768  # Linux's own default


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
