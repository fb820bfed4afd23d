"""The composition root: builds every part, starts, drains, stops. The only place that knows all of them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec
import orjson
from loguru import logger

from agent import __version__
from agent.config import Config, catalog_path
from agent.core.progress import AgentInfo
from agent.core.retention import Leftover, expired
from agent.core.retry import Backoff
from agent.errors import Code, ConfigError, WantdError
from agent.net.budget import HostBudgets
from agent.services.board import Board
from agent.services.catalogue import CatalogueFile
from agent.services.files import Files
from agent.services.housekeeping import Housekeeping
from agent.services.intake import Intake
from agent.services.jobs import Runner
from agent.services.lock_waits import LockWaits
from agent.services.notify import Supervisor
from agent.services.planning import Planner
from agent.services.reporter import Reporter, Ticket
from agent.services.slots import Slots
from agent.services.sync_state import REPORT_S, SyncState
from agent.sources.assembly import Assembly
from agent.spool.watcher import Bell, Watcher
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from agent.store.locks import Lock, Locks, process_start, read_holder
from agent.store.publish import Modes
from agent.store.space import Space
from agent.store.sweep import debris, leftovers, remove, remove_stages
from agent.transfer.engine import Engine

STOP_S = 4.0  # SPEC section 11: stopped within 5 s
CATALOG_CHECK_S = 2.0
DISK_CHECK_S = 5.0
SWEEP_S = 3600.0  # partials expire after days: once an hour is often enough


class App:
    """One agent: one spool, one store. `run` is its whole life."""

    def __init__(
        self, config: Config, environ: Mapping[str, str], reload: Callable[[], Config], supervisor: Supervisor
    ) -> None:
        self._config = config
        self._environ = environ
        self._reload = reload
        self._supervisor = supervisor
        self._spool_lock: Lock | None = None
        self._told: dict[str, str] = {}
        self._started = asyncio.Event()
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Start, serve until `stopping` is set, drain, stop.

        Raises `store_unwritable`, and `lock_timeout` when another agent serves the spool.
        """
        await self._start()
        self._started.set()
        services = [
            asyncio.create_task(self._watch_over(service.serve()), name=name)
            for name, service in (("reporter", self.reporter), ("intake", self.intake), ("clock", self.clock))
        ]
        pulse = asyncio.create_task(self._supervisor.serve(self.reporter.summary), name="pulse")
        self._supervisor.ready()
        try:
            await self.stopping.wait()
            logger.info("stopping: what is under way is kept and resumed at the next start")
        finally:
            self._supervisor.stopping()
            await self._stop(services)
            pulse.cancel()

    async def _start(self) -> None:
        config, loop = self._config, asyncio.get_running_loop()
        modes = Modes.current()  # sets the umask for an instant: first of all, before there are threads
        self.layout = Layout(config.store.dir)
        self.layout.create()
        self._hold_spool()

        budgets = HostBudgets()
        self.sources = Assembly(config, self._environ, budgets)
        self.engine = Engine(config.transfer, budgets, self._environ)
        self.locks = Locks()
        self.catalogue = CatalogueFile(catalog_path(config))
        self.clock = Housekeeping()
        agent = AgentInfo(os.getpid(), socket.gethostname(), __version__)
        self.reporter = Reporter(agent, config.spool.progress_interval_s)
        self.slots = Slots(config.transfer.jobs)
        inventory = Inventory(self.layout)
        self.space = Space(config.store.dir, config.store.min_free_bytes)
        self.waits = LockWaits(self.locks, config.locks.wait_timeout_s)
        self.files = Files(self.sources.chain, self.engine, self.layout, inventory, self.space, self.waits)
        self.planner = Planner(self.sources.chain, self.files, config.policy.formats, config.policy.unverified)
        self.runner = Runner(
            planner=self.planner,
            files=self.files,
            layout=self.layout,
            inventory=inventory,
            space=self.space,
            slots=self.slots,
            waits=self.waits,
            modes=modes,
            endpoint=config.hub.endpoint,
            agent=f"wantd {__version__} on {agent.host}",
        )
        self.board = Board(self.runner, self.clock, self._backoff(), self._changed)
        self.sync_state = SyncState(self.board.jobs.values, agent.host, __version__)
        self.sync_state.send = self.sources.reporter(config)
        bell = Bell(config.spool.dir, loop)
        self.watcher = Watcher(config.spool.dir, bell, config.spool.watch)
        self.intake = Intake(
            root=config.spool.dir,
            bell=bell,
            watcher=self.watcher,
            board=self.board,
            reporter=self.reporter,
            clock=self.clock,
            layout=self.layout,
            catalog=lambda: self.catalogue.catalog,
            policy=lambda: self._config.policy.allow,
            poll_interval_s=config.spool.poll_interval_s,
        )
        await asyncio.to_thread(self.catalogue.load)
        await asyncio.to_thread(self.watcher.ensure)
        self._arm()
        self._tell()
        logger.info(
            "wantd {} serves {}, store {}, hub {}", __version__, config.spool.dir, config.store.dir, config.hub.endpoint
        )

    def _backoff(self) -> Backoff:
        return Backoff(self._config.transfer.retry_min_s, self._config.transfer.retry_max_s)

    def _changed(self, ticket: Ticket, urgent: bool) -> None:
        self.reporter.changed(ticket, urgent=urgent)

    def _arm(self) -> None:
        """Everything that happens by the clock, in one list (SPEC section 8)."""
        scheduler, locks = self._config.scheduler, self._config.locks
        self.clock.every("reap stale locks", scheduler.reap_s, self._reap)
        self.clock.every("rescan the spool", scheduler.rescan_s, self._rescan)
        self.clock.every("heartbeats of locks", locks.heartbeat_s, self._beat)
        self.clock.every("resume what waits for disk", DISK_CHECK_S, self.board.resume_for_room)
        self.clock.every("remove old partials", SWEEP_S, self._sweep)
        self.clock.every("check the catalogue", CATALOG_CHECK_S, self._check_catalogue)
        self.clock.every("report to the load balancer", REPORT_S, self.sync_state.tell)
        self.clock.after("reap what a crash left", 0.0, self._reap)
        self.clock.after("remove old partials at the start", 1.0, self._sweep)

    async def _reap(self) -> None:
        await asyncio.to_thread(remove_stages, self.layout, self.locks)
        for left in await asyncio.to_thread(debris, self.layout, self.runner.inventory):
            await asyncio.to_thread(remove, left, self.layout, self.locks)
        for path in await asyncio.to_thread(self.locks.reap, self.layout.locks):
            logger.info("removed the lock file {}, which nobody holds", ascii(path))

    async def _rescan(self) -> None:
        if not await asyncio.to_thread(os.path.isdir, self.layout.locks):
            await asyncio.to_thread(self.layout.create)
        await self.intake.rescan()
        self._tell()

    async def _beat(self) -> None:
        if self.locks.held:
            await asyncio.to_thread(self.locks.beat)

    async def _sweep(self) -> None:
        wanted = set(self.board.wanted_partials())
        keep_s = self._config.store.keep_partials_days * 86400
        found: list[Leftover] = await asyncio.to_thread(leftovers, self.layout)
        for leftover in expired(found, wanted, time.time(), keep_s):
            if await asyncio.to_thread(remove, leftover, self.layout, self.locks):
                logger.info("removed the partial {}: nobody has wanted it for long", leftover.key)

    async def _check_catalogue(self) -> None:
        await self.catalogue.check(self.intake.reresolve)

    def _hold_spool(self) -> None:
        """Keep a second agent from this spool. Raises `lock_timeout` when there is one: it may be about to end."""
        path = self.layout.spool_lock(self._config.spool.dir)
        lock = Locks().try_acquire(path)  # not among the locks with a heartbeat: nobody waits for this one
        if lock is None:
            raise WantdError(
                Code.LOCK_TIMEOUT,
                f"another agent serves {self._config.spool.dir}: {read_holder(path)}",
                "let one of the two be; `wantd status` shows the one that runs",
            )
        self._spool_lock = lock

    def _tell(self) -> None:
        """What `wantd status` reads: who serves the spool, and which wants could not be answered."""
        unwritable = dict(list(self.reporter.unwritable.items())[:100])
        if unwritable == self._told and os.path.exists(self._agent_file()):
            return
        self._told = unwritable
        value = {
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "host": socket.gethostname(),
            "version": __version__,
            "spool": self._config.spool.dir,
            "unanswered": [{"want": ascii(path), "why": why} for path, why in unwritable.items()],
        }
        try:
            with open(self._agent_file() + ".tmp", "wb") as file:
                file.write(orjson.dumps(value))
            os.replace(self._agent_file() + ".tmp", self._agent_file())
        except OSError as error:
            logger.warning("{} cannot be written: {}", self._agent_file(), error.strerror)

    def _agent_file(self) -> str:
        return self.layout.agent_file(self._config.spool.dir)

    async def reload(self) -> None:
        """SIGHUP: read the configuration again; what is under way goes on. A broken one changes nothing."""
        await self._started.wait()
        self._supervisor.reloading()
        try:
            new = await asyncio.to_thread(self._reload)
            await self._use(new)
            self._supervisor.note = ""
        except ConfigError as error:
            for problem in error.problems:
                logger.error("the new configuration is not used: {}", problem)
            self._supervisor.note = f"the new configuration is not used: {error.problems[0]}"
        finally:
            self._supervisor.ready()

    async def _use(self, new: Config) -> None:
        old = self._config
        for name, before, after in (
            ("spool.dir", old.spool.dir, new.spool.dir),
            ("store.dir", old.store.dir, new.store.dir),
            ("hub.endpoint", old.hub.endpoint, new.hub.endpoint),
        ):
            if before != after:
                logger.warning("{} = {} takes effect at the next start", name, after)
        replace = msgspec.structs.replace
        self._config = replace(
            new,
            spool=replace(new.spool, dir=old.spool.dir),
            store=replace(new.store, dir=old.store.dir),
            hub=replace(new.hub, endpoint=old.hub.endpoint),
        )
        self.engine.reconfigure(new.transfer)
        self.slots.resize(new.transfer.jobs)
        self.board.backoff = self._backoff()
        self.reporter.interval_s = new.spool.progress_interval_s
        self.planner.formats, self.planner.unverified = new.policy.formats, new.policy.unverified
        self.waits.timeout_s = new.locks.wait_timeout_s
        self.space.min_free_bytes = new.store.min_free_bytes
        await self.sources.rebuild(self._config)
        self.planner.source = self.files.source = self.sources.chain
        self.sync_state.send = self.sources.reporter(self._config)
        self.catalogue.path = catalog_path(self._config)
        self._arm()
        await asyncio.to_thread(self.catalogue.load)
        await self.intake.reresolve()
        logger.info("the configuration was read again")

    async def _watch_over(self, service: Coroutine[Any, Any, None]) -> None:
        """A service that ends ends the agent: systemd starts it anew, and nothing is lost by that."""
        try:
            await service
        except Exception as error:
            logger.opt(exception=error).critical("a service of the agent died")
            self.stopping.set()
            raise

    async def _stop(self, services: list[asyncio.Task[None]]) -> None:
        reporter, *others = services  # the reporter last: it writes what the others still have to say
        for task in others:
            task.cancel()
        try:
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(*others, return_exceptions=True)
                await self.board.stop()
                await self.engine.close()
                await self.sources.close()
                reporter.cancel()
                await asyncio.gather(reporter, return_exceptions=True)
                await self.reporter.drain()
                await asyncio.to_thread(self.watcher.stop)
        except TimeoutError:
            logger.warning("stopping took over {:.0f} s: what hangs is left, the next start cleans up", STOP_S)
        for service in services:
            if service.done() and not service.cancelled() and (error := service.exception()):
                raise WantdError(Code.INTERNAL, f"a service died: {error}", "see the log") from error
