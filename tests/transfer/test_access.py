"""A source whose bytes do not come over plain HTTP is one file: all it takes stands here, around the real engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.core.access import (
    Access,
    Body,
    Caller,
    ConnectionLost,
    LocationExpired,
    PlainHttp,
    ProtocolError,
    RateLimited,
    Stalled,
)
from agent.core.names import SafeName
from agent.core.ports import Source
from agent.core.remote import Fetched, FetchRequest, Listing, Location, Query, RemoteFile
from agent.errors import Code, WantdError
from agent.sources.chain import Chain
from agent.transfer.engine import Engine
from tests.sources.asking import ask
from tests.transfer.helpers import MIB, Make, content, sha256

SIZE = 24 * MIB
NAME = SafeName("model.gguf")
QUERY = ask("org/name")
READ = 128 * 1024  # bytes that one read gives at most


@dataclass
class Memory:
    """A file in memory, and what is wrong with it. An `Opener`: what a new source has to implement."""

    data: bytes
    knows_ranges: bool = True
    knows_size: bool = True
    fault: Callable[[int], Exception | None] = lambda _: None  # of each `open`, which are numbered from 0
    silent_after: int | None = None  # bytes, of all bodies together
    host: str = "this host"
    given: int = 0  # bytes
    opened: int = 0
    closed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, span: tuple[int, int] | None, caller: Caller) -> Body:
        with self.lock:
            number, self.opened = self.opened, self.opened + 1
        if fault := self.fault(number):
            with self.lock:
                self.closed += 1
            raise fault
        start, end = span if span and self.knows_ranges else (0, len(self.data))
        return MemoryBody(self, start, end, caller)


class MemoryBody:
    """Some of the bytes. A `Body`."""

    etag = None

    def __init__(self, memory: Memory, start: int, end: int, caller: Caller) -> None:
        self.start, self.ranges = start, memory.knows_ranges
        self.end = end if memory.knows_size else None
        self.size = len(memory.data) if memory.knows_size else None
        self._memory, self._caller = memory, caller
        self._pos, self._last = start, end

    def read_into(self, view: memoryview) -> int:
        memory = self._memory
        if memory.silent_after is not None and memory.given >= memory.silent_after:
            cut = threading.Event()
            self._caller.watch(cut.set)
            if cut.wait(self._caller.stall_s):
                raise ConnectionLost("cut")
            raise Stalled(f"no byte for {self._caller.stall_s:g} s")
        n = min(len(view), READ, self._last - self._pos)
        view[:n] = memory.data[self._pos : self._pos + n]
        self._pos += n
        with memory.lock:
            memory.given += n
        return n

    def finish(self) -> bool:
        return self._pos < self._last

    def close(self, complete: bool) -> None:
        with self._memory.lock:
            self._memory.closed += 1


class OtherSource:
    """A source of one file, read in the way that it is given. A `Source`."""

    name = "other"

    def __init__(self, access: Access, file: RemoteFile, ranges: bool = True) -> None:
        self.access, self.file, self.ranges = access, file, ranges
        self.failed: list[WantdError | None] = []

    async def listing(self, query: Query) -> Listing:
        return Listing(self.name, query.repo, query.revision, (self.file,))

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        self.failed.append(failed)
        return Location(self.name, self.access, ranges=self.ranges, unreachable=Code.PROXY_UNREACHABLE)


def source_of(memory: Memory, *, listed: bool = True) -> OtherSource:
    data = memory.data
    return OtherSource(memory, RemoteFile(NAME, len(data) if listed else None, sha256(data)), memory.knows_ranges)


class Fetching:
    """The engine, fetching the file of a source into a directory."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self.part = directory / "x.part"
        self.journal = directory / "x.json"
        self.done = 0

    async def fetch(self, source: Source) -> Fetched:
        (file,) = (await source.listing(QUERY)).files

        async def locate(failed: WantdError | None) -> Location:
            return await source.locate(QUERY, file.name, failed)

        def on_bytes(done: int, verifying: bool) -> None:
            self.done = done

        request = FetchRequest(file.name, str(self.part), str(self.journal), file.size, file.sha256)
        return await asyncio.wait_for(self._engine.fetch(request, locate, on_bytes), 30)

    async def fails(self, source: Source) -> WantdError:
        with pytest.raises(WantdError) as caught:
            await self.fetch(source)
        return caught.value


@pytest.fixture
def fetching(bench: Make, tmp_path: Path) -> Fetching:
    return Fetching(bench(b"", stall_timeout_s=0.3, connections=4).engine, tmp_path)


@pytest.mark.parametrize("size", [0, 1, 50_000, SIZE])
@pytest.mark.parametrize("knows_ranges", [True, False])
@pytest.mark.parametrize("listed", [True, False])
async def test_a_file_of_another_way_arrives_whole_and_verified(
    fetching: Fetching, size: int, knows_ranges: bool, listed: bool
) -> None:
    memory = Memory(content(size), knows_ranges=knows_ranges)
    fetched = await fetching.fetch(source_of(memory, listed=listed))
    assert (fetched.size, fetched.verified, fetched.source) == (size, True, "other")
    assert fetching.part.read_bytes() == memory.data
    assert not fetching.journal.exists()
    assert memory.opened == memory.closed


async def test_it_needs_no_size_at_all(fetching: Fetching) -> None:
    memory = Memory(content(SIZE), knows_ranges=False, knows_size=False)
    assert (await fetching.fetch(source_of(memory, listed=False))).size == SIZE
    assert fetching.part.read_bytes() == memory.data


async def test_a_source_that_says_too_late_that_it_knows_no_ranges_is_read_as_a_whole(fetching: Fetching) -> None:
    memory = Memory(content(SIZE), knows_ranges=False)
    source = source_of(memory)
    source.ranges = True
    assert (await fetching.fetch(source)).verified


async def test_it_is_resumed_with_what_was_there_and_stops_at_once(fetching: Fetching) -> None:
    memory = Memory(content(SIZE), silent_after=SIZE // 2)
    fetch = asyncio.ensure_future(fetching.fetch(source_of(memory)))
    async with asyncio.timeout(10):
        while memory.given < SIZE // 2:
            await asyncio.sleep(0.01)
    fetch.cancel()
    await asyncio.wait([fetch], timeout=5)
    assert fetch.cancelled() and memory.opened == memory.closed
    memory.silent_after = None
    assert (await fetching.fetch(source_of(memory))).verified
    assert fetching.part.read_bytes() == memory.data
    assert memory.given <= SIZE * 1.05


@pytest.mark.parametrize("fault", [ConnectionLost("reset"), LocationExpired("gone"), RateLimited(0.05)])
async def test_what_passes_is_tried_again(fetching: Fetching, fault: Exception) -> None:
    memory = Memory(content(SIZE), fault=lambda number: fault if number in (0, 2) else None)
    assert (await fetching.fetch(source_of(memory))).verified


@pytest.mark.parametrize(
    ("fault", "code", "retryable"),
    [
        (ConnectionLost("reset"), Code.PROXY_UNREACHABLE, True),
        (LocationExpired("gone"), Code.PROXY_UNREACHABLE, True),
        (Stalled("no byte for 1 s"), Code.STALLED, True),
        (RateLimited(90.0), Code.RATE_LIMITED, True),
        (ProtocolError("nonsense"), Code.HUB_PROTOCOL, False),
        (WantdError(Code.UNAUTHORIZED, "the registry refused", "log in"), Code.UNAUTHORIZED, False),
        (ZeroDivisionError(), Code.INTERNAL, True),
    ],
)
async def test_what_does_not_pass_ends_with_the_code_and_the_name_of_the_far_end(
    fetching: Fetching, fault: Exception, code: Code, retryable: bool
) -> None:
    memory = Memory(content(SIZE), fault=lambda _: fault)
    error = await fetching.fails(source_of(memory))
    assert (error.code, error.retryable) == (code, retryable)
    assert memory.host in error.message or code in (Code.UNAUTHORIZED, Code.INTERNAL)
    assert memory.opened == memory.closed


async def test_silence_ends_as_stalled(fetching: Fetching) -> None:
    error = await fetching.fails(source_of(Memory(content(SIZE), silent_after=0)))
    assert error.code is Code.STALLED and "0.3 s" in error.message


async def test_wrong_bytes_are_found_out(fetching: Fetching) -> None:
    memory = Memory(content(SIZE))
    source = source_of(memory)
    memory.data = content(SIZE, seed=2)
    assert (await fetching.fails(source)).code is Code.CHECKSUM_MISMATCH


async def test_another_source_goes_on_from_its_bytes(fetching: Fetching, bench: Make) -> None:
    data = content(SIZE)

    def breaks(number: int) -> Exception | None:
        return ConnectionLost("reset") if number >= 4 else None

    memory = Memory(data, fault=breaks)
    file = RemoteFile(NAME, SIZE, sha256(data))
    served = bench(data)
    http = OtherSource(served.place("/file").access, file)
    fetched = await fetching.fetch(Chain([OtherSource(memory, file), http]))
    assert fetched.verified and fetching.part.read_bytes() == data
    assert memory.given > 0 and memory.given + served.server.sent <= SIZE * 1.05


# -- a way that is built on plain HTTP --------------------------------------------------------------------------------

_MIXED = bytes(byte ^ 0x5A for byte in range(256))


@dataclass
class Mixed:
    """An `Opener` for bytes that a server keeps in a form of its own, as Xet does."""

    inner: PlainHttp

    @property
    def host(self) -> str:
        return self.inner.host

    def open(self, span: tuple[int, int] | None, caller: Caller) -> Body:
        return MixedBody(caller.http(self.inner, span))


class MixedBody:
    def __init__(self, inner: Body) -> None:
        self.start, self.end, self.size, self.etag, self.ranges = (
            inner.start,
            inner.end,
            inner.size,
            inner.etag,
            inner.ranges,
        )
        self._inner = inner
        self.finish, self.close = inner.finish, inner.close

    def read_into(self, view: memoryview) -> int:
        n = self._inner.read_into(view)
        view[:n] = bytes(view[:n]).translate(_MIXED)
        return n


@pytest.mark.parametrize("size", [50_000, SIZE])
async def test_a_way_that_is_built_on_http_uses_the_connections_of_the_engine(
    fetching: Fetching, bench: Make, size: int
) -> None:
    data = content(size)
    served = bench(data.translate(_MIXED))
    plain = served.place("/file").access
    assert isinstance(plain, PlainHttp)
    source = OtherSource(Mixed(plain), RemoteFile(NAME, size, sha256(data)))
    assert (await fetching.fetch(source)).verified
    assert fetching.part.read_bytes() == data
    assert served.server.most_open <= len(served.server.asked)


async def test_a_way_that_is_built_on_http_fails_like_any_other(fetching: Fetching, bench: Make) -> None:
    served = bench(content(SIZE))
    served.server.close()
    plain = served.place("/file").access
    assert isinstance(plain, PlainHttp)
    source = OtherSource(Mixed(plain), RemoteFile(NAME, SIZE, "0" * 64))
    error = await fetching.fails(source)
    assert error.code is Code.PROXY_UNREACHABLE and "127.0.0.1" in error.message
