"""The lookout over a real directory, with a clock that the test moves: what is looked at, in which order, and when."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.config import Spool
from agent.requests.lookout import POLL_NAMES, RESCAN_NAMES, RESCANS_A_ROUND, Lookout
from agent.spool.files import Stamp
from agent.spool.scan import Scanner
from agent.spool.watcher import Bell, Watcher
from agent.state.ticket import Ticket
from tests.fakes import START, FakeClock

DEADLINE_S = 20.0


class Post:
    """A lookout, and the tickets that it compares with."""

    def __init__(self, root: Path, mode: str) -> None:
        self.root = root
        self.clock = FakeClock()
        self.tickets: dict[str, Ticket] = {}
        self.bell = Bell(asyncio.get_running_loop())
        self.watcher = Watcher(str(root), self.bell, lambda: mode)
        scanner = Scanner(str(root), self.watcher.watch)
        self.lookout = Lookout(self.bell, self.watcher, scanner, self.tickets, self.clock, lambda: Spool(dir=str(root)))

    def put(self, name: str, text: str = "qwen3") -> str:
        path = self.root / f"{name}.want"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def known(self, *paths: str) -> None:
        """What these hold now was read."""
        for path in paths:
            ticket = self.tickets[path] = Ticket(path, START)
            ticket.stamp = Stamp.of(os.lstat(path))
            Path(path.removesuffix(".want") + ".progress").touch()

    async def looks(self, *expected: str) -> list[str]:
        """The paths that are to be looked at, in order, until those expected are among them."""
        found: list[str] = []
        deadline = time.monotonic() + DEADLINE_S
        while not set(expected) <= set(found):
            assert time.monotonic() < deadline, (found, expected)
            found += await self._next()
        while self.lookout.is_scanning:  # no time may pass meanwhile: it would count as the scan's own
            found += await self._next()
        return found

    async def scan(self) -> list[str]:
        """What the scan that is due finds."""
        found = await self._next()
        while self.lookout.is_scanning:
            found += await self._next()
        return found + await self._next()

    async def _next(self) -> list[str]:
        try:
            async with asyncio.timeout(0.1):
                return [path for path, _ in (await self.lookout.next()).paths]
        except TimeoutError:
            return []


@pytest.fixture(params=["auto", "poll"])
async def post(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Post]:
    made = Post(tmp_path / "spool", request.param)
    yield made
    made.lookout.close()
    await asyncio.to_thread(made.watcher.stop)


async def test_the_first_look_finds_what_is_there(post: Post) -> None:
    paths = [post.put("a"), post.put("team/b")]
    assert set(await post.looks(*paths)) == set(paths)


async def test_each_is_looked_at_by_the_clock_though_nothing_told_of_it(post: Post) -> None:
    paths = [post.put(f"{number}") for number in range(20)]
    await post.looks(*paths)
    post.known(*paths)
    await post.scan()
    post.watcher.stop()  # deaf: what follows rings nothing
    post.put("7", "other")
    for _ in range(4):
        await post.clock.advance(30.0)
        await post.lookout.rescan()
        if paths[7] in await post.scan():
            return
    pytest.fail("not found by the clock")


async def test_a_removed_want_is_looked_at_once_more(post: Post) -> None:
    path = post.put("a")
    await post.looks(path)
    post.known(path)
    Path(path).unlink()
    await post.clock.advance(30.0)
    await post.lookout.rescan()
    assert path in await post.looks(path)


async def test_one_that_is_being_written_is_looked_at_again_after_a_while(post: Post) -> None:
    path = post.put("a")
    await post.looks(path)
    post.known(path)
    await post.scan()
    post.lookout.look_again(path)
    assert path not in await post._next()
    await post.clock.advance(2.0)
    assert path in await post.looks(path)


async def test_a_dead_watch_is_opened_again_without_a_rescan(tmp_path: Path) -> None:
    post = Post(tmp_path, "auto")
    path = post.put("a")
    await post.looks(path)
    inotify = post.watcher._inotify
    assert inotify
    inotify.stop()
    await asyncio.to_thread(inotify.join, DEADLINE_S)
    await post.lookout.check_watch()
    assert post.watcher.is_alive
    new = post.put("b")
    await post.looks(new)
    await asyncio.to_thread(post.watcher.stop)


def test_every_want_is_looked_at_within_minutes() -> None:
    for wants in (100, 1_000, 10_000, 100_000, 1_000_000):
        rescans = wants / max(RESCAN_NAMES, wants / RESCANS_A_ROUND)
        assert rescans * 30 <= 300
    assert 100_000 / POLL_NAMES <= 60
