"""A log line for each tenth of each model, with bytes, rate and time left."""

from __future__ import annotations

from agent.core.progress import STEPS
from agent.core.states import State
from agent.core.words import duration, size
from agent.state.feed import Change, Feed
from agent.state.job import Job

MOST_JOBS = 10_000  # changed at a time; a log that is so far behind has lost nothing but tenths


class StepLog:
    """One subscriber of the feed."""

    def __init__(self, feed: Feed) -> None:
        self._changes = feed.subscribe(limit=MOST_JOBS)
        self._steps: dict[Job, int] = {}  # the tenth that was logged last

    async def serve(self) -> None:
        """Log until cancelled."""
        while True:
            await self._changes.wait()
            self.look()

    def look(self) -> None:
        """Log what the feed has."""
        for subject, change in self._changes.take().items():
            if not isinstance(subject, Job):
                continue
            if change is Change.GONE:
                self._steps.pop(subject, None)
            elif change is Change.STATE:
                self._look_at(subject)

    def _look_at(self, job: Job) -> None:
        progress = job.progress
        step, before = progress.step, self._steps.get(job, 0)
        self._steps[job] = step
        if step <= before or progress.state not in (State.DOWNLOADING, State.VERIFYING):
            return
        left = (progress.bytes_total or 0) - progress.bytes_done
        rate = f", {size(progress.rate)}/s, {duration(left / progress.rate)} left" if progress.rate else ""
        job.log.info(
            "{} {}%: {} of {}{}",
            job.target.model,
            step * 100 // STEPS,
            size(progress.bytes_done),
            size(progress.bytes_total),
            rate,
        )
