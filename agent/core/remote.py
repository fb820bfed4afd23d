"""What a source knows of a model, and what the transfer engine is asked to download. Plain values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.core.access import Access
from agent.core.names import RepoId, SafeName, StoreName
from agent.errors import Code, WantdError

# Bytes. Up to here a file comes in one request and is written in one step: faster than any journal, and two processes
# that download the same one for two models at the same moment do each other no harm (transfer/small.py).
SMALL_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Query:
    """What sources are asked for: a repository at a revision, and what a load balancer needs to know it by.

    `revision` is a branch, tag or commit. `model` is the id under which a balancer has the model. `names` are files
    that the catalog names in this repository and `quant` what the reference asks for: with them a balancer's
    `model.gguf` gets its own name back. `bound` says that the catalog knows a hash, so no other version passes.
    """

    repo: RepoId
    revision: str
    model: StoreName
    names: tuple[SafeName, ...] = ()
    quant: str | None = None
    bound: bool = False


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository at one commit.

    `size` is in bytes, None where the source does not say. At most one of the hashes is needed: `sha256` of the
    content for LFS files, `git_sha1` (the blob id, SHA-1 of `"blob {size}\\0" + content`) for the others.
    """

    name: SafeName
    size: int | None
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a repository at one commit, as one source lists them. Names are checked, none collide.

    `commit` is the revision as it was asked for where the source cannot tell which commit that is. `because` says why
    the sources before this one were passed over, None where there was nothing to pass over. `restricted`: the Hub gives
    the repository to some accounts only (gated or private). `partial`: the source may not know all files; `note` is a
    sentence for people about what it knows, None where there is nothing to say.
    """

    source: str
    repo: RepoId
    commit: str
    files: tuple[RemoteFile, ...]
    because: WantdError | None = None
    restricted: bool = False
    partial: bool = False
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Location:
    """Where the bytes of one file can be read right now, and how.

    `access` is the way to them; the URL in it may be signed and expire: ask `Locate` again when it does.
    `etag`, `size` (bytes) and `sha256` are what the source announced for this file, None where it said nothing;
    `ranges` is False where only the whole file can be asked for, and `span_bytes` is the most that one request may ask
    for (0: any number of bytes). `unreachable` is the code for bytes that do not come.
    """

    source: str
    access: Access
    etag: str | None = None
    size: int | None = None
    ranges: bool = True
    sha256: str | None = None
    unreachable: Code = Code.HUB_UNREACHABLE
    span_bytes: int = 0


# Called with None at first, later with the error that made the last location useless (expired, unreachable). Raises a
# WantdError when no source has the file: definite ones are final, passing ones are retried by the job.
Locate = Callable[[WantdError | None], Awaitable[Location]]

# Called on the event loop with the bytes of this file that are on disk (0 to size, may fall when bad ranges are
# dropped) and whether nothing but verification is left.
OnBytes = Callable[[int, bool], None]


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """One file to download to `part_path`, resuming from what `journal_path` vouches for.

    `priority` runs 0 (first) to 9 (last). `label` is for logs and errors. Connections are shared among groups, each of
    them what one model fetches; a request that names none is a group of its own. `slice_bytes`: see `granule_for`.
    """

    label: str
    part_path: str
    journal_path: str
    size: int | None
    sha256: str | None = None
    git_sha1: str | None = None
    priority: int = 5
    slice_bytes: int = 0
    group: str = ""

    @property
    def has_hash(self) -> bool:
        """Whether a hash can tell in the end that the bytes are right, wherever they came from."""
        return bool(self.sha256 or self.git_sha1)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete, verified, synced partial. `verified` is False only where no hash was known."""

    size: int
    sha256: str
    verified: bool
    source: str
