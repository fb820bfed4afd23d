"""TLS to a host behind the proxy of the environment: a tunnel (CONNECT) through a plain proxy, or one over TLS."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import Code, WantdError
from tests.transfer.helpers import Make, content

MIB = 1024 * 1024
HOST = "models.example"


class Tunnels:
    """A proxy that knows CONNECT alone, and leads every tunnel to one port of this machine."""

    def __init__(self, port: int, context: ssl.SSLContext | None, status: str = "200 OK") -> None:
        self.asked: list[list[str]] = []
        self._port, self._context, self._status = port, context, status
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if context else "http"
        self.url = f"{scheme}://u:p@127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client = self._context.wrap_socket(sock, server_side=True) if self._context else sock
            with client, socket.create_connection(("127.0.0.1", self._port)) as server:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(65536)
                self.asked.append(head.decode().split("\r\n"))
                client.sendall(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
                while self._pump(client, server):
                    pass

    def _pump(self, client: socket.socket, server: socket.socket) -> bool:
        waiting = isinstance(client, ssl.SSLSocket) and client.pending()
        ready = [client] if waiting else select.select([client, server], [], [])[0]
        for one in ready:
            data = one.recv(65536)
            (server if one is client else client).sendall(data)
            if not data:
                return False
        return True


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ssl.SSLContext]]:
    """A certificate for the host and the proxy, and a server's context with it."""
    directory: Path = tmp_path_factory.mktemp("tls")
    cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
    names = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=IP:127.0.0.1,DNS:{HOST}"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, "-days", "2", *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    yield cert, context


@pytest.mark.parametrize("over_tls", [False, True])
async def test_a_file_comes_through_a_tunnel(bench: Make, trusted: tuple[str, ssl.SSLContext], over_tls: bool) -> None:
    cert, context = trusted
    behind = bench(content(3 * MIB), tls=context)
    tunnels = Tunnels(behind.server.port, context if over_tls else None)
    one = bench(content(3 * MIB), environ={"HTTPS_PROXY": tunnels.url, "SSL_CERT_FILE": cert})
    one.location = lambda _: one.at(f"https://{HOST}/file")
    with contextlib.closing(tunnels):
        await one.fetch()
    assert one.holds()
    assert behind.server.asked[0].headers["host"] == HOST
    assert "proxy-authorization" not in behind.server.asked[0].headers
    line, *fields = tunnels.asked[0]
    assert line == f"CONNECT {HOST}:443 HTTP/1.1"
    assert "Proxy-Authorization: Basic dTpw" in fields


async def test_a_proxy_that_refuses_the_tunnel_is_told(bench: Make, trusted: tuple[str, ssl.SSLContext]) -> None:
    cert, context = trusted
    behind = bench(content(3 * MIB), tls=context)
    tunnels = Tunnels(behind.server.port, None, "407 Proxy Authentication Required")
    one = bench(content(3 * MIB), environ={"HTTPS_PROXY": tunnels.url, "SSL_CERT_FILE": cert})
    one.location = lambda _: one.at(f"https://{HOST}/file")
    with contextlib.closing(tunnels), pytest.raises(WantdError) as caught:
        await one.fetch()
    assert caught.value.code is Code.HUB_UNREACHABLE and "407" in caught.value.message
