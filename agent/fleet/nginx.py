"""The configuration of one member's nginx, from the list of all members. Pure but for the template that ships."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import urlsplit

from agent.core.names import show
from agent.errors import ConfigError
from agent.fleet.hosts import Member

DOOR, SLICES, FOLLOW, NAMES = 8100, 8110, 8111, 8112  # ports
TLS_NAME = "wantd-fleet"  # the name that every member's certificate has, since nginx checks one name for all of them
# Where the Hub keeps its files (seen 2026): cdn-lfs*.hf.co, cas-bridge.xethub.hf.co, cdn-lfs.huggingface.co.
STORAGE = ("hf.co", "huggingface.co")
KEYS_PER_MIB = 8000  # of a cache's zone (nginx, proxy_cache_path)

_SIZE = re.compile(r"([1-9][0-9]{0,9})([kmg]?)\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?\Z")
_PLAIN = re.compile(r"[A-Za-z0-9._:/@-]+\Z")  # what may stand in the configuration without quotes


@dataclass(frozen=True, slots=True)
class Ring:
    """What a member's configuration is made of.

    `slice_size` and `max_size` are as nginx writes sizes (`1m`, `200g`). `storage` are domains that the Hub may
    redirect to, themselves and all below them. `tls_dir` holds ca.pem, cert.pem and key.pem, empty: plain HTTP.
    `command` is shown in the comment on top.
    """

    endpoint: str
    cache: str
    slice_size: str = "1m"
    max_size: str = "100g"
    tls_dir: str = ""
    storage: tuple[str, ...] = STORAGE
    resolvers: tuple[str, ...] = ("127.0.0.53",)
    command: str = "wantd fleet nginx"


def render(members: Sequence[Member], self_name: str, ring: Ring) -> str:
    """The configuration of the member `self_name`. Raises ConfigError with every problem."""
    me = next((member for member in members if member.name == self_name), None)
    problems = _problems(ring)
    if me is None:
        problems.append(f"--self {show(self_name)}: not among the hosts")
    if me is None or problems:
        raise ConfigError(problems)
    slices = -(-bytes_of(ring.max_size) // bytes_of(ring.slice_size))
    values = {
        "SELF": me.name,
        "COUNT": str(len(members)),
        "COMMAND": ring.command,
        "ADDRESS": me.host,
        "DOOR": str(DOOR),
        "SLICES": str(SLICES),
        "FOLLOW": str(FOLLOW),
        "NAMES": str(NAMES),
        "SLICE": ring.slice_size,
        "CACHE": ring.cache,
        "MAX_SIZE": ring.max_size,
        "ZONE": f"{max(-(-slices // KEYS_PER_MIB), 1)}m",
        "ENDPOINT": ring.endpoint,
        "RESOLVER": " ".join(f"[{one}]" if ":" in one else one for one in ring.resolvers),
        "SCHEME": "https" if ring.tls_dir else "http",
        "SSL": " ssl" if ring.tls_dir else "",
        "STORAGE": _lines([f'"{_storage(ring.endpoint, host)}" $upstream_http_location;' for host in ring.storage], 2),
        "SLICE_SERVERS": _servers(members, SLICES),
        "NAME_SERVERS": _servers(members, NAMES),
        "ALLOW": _lines([*(f"allow {member.address};" for member in members), "deny all;"], 2),
        "TLS_SERVER": _lines(_tls_server(ring.tls_dir), 2),
        "TLS_CLIENT": _lines(_tls_client(ring.tls_dir), 3),
    }
    template = files("agent.fleet").joinpath("nginx.conf").read_text(encoding="utf-8")
    text = re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], template)
    return "\n".join(line for line in text.split("\n") if line.strip() or not line) + "\n" * (not text.endswith("\n"))


def bytes_of(size: str) -> int:
    """A size as nginx writes it. Raises ValueError."""
    if not (match := _SIZE.match(size)):
        raise ValueError(f"{show(size)} is not a size like 1m or 200g")
    return int(match[1]) * _UNITS[match[2].lower()]


def _problems(ring: Ring) -> list[str]:
    problems = []
    for option, value in (("--slice", ring.slice_size), ("--max-size", ring.max_size)):
        try:
            bytes_of(value)
        except ValueError as error:
            problems.append(f"{option}: {error}")
    for option, value in (("--cache", ring.cache), ("--tls-dir", ring.tls_dir or "/")):
        if not value.startswith("/") or not _PLAIN.match(value):
            problems.append(f"{option} {show(value)}: expected an absolute path of letters, digits and . _ - : @ /")
    if not _PLAIN.match(ring.endpoint) or not urlsplit(ring.endpoint).hostname:
        problems.append(f"--endpoint {show(ring.endpoint)}: expected a URL like https://huggingface.co")
    problems += [f"--storage {show(host)}: expected a domain" for host in ring.storage if not _HOST.match(host)]
    problems += [f"--resolver {show(one)}: expected an address" for one in ring.resolvers if not _PLAIN.match(one)]
    return problems


def _storage(endpoint: str, host: str) -> str:
    """The pattern of the URLs that lie at a domain or below it. Never from https to http."""
    scheme = "https?" if endpoint.startswith("http:") else "https"
    name, _, port = host.partition(":")
    return rf"~^{scheme}://([a-z0-9-]+\.)*{re.escape(name)}{f':{port}' if port else ''}/"


def _servers(members: Sequence[Member], port: int) -> str:
    return _lines([f"server {member.host}:{port} max_fails=1 fail_timeout=10s;" for member in members], 2)


def _tls_server(directory: str) -> list[str]:
    if not directory:
        return []
    return [
        f"ssl_certificate {directory}/cert.pem;",
        f"ssl_certificate_key {directory}/key.pem;",
        f"ssl_client_certificate {directory}/ca.pem;",
        "ssl_verify_client on;",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        "ssl_session_cache shared:fleet:1m;",
    ]


def _tls_client(directory: str) -> list[str]:
    if not directory:
        return []
    return [
        f"proxy_ssl_certificate {directory}/cert.pem;",
        f"proxy_ssl_certificate_key {directory}/key.pem;",
        f"proxy_ssl_trusted_certificate {directory}/ca.pem;",
        f"proxy_ssl_name {TLS_NAME};",
    ]


def _lines(lines: Sequence[str], depth: int) -> str:
    return "\n".join("    " * depth + line for line in lines)
