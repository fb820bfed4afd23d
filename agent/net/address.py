"""Which addresses a connection may go to: a server must not send us into the host's own network."""

from __future__ import annotations

import functools
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from agent.core.names import show
from agent.errors import Code, WantdError

# Addresses that `is_global` passes although they reach, or may reach, something that is not the public network:
# IETF protocol assignments and the 6to4 relay (RFC 6890), 6to4 and local NAT64 (an IPv4 address inside), site-local.
_NOT_PUBLIC = tuple(
    ip_network(net) for net in ("192.0.0.0/24", "192.88.99.0/24", "2002::/16", "64:ff9b:1::/48", "fec0::/10", "::/96")
)
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the whole way to IPv4 on IPv6-only networks; what is inside counts


def embedded(ip: str) -> IPv4Address | IPv6Address:
    """The address that is really reached: IPv4 inside IPv4-mapped and NAT64 addresses is taken out."""
    address = ip_address(ip)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(address.packed[-4:])
    return address


@functools.lru_cache(maxsize=256)  # the same few hosts, several times for each request
def is_public(ip: str) -> bool:
    """Whether the address is a unicast address of the public network. Raises ValueError when it is no address."""
    address = embedded(ip)
    if any(address in net for net in _NOT_PUBLIC if net.version == address.version):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


@functools.lru_cache(maxsize=256)
def is_literal(host: str) -> bool:
    """Whether the host is written as an address (IPv6 without brackets), so that no resolver sees it."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_local_name(host: str) -> bool:
    """Whether the name means this host by definition (RFC 6761)."""
    return host.rstrip(".").lower() == "localhost" or host.rstrip(".").lower().endswith(".localhost")


class AddressRule:
    """A `core.access.AddressCheck`: only public addresses, unless the configured endpoint is itself a private one.

    Even then link-local (the metadata services of clouds) and multicast addresses are refused. `endpoint` is a
    URL that a person configured: a connection to its host is always right, and when that host turns out to have a
    private address, private addresses are fine for what it redirects to. So no name is resolved beforehand.
    Safe to use from several threads.
    """

    def __init__(self, private_ok: bool, endpoint: str = "") -> None:
        self.private_ok = private_ok
        self._endpoint_host = _host(endpoint)
        if self._endpoint_host and is_local_name(self._endpoint_host):
            self.private_ok = True
        elif is_literal(self._endpoint_host):
            self.private_ok |= not is_public(self._endpoint_host)

    def check(self, host: str, ip: str) -> None:
        """Raise `hub_protocol` when `host`, which has the address `ip`, must not be connected to."""
        try:
            public = is_public(ip)
        except ValueError:
            raise _refused(host, ip, "it is not an address") from None
        if public:
            return
        address = embedded(ip)
        if host and host.rstrip(".").lower() == self._endpoint_host:
            self.private_ok = True
            return
        if not self.private_ok:
            raise _refused(
                host, ip, "it is an address of a private network, and the configured endpoint is a public one"
            )
        if address.is_link_local or address.is_multicast:
            raise _refused(host, ip, "link-local and multicast addresses hold no models")

    def check_literal(self, host: str) -> None:
        """Check a host that is written as an address; names are checked when they are resolved."""
        if is_literal(host):
            self.check(host, host)
        elif is_local_name(host) and not self.private_ok:
            self.check(host, "127.0.0.1")


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".").lower()
    except ValueError:
        return ""


def _refused(host: str, ip: str, why: str) -> WantdError:
    return WantdError(
        Code.HUB_PROTOCOL,
        f"connection to {show(host, 80)} at {show(ip, 60)} not allowed: {why}",
        "set HF_ENDPOINT to the private mirror itself, if it is meant: a server named a host inside this network",
    )
