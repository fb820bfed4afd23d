"""A Hub's cache on this host as a source, for when the Hub is out of reach.

    <root>/models--org--name/
        refs/<revision>                40 hex: the commit
        snapshots/<commit>/<path>      a link to ../../blobs/<etag>; a plain file where the file system has no links
        blobs/<etag>                   64 hex: SHA-256; 40 hex: git blob id
        trees/<commit>.json            all files of the commit, where a whole snapshot was asked for

https://huggingface.co/docs/huggingface_hub/guides/manage-cache; `trees` as huggingface_hub 2.4 writes it. Without it a
listing has the files that were downloaded, which may not be all: it is partial (docs/adoption.md says what follows from
that). A plain file in a snapshot has no hash.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from agent.core.access import Body, Caller, LocationExpired
from agent.core.names import SafeName, check_collisions, is_commit, is_revision, is_whole_commit, safe_name, show
from agent.core.remote import Listing, Location, Query, RemoteFile
from agent.errors import Code, WantdError
from agent.host_files import HostFile, Unusable, open_host_file, resolved, size_of
from agent.sources.host_caches import HUB, HostCaches, hub_repository

REF_MAX_BYTES = 64  # a commit has 40
TREE_MAX_BYTES = 64 * 1024 * 1024  # 60,000 files take 15 MB
FILES_MAX = 100_000  # of one snapshot

_HINT = "connect to the Hub, or download the model on this host with another tool first"


@dataclass(frozen=True, slots=True)
class _Snapshot:
    root: str
    folder: str  # of the repository
    commit: str

    @property
    def path(self) -> str:
        return f"{self.folder}/snapshots/{self.commit}"


class HubCacheSource:
    """Implements `core.ports.Source` over the Hub caches among `caches`."""

    name = f"adopted:{HUB}"

    def __init__(self, caches: HostCaches) -> None:
        self._caches = caches

    async def listing(self, query: Query) -> Listing:
        """See `core.ports.Source`. Raises `model_not_found`, `revision_not_found`, `forbidden_path`, `hub_protocol`."""
        return await asyncio.to_thread(self._listing, query)

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        """See `core.ports.Source`. Raises as `listing`, and `file_not_found`."""
        return await asyncio.to_thread(self._locate, query, name)

    def _listing(self, query: Query) -> Listing:
        snapshot = self._snapshot(query)
        tree = {file.name: file for file in _tree(snapshot)}
        files = {file.name: file for file in _linked(snapshot)} | tree
        check_collisions(files)
        return Listing(
            self.name,
            query.repo,
            snapshot.commit,
            tuple(files[name] for name in sorted(files)),
            partial=not tree,
            note=_note(snapshot, query.revision, whole=bool(tree)),
        )

    def _locate(self, query: Query, name: SafeName) -> Location:
        snapshot = self._snapshot(query)
        path = f"{snapshot.path}/{name}"
        size = size_of(path, snapshot.root, True)
        if size is None:
            raise WantdError(
                Code.FILE_NOT_FOUND,
                f"the Hub's cache on this host has no {show(name)} of {query.repo}",
                _HINT,
                model=query.repo,
                file=name,
            )
        etag = _etag(path, snapshot)
        access = LocalFile(HostFile(path, snapshot.root, HUB, size, True))
        return Location(self.name, access, etag or None, size, sha256=etag if len(etag) == 64 else None)

    def _snapshot(self, query: Query) -> _Snapshot:
        """The snapshot of the revision, in the first cache that has it."""
        there = False
        for root in self._caches.roots():
            folder = f"{root}/{hub_repository(query.repo)}"
            if not os.path.isdir(f"{folder}/snapshots") or resolved(f"{folder}/snapshots", root, False) is None:
                continue
            there = True
            commit = _commit(folder, root, query.revision)
            if commit and os.path.isdir(f"{folder}/snapshots/{commit}"):
                return _Snapshot(root, folder, commit)
        if there:
            code, what = Code.REVISION_NOT_FOUND, f"no revision {show(query.revision)} of {query.repo}"
        else:
            code, what = Code.MODEL_NOT_FOUND, f"no {query.repo}"
        raise WantdError(code, f"the Hub's cache on this host has {what}", _HINT, model=query.repo)


def _commit(folder: str, root: str, revision: str) -> str | None:
    """The commit that the revision names in this cache."""
    if is_whole_commit(revision):
        return revision
    if is_revision(revision):
        text = _read(f"{folder}/refs/{revision}", root, REF_MAX_BYTES).decode("ascii", "replace").strip()
        if is_whole_commit(text):
            return text
    if is_commit(revision):
        try:
            begun = [name for name in os.listdir(f"{folder}/snapshots") if name.startswith(revision)]
        except OSError:
            return None
        return begun[0] if len(begun) == 1 and is_whole_commit(begun[0]) else None
    return None


def _note(snapshot: _Snapshot, revision: str, *, whole: bool) -> str | None:
    """What the cache does not know: whether a branch has moved since it was written, and files it never downloaded."""
    known = []
    if not is_commit(revision):
        try:
            since = os.stat(f"{snapshot.folder}/refs/{revision}", follow_symlinks=False).st_mtime
        except OSError:
            since = 0.0
        day = datetime.fromtimestamp(since, UTC).date().isoformat()
        known.append(f"{show(revision)} is {snapshot.commit[:12]}, as it was on {day}")
    if not whole:
        known.append("it lists only what was downloaded into it; the rest follows when the Hub can be reached")
    return f"The Hub could not be asked; this is from its cache on this host: {'; '.join(known)}." if known else None


def _linked(snapshot: _Snapshot) -> Iterator[RemoteFile]:
    """The files of the snapshot that are there, with the hash that their blob's name tells."""
    count = 0
    for folder, _, names in os.walk(snapshot.path):
        for name in names:
            count += 1
            if count > FILES_MAX:
                raise WantdError(
                    Code.HUB_PROTOCOL, f"{show(snapshot.path, 300)} has more than {FILES_MAX} files", _HINT
                )
            path = f"{folder}/{name}"
            size = size_of(path, snapshot.root, True)
            if size is not None:
                etag = _etag(path, snapshot)
                yield _remote(os.path.relpath(path, snapshot.path), size, etag)


def _remote(name: str, size: int | None, etag: str) -> RemoteFile:
    sha256, git_sha1 = (etag, None) if len(etag) == 64 else (None, etag or None)
    return RemoteFile(safe_name(name), size, sha256, git_sha1)


def _etag(path: str, snapshot: _Snapshot) -> str:
    """The name of the blob that a link of a snapshot names: a hash; empty where it is none."""
    try:
        aim = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    except OSError:
        return ""
    name = os.path.basename(aim)
    hexadecimal = len(name) in (40, 64) and not set(name) - set("0123456789abcdef")
    return name if os.path.dirname(aim) == f"{snapshot.folder}/blobs" and hexadecimal else ""


def _tree(snapshot: _Snapshot) -> Iterator[RemoteFile]:
    """All files of the commit, where the cache has its tree; nothing where it has none that can be read."""
    text = _read(f"{snapshot.folder}/trees/{snapshot.commit}.json", snapshot.root, TREE_MAX_BYTES)
    try:
        files = msgspec.json.decode(text, type=dict[str, Any]).get("files") if text else None
    except (msgspec.DecodeError, RecursionError):
        return
    for name, said in files.items() if isinstance(files, dict) else ():
        if isinstance(said, dict):
            etag, size = said.get("lfs_sha256") or said.get("blob_id"), said.get("size")
            if isinstance(etag, str) and isinstance(size, int) and size >= 0 and len(etag) in (40, 64):
                yield _remote(name, size, etag)


def _read(path: str, root: str, limit: int) -> bytes:
    """The content of a small file of a cache; nothing where it cannot be read, or is longer."""
    try:
        status = os.stat(path, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return b""
        fd = open_host_file(HostFile(path, root, HUB, status.st_size))
    except (OSError, ValueError, Unusable):
        return b""
    with open(fd, "rb") as file:
        return file.read(limit)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """An `Opener` over a file of a cache."""

    file: HostFile
    host: str = "this host"

    def open(self, span: tuple[int, int] | None, caller: Caller) -> Body:
        """See `core.access.Opener`. Raises `LocationExpired`."""
        try:
            fd = open_host_file(self.file)
        except Unusable as error:
            raise LocationExpired(str(error)) from None
        start, end = span or (0, self.file.size)
        return _LocalBody(fd, start, min(end, self.file.size), self.file.size)


class _LocalBody:
    """A `Body`. Reads from a disk return in any case: there is nothing to cut."""

    etag: str | None = None
    ranges = True

    def __init__(self, fd: int, start: int, end: int, size: int) -> None:
        self._fd = fd
        self._at = start
        self._end = end
        self.start = start
        self.end: int | None = end
        self.size: int | None = size

    def read_into(self, view: memoryview) -> int:
        count = min(len(view), self._end - self._at)
        if count <= 0:
            return 0
        try:
            n = os.preadv(self._fd, [view[:count]], self._at)
        except OSError as error:
            raise LocationExpired(f"it cannot be read: {error.strerror}") from None
        if n == 0:
            raise LocationExpired("it has become shorter")
        self._at += n
        return n

    def finish(self) -> bool:
        return self._at < self._end

    def close(self, complete: bool) -> None:
        os.close(self._fd)


def has_hub_cache(caches: HostCaches) -> bool:
    """Whether a repository of the Hub is in one of the caches: without one, this source is of no use."""
    for root in caches.roots():
        try:
            with os.scandir(root) as entries:
                if any(entry.name.startswith("models--") for entry in entries):
                    return True
        except OSError:
            continue
    return False
