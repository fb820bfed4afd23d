"""What the lookout decides, with the watch, the scanner and the clock in the test's hands: no spool, no thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.config import Spool
from agent.core.retry import GLANCE_S, MISSED_S, SCAN_REST
from agent.requests.lookout import (
    BATCH,
    GLANCE_MOST,
    POLL_NAMES,
    PUT_AT_ONCE,
    RESCAN_NAMES,
    RESCANS_A_ROUND,
    Look,
    Lookout,
)
from agent.spool.files import QUIET_S
from agent.spool.scan import Found, Known
from agent.spool.watcher import HINTS_MAX, Bell
from agent.state.ticket import Ticket
from tests.fakes import START, FakeClock, Inline, settle

POLL_S = 2.0


@dataclass
class FakeWatch:
    """A watch that remembers what it is told."""

    polling: bool = False
    is_alive: bool = True
    ensured: int = 0
    misses: int = 0
    kept: list[list[str]] = field(default_factory=list)

    def ensure(self) -> None:
        self.ensured += 1
        self.is_alive = True

    def keep(self, folders: Collection[str]) -> None:
        self.kept.append(list(folders))

    def missed(self) -> None:
        self.misses += 1


@dataclass
class Asked:
    """One scan, as it was asked for."""

    everything: bool
    crowded: set[str]
    names: int
    known: dict[str, Known]


class FakeScanner:
    """Finds what the test puts in, after as much time as it says."""

    def __init__(self, clock: FakeClock) -> None:
        self.folders = ["/spool", "/spool/team"]
        self.found = Found()
        self.takes_s = 0.0
        self.asked: list[Asked] = []
        self.glances: list[tuple[int, dict[str, Known]]] = []
        self.glimpsed: list[str] = []
        self._clock = clock

    def scan(self, known: Mapping[str, Known], *, everything: bool, crowded: Collection[str], names: int) -> Found:
        self.asked.append(Asked(everything, set(crowded), names, dict(known)))
        self._clock.pass_(self.takes_s)
        found, self.found = self.found, Found()
        return found

    def glance(self, known: Mapping[str, Known], most: int) -> list[str]:
        self.glances.append((most, dict(known)))
        self._clock.pass_(self.takes_s)
        return self.glimpsed


class Post:
    """A lookout whose first scan, the one of a start, is done."""

    def __init__(self) -> None:
        asyncio.get_running_loop().set_default_executor(Inline())
        self.clock = FakeClock()
        self.watch = FakeWatch()
        self.scanner = FakeScanner(self.clock)
        self.tickets: dict[str, Ticket] = {}
        self.bell = Bell(asyncio.get_running_loop())
        self.lookout = Lookout(
            self.bell, self.watch, self.scanner, self.tickets, self.clock, lambda: Spool(poll_interval_s=POLL_S)
        )

    async def look(self) -> Look | None:
        """The next look; None where the lookout waits for something to happen."""
        task = asyncio.create_task(self.lookout.next())
        await settle()
        if task.done():
            return task.result()
        task.cancel()
        return None

    async def looks(self) -> list[Look]:
        """All that there is to look at now, until it waits."""
        found = []
        while (look := await self.look()) is not None:
            found.append(look)
            assert len(found) < 1000, "it never waits"
        return [look for look in found if look.paths or look.unanswered]

    async def paths(self) -> list[str]:
        return [path for look in await self.looks() for path, _ in look.paths]

    async def waits_s(self) -> float | None:
        """For how many seconds it sleeps now; None: until it is rung for."""
        await self.looks()
        return self.lookout._pause()


@pytest.fixture
async def post() -> Post:
    made = Post()
    await made.looks()
    made.scanner.asked.clear()
    made.watch.kept.clear()
    made.watch.ensured = 0
    return made


async def test_at_the_start_every_want_is_looked_at() -> None:
    post = Post()
    post.scanner.found = Found(changed=["/spool/a.want"], removed=["/spool/b.want"], unanswered=["/spool/c.want"])
    looks = await post.looks()
    assert [path for look in looks for path, _ in look.paths] == ["/spool/a.want", "/spool/b.want"]
    assert [path for look in looks for path in look.unanswered] == ["/spool/c.want"]
    assert [(scan.everything, scan.crowded, scan.names) for scan in post.scanner.asked] == [(True, set(), 0)]


async def test_nothing_to_do_waits_until_it_is_rung_for(post: Post) -> None:
    assert await post.waits_s() is None
    await post.clock.advance(100_000.0)
    assert await post.looks() == []
    assert post.scanner.asked == []


async def test_a_hint_is_looked_at_without_a_scan(post: Post) -> None:
    post.bell.ring("/spool/a.want", closed=True)
    post.bell.ring("/spool/b.want")
    assert [look.paths for look in await post.looks()] == [[("/spool/a.want", True), ("/spool/b.want", False)]]
    assert post.scanner.asked == []


async def test_a_want_that_was_closed_once_counts_as_closed(post: Post) -> None:
    for first, then, closed in ((True, False, True), (False, True, True), (False, False, False)):
        paths = [f"/spool/{number}.want" for number in range(BATCH + 10)]
        for path in paths:
            post.bell.ring(path, closed=first)
        look = await post.look()
        assert look is not None
        waiting = sorted(set(paths) - {path for path, _ in look.paths})
        for path in waiting:
            post.bell.ring(path, closed=then)
        look = await post.look()
        assert look is not None
        assert sorted(look.paths) == [(path, closed) for path in waiting]


async def test_changes_of_directories_ask_for_a_scan_of_what_changed(post: Post) -> None:
    post.bell.ring(None)
    await post.looks()
    assert [(scan.everything, scan.crowded, scan.names) for scan in post.scanner.asked] == [(False, set(), 0)]


async def test_a_directory_with_more_hints_than_are_kept_is_looked_at_whole(post: Post) -> None:
    for number in range(HINTS_MAX + 1):
        post.bell.ring(f"/spool/flood/{number}.want")
    assert len(await post.paths()) == HINTS_MAX
    assert [(scan.everything, scan.crowded) for scan in post.scanner.asked] == [(False, {"/spool/flood"})]


async def test_lost_events_ask_for_a_look_at_every_want(post: Post) -> None:
    post.bell.lost()
    await post.looks()
    assert [scan.everything for scan in post.scanner.asked] == [True]


async def test_what_a_scan_owes_is_paid_once(post: Post) -> None:
    post.bell.lost()
    await post.looks()
    post.bell.ring(None)
    await post.looks()
    assert [scan.everything for scan in post.scanner.asked] == [True, False]


async def test_a_scan_opens_the_watch_first_and_then_says_which_directories_are_there(post: Post) -> None:
    post.bell.ring(None)
    await post.looks()
    assert post.watch.ensured == 1
    assert post.watch.kept == [["/spool", "/spool/team"]]


async def test_a_scan_compares_with_what_is_known_now(post: Post) -> None:
    post.tickets["/spool/a.want"] = Ticket("/spool/a.want", START)
    post.bell.ring(None)
    await post.looks()
    assert set(post.scanner.asked[0].known) == {"/spool/a.want"}


@pytest.mark.parametrize(
    ("wants", "names"), [(3, RESCAN_NAMES), (RESCANS_A_ROUND * RESCAN_NAMES + 1, RESCAN_NAMES + 1)]
)
async def test_by_the_clock_some_wants_are_looked_at_in_their_turn(post: Post, wants: int, names: int) -> None:
    ticket = Ticket("/spool/a.want", START)
    post.tickets |= {f"/spool/{number}.want": ticket for number in range(wants)}
    await post.lookout.rescan()
    await post.looks()
    assert [(scan.everything, scan.names) for scan in post.scanner.asked] == [(False, names)]


async def test_without_a_watch_it_looks_each_interval(post: Post) -> None:
    post.watch.polling = True
    post.bell.ring(None)
    await post.looks()
    assert await post.waits_s() == POLL_S
    await post.clock.advance(POLL_S - 0.01)
    await post.looks()
    assert len(post.scanner.asked) == 1
    await post.clock.advance(0.01)
    await post.looks()
    assert [scan.names for scan in post.scanner.asked] == [POLL_NAMES, POLL_NAMES]


async def test_polling_begins_when_a_scan_finds_that_there_is_no_watch(post: Post) -> None:
    post.bell.ring(None)
    task = asyncio.create_task(post.lookout.next())
    post.watch.polling = True  # as `ensure`, in the scan, finds out
    await settle()
    await task
    assert await post.waits_s() == POLL_S


async def test_after_a_long_scan_the_next_one_waits(post: Post) -> None:
    post.scanner.takes_s = 2.0
    post.bell.ring(None)
    await post.looks()
    post.bell.ring(None)
    assert await post.waits_s() == 2.0 * SCAN_REST
    post.bell.ring("/spool/a.want")
    assert await post.paths() == ["/spool/a.want"], "hints do not wait for it"
    await post.clock.advance(2.0 * SCAN_REST - 0.1)
    await post.looks()
    assert len(post.scanner.asked) == 1
    await post.clock.advance(0.1)
    await post.looks()
    assert len(post.scanner.asked) == 2


async def test_one_that_is_written_to_is_looked_at_when_it_has_been_quiet(post: Post) -> None:
    post.lookout.look_again("/spool/a.want")
    assert await post.waits_s() == QUIET_S
    post.scanner.found = Found(changed=["/spool/a.want"])
    post.bell.ring(None)
    assert await post.paths() == [], "a scan does not hurry it"
    await post.clock.advance(QUIET_S)
    assert await post.paths() == ["/spool/a.want"]
    assert await post.waits_s() is None


async def test_one_that_was_read_meanwhile_is_not_looked_at_again(post: Post) -> None:
    post.lookout.look_again("/spool/a.want")
    post.lookout.settled("/spool/a.want")
    await post.clock.advance(QUIET_S)
    assert await post.paths() == []
    post.lookout.settled("/spool/b.want")  # one that was never waited for


async def test_a_flood_is_looked_at_in_batches(post: Post) -> None:
    post.scanner.found = Found(changed=[f"/spool/{number}.want" for number in range(PUT_AT_ONCE + 1)])
    post.bell.ring(None)
    looks = await post.looks()
    assert sum(len(look.paths) for look in looks) == PUT_AT_ONCE + 1
    assert max(len(look.paths) for look in looks) == BATCH


async def test_in_a_flood_it_glances_at_the_other_directories(post: Post) -> None:
    post.tickets["/spool/known.want"] = Ticket("/spool/known.want", START)
    post.scanner.glimpsed = ["/spool/quiet/a.want", "/spool/busy/a.want"]
    post.lookout.look_again("/spool/busy/a.want")
    for number in range(BATCH):
        post.bell.ring(f"/spool/{number}.want")
    first = await post.look()
    assert first is not None
    assert ("/spool/quiet/a.want", False) in first.paths
    assert ("/spool/busy/a.want", False) not in first.paths
    assert [(most, set(known)) for most, known in post.scanner.glances] == [(GLANCE_MOST, {"/spool/known.want"})]


async def test_fewer_hints_than_a_batch_are_no_flood(post: Post) -> None:
    for number in range(BATCH - 1):
        post.bell.ring(f"/spool/{number}.want")
    await post.looks()
    assert post.scanner.glances == []
    post.bell.ring("/spool/last.want")
    await post.looks()
    assert len(post.scanner.glances) == 1, "hints add up until the next glance"
    post.bell.ring("/spool/one-more.want")
    await post.clock.advance(100.0)
    await post.looks()
    assert len(post.scanner.glances) == 1, "and are counted from nothing after it"


@pytest.mark.parametrize(("takes_s", "rest_s"), [(0.0, GLANCE_S), (1.0, SCAN_REST)])
async def test_glances_rest_in_between(post: Post, takes_s: float, rest_s: float) -> None:
    post.scanner.takes_s = takes_s

    async def flood() -> None:
        for number in range(BATCH):
            post.bell.ring(f"/spool/{number}.want")
        await post.looks()

    await flood()
    await post.clock.advance(rest_s - 0.01)
    await flood()
    assert len(post.scanner.glances) == 1
    await post.clock.advance(0.01)
    await flood()
    assert len(post.scanner.glances) == 2


class TestADeafWatch:
    """A rescan that finds an old change, when nothing was heard for a while: the watch does not report."""

    def changed(self, directory: Path) -> str:
        path = directory / "a.want"
        path.touch()
        return str(path)

    async def rescan(self, post: Post, path: str, heard_s_ago: float, age_s: float) -> int:
        post.bell.ring("/spool/other.want")
        await post.looks()
        await post.clock.advance(heard_s_ago)
        post.clock.wall_is(os.lstat(path).st_ctime + age_s)
        post.scanner.found = Found(changed=[path])
        await post.lookout.rescan()
        await post.looks()
        return post.watch.misses

    async def test_it_is_told_so(self, post: Post, tmp_path: Path) -> None:
        assert await self.rescan(post, self.changed(tmp_path), MISSED_S + 1, MISSED_S + 1) == 1

    async def test_a_fresh_change_may_still_be_reported(self, post: Post, tmp_path: Path) -> None:
        assert await self.rescan(post, self.changed(tmp_path), MISSED_S + 1, MISSED_S - 1) == 0

    async def test_one_that_reports_is_not_deaf(self, post: Post, tmp_path: Path) -> None:
        assert await self.rescan(post, self.changed(tmp_path), MISSED_S - 1, MISSED_S + 1) == 0

    @pytest.mark.parametrize("ring", ["scan", "everything", "folders"])
    async def test_any_hint_is_a_report(self, post: Post, tmp_path: Path, ring: str) -> None:
        path = self.changed(tmp_path)
        await post.clock.advance(100.0)
        if ring == "scan":
            post.bell.ring(None)
        elif ring == "everything":
            post.bell.lost()
        else:
            for number in range(HINTS_MAX + 1):
                post.bell.ring(f"/spool/flood/{number}.want")
        await post.looks()
        post.clock.wall_is(os.lstat(path).st_ctime + 100.0)
        post.scanner.found = Found(changed=[path])
        await post.lookout.rescan()
        await post.looks()
        assert post.watch.misses == 0

    async def test_a_want_that_has_gone_meanwhile_says_nothing(self, post: Post, tmp_path: Path) -> None:
        path = self.changed(tmp_path)
        await post.clock.advance(MISSED_S + 1)
        post.clock.wall_is(os.lstat(path).st_ctime + MISSED_S + 1)
        post.scanner.found = Found(changed=[str(tmp_path / "gone.want"), path])
        await post.lookout.rescan()
        await post.looks()
        assert post.watch.misses == 1, "the next one does"

    async def test_what_was_found_by_a_look_at_everything_says_nothing(self, post: Post, tmp_path: Path) -> None:
        path = self.changed(tmp_path)
        await post.clock.advance(MISSED_S + 1)
        post.clock.wall_is(os.lstat(path).st_ctime + MISSED_S + 1)
        post.scanner.found = Found(changed=[path])
        post.watch.polling = False
        await post.lookout.rescan()
        post.bell.lost()
        await post.looks()
        assert post.watch.misses == 0


async def test_only_a_dead_watch_is_opened_by_the_clock(post: Post) -> None:
    await post.lookout.check_watch()
    assert post.watch.ensured == 0
    post.watch.is_alive = False
    await post.lookout.check_watch()
    assert post.watch.ensured == 1


async def test_closing_ends_a_scan_on_its_way(post: Post) -> None:
    post.scanner.found = Found(changed=[f"/spool/{number}.want" for number in range(200 * PUT_AT_ONCE)])
    post.bell.ring(None)
    await asyncio.wait_for(post.lookout.next(), 10.0)
    assert post.lookout.is_scanning
    post.lookout.close()
    await settle()
    assert not post.lookout.is_scanning
