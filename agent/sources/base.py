"""What a place that models come from must offer. `services.ports.Source` is the same contract, seen from above."""

from __future__ import annotations

from typing import Protocol

from agent.core.names import RepoId, SafeName
from agent.core.remote import Listing, Location
from agent.errors import WantdError


class Source(Protocol):
    """A place that models come from.

    Definite answers raise errors that are not retryable, what time may mend raises retryable ones, and no method
    returns half an answer. `tests/sources/test_contract.py` runs over every implementation.
    """

    name: str

    async def listing(self, repo: RepoId, revision: str) -> Listing:
        """All files of the repository at the commit that `revision` names now."""
        ...

    async def locate(self, repo: RepoId, commit: str, name: SafeName, failed: WantdError | None = None) -> Location:
        """Where to read the file's bytes now; `failed` is what the last location ended with, if any."""
        ...
