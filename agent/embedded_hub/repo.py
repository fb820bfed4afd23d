"""Repositories in memory or from a directory, with the ids and hashes that git and LFS would give their files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from agent.http.hub.content import Content
from agent.http.hub.git import blob_id, tree_oid

LFS_SUFFIXES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".msgpack", ".model")
LFS_MIN_BYTES = 10 * 1024 * 1024  # git on the Hub accepts no plain file larger than this
SHORT_COMMIT = 7  # digits of a commit id that may stand for the whole
TAGS = "refs/tags/"
BRANCHES = "refs/heads/"


@dataclass(frozen=True)
class HubFile(Content):
    """One file's content. `lfs` says whether it is kept in LFS; a commit decides where it is None."""

    lfs: bool | None = None

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
        return blob_id(self.size, self.chunks())

    @property
    def etag(self) -> str:
        """See `interfaces.RepositoryFile`."""
        return self.sha256 if self.lfs else self.git_sha1

    def open(self) -> Content | None:
        """See `interfaces.RepositoryFile`."""
        return self

    def named(self, name: str) -> HubFile:
        """The file as a commit holds it under that name: in LFS or not by suffix and size, unless `lfs` says it."""
        if self.lfs is not None:
            return self
        return replace(self, lfs=name.lower().endswith(LFS_SUFFIXES) or self.size >= LFS_MIN_BYTES)


Contents = Mapping[str, bytes | str | HubFile]
"""Files by name, where text and bytes stand for files in memory."""


def as_file(content: bytes | str | HubFile) -> HubFile:
    """The file with that content."""
    if isinstance(content, HubFile):
        return content
    return HubFile(content.encode() if isinstance(content, str) else content)


@dataclass
class Repo:
    """One model repository. `refs` maps branches, `refs/tags/TAG` and `refs/pr/N` to commits.

    `gated` is False, "auto" or "manual". Requests for `former_ids` are redirected.
    """

    id: str
    gated: bool | str = False
    private: bool = False
    disabled: bool = False
    former_ids: tuple[str, ...] = ()
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, HubFile]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        repo_id: str,
        contents: Contents,
        *,
        gated: bool | str = False,
        private: bool = False,
        disabled: bool = False,
        former_ids: tuple[str, ...] = (),
    ) -> Repo:
        """A repository whose `main` holds these files."""
        repo = cls(repo_id, gated, private, disabled, former_ids)
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

    def commit(self, contents: Contents, ref: str = "main") -> str:
        """Make a commit with exactly these files, let `ref` name it, and return its id.

        The id follows from repository, parent and content: the same steps make the same id.
        """
        files = {name: as_file(content).named(name) for name, content in sorted(contents.items())}
        lines = [self.id, self.refs.get(ref, ""), *(f"{tree_oid(file)} {name}" for name, file in files.items())]
        commit = hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()
        self.commits[commit] = files
        self.refs[ref] = commit
        return commit

    def find(self, revision: str) -> str | None:
        """See `interfaces.Repository`. A commit id may be shortened to seven digits."""
        for ref in (revision, revision.removeprefix(BRANCHES), TAGS + revision):
            if ref in self.refs:
                return self.refs[ref]
        if revision in self.commits:
            return revision
        found = [commit for commit in self.commits if len(revision) >= SHORT_COMMIT and commit.startswith(revision)]
        return found[0] if len(found) == 1 else None

    def files(self, commit: str) -> Mapping[str, HubFile]:
        """See `interfaces.Repository`."""
        return self.commits[commit]

    @property
    def main(self) -> Mapping[str, HubFile]:
        """The files of `main`."""
        return self.commits[self.refs["main"]]


class Repos(Mapping[str, Repo]):
    """Repositories by their true names."""

    def __init__(self, repos: Iterable[Repo] = ()) -> None:
        self._repos: dict[str, Repo] = {}
        self._ids: dict[str, str] = {}  # true and former names in lower case -> the true one
        for repo in repos:
            self.add(repo)

    def add(self, repo: Repo) -> None:
        """Serve a repository, in place of one with the same name."""
        self._repos[repo.id] = repo
        for name in (repo.id, *repo.former_ids):
            self._ids[name.lower()] = repo.id

    def find(self, name: str) -> Repo | None:
        """See `interfaces.Repositories`."""
        return self._repos.get(self._ids.get(name.lower(), ""))

    def __getitem__(self, repo_id: str) -> Repo:
        return self._repos[repo_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._repos)

    def __len__(self) -> int:
        return len(self._repos)
