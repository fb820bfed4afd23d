"""URLs as text from a server: where a redirect may lead, and which two URLs are one origin. Pure."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from agent.core.names import show
from agent.errors import Code, WantdError

MAX_HOPS = 10  # the Hub needs three at most: a rename, the resolve cache, the CDN
MAX_URL = 16 * 1024  # signed CDN URLs run to 2 kB; servers refuse request lines above 8 to 16 kB

DEFAULT_PORTS = {"http": 80, "https": 443}

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}\Z|[0-9A-Fa-f:.]{2,45}\Z")  # a name or IPv4, or IPv6
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What may stand in a URL as it is (RFC 3986 reserved characters and `%`): a signature covers the exact text.
_KEPT = "%/:=&?~#+!$,;'@()*[]"


class Origin(NamedTuple):
    """Scheme, host and port in the form that compares (RFC 6454): lower case, the port always given."""

    scheme: str
    host: str
    port: int


@functools.lru_cache(maxsize=256)  # a request asks ten times for the same: proxy, address, budget, redirect, token
def origin(url: str) -> Origin:
    """The origin of an absolute http(s) URL. Raises `hub_protocol` for anything else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _refused("it is not a URL") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise _refused(f"its scheme is {show(parts.scheme, 20)}, not http or https")
    if not _HOST.match(host):
        raise _refused(f"{show(host, 60)} is not a host name")
    return Origin(parts.scheme, host.rstrip(".").lower(), port or DEFAULT_PORTS[parts.scheme])


def host_key(url: str) -> str:
    """`host:port`, the key of a host's budget (IPv6 in brackets)."""
    _, host, port = origin(url)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def same_origin(a: str, b: str) -> bool:
    """Whether `Authorization` meant for one may go to the other: scheme, host and port are the same."""
    return origin(a) == origin(b)


def next_hop(current_url: str, location: str, hops: int) -> str:
    """The absolute URL that a redirect leads to, ready to be sent as it is.

    `hops` is the number of redirects followed so far. Raises `hub_protocol` for the eleventh, for any scheme
    but http(s), https to http, userinfo, control characters, and text that is no URL. The URL may be signed:
    no error shows more of it than its scheme and host.
    """
    if hops >= MAX_HOPS:
        raise _refused(f"number {hops + 1} in a row, {MAX_HOPS} are followed")
    if not location or len(location) > MAX_URL or _CONTROL.search(location):
        raise _refused("it is empty, too long or holds control characters")
    try:
        # Raw UTF-8 and spaces occur in the wild; aiohttp hands raw bytes over as surrogates.
        joined = urlsplit(urljoin(current_url, quote(location, safe=_KEPT, errors="surrogateescape")))
    except (ValueError, UnicodeError):
        raise _refused("it is not a URL") from None
    if "@" in joined.netloc:
        raise _refused("it holds a user name or password")
    url = urlunsplit((joined.scheme, joined.netloc, joined.path or "/", joined.query, ""))
    if origin(url).scheme == "http" and origin(current_url).scheme == "https":
        raise _refused("it leads from https to http")
    return url


def _refused(why: str) -> WantdError:
    return WantdError(
        Code.HUB_PROTOCOL,
        f"redirect or URL of the server refused: {why}",
        "check HF_ENDPOINT, or report it to the server's operator; nothing was sent there",
    )
