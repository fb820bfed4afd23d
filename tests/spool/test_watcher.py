"""The watch: what rings the bell, what does not, and that it lives through what people do to directories."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest
from watchdog.observers.inotify_c import InotifyFD

from agent.spool.scan import Scanner
from agent.spool.watcher import MISSED_MAX, Bell, Hints, Watcher, open_inotify

DEADLINE_S = 20.0


class Watched:
    """A bell, a watcher and a scanner on one spool, as the lookout has them."""

    def __init__(self, spool: str, mode: str = "auto", opened: Callable[[], InotifyFD] = open_inotify) -> None:
        self.spool = spool
        self.opened = 0
        self.bell = Bell(asyncio.get_running_loop())
        self.watcher = Watcher(spool, self.bell, lambda: mode, self._open)
        self.scanner = Scanner(spool, self.watcher.watch)
        self._opened = opened
        self.threads: list[InotifyFD] = []

    def _open(self) -> InotifyFD:
        self.threads.append(self._opened())
        return self.threads[-1]

    async def look(self) -> Hints:
        """A scan, and what the bell had for it."""
        await asyncio.to_thread(self._scan)
        return await self.bell.wait(0.05)

    def _scan(self) -> None:
        self.watcher.ensure()
        self.scanner.scan({})
        self.watcher.keep(self.scanner.folders)

    async def hear(self, expected: Callable[[Hints], bool]) -> Hints:
        """Collect hints until they are as expected."""
        heard, deadline = Hints(), time.monotonic() + DEADLINE_S
        while not expected(heard):
            assert time.monotonic() < deadline, heard
            hints = await self.bell.wait(0.2)
            heard.paths |= hints.paths
            heard.scan |= hints.scan
            heard.everything |= hints.everything
        return heard


@pytest.fixture
async def watched(spool: str) -> AsyncIterator[Watched]:
    made = Watched(spool)
    await made.look()
    yield made
    await asyncio.to_thread(made.watcher.stop)


def write(path: str, text: str = "qwen3") -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return path


async def test_it_tells_a_written_a_renamed_a_touched_and_a_removed_want(watched: Watched) -> None:
    path = f"{watched.spool}/a.want"
    write(path)
    assert (await watched.hear(lambda hints: path in hints.paths and hints.paths[path])).paths == {path: True}
    os.utime(path)
    assert (await watched.hear(lambda hints: path in hints.paths)).paths == {path: False}
    os.rename(path, f"{watched.spool}/b.want")
    heard = await watched.hear(lambda hints: len(hints.paths) == 2)
    assert heard.paths == {path: False, f"{watched.spool}/b.want": True} or heard.paths[path] is True
    os.unlink(f"{watched.spool}/b.want")
    await watched.hear(lambda hints: f"{watched.spool}/b.want" in hints.paths)


async def test_reading_a_want_and_writing_its_progress_rings_nothing(watched: Watched) -> None:
    path = write(f"{watched.spool}/a.want")
    await watched.hear(lambda hints: hints.paths.get(path, False))
    with open(path, encoding="ascii") as file:
        file.read()
    write(f"{watched.spool}/.wantd-1.tmp")
    os.rename(f"{watched.spool}/.wantd-1.tmp", f"{watched.spool}/a.progress")
    write(f"{watched.spool}/.hidden.want")
    last = write(f"{watched.spool}/last.want")
    heard = await watched.hear(lambda hints: last in hints.paths)
    assert set(heard.paths) == {last}
    assert not heard.scan


async def test_what_comes_into_a_new_directory_is_heard_after_the_next_scan(watched: Watched) -> None:
    os.mkdir(f"{watched.spool}/team")
    await watched.hear(lambda hints: hints.scan)
    await watched.look()
    path = write(f"{watched.spool}/team/a.want")
    await watched.hear(lambda hints: path in hints.paths)


async def test_a_directory_that_was_renamed_or_made_again_is_heard_under_its_new_name(watched: Watched) -> None:
    write(f"{watched.spool}/team/deep/a.want")
    await watched.look()
    os.rename(f"{watched.spool}/team", f"{watched.spool}/squad")
    os.makedirs(f"{watched.spool}/team/deep")
    await watched.hear(lambda hints: hints.scan)
    await watched.look()
    await watched.look()
    paths = [write(f"{watched.spool}/{name}/deep/b.want") for name in ("team", "squad")]
    heard = await watched.hear(lambda hints: all(path in hints.paths for path in paths))
    assert set(heard.paths) == set(paths)


async def test_a_spool_that_was_removed_is_made_and_watched_again(watched: Watched) -> None:
    shutil.rmtree(watched.spool)
    await watched.hear(lambda hints: hints.scan)
    await watched.look()
    path = write(f"{watched.spool}/a.want")
    await watched.hear(lambda hints: path in hints.paths)


async def test_a_storm_of_mkdir_rename_and_removal_leaves_a_live_watch(watched: Watched) -> None:
    over = threading.Event()

    def storm(number: int) -> None:
        for turn in range(300):
            path = f"{watched.spool}/d{number}-{turn}"
            os.makedirs(f"{path}/x/y")
            write(f"{path}/x/a.want")
            os.rename(path, f"{path}-moved")
            shutil.rmtree(f"{path}-moved", ignore_errors=True)

    threads = [threading.Thread(target=storm, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await watched.look()
    over.set()
    assert watched.watcher.is_alive
    await watched.look()
    path = write(f"{watched.spool}/after.want")
    await watched.hear(lambda hints: path in hints.paths)
    assert len(watched.threads) == 1


async def test_a_watch_whose_thread_has_died_is_opened_again(watched: Watched) -> None:
    watched.threads[0].stop()
    await asyncio.to_thread(watched.threads[0].join, DEADLINE_S)
    assert not watched.watcher.is_alive
    hints = await watched.look()
    assert hints.everything, "what happened meanwhile went unreported"
    assert watched.watcher.is_alive
    path = write(f"{watched.spool}/a.want")
    await watched.hear(lambda hints: path in hints.paths)


async def test_a_watch_that_misses_changes_is_opened_again_and_at_last_the_spool_is_polled(watched: Watched) -> None:
    for turn in range(1, MISSED_MAX):
        await asyncio.to_thread(watched.watcher.missed)
        assert (await watched.look()).everything
        assert len(watched.threads) == turn + 1
        assert not watched.watcher.polling
    await asyncio.to_thread(watched.watcher.missed)
    assert watched.watcher.polling


@pytest.mark.parametrize(("mode", "polls"), [("auto", True), ("inotify", False)])
async def test_without_an_instance_it_polls_unless_that_is_ruled_out(mode: str, polls: bool, spool: str) -> None:
    def none_left() -> InotifyFD:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    watched = Watched(spool, mode, none_left)
    await watched.look()
    assert watched.watcher.polling is polls
    assert bool(watched.watcher.refused) is not polls


async def test_mode_poll_opens_no_watch(spool: str) -> None:
    watched = Watched(spool, "poll")
    await watched.look()
    assert watched.watcher.polling
    assert watched.threads == []


async def test_directories_beyond_the_kernels_limit_are_polled(spool: str) -> None:
    class Full(InotifyFD):
        def add_callback(self, path: bytes, *more: object) -> object:  # type: ignore[override]
            if os.readlink(path).endswith(b"/team"):
                raise OSError(errno.ENOSPC, "inotify watch limit reached")
            return super().add_callback(path, *more)  # type: ignore[arg-type]

    def full() -> InotifyFD:
        inotify = Full()
        inotify.start()
        return inotify

    os.mkdir(f"{spool}/team")
    watched = Watched(spool, opened=full)
    await watched.look()
    try:
        assert watched.watcher.polling
        os.rmdir(f"{spool}/team")
        await watched.look()
        assert not watched.watcher.polling
    finally:
        await asyncio.to_thread(watched.watcher.stop)
