"""What the Hub's cache layout has of a repository: computed from records, and kept as a ledger.

Names as huggingface_hub has them: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. Nothing in here
changes the disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from agent.core.names import is_revision, is_whole_commit, repo_id, safe_name
from agent.errors import WantdError
from agent.store.layout import Record, RecordFile

BLOBS, SNAPSHOTS, REFS = "blobs", "snapshots", "refs"
# Up to here, a file of a record that has no ETag may be a plain one; larger files are seldom kept outside LFS.
PLAIN_MAX_BYTES = 1024 * 1024
# Kept in LFS however small: from the .gitattributes of a new repository on the Hub.
_ALWAYS_LFS = (".safetensors", ".gguf", ".bin", ".onnx", ".pt", ".pth", ".h5", ".msgpack", ".model", ".npz", ".tflite")

_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_T = TypeVar("_T")


class Ledger(msgspec.Struct):
    """What wantd made in the folder of one repository, in the view at `hub`.

    `links` has the ETag for each `<commit>/<path>`, `blobs` the inodes for each ETag, `refs` the commits for each
    revision. There is more than one inode or commit only while a change is under way.
    """

    hub: str
    links: dict[str, str] = {}
    blobs: dict[str, list[int]] = {}
    refs: dict[str, list[str]] = {}

    def joined(self, other: Ledger) -> Ledger:
        """All that either has."""
        blobs, refs = _joined(self.blobs, other.blobs), _joined(self.refs, other.refs)
        return Ledger(self.hub, self.links | other.links, blobs, refs)


def may_be_true(folder: str, ledger: Ledger) -> bool:
    """Whether a ledger that others could have written names nothing but what can be in the folder of one repository."""
    try:
        for path in ledger.links:
            safe_name(path)
    except WantdError:
        return False
    etags = [*ledger.links.values(), *ledger.blobs]
    return folder.startswith("models--") and all(map(_HASH.match, etags)) and all(map(is_revision, ledger.refs))


def _joined(one: dict[str, list[_T]], other: dict[str, list[_T]]) -> dict[str, list[_T]]:
    return {key: list(dict.fromkeys([*one.get(key, []), *other.get(key, [])])) for key in one | other}


@dataclass(slots=True)
class Wanted:
    """What is to be in the folder of one repository. `blobs` has the store's file for each ETag, and its lstat."""

    links: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, tuple[str, os.stat_result]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def ledger(self, hub: str) -> Ledger:
        """The ledger of a view at `hub` that has exactly this."""
        blobs = {etag: [info.st_ino] for etag, (_, info) in self.blobs.items()}
        return Ledger(hub, dict(self.links), blobs, {revision: [commit] for revision, commit in self.refs.items()})

    def folders(self) -> dict[str, list[tuple[str, str]]]:
        """The directories below `snapshots`, each with its files: name and ETag."""
        found: dict[str, list[tuple[str, str]]] = {}
        for path, etag in self.links.items():
            folder, _, name = path.rpartition("/")
            found.setdefault(folder, []).append((name, etag))
        return found

    def set_ref(self, revision: str, commit: str) -> None:
        """A revision means this commit. A branch `a` and a branch `a/b` cannot both be files: the later one stays."""
        for other in list(self.refs):
            if other.startswith(f"{revision}/") or revision.startswith(f"{other}/"):
                del self.refs[other]
        self.refs[revision] = commit


def link_target(path: str, etag: str) -> str:
    """What the link `snapshots/<path>` points to; `path` begins with the commit."""
    return f"{'../' * (path.count('/') + 1)}{BLOBS}/{etag}"


def repo_folder(record: Record) -> str | None:
    """`models--org--name`, or None for a record that the layout cannot hold: its commit is not one of the Hub."""
    try:
        repo = repo_id(record.repo)
    except WantdError:
        return None
    return f"models--{repo.replace('/', '--')}" if is_whole_commit(record.commit) else None


def wanted(models: Iterable[tuple[str, Record]], ledger: Ledger) -> Wanted:
    """What the models of one repository come to; each is given by its directory and record.

    A model of which a file is missing is left out: half a model must not be found. Where two models disagree on the
    commit of a branch, the later one is right.
    """
    found = Wanted()
    for directory, record in sorted(models, key=lambda model: (model[1].published_at, model[0])):
        files = _files(directory, record)
        if not files:
            continue
        for file, path, info in files:
            if file.repo or file.commit:
                continue  # of another repository, as the catalog may combine them
            link = f"{record.commit}/{file.name}"
            etag = found.links[link] = _etag(file, path, info, ledger, link)
            found.blobs[etag] = path, info
        revision = record.revision
        if is_revision(revision) and not is_whole_commit(revision):
            found.set_ref(revision, record.commit)
    return found


def _files(directory: str, record: Record) -> list[tuple[RecordFile, str, os.stat_result]]:
    """The files with their paths and lstat; empty when one is not as recorded."""
    found = []
    for file in record.files:
        path = f"{directory}/{file.name}"
        try:
            info = os.lstat(path)
        except OSError:
            return []
        if not stat.S_ISREG(info.st_mode) or info.st_size != file.size or not _HASH.match(file.etag or file.sha256):
            return []
        found.append((file, path, info))
    return found


def _etag(file: RecordFile, path: str, info: os.stat_result, ledger: Ledger, link: str) -> str:
    if file.etag:
        return file.etag
    if file.size > PLAIN_MAX_BYTES or file.name.lower().endswith(_ALWAYS_LFS):
        return file.sha256
    known = ledger.links.get(link)
    if known and info.st_ino in ledger.blobs.get(known, []):
        return known
    try:
        with open(path, "rb") as opened:
            return git_sha1(opened.read())
    except OSError:
        return file.sha256


def git_sha1(content: bytes) -> str:
    """The id of a git blob: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
