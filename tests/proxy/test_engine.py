"""What several sources ask of the transfer engine: a rule for each, and bytes that may be put together, or may not."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config import Transfer as TransferConfig
from agent.core.access import PlainHttp
from agent.core.remote import Fetched, FetchRequest, Location
from agent.errors import Code, WantdError
from agent.net.address import AddressRule
from agent.net.budget import HostBudgets
from agent.transfer.engine import Engine
from tests.transfer.server import Asked, Manner, Server

MIB = 1024 * 1024
SIZE = 12 * MIB
DATA = random.Random(6).randbytes(SIZE)
OTHER = random.Random(7).randbytes(SIZE)
HUB, LLMLB = AddressRule(False, "https://hub.example"), AddressRule(False, "http://127.0.0.1")
QUICK = TransferConfig(connections=2, retry_min_s=0.01, retry_max_s=0.02)


class Fetching:
    """An engine, and where it is sent: one location after another."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._directory = directory
        self.failed: list[WantdError | None] = []

    async def fetch(self, *places: Location, size: int | None = None, sha256: str | None = None) -> Fetched:
        async def locate(failed: WantdError | None) -> Location:
            self.failed.append(failed)
            return places[min(len(self.failed), len(places)) - 1]

        part = self._directory / "x.part"
        request = FetchRequest("x", str(part), str(self._directory / "x.json"), size, sha256)
        return await self._engine.fetch(request, locate, lambda done, verifying: None)

    @property
    def data(self) -> bytes:
        return (self._directory / "x.part").read_bytes()


@pytest.fixture
async def fetching(tmp_path: Path) -> AsyncIterator[Fetching]:
    engine = Engine(lambda: QUICK, HostBudgets(), {})
    yield Fetching(engine, tmp_path)
    await engine.close()


@pytest.fixture
def make_server() -> Iterator[Callable[[bytes], Server]]:
    servers: list[Server] = []

    def make(data: bytes) -> Server:
        servers.append(Server({"/x": data}))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def at(source: str, url: str, **fields: Any) -> Location:
    """A location of a public Hub (`hub`), or of a private balancer."""
    return Location(source, PlainHttp(url, HUB if source == "hub" else LLMLB), **fields)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_a_private_balancer_does_not_open_the_private_network_to_the_hub(
    fetching: Fetching, make_server: Callable[[bytes], Server]
) -> None:
    server = make_server(DATA)
    await fetching.fetch(at("llmlb", server.url("/x")), size=SIZE, sha256=digest(DATA))
    asked = len(server.asked)
    assert asked
    with pytest.raises(WantdError) as caught:  # there is a connection that could be used again: it is not
        await fetching.fetch(at("hub", server.url("/x")), size=SIZE + 1, sha256=digest(OTHER))
    assert caught.value.code is Code.HUB_PROTOCOL
    assert "an address of a private network" in caught.value.message
    assert len(server.asked) == asked


@pytest.mark.parametrize("size", [SIZE, None])
async def test_with_a_hash_the_next_source_goes_on_from_the_bytes_of_a_stream(
    fetching: Fetching, make_server: Callable[[bytes], Server], size: int | None
) -> None:
    first, second = make_server(DATA), make_server(DATA)
    first.manner = lambda _: Manner(chunked=True, ignore_range=True, cut_after=8 * MIB)
    places = [
        at("llmlb", first.url("/x"), ranges=False),
        at("llmlb", second.url("/x"), size=SIZE, sha256=digest(DATA)),
    ]
    fetched = await fetching.fetch(*places, size=size, sha256=digest(DATA))
    assert (fetched.verified, fetched.sha256) == (True, digest(DATA))
    assert fetching.data == DATA
    starts = [asked.range[0] for asked in second.asked if asked.range]
    assert min(starts) >= 7 * MIB


async def test_without_a_hash_bytes_of_two_sources_are_never_put_together(
    fetching: Fetching, make_server: Callable[[bytes], Server]
) -> None:
    first, second = make_server(DATA), make_server(OTHER)

    def manner(asked: Asked) -> Manner:
        return Manner(headers={"ETag": None}, ignore_range=True, cut_after=8 * MIB)

    first.manner = manner
    second.manner = lambda _: Manner(headers={"ETag": None})
    places = [at("llmlb", server.url("/x"), size=SIZE, ranges=server is second) for server in (first, second)]
    fetched = await fetching.fetch(*places)
    assert not fetched.verified
    assert fetching.data == OTHER


async def test_a_source_that_announces_another_hash_is_not_asked_for_a_byte(
    fetching: Fetching, make_server: Callable[[bytes], Server]
) -> None:
    server = make_server(OTHER)
    with pytest.raises(WantdError) as caught:
        await fetching.fetch(
            at("llmlb", server.url("/x"), size=SIZE, sha256=digest(OTHER)), size=SIZE, sha256=digest(DATA)
        )
    assert caught.value.code is Code.HUB_PROTOCOL
    assert digest(OTHER) in caught.value.message
    assert not server.asked
