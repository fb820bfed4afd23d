"""Several sources as one: the first that can answer does, file by file (SPEC section 4).

A source that cannot be reached, or that talks nonsense, is passed over; what the first one knows for certain (not
found, gated, bad token) is final. Bytes that one source gave are kept when the next goes on: the hash is the same.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from agent.core.names import RepoId, SafeName
from agent.core.remote import Listing, Location
from agent.errors import Code, WantdError
from agent.sources.base import Source

T = TypeVar("T")

STRIKES = 3  # locations of one source that may fail in a row for one file before the next source is asked
REMEMBERED = 4096  # files with failures that are kept in mind; more than are ever in motion
DOWN_S = 30.0  # a source that could not be reached is asked last for so long: finding out can take all of 40 s
_UNREACHABLE = frozenset({Code.HUB_UNREACHABLE, Code.PROXY_UNREACHABLE})
_PASSED_OVER = _UNREACHABLE | {Code.RATE_LIMITED, Code.HUB_PROTOCOL}


class Chain:
    """An ordered list of sources behind the contract of one."""

    name = "chain"

    def __init__(self, sources: Sequence[Source], clock: Callable[[], float] = time.monotonic) -> None:
        if not sources:
            raise ValueError("a chain needs a source")
        self._sources = tuple(sources)
        self._clock = clock
        self._down_until = [0.0] * len(self._sources)
        # For a file whose locations failed: the place of the source in use, and how often in a row it failed.
        self._strikes: OrderedDict[tuple[str, str, str], tuple[int, int]] = OrderedDict()

    async def listing(self, repo: RepoId, revision: str) -> Listing:
        """The listing of the first source that can answer."""
        _, listing = await self._ask(0, lambda source: source.listing(repo, revision))
        return listing

    async def locate(self, repo: RepoId, commit: str, name: SafeName, failed: WantdError | None = None) -> Location:
        """The location that the source in use gives; after `STRIKES` that failed, the next source is in use."""
        key = (repo, commit, name)
        at, strikes = self._strikes.get(key, (0, 0)) if failed else (0, 0)
        strikes += failed is not None
        if strikes >= STRIKES:
            at, strikes, failed = (at + 1) % len(self._sources), 0, None
        used, location = await self._ask(
            at, lambda source: source.locate(repo, commit, name, failed if source is self._sources[at] else None)
        )
        self._strikes.pop(key, None)
        if used or strikes:
            self._strikes[key] = (used, strikes if used == at else 0)
        while len(self._strikes) > REMEMBERED:
            self._strikes.popitem(last=False)
        return location

    async def _ask(self, start: int, ask: Callable[[Source], Awaitable[T]]) -> tuple[int, T]:
        """The place of the source that answered, and its answer. Raises what all of them said."""
        errors: list[tuple[str, WantdError]] = []
        count, now = len(self._sources), self._clock()
        order = sorted(((start + step) % count for step in range(count)), key=lambda at: self._down_until[at] > now)
        for at in order:
            try:
                return at, await ask(self._sources[at])
            except WantdError as error:
                # Only the first source is the origin: that another does not have it proves nothing.
                if at == 0 and not _passed_over(error):
                    raise
                if error.code in _UNREACHABLE:
                    self._down_until[at] = self._clock() + DOWN_S
                errors.append((self._sources[at].name, error))
        raise _summed(errors)


def _passed_over(error: WantdError) -> bool:
    return error.retryable or error.code in _PASSED_OVER


def _summed(errors: list[tuple[str, WantdError]]) -> WantdError:
    """One error for what every source answered: the first that time may mend leads, the others stand beside it."""
    if len(errors) == 1:
        return errors[0][1]
    lead = next((error for _, error in errors if error.retryable), errors[0][1])
    waits = [error.retry_after_s for _, error in errors if error.retry_after_s is not None]
    return WantdError(
        lead.code,
        "no source can give it: " + "; ".join(f"{name}: {error.message}" for name, error in errors),
        lead.hint,
        retryable=lead.retryable,
        retry_after_s=min(waits, default=None) if lead.retryable else None,
        model=lead.model,
        file=lead.file,
    )
