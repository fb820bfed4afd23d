"""Several sources as one: the first that can answer does, file by file.

A source that cannot be reached, or that breaks the protocol, is passed over; what the first one knows for certain (not
found, gated, bad token) is final. Bytes from one source are kept when the next goes on: the hash is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from cachetools import LRUCache, TLRUCache
from loguru import logger

from agent.core.names import SafeName
from agent.core.ports import Source
from agent.core.remote import Listing, Location, Query
from agent.core.retry import LOCATION_STRIKES, UNUSABLE_FILE_S, WRONG_FILE_S
from agent.errors import Code, WantdError
from agent.sources.breaker import UNREACHABLE, Breaker

T = TypeVar("T")

REMEMBERED = 4096  # files with failures that are kept in mind; more than are ever in motion
_PASSED_OVER = UNREACHABLE | {Code.RATE_LIMITED, Code.HUB_PROTOCOL}
_WRONG = frozenset({Code.CHECKSUM_MISMATCH, Code.HUB_PROTOCOL})

_Key = tuple[str, str, str]  # repository, revision, file


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """Whether a source answered when it was asked last, None before that, and why it did not."""

    name: str
    ok: bool | None
    why: str | None


class Chain:
    """An ordered list of sources behind the contract of one. To be closed with `close`."""

    name = "chain"

    def __init__(self, sources: Sequence[Source], clock: Callable[[], float] = time.monotonic) -> None:
        if not sources:
            raise ValueError("a chain needs a source")
        self._sources = tuple(sources)
        self._breakers = [Breaker(clock) for _ in sources]
        self._last: dict[int, WantdError | None] = {}  # by place: how the last question to the source ended
        # For a file whose locations failed: the place of the source in use, and how often in a row it failed.
        self._strikes: LRUCache[_Key, tuple[int, int]] = LRUCache(REMEMBERED)
        # By place of the source and file: what a fallback gave that was not the file. Each for its own time.
        self._wrong: TLRUCache[tuple[int, _Key], WantdError, float] = TLRUCache(REMEMBERED, _until, timer=clock)

    async def close(self) -> None:
        """End what goes on in the background."""
        await asyncio.gather(*(breaker.close() for breaker in self._breakers))

    async def listing(self, query: Query) -> Listing:
        """The listing of the first source that can answer."""
        at, listing, because = await self._ask(0, lambda source: source.listing(query), query)
        if because is None:
            return listing
        logger.info("asking {} for {}: {}", self._sources[at].name, query.repo, because.message)
        return replace(listing, because=because)

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        """A location from the source in use; after `LOCATION_STRIKES` that failed, the next source is in use."""
        key = (query.repo, query.revision, name)
        at, strikes = self._strikes.get(key, (0, 0)) if failed else (0, 0)
        if failed is not None:
            strikes += 1
            if failed.code in _WRONG and len(self._sources) > 1:
                if at > 0:  # the first one is where the plan's hashes come from: what is wrong with it passes
                    self._wrong[at, key] = failed
                strikes = LOCATION_STRIKES
        if strikes >= LOCATION_STRIKES:
            at, strikes, failed = (at + 1) % len(self._sources), 0, None
        used, location, _ = await self._ask(
            at, lambda source: source.locate(query, name, failed if source is self._sources[at] else None), query, name
        )
        self._strikes.pop(key, None)
        if used or strikes:
            self._strikes[key] = (used, strikes if used == at else 0)
        return location

    async def _ask(
        self, start: int, ask: Callable[[Source], Awaitable[T]], query: Query, name: SafeName | None = None
    ) -> tuple[int, T, WantdError | None]:
        """The place of the source that answered, its result, and why those before it were passed over (if any were).

        Raises one error for all of them. Sources whose breaker is open are asked last, when nothing else is left.
        """
        count = len(self._sources)
        if count == 1:
            with self._noting(0):
                return 0, await ask(self._sources[0]), None
        for source, breaker in zip(self._sources, self._breakers, strict=True):
            breaker.probe(source.name, _question(ask, source))
        errors: dict[int, WantdError] = {}
        skipped = {at: why for at, breaker in enumerate(self._breakers) if (why := breaker.why)}
        order = sorted(((start + step) % count for step in range(count)), key=lambda at: at in skipped)
        for at in order:
            if name and (failed := self._wrong.get((at, (query.repo, query.revision, name)))):
                errors[at] = failed
                continue
            try:
                # The last one in the row is waited for, however long it takes.
                question, patient = _question(ask, self._sources[at]), at == order[-1]
                with self._noting(at):
                    result = await self._breakers[at].ask(self._sources[at].name, question, patient=patient)
            except WantdError as error:
                # Only the first source is the origin: that another does not have it proves nothing.
                if at == 0 and not _passed_over(error):
                    raise
                errors[at] = error
            else:
                before = {place: why for place, why in (skipped | errors).items() if place < at}
                return at, result, self._summed(before, query, name) if before else None
        raise self._summed(errors, query, name)

    @contextlib.contextmanager
    def _noting(self, at: int) -> Iterator[None]:
        """Keep in mind how a question to a source ends."""
        try:
            yield
        except WantdError as error:
            self._last[at] = error if _passed_over(error) else None
            raise
        self._last[at] = None

    def health(self) -> list[SourceHealth]:
        """Of each source, in their order, how the last question ended. A definite "no" is an answer as well."""
        found = []
        for at, source in enumerate(self._sources):
            error = self._breakers[at].why or self._last.get(at)
            ok = False if error else (True if at in self._last else None)
            found.append(SourceHealth(source.name, ok, error.message if error else None))
        return found

    def _summed(self, errors: dict[int, WantdError], query: Query, file: SafeName | None) -> WantdError:
        """One error for what every source said: the first retryable one leads, the others stand beside it."""
        said = [(self._sources[at].name, errors[at]) for at in sorted(errors)]
        lead = next((error for _, error in said if error.retryable), said[0][1])
        waits = [error.retry_after_s for _, error in said if error.retry_after_s is not None]
        intro = "no source has it: " if len(said) == len(self._sources) else ""
        return WantdError(
            lead.code,
            intro + "; ".join(f"{name}: {error.message}" for name, error in said),
            lead.hint,
            retryable=lead.retryable,
            retry_after_s=min(waits, default=None) if lead.retryable else None,
            model=query.repo,
            file=file,
        )


def _question(ask: Callable[[Source], Awaitable[T]], source: Source) -> Callable[[], Awaitable[T]]:
    return lambda: ask(source)


def _passed_over(error: WantdError) -> bool:
    return error.retryable or error.code in _PASSED_OVER


def _until(_: object, failed: WantdError, now: float) -> float:
    """How long a source is not asked again for a file that it failed with."""
    return now + (WRONG_FILE_S if failed.code is Code.CHECKSUM_MISMATCH else UNUSABLE_FILE_S)
