"""Those who read the log now. They are woken in slices, and no more than a fifth of the time goes into them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

SLICE = 40  # readers that are woken in one turn of the loop: 2 ms
REST_S = 0.05  # between two rounds at least: changes of one moment travel together
REST_SHARE = 4.0  # times the last round's duration: 1,000 readers take 60 ms, and rest for 240
PULSE_S = (
    15.0  # a reader is woken that often though there is nothing: it says so, and the other end knows that it lives
)


class Readers:
    """A set of readers, each with an event that `serve` sets. All calls come from the event loop."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Event] = set()
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._readers)

    @contextmanager
    def joined(self) -> Iterator[asyncio.Event]:
        """One more reader, for the block. It clears the event before it reads, and waits for it when all is read."""
        event = asyncio.Event()
        self._readers.add(event)
        try:
            yield event
        finally:
            self._readers.discard(event)

    def wake(self) -> None:
        """There is something new, perhaps."""
        self._news.set()

    async def serve(self) -> None:
        """Wake readers until cancelled."""
        while True:
            try:
                async with asyncio.timeout(PULSE_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            began = time.monotonic()
            await self.wake_all()
            await asyncio.sleep(max(REST_S, (time.monotonic() - began) * REST_SHARE))

    async def wake_all(self) -> None:
        """Wake every reader once."""
        for number, event in enumerate(list(self._readers), 1):
            event.set()
            if number % SLICE == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
