"""From a reference to the list of files to have: sources are asked, and the rules of `agent.core.plan` choose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.config import Policy
from agent.core.names import show
from agent.core.plan import INDEX_MAX_BYTES, Plan, PlanFile, make_plan, needed_listings, query, weight_index
from agent.core.ports import Source
from agent.core.progress import FileProgress
from agent.core.remote import Listing
from agent.errors import Code, WantdError
from agent.jobs.files import Files
from agent.jobs.run import Run


@dataclass(slots=True)
class Planner:
    """Makes plans under the policy in force."""

    source: Source
    files: Files
    policy: Callable[[], Policy]

    async def plan(self, run: Run) -> Plan:
        """The files of the job's target, at one commit. Raises what the sources and the rules raise."""
        job = run.job
        selection = job.target.selection
        listings: dict[Any, Listing] = {}
        for repo, revision in needed_listings(selection):
            listings[repo, revision] = await self.source.listing(query(job.target, repo, revision))
        main = listings[needed_listings(selection)[0]]
        job.listed(main)
        try:
            return await self._plan_from(run, listings, main)
        except WantdError as error:
            raise _unsettled(error, listings.values()) from None

    async def _plan_from(self, run: Run, listings: dict[Any, Listing], main: Listing) -> Plan:
        """Choose the files, all of which can be verified unless `policy.unverified` accepts others."""
        target = run.job.target
        selection = target.selection
        index_file, index = weight_index(selection, main), None
        if index_file is not None:
            if index_file.size and index_file.size > INDEX_MAX_BYTES:
                raise WantdError(
                    Code.HUB_PROTOCOL,
                    f"{show(index_file.name)} has {index_file.size} bytes, more than an index ever has",
                    "the repository is broken; name the files yourself with 'files'",
                )
            planned = PlanFile(
                index_file.name, main.repo, main.commit, index_file.size, index_file.sha256, index_file.git_sha1
            )
            self._refuse_unverified([planned], main)
            path, _ = await self.files.obtain(run, planned, FileProgress(planned.name, planned.size))
            index = await asyncio.to_thread(_read_small, path, INDEX_MAX_BYTES)
        plan = make_plan(target, listings, index, self.policy().formats)
        self._refuse_unverified(plan.files, main)
        return plan

    def _refuse_unverified(self, files: Sequence[PlanFile], listing: Listing) -> None:
        """Raise for a file without a known hash, where the policy says so."""
        unknown = [file.name for file in files if not (file.sha256 or file.git_sha1)]
        if unknown and self.policy().unverified == "refuse":
            raise WantdError(
                Code.HUB_PROTOCOL,
                f"{listing.source} provides no hash for {show(unknown[0])}, so it could not be verified",
                'add its sha256 to the catalog, or take files on trust with policy.unverified = "accept"',
                file=show(unknown[0]),
            )


def _unsettled(error: WantdError, listings: Iterable[Listing]) -> WantdError:
    """The error about a plan. What a fallback's listing lacks settles nothing while the Hub could not be asked."""
    fallback = next((listing for listing in listings if listing.because), None)
    if fallback is None or fallback.because is None or error.retryable:
        return error
    because = fallback.because
    return WantdError(
        because.code,
        f"{because.message}; {fallback.source}: {error.message}",
        error.hint,
        retryable=because.retryable,
        retry_after_s=because.retry_after_s,
        file=error.file,
    )


def _read_small(path: str, limit: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(limit)
