"""From a reference to the list of files to have: sources are asked, and the rules of `agent.core.plan` choose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.config import Policy
from agent.core.names import show
from agent.core.plan import Plan, PlanFile, Unread, make_plan, needed_listings, query
from agent.core.ports import Source
from agent.core.progress import FileProgress
from agent.core.remote import Listing, Query, RemoteFile
from agent.core.selection.code import CodePolicy
from agent.core.selection.tree import READ_MAX_BYTES, Contents
from agent.core.target import Target
from agent.errors import Code, WantdError
from agent.jobs.files import Files
from agent.jobs.run import Run

# Without a token, the Hub answers for a repository that is missing as for a private one.
UNKNOWN = (Code.MODEL_NOT_FOUND, Code.UNAUTHORIZED)


@dataclass(slots=True)
class _Asking:
    """A question that is under way, and how many wait for the answer."""

    task: asyncio.Future[Listing]
    waiting: int = 0


@dataclass(slots=True)
class Planner:
    """Makes plans under the policy in force. `meant` begins the hint for a name that no source has."""

    source: Source
    files: Files
    policy: Callable[[], Policy]
    meant: Callable[[str], str] = lambda name: ""
    _asked: dict[Query, _Asking] = field(default_factory=dict)

    async def plan(self, run: Run, commit: str | None = None) -> Plan:
        """The files of the job's target, at one commit: that of its revision, or this one.

        Raises what the sources and the rules raise.
        """
        job = run.job
        target = _at_commit(job.target, commit) if commit else job.target
        selection = target.selection
        listings: dict[Any, Listing] = {}
        for repo, revision in needed_listings(selection):
            try:
                listings[repo, revision] = await self._listing(query(target, repo, revision))
            except WantdError as error:
                if error.code in UNKNOWN and not error.hint.startswith("did you mean"):  # one error may come twice
                    error.hint = self.meant(job.target.reference.model) + error.hint
                raise
        main = listings[needed_listings(selection)[0]]
        job.listed(main)
        try:
            return replace(await self._plan_from(run, target, listings, main), target=job.target)
        except WantdError as error:
            raise _unsettled(error, listings.values()) from None

    async def _listing(self, asked: Query) -> Listing:
        """What the source lists; one answer for all who ask the same at the same time."""
        asking = self._asked.get(asked)
        if asking is None:
            asking = self._asked[asked] = _Asking(asyncio.ensure_future(self.source.listing(asked)))
        asking.waiting += 1
        try:
            return await asyncio.shield(asking.task)
        finally:
            asking.waiting -= 1
            if asking.task.done() or not asking.waiting:
                asking.task.cancel()
                if self._asked.get(asked) is asking:
                    del self._asked[asked]

    async def _plan_from(self, run: Run, target: Target, listings: dict[Any, Listing], main: Listing) -> Plan:
        """Choose the files, all of which can be verified unless `policy.unverified` accepts others."""
        policy = self.policy()
        contents, code = Contents(), CodePolicy(frozenset(policy.formats), policy.code)
        while True:  # in a thread: a repository of 50,000 files takes up to a second
            step = await asyncio.to_thread(make_plan, target, listings, contents, code)
            if not isinstance(step, Unread):
                self._refuse_unverified(step.files, main)
                return step
            reads = await asyncio.gather(*(self._read(run, file, main) for file in step.files), return_exceptions=True)
            for file, data in zip(step.files, reads, strict=True):
                if isinstance(data, BaseException):
                    raise data
                contents.add(file.name, data)

    async def _read(self, run: Run, file: RemoteFile, main: Listing) -> bytes:
        """The content of a small file that decides which files there are."""
        planned = PlanFile(file.name, main.repo, main.commit, file.size, file.sha256, file.git_sha1)
        self._refuse_unverified([planned], main)
        path, _ = await self.files.obtain(run, planned, FileProgress(planned.name, planned.size))
        return await asyncio.to_thread(_read_small, path, READ_MAX_BYTES)

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


def _at_commit(target: Target, commit: str) -> Target:
    """The target as if the want had pinned the commit."""
    return replace(
        target, selection=replace(target.selection, revision=commit), plain=replace(target.plain, revision=commit)
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
