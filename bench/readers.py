"""`python -m bench.readers`: the ways to read ranges: aiohttp on one loop, and blocking sockets in threads.

Nothing but the reading and writing: no hash, no journal, no Hub. Each asks the same nginx for the same ranges over the
same number of connections and writes them in place; three rounds in turn, medians.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import aiohttp

from agent.transfer.partial import WRITE
from agent.transfer.tls import Tls
from agent.transfer.wire import Connection
from bench.data import Repo
from bench.servers import Nginx

SIZE = 2 * 1024**3
SPAN = 64 * 1024**2
CONNECTIONS = 2
STALL_S = 30.0
CHUNK = 256 * 1024
ROUNDS = 3
REPO = Repo("bench/readers", (("one.bin", SIZE),))


def spans() -> list[tuple[int, int]]:
    """First and last byte of each request."""
    return [(start, min(start + SPAN, SIZE) - 1) for start in range(0, SIZE, SPAN)]


def with_aiohttp(url: str, trust: ssl.SSLContext | None, fd: int) -> None:
    """One loop, `readany` and `pwrite`, as an aiohttp client would write it."""

    async def all_of_them() -> None:
        left = iter(spans())
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:

            async def lane() -> None:
                for start, end in left:
                    headers = {"Range": f"bytes={start}-{end}", "Accept-Encoding": "identity"}
                    async with session.get(url, headers=headers, ssl=trust or True) as answer:
                        assert answer.status == 206
                        while piece := await answer.content.readany():
                            os.pwrite(fd, piece, start)
                            start += len(piece)

            await asyncio.gather(*(lane() for _ in range(CONNECTIONS)))

    asyncio.run(all_of_them())


def with_threads(url: str, trust: ssl.SSLContext | None, fd: int) -> None:
    """The engine's own connection: `recv_into` a reused buffer and `pwrite`, in threads."""
    in_threads(
        url, fd, lambda sock, host: Connection(sock, STALL_S, tls=tls_over(sock, trust, host) if trust else None)
    )


def with_ssl_sockets(url: str, trust: ssl.SSLContext | None, fd: int) -> None:
    """The same, over the standard library's SSLSocket."""
    assert trust is not None

    def connect(sock: socket.socket, host: str) -> Connection:
        wrapped = trust.wrap_socket(sock, server_hostname=host)
        return Connection(wrapped, STALL_S, tls=cast("Tls", _Filling(wrapped)))

    in_threads(url, fd, connect)


class _Filling:
    """An SSLSocket that fills the buffer, as the kernel does with MSG_WAITALL."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sendall = sock.sendall
        self._sock = sock

    def recv_into(self, buffer: memoryview, nbytes: int = 0, flags: int = 0) -> int:
        n = more = self._sock.recv_into(buffer)
        while flags and more and n < len(buffer):
            more = self._sock.recv_into(buffer[n:])
            n += more
        return n


def tls_over(sock: socket.socket, trust: ssl.SSLContext, host: str) -> Tls:
    """A handshake, as the engine's dialer makes it."""
    tls = Tls(sock, trust, host)
    tls.handshake(STALL_S)
    return tls


def in_threads(url: str, fd: int, connect: Callable[[socket.socket, str], Connection]) -> None:
    """All spans over as many threads as connections."""
    parts = urlsplit(url)
    left = iter(spans())

    def lane() -> None:
        host = parts.hostname or ""
        connection = connect(socket.create_connection((host, parts.port or 0)), host)
        buffer = memoryview(bytearray(CHUNK))
        for start, end in left:
            head = connection.ask("GET", parts.path, parts.netloc, {"Range": f"bytes={start}-{end}"})
            assert head.status == 206
            while start <= end:
                n = connection.read_into(buffer[: min(CHUNK, end + 1 - start)])
                for at in range(0, n, WRITE):
                    os.pwrite(fd, buffer[at : min(at + WRITE, n)], start + at)
                start += n
            connection.finish()
        connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(lane) for _ in range(CONNECTIONS)]:
            done.result()


def measure(
    read: Callable[[str, ssl.SSLContext | None, int], None], url: str, certificate: str, path: str
) -> tuple[float, float]:
    """Wall and CPU seconds of one reading."""
    trust = ssl.create_default_context(cafile=certificate) if url.startswith("https") else None
    with open(path, "wb") as file:
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        read(url, trust, file.fileno())
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    assert os.path.getsize(path) == SIZE
    os.unlink(path)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Serve, read in turn, print a table."""
    with ExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        work = stack.enter_context(tempfile.TemporaryDirectory())
        REPO.make(data)
        nginx = stack.enter_context(Nginx(work, data))
        print(f"| {SIZE // 1024**2} MiB, {CONNECTIONS} connections | wall s | CPU s |\n|---|---|---|")
        for face in ("plain", "tls"):
            scheme = "https" if face == "tls" else "http"
            url = f"{scheme}://127.0.0.1:{nginx.ports[face]}/{REPO.id}/one.bin"
            ways = {"aiohttp": with_aiohttp, "threads": with_threads}
            if face == "tls":
                ways["threads, SSLSocket"] = with_ssl_sockets
            seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, read in ways.items():
                    seen[name].append(measure(read, url, nginx.certificate, str(Path(work) / "out")))
            for name, figures in seen.items():
                wall, cpu = (statistics.median(column) for column in zip(*figures, strict=True))
                print(f"| {scheme}, {name} | {wall:.2f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
