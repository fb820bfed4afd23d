"""A Hub that lies, one way for each repository: `evil/<switch>` is told with that switch, anything else truly.

Two listeners on loopback: the Hub itself on 127.0.0.1, and its storage on 127.0.0.2, which must never see the token.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import unquote

from tests.torture.lies import ALL
from tests.torture.truth import TRUTH, Asked, Sent, step_of


class Adversary:
    """The server. `tokens` has the hosts that saw an Authorization header, `seen` counts requests by repository.

    `own` answers in its place, where a case has a server of its own in mind; None for what it leaves to the others.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        elsewhere: str = "",
        own: Callable[[Asked], Iterator[Sent] | None] = lambda _: None,
    ) -> None:
        self._elsewhere = elsewhere
        self._own = own
        self.tokens: set[str] = set()
        self.seen: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._context = context
        self._listeners = {host: socket.create_server((host, 0), backlog=256) for host in ("127.0.0.1", "127.0.0.2")}
        scheme = "https" if context else "http"
        self.hub, self.cdn = (f"{scheme}://{host}:{sock.getsockname()[1]}" for host, sock in self._listeners.items())
        for host, listener in self._listeners.items():
            threading.Thread(target=self._accept, args=(host, listener), daemon=True).start()

    def __enter__(self) -> Adversary:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for listener in self._listeners.values():
            listener.close()

    def _accept(self, host: str, listener: socket.socket) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(host, sock), daemon=True).start()

    def _serve(self, host: str, sock: socket.socket) -> None:
        try:
            with self._context.wrap_socket(sock, server_side=True) if self._context else sock as stream:
                stream.settimeout(60)
                self._answer(host, stream)
        except OSError:
            return  # the agent has cut us off: that is what should happen

    def _answer(self, host: str, stream: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = stream.recv(65536)
            if not more:
                return
            data += more
        asked = self._read(host, data)
        switch = ALL.get(asked.repo.removeprefix("evil/")) if asked.repo.startswith("evil/") else None
        step = step_of(asked)
        pieces = self._own(asked) or (switch.lie if switch and switch.at == step else TRUTH[step])(asked)
        for piece in pieces:
            if isinstance(piece, float):
                if self._closing.wait(piece):
                    return
            elif asked.method == "HEAD":
                stream.sendall(piece.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if b"\r\n\r\n" in piece else piece)
                if b"\r\n\r\n" in piece:
                    return
            else:
                stream.sendall(piece)
        stream.shutdown(socket.SHUT_WR)
        while stream.recv(65536):  # closing with unread bytes would reset what was sent
            continue

    def _read(self, host: str, data: bytes) -> Asked:
        lines = data.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        method, target = lines[0].split(" ")[:2]
        path = re.sub(r"^https?://[^/]*", "", target)  # as it comes to an HTTP proxy
        parts = unquote(path.partition("?")[0]).strip("/").split("/")
        repo = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2])
        with self._lock:
            if "authorization" in headers:
                self.tokens.add(host)
            step = "api" if parts[0] == "api" else "resolve" if "/resolve/" in path else "bytes"
            number = self.seen[repo, step]
            self.seen[repo, step] += 1
        return Asked(method, repo, path, headers, number, self.hub, self.cdn, self._elsewhere)
