"""The composition root: builds every part, starts, drains, stops. The only place that knows all of them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Any

from loguru import logger

from agent import __version__
from agent.clock import SystemClock
from agent.config import Config, Live, catalog_path, listen_addresses, own_directories
from agent.core.catalog import did_you_mean
from agent.core.limits import PLANS_AT_ONCE
from agent.core.progress import AgentInfo
from agent.core.retry import STOP_S
from agent.core.target import Target
from agent.errors import Code, ConfigError, WantdError
from agent.jobs.adoption import Adoption
from agent.jobs.board import Board
from agent.jobs.files import Files
from agent.jobs.lock_waits import LockWaits
from agent.jobs.losses import Losses
from agent.jobs.planner import Planner
from agent.jobs.proving import Proving
from agent.jobs.revisit import Revisit
from agent.jobs.room import Room
from agent.jobs.runner import Runner
from agent.jobs.slots import Slots
from agent.jobs.uses import Uses
from agent.jobs.windows import Windows
from agent.net.budget import HostBudgets
from agent.reports.balancer import BalancerReports
from agent.reports.hook_calls import HookCalls
from agent.reports.hooks import Hooks, Told
from agent.reports.progress_files import ProgressFiles
from agent.reports.status import AgentReport
from agent.reports.step_log import StepLog
from agent.reports.systemd import Supervisor, counts_in_words
from agent.requests.catalog import CatalogFile
from agent.requests.intake import Intake
from agent.requests.lookout import Lookout
from agent.requests.read import Reader
from agent.requests.wanted import others
from agent.sources.assembly import Assembly
from agent.sources.host_caches import HostCaches
from agent.spool.scan import Scanner
from agent.spool.watcher import Bell, Watcher
from agent.state.feed import Feed
from agent.state.job import Job
from agent.state.news import AgentNews
from agent.state.ticket import Ticket
from agent.store.hub_view import HubView
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from agent.store.locks import Lock, Locks, read_holder
from agent.store.publish import Modes
from agent.store.record_watch import RecordWatch
from agent.store.room.removal import Remover
from agent.store.space import Space
from agent.transfer.engine import Engine
from agent.upkeep import Upkeep

if TYPE_CHECKING:
    from agent.http.server import Face


class App:
    """One agent: one spool, one store. `run` is its whole life."""

    def __init__(
        self, live: Live, environ: Mapping[str, str], read: Callable[[], Config], supervisor: Supervisor
    ) -> None:
        self._live = live
        self._environ = environ
        self._read = read
        self._supervisor = supervisor
        self._spool_lock: Lock | None = None
        self._started = asyncio.Event()
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Start, serve until `stopping` is set, drain, stop.

        Raises `store_unwritable`, and `spool_in_use` when another agent serves the spool.
        """
        await self._start()
        self._started.set()
        parts = (
            ("progress files", self.progress_files.serve()),
            ("step log", self.step_log.serve()),
            ("intake", self.intake.serve()),
            ("hooks", self.hooks.serve()),
            ("wants of many models", self.intake.bulk.serve()),
            ("losses", self.losses.serve(self.board)),
            ("uses", self.uses.serve()),
            ("clock", self.clock.serve()),
            *((("http", self.face.serve()),) if self.face else ()),
        )
        services = [asyncio.create_task(self._watch_over(name, service), name=name) for name, service in parts]
        pulse = asyncio.create_task(self._supervisor.serve(self._status), name="pulse")
        self._supervisor.ready()
        try:
            await self.stopping.wait()
            logger.info("stopping: partial downloads are kept and resumed at the next start")
        finally:
            self._supervisor.stopping()
            await self._stop(services)
            pulse.cancel()

    async def _start(self) -> None:
        live, loop = self._live, asyncio.get_running_loop()
        config = live.config
        modes = Modes.current()  # sets the umask for an instant: first of all, before there are threads
        layout = self.layout = Layout(config.store.dir)
        layout.create()
        await asyncio.to_thread(self._hold_spool)

        clock = self.clock = SystemClock()
        feed = self.feed = Feed()
        tickets: dict[str, Ticket] = {}
        jobs: dict[Target, Job] = {}
        agent = AgentInfo(os.getpid(), socket.gethostname(), __version__)

        catalog = CatalogFile(lambda: catalog_path(live.config))
        await asyncio.to_thread(catalog.load)

        # Where bytes come from, and how
        budgets = HostBudgets()
        host_caches = HostCaches(lambda: live.config.adopt.caches, self._environ, lambda: own_directories(live.config))
        self.sources = Assembly(lambda: live.config, self._environ, budgets, clock, host_caches)
        windows = Windows(lambda: live.config, clock)
        self.engine = Engine(windows.transfer, budgets, self._environ)

        # Who is told
        self.progress_files = ProgressFiles(
            agent, config.spool.dir, feed, clock, lambda: live.config.spool.progress_interval_s
        )
        self.step_log = StepLog(feed)
        self.hooks = Hooks(
            feed,
            tickets,
            clock,
            lambda: live.config.hook,
            Told(layout.hooks_file(config.spool.dir)),
            self.progress_files.document,
            HookCalls(self._environ, budgets).tell,
        )
        self.agent_report = AgentReport(layout, config.spool.dir, live.file, clock.now())
        balancer = BalancerReports(jobs.values, agent.host, __version__, clock, self.sources.report)

        # Who works
        locks, inventory = Locks(), Inventory(layout)
        self.view = HubView(config.store.hub_cache, layout, inventory, modes)
        space = Space(
            config.store.dir,
            lambda: live.config.store.min_free_bytes,
            max_bytes=lambda: live.config.store.max_bytes,
        )
        self.room = Room(
            layout=layout,
            inventory=inventory,
            space=space,
            remover=Remover(layout, locks, inventory, self.view),
            clock=clock,
            jobs=jobs,
            config=lambda: live.config.store,
            others=others(layout, config.spool.dir, lambda: catalog.catalog, lambda: self.intake.postponed()),
            tell=feed.changed,
        )
        self.uses = Uses(feed, layout, clock)
        slots = Slots(lambda: live.config.transfer.jobs, clock.monotonic)
        planning = Slots(lambda: PLANS_AT_ONCE, clock.monotonic)
        waits = LockWaits(locks, lambda: live.config.locks.wait_timeout_s, clock)
        self.adoption = Adoption(host_caches, layout, lambda: modes.file if live.config.adopt.link else None)
        self.proving = Proving(layout, inventory)
        files = self.files = Files(
            source=self.sources,
            transfer=self.engine,
            layout=layout,
            inventory=inventory,
            space=space,
            waits=waits,
            clock=clock,
            proving=self.proving,
            adoption=self.adoption,
            slice_bytes=lambda: live.config.fleet.slice,
        )
        self.plan_thread = ThreadPoolExecutor(1, "plan")
        planner = Planner(
            self.sources,
            files,
            lambda: live.config.policy,
            lambda name: did_you_mean(catalog.catalog, name),
            self.plan_thread,
        )
        revisit = Revisit(layout, planner, clock)
        runner = Runner(
            planner=planner,
            revisit=revisit,
            files=files,
            layout=layout,
            inventory=inventory,
            view=self.view,
            room=self.room,
            windows=windows,
            planning=planning,
            slots=slots,
            waits=waits,
            clock=clock,
            modes=modes,
            endpoint=lambda: live.config.hub.endpoint,
            agent=f"wantd {__version__} on {agent.host}",
        )
        self.losses = Losses(runner, layout, clock, self._watch_store, revisit.due)
        self.board = Board(jobs, self.losses, self.losses, self.room, clock, feed, lambda: live.config.transfer)

        # Who asks
        bell = Bell(loop)
        self.watcher = Watcher(config.spool.dir, bell, lambda: live.config.spool.watch)
        scanner = Scanner(config.spool.dir, self.watcher.watch)
        lookout = Lookout(bell, self.watcher, scanner, tickets, clock, lambda: live.config.spool)
        self.intake = Intake(
            tickets=tickets,
            lookout=lookout,
            board=self.board,
            clock=clock,
            feed=feed,
            published=self.losses.ready,
            catalog=lambda: catalog.catalog,
            policy=lambda: live.config.policy.allow,
            read=Reader(config.spool.dir),
            settings=live.file,
        )

        self.upkeep = Upkeep(
            live=live,
            clock=clock,
            layout=layout,
            inventory=inventory,
            view=self.view,
            locks=locks,
            catalog=catalog,
            intake=self.intake,
            lookout=lookout,
            board=self.board,
            losses=self.losses,
            room=self.room,
            slots=(planning, slots),
            windows=windows,
            progress_files=self.progress_files,
            agent_report=self.agent_report,
            balancer=balancer,
            keep_spool=self._keep_spool,
        )
        self.face: Face | None = None
        if config.http.listen or config.http.metrics_textfile:
            await asyncio.to_thread(import_module, "agent.http.server")  # 50 ms, which others do not pay
            self.face = self._make_face(agent, feed, jobs, lookout, space, budgets)
        await asyncio.to_thread(self.watcher.ensure)
        if self.watcher.refused:
            raise ConfigError([f'{self.watcher.refused}; set it to "auto" or "poll"'])
        self.upkeep.arm()
        if self.face:
            await self.face.start(listen_addresses(config, self._environ))
            self.agent_report.listening = self.face.listening
        await self.upkeep.tell()
        feed.changed(AgentNews("start"))
        logger.info(
            "wantd {} serves {}, store {}, hub {}", __version__, config.spool.dir, config.store.dir, config.hub.endpoint
        )

    def _make_face(
        self,
        agent: AgentInfo,
        feed: Feed,
        jobs: dict[Target, Job],
        lookout: Lookout,
        space: Space,
        budgets: HostBudgets,
    ) -> Face:
        from agent.http.reads import Facts
        from agent.http.server import Face

        facts = Facts(
            live=self._live,
            layout=self.layout,
            agent=agent,
            started_at=self.agent_report.started_at,
            jobs=jobs,
            restart_needed=lambda: self.agent_report.restart_needed,
            scanned_at=lambda: lookout.scanned_at,
            health=self.sources.health,
            quotas=budgets.quotas,
            connections=lambda: self.engine.connections,
            reserved=lambda: space.reserved,
            there=self.engine.there,
            received=self.engine.received,
            dropped=self.engine.dropped,
            responses=budgets.responses,
        )
        return Face(facts, feed, self.clock)

    def _watch_store(self, ring: Callable[[], None]) -> RecordWatch:
        self.record_watch = RecordWatch(self.layout.root, ring)
        return self.record_watch

    def _status(self) -> str:
        return counts_in_words(self.progress_files.counts)

    def _hold_spool(self) -> None:
        """Keep a second agent from this spool. Raises `spool_in_use` when there is one."""
        spool = self._live.config.spool.dir
        path = self.layout.spool_lock(spool)
        lock = Locks().try_acquire(path)  # not among the locks with a heartbeat: nothing waits for this one
        if lock is None:
            raise WantdError(
                Code.SPOOL_IN_USE,
                f"another agent already serves {spool}: {read_holder(path) or 'it is about to start or to stop'}",
                "use that one (`wantd status` shows it), stop it first, or give this agent another spool.dir",
            )
        self._spool_lock = lock

    async def _keep_spool(self) -> None:
        """Take the lock on the spool again where its file was removed; stop where another agent was faster."""
        lost = self._spool_lock
        if lost is None or not await asyncio.to_thread(lambda: lost.is_lost):
            return
        try:
            await asyncio.to_thread(self._hold_spool)
        except WantdError as error:
            logger.critical("the lock on the spool was removed, and {}; stopping", error.message)
            self.stopping.set()
        else:
            await asyncio.to_thread(lost.release)

    async def reload(self) -> None:
        """SIGHUP: read the configuration again; downloads continue. A broken one changes nothing."""
        await self._started.wait()
        self._supervisor.reloading()
        try:
            refused = self._live.adopt(await asyncio.to_thread(self._read))
            for key in refused:
                logger.warning("{} has changed; restart the agent to apply it", key)
            self.agent_report.restart_needed = refused
            await self.upkeep.check_catalog()
            await self.upkeep.rescan()  # under the watch and at the pace that are configured now; tells, too
            self.feed.changed(AgentNews("reload"))
            logger.info("configuration reloaded")
            self._supervisor.note = ""
        except ConfigError as error:
            for problem in error.problems:
                logger.error("keeping the old configuration: {}", problem)
            self._supervisor.note = f"keeping the old configuration: {error.problems[0]}"
        finally:
            self._supervisor.ready()

    async def _watch_over(self, name: str, service: Coroutine[Any, Any, None]) -> None:
        """A service that ends ends the agent: systemd restarts it, and nothing is lost by that."""
        try:
            await service
        except Exception as error:
            logger.opt(exception=error).critical("the service '{}' of the agent died", name)
            self.stopping.set()
            raise

    async def _stop(self, services: list[asyncio.Task[None]]) -> None:
        writer, *others = services  # progress files last: they say what the others still have to say
        for task in others:
            task.cancel()
        self.view.close()
        try:
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(*others, return_exceptions=True)
                if self.face:
                    self.feed.changed(AgentNews("stop"))
                    await self.face.stop()
                await self.board.stop()
                self.adoption.close()
                self.plan_thread.shutdown(wait=False, cancel_futures=True)
                self.proving.close()
                await self.engine.close()
                await self.sources.close()
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
                await self.progress_files.drain()
                await asyncio.to_thread(self.watcher.stop)
                await asyncio.to_thread(self.record_watch.stop)
        except TimeoutError:
            logger.warning("stopping took over {:.0f} s; leaving what hangs to the next start", STOP_S)
        if self._spool_lock:
            self._spool_lock.release()  # nothing of this agent writes to the spool any more
        for service in services:
            if service.done() and not service.cancelled() and (error := service.exception()):
                raise WantdError(Code.INTERNAL, f"a service died: {error}", "see the log") from error
