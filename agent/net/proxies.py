"""Which HTTP proxy a request goes through, from the variables that every tool reads. No netrc, ever."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from agent.core.names import show
from agent.errors import Code, WantdError
from agent.net.address import is_literal, is_local_name
from agent.net.redirect import DEFAULT_PORTS, origin


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy's URL for a request, or None to go direct. It may hold a password: never show it.

    `https_proxy` or `http_proxy` by the request's scheme, else `all_proxy`; lower case wins over upper, as in curl.
    Loopback is never proxied. Raises `hub_unreachable` for a proxy that does not speak HTTP (SOCKS).
    """
    scheme, host, port = origin(url)
    if is_local_name(host) or (is_literal(host) and ip_address(host).is_loopback):
        return None
    proxy = _variable(environ, f"{scheme}_proxy") or _variable(environ, "all_proxy")
    if not proxy or _bypassed(host, port, _variable(environ, "no_proxy")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    kind = urlsplit(proxy).scheme.lower()
    if kind not in DEFAULT_PORTS:
        raise WantdError(
            Code.HUB_UNREACHABLE,
            f"the proxy variables name a {show(kind, 20)} proxy for {host}, and only HTTP proxies are supported",
            "set HTTPS_PROXY to an http:// proxy, or name the host in NO_PROXY",
        )
    return proxy


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _bypassed(host: str, port: int, no_proxy: str) -> bool:
    return any(_covers(entry.strip().lower(), host, port) for entry in no_proxy.split(",") if entry.strip())


def _covers(entry: str, host: str, port: int) -> bool:
    """One entry of NO_PROXY: `*`, a name (and all below it), an address, a network, each with an optional port."""
    if entry == "*":
        return True
    if is_literal(host):
        try:
            return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass
    name, colon, wanted_port = entry.rpartition(":")
    if colon and wanted_port.isascii() and wanted_port.isdigit():
        return int(wanted_port) == port and _covers(name, host, port) if name else False
    name = entry.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))
