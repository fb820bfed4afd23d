"""What a place that models come from must offer. `services.ports.Source` is the same contract, seen from above."""

from __future__ import annotations

from typing import Protocol

from agent.core.names import SafeName
from agent.core.remote import Listing, Location, Query
from agent.errors import WantdError


class Source(Protocol):
    """A place that models come from.

    Definite answers raise errors that are not retryable, what time may mend raises retryable ones, and no method
    returns half an answer. `tests/sources/test_contract.py` runs over every implementation.
    """

    @property
    def name(self) -> str:
        """What progress files and errors call it."""
        ...

    async def listing(self, query: Query) -> Listing:
        """All files of the repository at the commit that the query's revision names now."""
        ...

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        """Where to read the file's bytes now; `failed` is what the last location ended with, if any."""
        ...
