"""The ids that git and LFS give to content.

Blob ids: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects; LFS pointers:
https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from agent.http.hub.interfaces import RepositoryFile

SHA256_DIGITS = 64


def blob_id(size: int, chunks: Iterable[bytes]) -> str:
    """SHA-1 of `"blob {size}\\0"` and the content, hexadecimal."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def is_lfs(file: RepositoryFile) -> bool:
    """Whether the file is kept in LFS, so that git holds a pointer in its place."""
    return len(file.etag) == SHA256_DIGITS


def lfs_pointer(file: RepositoryFile) -> bytes:
    """The pointer that git holds in the place of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.etag}\nsize {file.size}\n".encode()


def tree_oid(file: RepositoryFile) -> str:
    """The blob id in git's tree: of the pointer for an LFS file, of the content for a plain one."""
    if not is_lfs(file):
        return file.etag
    pointer = lfs_pointer(file)
    return blob_id(len(pointer), [pointer])
