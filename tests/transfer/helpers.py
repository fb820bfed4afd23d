"""An engine, a server and the small things that every test of the transfer needs."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.config import Transfer
from agent.core.access import AddressCheck, PlainHttp
from agent.core.remote import Fetched, FetchRequest, Location
from agent.errors import WantdError
from agent.net.budget import HostBudgets
from agent.transfer.dial import Resolve
from agent.transfer.engine import Engine
from tests.transfer.server import Server

MIB = 1024 * 1024


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Bench:
    """One engine, one server, one directory."""

    def __init__(
        self,
        directory: Path,
        server: Server,
        config: Transfer,
        environ: Mapping[str, str],
        rule: AddressCheck,
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        self.directory, self.server, self.rule = directory, server, rule
        self.config = config  # the one in force
        self.engine = Engine(lambda: self.config, HostBudgets(), environ, resolve=resolve)
        self.part = directory / "file.part"
        self.journal = directory / "file.json"
        self.located: list[WantdError | None] = []
        self.told: list[tuple[int, bool]] = []
        self.location: Callable[[int], Location] = lambda _: self.place()

    def place(self, path: str = "/file", headers: Mapping[str, str] | None = None, **fields: Any) -> Location:
        return self.at(self.server.url(path), headers, **fields)

    def at(self, url: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Location:
        return Location("hub", PlainHttp(url, self.rule, headers or {}), **fields)

    def request(self, **fields: Any) -> FetchRequest:
        data = self.server.files["/file"]
        known: dict[str, Any] = {"size": len(data), "sha256": sha256(data)} | fields
        return FetchRequest("org/name/file", str(self.part), str(self.journal), **known)

    async def fetch(self, **fields: Any) -> Fetched:
        async def locate(failed: WantdError | None) -> Location:
            self.located.append(failed)
            return self.location(len(self.located) - 1)

        return await self.engine.fetch(self.request(**fields), locate, lambda *told: self.told.append(told))

    def holds(self) -> bool:
        return self.part.read_bytes() == self.server.files["/file"]


Make = Callable[..., Bench]
