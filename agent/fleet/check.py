"""Whether a fleet works, seen from one of its hosts: door, members, certificates, and that no token passes."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.core.names import show
from agent.fleet.hosts import Member
from agent.fleet.nginx import NAMES, SLICES, TLS_NAME

ANSWER_S = 5.0  # a member answers such a question from memory
AT_ONCE = 32  # members that are asked side by side
EXPIRES_SOON_S = 30 * 86400.0
PROBES = 16  # questions through the door, each of which may lead to another member
TOKEN = "Bearer wantd-fleet-check"  # noqa: S105  no secret: whether it passes is the question


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    is_good: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok ' if self.is_good else 'BAD'}  {self.text}"


def check(members: Sequence[Member], door: str, tls_dir: str) -> list[Finding]:
    """Ask the door at `door` and every member. `tls_dir` is as in `nginx.Ring`."""
    try:
        tls = _context(tls_dir) if tls_dir else None
    except (OSError, ssl.SSLError) as error:
        return [Finding(False, f"certificates in {tls_dir}: {error}")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [(member, port) for member in members for port in (SLICES, NAMES)]
        return [*_ask_door(door), *pool.map(lambda one: _ask_member(one[0], one[1], tls), asked)]


def _ask_door(door: str) -> Iterator[Finding]:
    try:
        said, _ = _get(door, "/", None)
        if not said.startswith("door "):
            yield Finding(False, f"door {door}: something else listens there (no header X-Wantd-Fleet)")
            return
        yield Finding(True, f"{said} at {door}")
        for what in ("slices", "names"):
            bodies = [_get(door, f"/-/fleet/{what}/{number}", TOKEN)[1].split() for number in range(PROBES)]
            leaks = sorted({body[0] for body in bodies if body[1:] != ["no-token"]})
            seen = len({body[0] for body in bodies})
            text = f"{what}: {PROBES} requests through the door reached {seen} members"
            yield Finding(not leaks, text + (f"; a token got through to {', '.join(leaks)}" if leaks else ", no token"))
    except (OSError, http.client.HTTPException, ValueError, IndexError) as error:
        yield Finding(False, f"door {door}: {_words(error)}; is nginx running with the configuration of this host?")


def _ask_member(member: Member, port: int, tls: ssl.SSLContext | None) -> Finding:
    where = f"{member.name} {member.host}:{port}"
    try:
        said, _ = _get(f"{'https' if tls else 'http'}://{member.host}:{port}", "/-/fleet", None, tls)
        if said.split()[1:] != [member.name]:
            return Finding(False, f"{where}: says that it is {show(said, 80) or 'no member of a fleet'}")
        left = _expires_s(member, port, tls) if tls else EXPIRES_SOON_S
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Finding(False, f"{where}: {_words(error)}")
    days = f", certificate for {left / 86400:.0f} days" if tls else ""
    return Finding(left >= EXPIRES_SOON_S, where + days)


def _get(url: str, path: str, token: str | None, tls: ssl.SSLContext | None = None) -> tuple[str, str]:
    """What the far end says that it is, and the body."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection = (
        _Https(host, parts.port, context=tls, timeout=ANSWER_S)
        if tls
        else http.client.HTTPConnection(host, parts.port, timeout=ANSWER_S)
    )
    try:
        connection.request("GET", path, headers={"Authorization": token} if token else {})
        response = connection.getresponse()
        return response.headers.get("X-Wantd-Fleet", ""), response.read(1024).decode(errors="replace")
    finally:
        connection.close()


class _Https(http.client.HTTPSConnection):
    """A connection to a member: its certificate has the fleet's name, whatever its address is."""

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), ANSWER_S)
        self.sock = self._context.wrap_socket(plain, server_hostname=TLS_NAME)  # type: ignore[attr-defined]


def _context(directory: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=f"{directory}/ca.pem")
    context.load_cert_chain(f"{directory}/cert.pem", f"{directory}/key.pem")
    return context


def _expires_s(member: Member, port: int, tls: ssl.SSLContext) -> float:
    with (
        socket.create_connection((str(member.address), port), ANSWER_S) as plain,
        tls.wrap_socket(plain, server_hostname=TLS_NAME) as connection,
    ):
        until = (connection.getpeercert() or {}).get("notAfter")
        return ssl.cert_time_to_seconds(str(until)) - time.time()


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
