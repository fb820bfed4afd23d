"""What a Hub's JSON and headers say, as values. Pure, and believes nothing.

Files are `{"rfilename", "size", "blobId", "lfs": {"sha256", "size", "pointerSize"}}` in the `siblings` of a model, and
`{"type", "path", "oid", "size", "lfs": {"oid", "size", "pointerSize"}}` in a page of its tree. `blobId` and `oid` are
git blob ids, SHA-1; for a file with `lfs` they are its pointer's, and the SHA-256 in `lfs` is the content's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.core.names import check_collisions, safe_name, show
from agent.core.remote import RemoteFile
from agent.errors import Code, WantdError

MAX_SIZE = 2**50  # 1 PiB; the largest repositories hold tens of TB
MAX_FILES = 100_000  # what the Hub recommends as the most for one repository

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SHA1 = re.compile(r"[0-9a-f]{40}\Z")
_NEXT = re.compile(r"<([^<>]{1,8000})>\s*;\s*rel=\"?next\"?(?:[;,\s]|\Z)")


def unexpected(what: str) -> WantdError:
    """`hub_protocol`: the response is not what the Hub's interface says."""
    return WantdError(
        Code.HUB_PROTOCOL,
        f"unexpected response from the Hub: {what}",
        "check that HF_ENDPOINT names a Hub or a mirror of it, or report it to the server's operator",
    )


def commit_of(value: Any) -> str:
    """A commit: 40 hex digits."""
    if isinstance(value, str) and is_commit(value):
        return value
    raise unexpected(f"{show(repr(value), 60)} is not a commit")


def is_restricted(model: Mapping[str, Any]) -> bool:
    """Whether the Hub gives the files of the repository to some accounts only, from its answer about the model."""
    return any(model.get(key) not in (None, False) for key in ("gated", "private"))


def is_commit(text: str) -> bool:
    """Whether the text is a whole commit id, and no branch or tag."""
    return bool(_SHA1.match(text))


def is_sha256(text: str) -> bool:
    """Whether the text is a SHA-256: what the Hub gives LFS files for an ETag."""
    return bool(_SHA256.match(text))


def files_of(siblings: Any) -> tuple[RemoteFile, ...] | None:
    """The files in `siblings`; None where it is missing or without sizes and hashes, as some mirrors send it."""
    if siblings is None:
        return None
    entries = entries_of(siblings)
    if any(entry.get("size") is None or not (entry.get("lfs") or entry.get("blobId")) for entry in entries):
        return None
    return checked([_file(entry, "rfilename", "blobId", "sha256") for entry in entries])


def tree_files(page: Any) -> list[RemoteFile]:
    """The files of one page of the tree API; directories are left out."""
    entries = entries_of(page)
    if any(entry.get("type") not in ("file", "directory") for entry in entries):
        raise unexpected("the tree has an entry that is neither file nor directory")
    return [_file(entry, "path", "oid", "oid") for entry in entries if entry["type"] == "file"]


def entries_of(value: Any) -> list[dict[str, Any]]:
    """A list of objects, and not too long a one."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise unexpected("the list of files is not a list of objects")
    if len(value) > MAX_FILES:
        raise unexpected(f"more than {MAX_FILES} files")
    return value


def checked(files: list[RemoteFile]) -> tuple[RemoteFile, ...]:
    """The files as a whole: raises `forbidden_path` when two cannot be in one directory tree."""
    if len(files) > MAX_FILES:
        raise unexpected(f"more than {MAX_FILES} files")
    check_collisions(file.name for file in files)
    return tuple(files)


def next_query(link: str) -> str | None:
    """The query of the `rel="next"` link. Only that: the rest of the URL names the Hub's own host, not a mirror's."""
    found = _NEXT.search(link)
    return found[1].partition("#")[0].partition("?")[2] or None if found else None


def etag_of(value: str | None) -> str | None:
    """An ETag without `W/` and quotes; None where there is none."""
    return (value or "").strip().removeprefix("W/").strip('"') or None


def size_of_header(value: str | None) -> int | None:
    """A length in a header, None for anything that is not a plain number of bytes."""
    if value is None or not value.isascii() or not value.isdigit() or len(value) > 16:
        return None
    return int(value) if int(value) < MAX_SIZE else None


def check_announced(file: RemoteFile, content_hash: str | None, size: int | None) -> None:
    """Raise `hub_protocol` where what the Hub announces of a file (X-Linked-Etag, its size) contradicts its listing.

    At one commit nothing may change.
    """
    if size is not None and file.size is not None and size != file.size:
        raise unexpected(f"{show(file.name)} is listed with {file.size} bytes, but announced with {size}")
    for shape, listed in ((_SHA256, file.sha256), (_SHA1, file.git_sha1)):
        if content_hash and listed and shape.match(content_hash) and content_hash != listed:
            raise unexpected(f"{show(file.name)} is listed with hash {listed}, but announced with {content_hash}")


def _file(entry: Mapping[str, Any], name: str, blob: str, lfs_hash: str) -> RemoteFile:
    path = entry.get(name)
    if not isinstance(path, str):
        raise unexpected(f"a file is named {show(repr(path), 60)}")
    safe = safe_name(path)
    size, lfs = _size(entry.get("size"), path), entry.get("lfs")
    if not lfs:
        return RemoteFile(safe, size, git_sha1=_hash(entry.get(blob), _SHA1, path))
    if not isinstance(lfs, dict):
        raise unexpected(f"lfs of {show(path)} is not an object")
    if lfs.get("size") is not None and _size(lfs["size"], path) != size:
        raise unexpected(f"{show(path)} has two sizes, {size} and {lfs['size']} bytes")
    return RemoteFile(safe, size, sha256=_hash(lfs.get(lfs_hash), _SHA256, path))


def _size(value: Any, path: str) -> int:
    if type(value) is not int or not 0 <= value < MAX_SIZE:  # True is an int, and a huge number came as a float
        raise unexpected(f"the size of {show(path)} is {show(repr(value), 40)}")
    return value


def _hash(value: Any, shape: re.Pattern[str], path: str) -> str:
    if not isinstance(value, str) or not shape.match(value):
        raise unexpected(f"the hash of {show(path)} is {show(repr(value), 80)}")
    return value
