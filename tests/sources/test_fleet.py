"""The fleet as a source: what it is asked for, what it never is, and when the Hub is asked after all."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agent.core.access import PlainHttp
from agent.core.names import SafeName
from agent.core.remote import Listing, Location, Query, RemoteFile
from agent.core.retry import DOOR_OPEN_S, DOOR_SHUT_S, FLEET_STRIKES, UNUSABLE_FILE_S, WRONG_FILE_S
from agent.errors import Code, WantdError
from agent.sources.fleet import Door, FleetSource, connects_to
from agent.sources.hub_parse import is_restricted
from tests.fakes import COMMIT, Anywhere, FakeClock, error, logged, settle
from tests.sources.asking import ask, http_of

URL = "http://127.0.0.1:8100"
MODEL = SafeName("model-00001-of-00002.safetensors")
ODD = SafeName("a folder/tokenizer+v2.json")
FILES = (RemoteFile(MODEL, 7, sha256="a" * 64), RemoteFile(ODD, 5, git_sha1="b" * 40))
PATIENCE_S = 8.0
SLICE = 1024 * 1024
ASKED = ask("org/name", COMMIT)


class FakeHub:
    """What stands behind the fleet; it remembers what it was asked."""

    name = "chain"

    def __init__(self, name: str = "hub") -> None:
        self.says = Listing(name, ASKED.repo, COMMIT, FILES)
        self.refusal: WantdError | None = None
        self.listed = 0
        self.located: list[tuple[SafeName, WantdError | None]] = []

    async def listing(self, query: Query) -> Listing:
        self.listed += 1
        if self.refusal:
            raise self.refusal
        return self.says

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        self.located.append((name, failed))
        return Location("hub", PlainHttp("http://hub/x", Anywhere()), size=7)


class Ring:
    """A fleet source whose door opens and shuts as the test likes."""

    def __init__(self, gated: bool = False, listings: FakeHub | None = None) -> None:
        self.clock = FakeClock()
        self.hub = FakeHub()
        self.open = True
        self.looks = 0
        self.door = Door(self.connect, self.clock, lambda: PATIENCE_S, lambda: 0.5)
        self.source = FleetSource(
            URL, self.door, Anywhere(), self.hub, self.clock, slice_bytes=SLICE, listings=listings, gated=gated
        )

    async def connect(self) -> bool:
        self.looks += 1
        return self.open

    async def listed(self) -> Ring:
        await self.source.listing(ask("org/name"))
        return self

    async def gives(self, failed: WantdError | None = None, name: SafeName = MODEL) -> str:
        """Who is to give the file."""
        return (await self.source.locate(ASKED, name, failed)).source


async def test_the_hub_lists_and_the_fleet_gives_the_bytes() -> None:
    ring = await Ring().listed()
    assert ring.hub.listed == 1
    for file, path in (
        (FILES[0], f"/org/name/resolve/{COMMIT}/model-00001-of-00002.safetensors"),
        (FILES[1], f"/org/name/resolve/{COMMIT}/a%20folder/tokenizer%2Bv2.json"),
    ):
        location = await ring.source.locate(ASKED, file.name)
        assert (location.source, location.size, location.sha256) == ("fleet", file.size, file.sha256)
        assert location.etag == (file.sha256 or file.git_sha1)
        assert http_of(location).url == URL + path
        assert location.span_bytes == SLICE, "nginx mixes up slices of one response when a member dies"
        assert http_of(location).headers == {}, "no token goes to the fleet"
    assert ring.hub.located == []


async def test_what_the_hub_gives_to_some_alone_passes_the_fleet_by() -> None:
    ring = Ring()
    ring.hub.says = replace(ring.hub.says, restricted=True)
    assert await (await ring.listed()).gives() == "hub"
    assert ring.looks == 0


async def test_unless_the_operator_says_that_every_host_may_read_it() -> None:
    ring = Ring(gated=True)
    ring.hub.says = replace(ring.hub.says, restricted=True)
    assert await (await ring.listed()).gives() == "fleet"


@pytest.mark.parametrize(
    ("model", "restricted"),
    [
        ({}, False),
        ({"gated": False, "private": False}, False),
        ({"gated": None}, False),
        ({"gated": "auto"}, True),
        ({"gated": "manual", "private": False}, True),
        ({"gated": False, "private": True}, True),
        ({"gated": "something new"}, True),
    ],
)
def test_gated_and_private_are_restricted(model: dict[str, object], restricted: bool) -> None:
    assert is_restricted(model) is restricted


async def test_a_file_that_was_not_listed_here_may_be_restricted() -> None:
    assert await Ring().gives() == "hub"
    ring = await Ring().listed()
    assert await ring.gives(name=SafeName("other.bin")) == "hub"


async def test_a_wrong_byte_from_the_fleet_sends_this_file_to_the_hub_for_an_hour() -> None:
    ring = await Ring().listed()
    assert await ring.gives() == "fleet"
    with logged("WARNING") as lines:
        assert await ring.gives(error(Code.CHECKSUM_MISMATCH)) == "hub"
    assert len(lines) == 1
    assert MODEL in lines[0]
    assert await ring.gives(name=ODD) == "fleet", "the other files are not suspected"
    await ring.clock.advance(WRONG_FILE_S - 1)
    assert await ring.gives() == "hub"
    await ring.clock.advance(2)
    assert await ring.gives() == "fleet"


async def test_a_failure_of_the_fleet_is_never_definite() -> None:
    ring = await Ring().listed()
    for code in (Code.FILE_NOT_FOUND, Code.GATED, Code.HUB_UNREACHABLE):
        ring = await Ring().listed()
        assert await ring.gives() == "fleet"
        for _ in range(FLEET_STRIKES - 1):
            assert await ring.gives(error(code)) == "fleet"
        assert await ring.gives(error(code)) == "hub"
        assert ring.hub.located == [(MODEL, None)], "the Hub had no part in it"
        await ring.clock.advance(UNUSABLE_FILE_S + 1)
        assert await ring.gives() == "fleet"


async def test_strikes_are_those_in_a_row() -> None:
    ring = await Ring().listed()
    for _ in range(3):
        assert await ring.gives() == "fleet"
        assert await ring.gives(error(Code.HUB_UNREACHABLE)) == "fleet"


async def test_what_failed_with_the_hub_is_told_to_the_hub() -> None:
    ring = await Ring().listed()
    await ring.gives()
    await ring.gives(error(Code.CHECKSUM_MISMATCH))
    failed = error(Code.HUB_UNREACHABLE)
    assert await ring.gives(failed) == "hub"
    assert ring.hub.located[-1] == (MODEL, failed)


async def test_one_look_at_the_door_serves_all_for_a_moment() -> None:
    ring = await Ring().listed()
    assert await asyncio.gather(*(ring.gives() for _ in range(50))) == ["fleet"] * 50
    assert ring.looks == 1
    await ring.clock.advance(DOOR_OPEN_S)
    await ring.gives()
    assert ring.looks == 2


async def test_a_door_that_is_shut_is_looked_at_again_before_the_hub_is_asked() -> None:
    ring = await Ring().listed()
    ring.open = False
    tasks = [asyncio.create_task(ring.gives()) for _ in range(3)]
    await settle()
    await ring.clock.advance(PATIENCE_S / 2 - 0.1)
    assert not any(task.done() for task in tasks)
    with logged("WARNING") as lines:
        await ring.clock.advance(0.1)
    assert [task.result() for task in tasks] == ["hub"] * 3
    assert ring.looks == 2
    assert len(lines) == 1
    ring.open = True
    await ring.clock.advance(DOOR_SHUT_S - 1)
    assert await ring.gives() == "hub"
    assert ring.looks == 2
    await ring.clock.advance(1)
    assert await ring.gives() == "fleet"


async def test_a_door_that_opens_meanwhile_is_used() -> None:
    ring = await Ring().listed()
    ring.open = False
    task = asyncio.create_task(ring.gives())
    await settle()
    ring.open = True
    await ring.clock.advance(PATIENCE_S / 2)
    assert task.result() == "fleet"


async def test_a_trusted_copy_of_the_listing_spares_the_hub() -> None:
    copy = FakeHub("fleet")
    ring = Ring(listings=copy)
    listing = await ring.source.listing(ask("org/name"))
    assert (listing.source, listing.files, ring.hub.listed, copy.listed) == ("chain", FILES, 0, 1)
    copy.refusal = error(Code.MODEL_NOT_FOUND)
    await ring.source.listing(ask("org/name"))
    assert (ring.hub.listed, copy.listed) == (1, 2), "that the fleet does not know it proves nothing"
    ring.open = False
    await ring.clock.advance(DOOR_OPEN_S)
    task = asyncio.create_task(ring.source.listing(ask("org/name")))
    await settle()
    await ring.clock.advance(100)
    await task
    assert (ring.hub.listed, copy.listed) == (2, 2)


async def test_the_door_is_a_tcp_port() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    look = connects_to(f"http://127.0.0.1:{port}")
    assert await look()
    server.close()
    await server.wait_closed()
    assert not await look()
