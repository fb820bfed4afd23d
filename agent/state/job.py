"""A model on its way, and the only place where its state changes.

Every method that moves a job publishes the change on the feed. Which state may follow which is in `core.states`; what a
job does between two states is `jobs/`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from loguru import logger

from agent.core.names import is_whole_commit
from agent.core.plan import Plan
from agent.core.progress import FileProgress, ModelProgress
from agent.core.remote import Listing
from agent.core.states import State
from agent.core.target import Target
from agent.core.waits import Wait
from agent.errors import WantdError
from agent.state.feed import Change, Feed
from agent.state.news import ModelNews
from agent.state.ticket import Ticket
from agent.store.layout import Published, Record

if TYPE_CHECKING:
    from loguru import Logger

_TELL_RESTRICTED = ("hub", "mirror")  # sources that say whether a repository is gated or private
LOGGED_WANTS = 20  # of a job, named in each of its log lines
DEFAULT_PRIORITY = 5


class Job:
    """A target that wants ask for. All of them show its `progress`.

    `partial_keys` are the partials that it has begun, which a later run resumes. `restricted` is as in its record.
    """

    __slots__ = ("_feed", "_priorities", "partial_keys", "progress", "restricted", "target", "wanted_by")

    def __init__(self, target: Target, feed: Feed) -> None:
        self.target = target
        self.progress = ModelProgress()
        self.restricted: bool | None = None
        self.partial_keys: set[str] = set()
        self.wanted_by: dict[Ticket, int] = {}
        self._priorities: Counter[int] = Counter()
        self._feed = feed

    # Who wants it

    def add(self, ticket: Ticket, priority: int) -> None:
        """The ticket wants it, with this priority (0 first, 9 last)."""
        self.remove(ticket)
        self.wanted_by[ticket] = priority
        self._priorities[priority] += 1

    @property
    def urgent(self) -> bool:
        """Whether a want says so."""
        return any(ticket.want is not None and ticket.want.urgent for ticket in self.wanted_by)

    def remove(self, ticket: Ticket) -> bool:
        """The ticket no longer wants it. False where it did not."""
        priority = self.wanted_by.pop(ticket, None)
        if priority is None:
            return False
        self._priorities[priority] -= 1
        return True

    @property
    def priority(self) -> int:
        """The best priority of its wants."""
        return min((priority for priority, count in self._priorities.items() if count), default=DEFAULT_PRIORITY)

    @property
    def first_want(self) -> str:
        """The path of the want that asked first of those that still do; empty where none does."""
        return next((ticket.path for ticket in self.wanted_by), "")

    @property
    def log(self) -> Logger:
        """The log, with the fields that the journal is searched by."""
        wants = [ticket.path for ticket in itertools.islice(self.wanted_by, LOGGED_WANTS)]
        return logger.bind(model=self.target.model, want=wants)

    # How it moves

    def resolve(self) -> None:
        """Sources are being asked what to download."""
        self._go(State.RESOLVING)

    def listed(self, listing: Listing) -> None:
        """A source has answered; nothing to tell of until the files are chosen."""
        selection, progress = self.target.selection, self.progress
        self.restricted = listing.restricted if listing.source in _TELL_RESTRICTED else None
        progress.repo, progress.revision, progress.source = selection.repo, selection.revision, listing.source
        progress.commit = listing.commit if is_whole_commit(listing.commit) else None
        progress.source_why = listing.because.message if listing.because else None

    def planned(self, plan: Plan, files: list[FileProgress]) -> None:
        """The files are chosen; `files` shows them."""
        known = all(file.size is not None for file in files)
        self.progress.begin(files, plan.size if known else None)
        self.progress.skipped, self.progress.warning = plan.skipped, plan.warning

    def wait(self, wait: Wait) -> None:
        """It cannot go on now, for this reason. Saying the same again is no change."""
        if self.progress.state is not State.WAITING or self.progress.waiting != wait:
            self._go(State.WAITING, waiting=wait)

    def retry(self, wait: Wait) -> None:
        """The attempt failed; the next one begins when the wait is over."""
        self.progress.attempt += 1
        self.wait(wait)

    def download(self) -> None:
        """Files are being fetched."""
        self._go(State.DOWNLOADING)

    def verify(self) -> None:
        """All bytes are there; hashes and publication are left."""
        self._go(State.VERIFYING)

    def moved(self, file: FileProgress, done: int, state: State, now: float) -> None:
        """One of the files has `done` bytes and is in `state`; the job's own state follows. `now` is monotonic."""
        progress = self.progress
        before = progress.step
        progress.update(file, done, state, now)
        phase = State.VERIFYING if progress.only_verifying else State.DOWNLOADING
        moving = progress.state in (State.DOWNLOADING, State.VERIFYING)
        if moving and state is not State.READY and phase is not progress.state:
            self._go(phase)
        else:
            self._feed.changed(self, Change.STATE if progress.step > before else Change.BYTES)

    def throttled(self, host: str | None) -> None:
        """Who holds back what is downloaded; None: nobody. Seen with the bytes that come next."""
        progress = self.progress
        if progress.throttled_by == host or progress.state is not State.DOWNLOADING:
            return
        name = self.target.model
        if host:
            self.log.warning("{}: {} holds back; downloading over fewer connections", name, ascii(host))
        else:
            self.log.info("{}: {} no longer holds back", name, ascii(progress.throttled_by))
        progress.throttled_by = host

    def publish(self, record: Record) -> None:
        """Its run has published the model, and will say `ready`."""
        self._feed.changed(ModelNews(record.model, "published", record.source))

    def ready(self, published: Published) -> None:
        """The model is in the store."""
        progress, record = self.progress, published.record
        progress.repo, progress.revision = record.repo, record.revision
        progress.commit = record.commit if is_whole_commit(record.commit) else None
        progress.source = record.source if progress.files else "store"
        progress.path = published.path
        progress.show_published(((file.name, file.size, file.sha256) for file in record.files), published.size)
        progress.verified = record.verified
        progress.skipped, progress.warning = tuple(record.skipped), record.warning
        for shown, file in zip(progress.files, record.files, strict=True):
            shown.source = file.source
        self._go(State.READY)

    def fail(self, error: WantdError) -> None:
        """It does not go on until a want is touched or the world changes."""
        self._go(State.FAILED, error=error)

    def again(self) -> None:
        """A new attempt, from the first step."""
        self._go(State.QUEUED)
        self.progress.attempt += 1
        self.progress.path = None
        self.progress.begin([], None)

    def _go(self, state: State, *, waiting: Wait | None = None, error: WantdError | None = None) -> None:
        self.progress.go(state, waiting=waiting, error=error)
        self._feed.changed(self)
