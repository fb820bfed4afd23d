"""The one place that tells of changes: synchronous to publish, read by each subscriber at its own pace.

Publishing puts the ticket or job into the mailbox of each subscriber and runs no code of theirs, so that a reader that
is slow, stuck or broken delays nothing. A mailbox holds each subject once: a slow reader finds the newest state of
everything that changed, and at most one byte count of each; it never misses that a state changed. Subjects are live
objects, to be read when they are taken.

The idea is that of Syncthing's event bus (lib/events), without its numbers: where a history is needed, one subscriber
keeps it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable
from enum import IntEnum

Subject = Hashable  # a ticket or a job; the feed does not look into them

BACKLOG = 2000  # changes not yet delivered by a subscriber that holds back intake: half a second of progress files


class Change(IntEnum):
    """What happened to a subject. A greater one replaces a lesser one that was not read yet."""

    BYTES = 0
    STATE = 1  # of the subject, or a tenth more of its bytes
    GONE = 2


class Subscription:
    """The mailbox of one reader. `overflowed` says that changes were dropped; the reader sets it back.

    `backlog` is how much a reader has taken and not dealt with yet. Only a reader that intake must not outrun sets it.
    """

    def __init__(self, feed: Feed, limit: int | None) -> None:
        self._feed = feed
        self._limit = limit
        self.overflowed = False
        self._changes: dict[Subject, Change] = {}
        self._event = asyncio.Event()
        self._backlog = 0

    def put(self, subject: Subject, change: Change) -> None:
        """For the feed: note a change. A change of state moves behind those noted before it."""
        before = self._changes.get(subject)
        if change is Change.BYTES and before is not None:
            return
        if before is not None:
            del self._changes[subject]
        elif self._limit is not None and len(self._changes) >= self._limit:
            self._changes.clear()
            self.overflowed = True
        self._changes[subject] = change if before is None else max(change, before)
        self._event.set()

    def take(self) -> dict[Subject, Change]:
        """Everything since the last call, each subject once, in the order of the changes."""
        changes, self._changes = self._changes, {}
        self._event.clear()
        return changes

    async def wait(self, timeout_s: float | None = None) -> None:
        """Return when there is something to take, after `timeout_s` seconds, or after `wake`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()

    def wake(self) -> None:
        """End the wait."""
        self._event.set()

    @property
    def backlog(self) -> int:
        """Changes that the reader has taken and not dealt with."""
        return self._backlog

    @backlog.setter
    def backlog(self, count: int) -> None:
        self._backlog = count
        self._feed.recount()

    def close(self) -> None:
        """Read no more."""
        self._feed.unsubscribe(self)


class Feed:
    """Tells subscribers of changed tickets and jobs. All calls come from the event loop."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []
        self._capacity = asyncio.Event()
        self._capacity.set()

    def subscribe(self, limit: int | None = None) -> Subscription:
        """A mailbox for what changes from now on, of `limit` subjects at most."""
        subscription = Subscription(self, limit)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a mailbox, and what it held back."""
        with contextlib.suppress(ValueError):
            self._subscriptions.remove(subscription)
        self.recount()

    def changed(self, subject: Subject, change: Change = Change.STATE) -> None:
        """The subject has another state (or just more bytes)."""
        for subscription in self._subscriptions:
            subscription.put(subject, change)

    def gone(self, subject: Subject) -> None:
        """The want is gone, or nothing wants the model: the subject changes no more."""
        self.changed(subject, Change.GONE)

    def recount(self) -> None:
        """A subscriber's backlog has changed."""
        if any(subscription.backlog >= BACKLOG for subscription in self._subscriptions):
            self._capacity.clear()
        else:
            self._capacity.set()

    async def wait_for_capacity(self) -> None:
        """Wait until no subscriber is too far behind to take in more wants."""
        await self._capacity.wait()
