"""Who may ask for what.

- `Host` must be a name of the listener: a page of another site whose name was made to point here (DNS rebinding) has
  another one. `Origin`, where a browser sends it, must be our own page's; so must `Sec-Fetch-Site`.
- Over TCP nothing is changed, for any client, and where `http.token_file` is set, little is told without the token.
- Over the Unix socket the kernel says who asks (SO_PEERCRED, unix(7)): root, the agent's user and members of its group
  may change something.

Everything that is no GET or HEAD counts as a change, but for `READING_POSTS`: a route that forgets to say what it is
cannot be open.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import struct
import time
from collections.abc import Callable, Collection

from aiohttp import web
from aiohttp.typedefs import Handler

from agent.core.listen import Address, TcpAddress, host_of, is_name_of
from agent.http.connections import Connections
from agent.http.errors import Refusal

READING = frozenset({"GET", "HEAD"})
READING_POSTS = frozenset({"paths-info"})  # names of routes: the Hub's clients ask for some paths in a body
OPEN = frozenset({"page", "page-file", "healthy", "ready"})  # names of routes that need no token: they tell nothing
TOKEN_BYTES = 4096
TOKEN_S = 1.0  # a changed token file is in force after so long
_PEERGROUPS = 59  # SO_PEERGROUPS, since Linux 4.13; the socket module has no name for it
_GROUPS_BYTES = 1024  # that the socket module reads at most: 256 groups


class TokenFile:
    """The token that `path()` holds, its first line; `path()` is empty where there is to be none."""

    def __init__(self, path: Callable[[], str]) -> None:
        self._path = path
        self._read: tuple[float, str, str | None] = (-TOKEN_S, "", None)  # when, from where, what

    async def accepts(self, authorization: str) -> bool:
        """Whether the header bears the token. True where none is asked for; a file that cannot be read lets none in."""
        path = self._path()
        if not path:
            return True
        at, where, token = self._read
        if where != path or time.monotonic() - at > TOKEN_S:
            token = await asyncio.to_thread(_first_line, path)
            self._read = (time.monotonic(), path, token)
        scheme, _, given = authorization.partition(" ")
        return (
            token is not None
            and scheme.lower() == "bearer"
            and hmac.compare_digest(given.strip().encode(), token.encode())
        )


class Guard:
    """`check` stands before every handler. `hosts` gives the names that this host has besides its addresses."""

    def __init__(self, connections: Connections, hosts: Callable[[], frozenset[str]], token: TokenFile) -> None:
        self._connections = connections
        self._hosts = hosts
        self._token = token

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve the request, or refuse it."""
        connection = self._connections.of(request)
        if connection is None:
            raise Refusal(400, "bad_request", "the connection is gone", "connect again")
        with self._connections.serving(connection):
            self._check_host(request, connection.address)
            _check_origin(request)
            if request.match_info.http_exception is None:
                await self._check_rights(request, connection.address)
            return await handler(request)

    def _check_host(self, request: web.Request, address: Address) -> None:
        given = request.headers.getall("Host", [])
        name = host_of(given[0]) if len(given) == 1 else None
        if name is None or not is_name_of(name, address, self._hosts()):
            raise Refusal(
                403,
                "foreign_host",
                f"this agent is not called {ascii(given[0][:100]) if given else 'nothing'}",
                "use the address that it listens on, or add the name to http.hosts",
            )

    async def _check_rights(self, request: web.Request, address: Address) -> None:
        name = request.match_info.route.name or ""
        changes = request.method not in READING and name not in READING_POSTS
        if isinstance(address, TcpAddress):
            if changes:
                raise Refusal(
                    403, "tcp_only_reads", "nothing is changed over TCP", "use the agent's Unix socket, as `wantd` does"
                )
            if name not in OPEN and not await self._token.accepts(request.headers.get("Authorization", "")):
                raise Refusal(
                    401,
                    "unauthorized",
                    "the token is missing or wrong",
                    "send `Authorization: Bearer TOKEN` with the token in the agent's http.token_file",
                    {"WWW-Authenticate": "Bearer"},
                )
        elif changes and not may_change(request.get_extra_info("socket")):
            raise Refusal(
                403,
                "not_yours",
                "only root, the agent's user and members of its group may change something",
                "run the command as one of them, with sudo for example",
            )


def may_change(connection: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket may change something."""
    size = struct.calcsize("3i")
    _, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    try:
        more = connection.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, _GROUPS_BYTES)
    except OSError:  # an older kernel, or a user with more groups than fit
        more = b""
    groups = struct.unpack(f"{len(more) // 4}i", more[: len(more) // 4 * 4])
    return is_ours(uid, {gid, *groups}, os.geteuid(), os.getegid())


def is_ours(uid: int, gids: Collection[int], own_uid: int, own_gid: int) -> bool:
    """Whether a user is root, we, or a member of our group. Root's group is no group of ours: it is everybody's."""
    return uid in (0, own_uid) or (own_gid != 0 and own_gid in gids)


def _check_origin(request: web.Request) -> None:
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
    own = f"http://{request.headers['Host']}"
    visit = request.headers.get("Sec-Fetch-Mode") == "navigate" and request.method in READING  # a link to the page
    if (origin is not None and origin.lower() != own.lower()) or (site not in ("none", "same-origin") and not visit):
        raise Refusal(
            403, "foreign_origin", "pages of other sites may not ask this agent", "open the agent's own page instead"
        )


def _first_line(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(TOKEN_BYTES)
    except (OSError, UnicodeDecodeError):
        return None
    return next((line.strip() for line in text.splitlines() if line.strip()), None)
