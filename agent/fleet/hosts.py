"""The list of the fleet's hosts: `NAME ADDRESS` a line, `#` begins a comment. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from agent.core.names import show
from agent.errors import ConfigError

HOSTS_MAX = 10_000  # nginx starts in a third of a second with so many; the page says what to do long before

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class Member:
    """One host of the fleet."""

    name: str
    address: IPv4Address | IPv6Address

    @property
    def host(self) -> str:
        """The address as it stands before `:PORT`."""
        return f"[{self.address}]" if self.address.version == 6 else str(self.address)


def parse_hosts(text: str, where: str) -> list[Member]:
    """The members in their order. `where` names the file in errors. Raises ConfigError with every problem.

    Addresses, not names: nginx admits members by address, and looks a name up only when it starts.
    """
    members: dict[str, Member] = {}
    addresses: set[IPv4Address | IPv6Address] = set()
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        problem = None
        if len(words) != 2 or not _NAME.match(words[0]):
            problem = f"expected NAME ADDRESS, not {show(line, 60)}"
        else:
            try:
                member = Member(words[0], ip_address(words[1]))
            except ValueError:
                problem = f"{show(words[1], 60)} is not an IP address"
            else:
                if member.name in members or member.address in addresses:
                    problem = f"{show(words[0])} or its address stands there twice"
                members[member.name] = member
                addresses.add(member.address)
        if problem:
            problems.append(f"{where}, line {number}: {problem}")
    if not members and not problems:
        problems.append(f"{where}: names no host")
    if len(members) > HOSTS_MAX:
        problems.append(f"{where}: {len(members)} hosts, at most {HOSTS_MAX} make one ring")
    if problems:
        raise ConfigError(problems)
    return list(members.values())
