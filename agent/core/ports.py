"""What a source and the transfer engine must offer: where those who implement it and those who use it meet."""

from __future__ import annotations

from typing import Protocol

from agent.core.names import SafeName
from agent.core.remote import Fetched, FetchRequest, Listing, Locate, Location, OnBytes, Query
from agent.errors import WantdError


class Source(Protocol):
    """A place that models come from. One suite, `tests/sources/test_contract.py`, runs over every implementation.

    What is certain (not found, gated, bad token) raises errors that are not retryable; what may pass with time raises
    retryable ones. No method returns a part of what is asked for. The locations carry their own way of access
    (`core.access`), so a new source is one new file.
    """

    @property
    def name(self) -> str:
        """What progress files and errors call it."""
        ...

    async def listing(self, query: Query) -> Listing:
        """All files of the repository at the commit that the query's revision names now.

        Raises `model_not_found`, `revision_not_found`, `gated`, `unauthorized`, `token_invalid`, `forbidden_path`,
        `hub_protocol`, `hub_unreachable`, `proxy_unreachable`, `rate_limited`.
        """
        ...

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        """Where to read the file's bytes now; `failed` is what the last location ended with, if any.

        The query's revision is the commit of the listing, which not every source had to be the one to give.

        Raises as `listing`, and `file_not_found`.
        """
        ...


class Transfer(Protocol):
    """Downloads single files, verified."""

    async def fetch(self, request: FetchRequest, locate: Locate, on_bytes: OnBytes) -> Fetched:
        """Download one file to `request.part_path`, verify and sync it.

        Retries passing faults itself while bytes still move; raises `stalled`, `hub_unreachable`, `rate_limited`
        (with `retry_after_s`), `disk_full` when they do not, and `checksum_mismatch`, `hub_protocol`,
        `store_unwritable` when trying again is no use. Cancelling keeps the partial and its journal true.
        """
        ...

    def throttled_by(self, group: str) -> str | None:
        """The host (`host:port`) that holds back what this group of requests downloads; None where none does."""
        ...
