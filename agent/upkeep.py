"""What is due by the clock: rescans, heartbeats, retries of what waits, and clearing what crashes left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from loguru import logger

from agent.clock import Clock
from agent.config import Live
from agent.core.retention import expired
from agent.core.retry import (
    BALANCER_S,
    CATALOG_CHECK_S,
    DISK_CHECK_S,
    SLOTS_CHECK_S,
    STORE_CHECK_S,
    SWEEP_S,
    WATCH_CHECK_S,
    WINDOW_CHECK_S,
)
from agent.jobs.board import Board
from agent.jobs.losses import Losses
from agent.jobs.slots import Slots
from agent.jobs.windows import Windows
from agent.reports.balancer import BalancerReports
from agent.reports.progress_files import ProgressFiles
from agent.reports.status import AgentReport
from agent.requests.catalog import CatalogFile
from agent.requests.intake import Intake
from agent.requests.lookout import Lookout
from agent.store.hub_view import HubView
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from agent.store.locks import Locks
from agent.store.sweep import debris, leftovers, remove, remove_stale_stamps, remove_unfinished


@dataclass(slots=True)
class Upkeep:
    """Everything that happens by the clock, in one list: `arm`."""

    live: Live
    clock: Clock
    layout: Layout
    inventory: Inventory
    view: HubView
    locks: Locks
    catalog: CatalogFile
    intake: Intake
    lookout: Lookout
    board: Board
    losses: Losses
    slots: Sequence[Slots]
    windows: Windows
    progress_files: ProgressFiles
    agent_report: AgentReport
    balancer: BalancerReports
    keep_spool: Callable[[], Awaitable[None]]

    def arm(self) -> None:
        """Hand everything to the clock."""
        every, live = self.clock.every, self.live
        every("clear stale locks", lambda: live.config.scheduler.reap_s, self.reap)
        every("rescan the spool", lambda: live.config.scheduler.rescan_s, self.rescan)
        every("check the watch on the spool", lambda: WATCH_CHECK_S, self.lookout.check_watch)
        every("see that the store is there", lambda: STORE_CHECK_S, self.check_store)
        every("mend the view", lambda: live.config.scheduler.rescan_s, self.mend_view)
        every("heartbeats of locks", lambda: live.config.locks.heartbeat_s, self.beat)
        every("resume what waits for disk space", lambda: DISK_CHECK_S, self.board.resume_for_room)
        every("remove old partials", lambda: SWEEP_S, self.sweep)
        every("obey the windows", lambda: WINDOW_CHECK_S, self.obey_windows)
        every("check the catalog", lambda: CATALOG_CHECK_S, self.check_catalog)
        every("hand out new slots", lambda: SLOTS_CHECK_S, self.hand_out_slots)
        every("report to the load balancer", lambda: BALANCER_S, self.balancer.tell)
        self.clock.after("clear what a crash left", 0.0, self.reap)
        self.clock.after("mend the view at the start", 0.0, self.mend_view)
        self.clock.after("remove old partials at the start", 1.0, self.sweep)

    async def reap(self) -> None:
        """Stages, partials and lock files that no process is at any more."""
        await asyncio.to_thread(remove_unfinished, self.layout, self.locks)
        for left in await asyncio.to_thread(debris, self.layout, self.inventory):
            await asyncio.to_thread(remove, left, self.layout, self.locks)
        for path in await asyncio.to_thread(self.locks.reap, self.layout.locks):
            logger.info("removed the stale lock file {}", ascii(path))

    async def rescan(self) -> None:
        """Look at the whole spool, and check that what is ready still is."""
        await self.check_store()
        await self.lookout.rescan()
        self.progress_files.retry_unwritable()
        await asyncio.to_thread(self.losses.ensure, list(self.board.jobs))
        await self.board.recheck()
        await self.tell()

    async def check_store(self) -> None:
        """A store or partials that somebody removed are made again, and downloads into them start over.

        The lock on the spool was in the store: it is taken again.
        """
        if await asyncio.to_thread(self.layout.create_again):
            logger.warning("the store {} was removed; it is made again", ascii(self.layout.root))
            await self.tell()
            await self.board.recheck()
        await self.keep_spool()
        await self.board.recover_lost()

    async def mend_view(self) -> None:
        """Make the view of the store in the Hub's cache layout what it should be: readers change it, and models go."""
        await asyncio.to_thread(self.view.mend)

    async def tell(self) -> None:
        """Keep the agent's file true."""
        unanswered = {ticket.path: why for ticket, why in self.progress_files.unwritable.items()}
        await asyncio.to_thread(self.agent_report.write, unanswered)

    async def beat(self) -> None:
        """Heartbeats of the locks that this agent holds."""
        if self.locks.held:
            self.board.report_to_locks()
            await asyncio.to_thread(self.locks.beat)

    async def sweep(self) -> None:
        """Partials that have not been wanted for `store.keep_partials_days`."""
        wanted = set(self.board.wanted_partials())
        keep_s = self.live.config.store.keep_partials_days * 86400
        await asyncio.to_thread(remove_stale_stamps, self.layout)
        found = await asyncio.to_thread(leftovers, self.layout)
        for leftover in expired(found, wanted, self.clock.now().timestamp(), keep_s):
            if await asyncio.to_thread(remove, leftover, self.layout, self.locks):
                logger.info("removed the partial {}: not wanted for {} days", leftover.key, keep_s / 86400)

    async def check_catalog(self) -> None:
        """A changed catalog, or a changed policy, is in force at once."""
        await asyncio.to_thread(self.catalog.load)
        await self.intake.reresolve()

    async def obey_windows(self) -> None:
        """Stop or resume downloads where a window has begun or ended."""
        await self.board.obey_windows(self.windows.holds)

    async def hand_out_slots(self) -> None:
        """`transfer.jobs` may have grown, and priorities may have changed."""
        for slots in self.slots:
            slots.reconsider()
