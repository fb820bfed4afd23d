"""Look-ups of names, each in a thread of its own that nothing waits for: one that hangs delays nobody but its asker.

The system's resolver may take 30 s to give up (resolv.conf(5): 5 s for each of two tries and three servers). In the
event loop's own executor, which has six threads on a machine with two processors, six names of a server's choice kept
everything else that needs a thread waiting, and the process from its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from aiohttp.abc import ResolveResult

from agent.core.limits import LOOKUPS_AT_ONCE

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Lookups:
    """The system's resolver (`getaddrinfo`) for one event loop, `LOOKUPS_AT_ONCE` at a time."""

    def __init__(self, getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo) -> None:
        self._getaddrinfo = getaddrinfo
        self._free = asyncio.Semaphore(LOOKUPS_AT_ONCE)

    async def resolve(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        """The addresses of a host, as aiohttp wants them. Raises OSError."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()
        await self._free.acquire()  # given back when the look-up ends, which may be long after nobody waits for it

        def finish(infos: list[Any], error: OSError | None) -> None:
            self._free.release()
            if found.done():
                return
            if error:
                found.set_exception(error)
            else:
                found.set_result(infos)

        def look_up() -> None:
            infos: list[Any] = []
            failed: OSError | None = None
            try:
                infos = self._getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
            except ValueError:  # a label of more than 63 bytes, a NUL
                failed = socket.gaierror(socket.EAI_NONAME, "no such name")
            except OSError as error:
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(finish, infos, failed)

        threading.Thread(target=look_up, name=f"look up {host}"[:60], daemon=True).start()
        return [
            ResolveResult(
                hostname=host, host=_scoped(address), port=address[1], family=kind, proto=proto, flags=_NUMERIC
            )
            for kind, _, proto, _, address in await found
            if isinstance(address[0], str)  # not so for IPv6 where Python was built without it
        ]


def _scoped(address: tuple[Any, ...]) -> str:
    """A link-local address of IPv6 holds for one interface."""
    return f"{address[0]}%{address[3]}" if len(address) == 4 and address[3] else str(address[0])
