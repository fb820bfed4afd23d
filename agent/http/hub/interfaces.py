"""What the Hub's routes need to know of the models that they serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from agent.http.hub.content import Content


class RepositoryFile(Protocol):
    """One file of a commit. A file kept in LFS is known by its SHA-256, a plain one by its git blob id."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    @property
    def etag(self) -> str:
        """What names the content: 64 hex digits (SHA-256, LFS) or 40 (git blob SHA-1, plain)."""

    def open(self) -> Content | None:
        """The bytes; None where the file is listed but its content is not there."""


class Repository(Protocol):
    """One model repository, at all the commits that it is served at."""

    @property
    def id(self) -> str:
        """Its name now, `org/name` or `name`."""

    @property
    def private(self) -> bool:
        """Whether only some may see it. The routes report this, they do not enforce it."""

    @property
    def gated(self) -> bool | str:
        """False, "auto" or "manual". The routes report this, they do not enforce it."""

    @property
    def disabled(self) -> bool:
        """Whether nothing of it is served to anybody."""

    @property
    def refs(self) -> Mapping[str, str]:
        """Commits (40 hex digits) by branch name, `refs/tags/TAG` and `refs/pr/N`."""

    def find(self, revision: str) -> str | None:
        """The commit that a branch, tag, `refs/…` name or commit id names now, None if there is none."""

    def files(self, commit: str) -> Mapping[str, RepositoryFile]:
        """The files of a commit that `find` or `refs` gave, by path."""


class Repositories(Protocol):
    """All models that are served."""

    def find(self, name: str) -> Repository | None:
        """The repository with that name, in any case, or with that former name; its `id` is the true one."""
