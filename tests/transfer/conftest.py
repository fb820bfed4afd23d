"""Fixtures of the transfer's tests."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.config import Transfer as TransferConfig
from agent.net.address import AddressRule
from agent.transfer.dial import Resolve
from tests.transfer.helpers import Bench, Make
from tests.transfer.server import Server


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes a bench for some content; knobs of `transfer` may be given, the waits are short unless they are."""
    made: list[Bench] = []

    def make(
        data: bytes,
        *,
        tls: ssl.SSLContext | None = None,
        environ: Mapping[str, str] | None = None,
        private_ok: bool = True,
        resolve: Resolve = socket.getaddrinfo,
        **knobs: Any,
    ) -> Bench:
        server = Server({"/file": data}, tls)
        config = TransferConfig(**({"retry_min_s": 0.01, "retry_max_s": 0.05, "stall_timeout_s": 5.0} | knobs))
        made.append(Bench(tmp_path, server, config, environ or {}, AddressRule(private_ok), resolve))
        return made[-1]

    yield make
    for one in made:
        await one.engine.close()
        one.server.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    directory = tmp_path_factory.mktemp("tls")
    cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, "-days", "2", *subject, "-keyout", key, "-out", cert], check=True, capture_output=True)
    yield cert, key
