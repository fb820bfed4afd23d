"""Published models that older rules chose: planned again once, when they are wanted and the Hub can be reached.

The rules of version 0.1.0 left out what some programs need to load a model (`1_Pooling` of sentence-transformers). Such
a model stays in force until the new plan is carried out, and stays usable where there is none.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from dataclasses import dataclass, field

import msgspec
from cachetools import TTLCache

from agent.clock import Clock
from agent.core.names import is_whole_commit
from agent.core.plan import Plan
from agent.core.retry import REVISIT_AGAIN_S, REVISIT_S
from agent.core.selection import RULES
from agent.core.target import Target
from agent.disk import Sync, atomic_write
from agent.errors import WantdError
from agent.jobs.planner import Planner
from agent.jobs.run import NotNow, Run
from agent.store.layout import RECORD, Layout, Published, Record

REMEMBERED = 4096  # models whose new plan was not to be had


@dataclass(slots=True)
class Revisit:
    """Decides, plans, and notes in the record that nothing is missing."""

    layout: Layout
    planner: Planner
    clock: Clock
    _tried: TTLCache[Target, bool] = field(init=False)

    def __post_init__(self) -> None:
        self._tried = TTLCache(REMEMBERED, REVISIT_AGAIN_S, timer=self.clock.monotonic)

    def due(self, published: Published, target: Target) -> bool:
        """Whether the model has to be planned again before it is ready."""
        return outdated(published.record, target) and target not in self._tried

    async def plan(self, run: Run, published: Published) -> Plan | None:
        """What the rules of today choose of the same commit; None where the model is right, or nobody can be asked."""
        job, record = run.job, published.record
        try:
            async with asyncio.timeout(REVISIT_S):
                plan = await self.planner.plan(run, record.commit)
        except (WantdError, NotNow, TimeoutError) as why:
            self._tried[job.target] = True
            job.log.info("{}: chosen by older rules, and cannot be planned again now ({})", job.target.model, why)
            return None
        if job.progress.source != "hub":  # a cache or a mirror may not know all files
            self._tried[job.target] = True
            return None
        missing = {file.name for file in plan.files} - {file.name for file in record.files}
        if missing:
            names = ", ".join(map(ascii, sorted(missing)))
            job.log.info("{}: older rules left out {}; downloading it", job.target.model, names[:1000])
            return plan
        self._tried[job.target] = True  # where the record cannot be written
        await asyncio.to_thread(_note_rules, published)
        return None


def outdated(record: Record, target: Target) -> bool:
    """Whether older rules chose the model's files, and may have left some out."""
    return record.rules < RULES and target.selection.by_rules and is_whole_commit(record.commit)


def _note_rules(published: Published) -> None:
    """Note in the record that the rules of today choose the same. Not while somebody holds a lease on the record."""
    path = f"{published.directory}/{RECORD}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            record = msgspec.structs.replace(published.record, rules=RULES)
            mode = os.fstat(fd).st_mode & 0o777
            data = msgspec.json.format(msgspec.json.encode(record), indent=1)
            atomic_write(path, data, mode=mode, exact_mode=True, sync=Sync.FILE)
        finally:
            os.close(fd)
    except OSError:
        return  # planned again another time
