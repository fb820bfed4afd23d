"""Where the HTTP face listens, as `http.listen` spells it: `unix:PATH` or `HOST:PORT`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

RUNTIME = "{runtime}"
SOCKET_PATH_MAX = 107  # bytes of a Unix socket's path, unix(7)
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host, by name or address, and a port; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


Address = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """Read one entry of `http.listen`. Raises ValueError for anything else."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if "\0" in path or not path.startswith(("/", "~/", RUNTIME)):
            raise ValueError(text)
        return UnixAddress(path)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif not _NAME.fullmatch(host):
        raise ValueError(text)
    if not colon or not port.isascii() or not port.isdigit() or int(port[:6]) > 65535:
        raise ValueError(text)
    return TcpAddress(host, int(port))


def runtime_directory(environ: Mapping[str, str], home: str) -> str:
    """What `{runtime}` stands for: systemd's RuntimeDirectory, else the user's, else `.llmlb/run` in the home.

    See systemd.exec(5), RuntimeDirectory=, and the XDG Base Directory Specification. `home` is the home directory.
    """
    given = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if given.startswith("/"):
        return given
    users = environ.get("XDG_RUNTIME_DIR", "")
    return f"{users}/wantd" if users.startswith("/") else f"{home}/.llmlb/run"


def is_loopback(host: str) -> bool:
    """Whether only this host can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_of(header: str) -> str | None:
    """The name in a Host header (RFC 9110 section 7.2), lower case, without port and brackets; None for nonsense."""
    header = header.strip().lower()
    if header.startswith("["):
        name, bracket, rest = header[1:].partition("]")
        if not bracket or (rest and not re.fullmatch(r":[0-9]{0,5}", rest)):
            return None
        try:
            return str(ipaddress.IPv6Address(name))
        except ValueError:
            return None
    name, colon, port = header.partition(":")
    if (colon and not re.fullmatch("[0-9]{0,5}", port)) or not _NAME.fullmatch(name):
        return None
    return name.rstrip(".")


def is_name_of(name: str, address: Address, own_names: frozenset[str]) -> bool:
    """Whether a request's Host names this listener. A name that a stranger's DNS points here is none of its own.

    Addresses cannot be rebound, so every address passes where not only loopback is served: there may be a translation
    of addresses in between. `own_names` are the host's name and those that are configured.
    """
    if isinstance(address, UnixAddress) or name in own_names:
        return True
    if is_loopback(address.host):
        return is_loopback(name) or name == address.host.lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == address.host.lower() or name == "localhost"
    return True
