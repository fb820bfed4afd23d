"""Repositories as the embedded Hub holds them: files, revisions, and the hashes that git and LFS give them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

LFS_SUFFIXES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".msgpack", ".model")
LFS_MIN_BYTES = 10 * 1024 * 1024  # git on the Hub takes no plain file larger than this
HASH_CHUNK = 1 << 20


@dataclass(frozen=True)
class HubFile:
    """One file's content: `data` in memory, or `path` on disk. `lfs` None lets name and size decide."""

    data: bytes | None = None
    path: str | None = None
    lfs: bool | None = None

    @cached_property
    def size(self) -> int:
        """Length of the content in bytes."""
        return len(self.data) if self.data is not None else os.stat(self._disk_path).st_size

    @property
    def _disk_path(self) -> str:
        if self.path is None:
            raise ValueError("a HubFile needs data or path")
        return self.path

    def chunks(self, start: int = 0, stop: int | None = None, step: int = HASH_CHUNK) -> Iterator[bytes]:
        """The bytes `start` to `stop` (exclusive), at most `step` at a time."""
        stop = self.size if stop is None else stop
        if self.data is not None:
            for at in range(start, stop, step):
                yield self.data[at : min(at + step, stop)]
            return
        with open(self._disk_path, "rb") as file:
            file.seek(start)
            while start < stop and (chunk := file.read(min(step, stop - start))):
                start += len(chunk)
                yield chunk

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the content, hexadecimal."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    @cached_property
    def git_sha1(self) -> str:
        """Git's blob id of the content."""
        return git_blob_id(self.size, self.chunks())

    def is_lfs(self, name: str) -> bool:
        """Whether the Hub would keep this file in LFS under that name."""
        if self.lfs is not None:
            return self.lfs
        return name.lower().endswith(LFS_SUFFIXES) or self.size >= LFS_MIN_BYTES

    @cached_property
    def pointer(self) -> bytes:
        """The LFS pointer that git holds in the file's place (git-lfs, docs/spec.md)."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    def oid(self, name: str) -> str:
        """The blob id in git's tree: of the pointer for LFS files, of the content for the others."""
        return git_blob_id(len(self.pointer), [self.pointer]) if self.is_lfs(name) else self.git_sha1

    def etag(self, name: str) -> str:
        """What the Hub announces as the content's ETag, without quotes."""
        return self.sha256 if self.is_lfs(name) else self.git_sha1


def git_blob_id(size: int, chunks: Iterator[bytes] | list[bytes]) -> str:
    """SHA-1 of `"blob {size}\\0"` and the content, as git names a blob."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


Files = Mapping[str, HubFile]


def as_files(contents: Mapping[str, bytes | str | HubFile]) -> dict[str, HubFile]:
    """Contents by name, where text and bytes stand for files in memory."""
    return {
        name: value if isinstance(value, HubFile) else HubFile(value.encode() if isinstance(value, str) else value)
        for name, value in contents.items()
    }


@dataclass
class Repo:
    """One model repository. `refs` maps `main`, branches, tags and `refs/pr/N` to commits.

    `gated` is False, "auto" or "manual". `open_listing` says whether the metadata of a gated repo is public: it is
    on the Hub of today, it was not in earlier years. Requests for `former_ids` are redirected.
    """

    id: str
    gated: bool | str = False
    private: bool = False
    disabled: bool = False
    open_listing: bool = True
    former_ids: tuple[str, ...] = ()
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, HubFile]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        repo_id: str,
        contents: Mapping[str, bytes | str | HubFile],
        *,
        gated: bool | str = False,
        private: bool = False,
        disabled: bool = False,
        open_listing: bool = True,
        former_ids: tuple[str, ...] = (),
    ) -> Repo:
        """A repository whose `main` holds these files."""
        repo = cls(repo_id, gated, private, disabled, open_listing, former_ids)
        repo.commit(contents)
        return repo

    @classmethod
    def from_directory(cls, repo_id: str, directory: str) -> Repo:
        """A repository whose `main` holds the files below `directory`, served from there."""
        files: dict[str, HubFile] = {}
        for root, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(root, name)
                files[os.path.relpath(path, directory)] = HubFile(path=path)
        return cls.of(repo_id, files)

    def commit(self, contents: Mapping[str, bytes | str | HubFile], ref: str = "main") -> str:
        """Make a commit with exactly these files, let `ref` name it, and give its id.

        The id follows from repository, parent and content: the same steps make the same id.
        """
        files = as_files(dict(sorted(contents.items())))
        lines = [self.id, self.refs.get(ref, ""), *(f"{file.oid(name)} {name}" for name, file in files.items())]
        commit = hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()
        self.commits[commit] = files
        self.refs[ref] = commit
        return commit

    def find(self, revision: str) -> str | None:
        """The commit that a branch, tag, `refs/…` name or commit id (whole, or 7 digits and more) means now."""
        for ref in (revision, revision.removeprefix("refs/heads/"), revision.removeprefix("refs/tags/")):
            if ref in self.refs:
                return self.refs[ref]
        if revision in self.commits:
            return revision
        short = [commit for commit in self.commits if len(revision) >= 7 and commit.startswith(revision)]
        return short[0] if len(short) == 1 else None
