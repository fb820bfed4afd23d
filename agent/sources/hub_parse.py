"""What a Hub's JSON and headers say, as values. Pure, and believes nothing: HUB.md has the shapes."""

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


def bad_answer(what: str) -> WantdError:
    """`hub_protocol`: the answer is not what the Hub's interface says."""
    return WantdError(
        Code.HUB_PROTOCOL,
        f"the Hub's answer makes no sense: {what}",
        "check that HF_ENDPOINT names a Hub or a mirror of it, and report it to whoever runs it",
    )


def commit_of(value: Any) -> str:
    """A commit: 40 hex digits."""
    if isinstance(value, str) and is_commit(value):
        return value
    raise bad_answer(f"{show(repr(value), 60)} is no commit")


def is_commit(text: str) -> bool:
    """Whether the text is a whole commit id, and no branch or tag."""
    return bool(_SHA1.match(text))


def is_sha256(text: str) -> bool:
    """Whether the text is a SHA-256: what the Hub gives LFS files for an ETag."""
    return bool(_SHA256.match(text))


def files_of(siblings: Any) -> tuple[RemoteFile, ...] | None:
    """The files in `siblings`; None where it is missing or without sizes and hashes, as some mirrors answer."""
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
        raise bad_answer("the tree holds something that is neither file nor directory")
    return [_file(entry, "path", "oid", "oid") for entry in entries if entry["type"] == "file"]


def entries_of(value: Any) -> list[dict[str, Any]]:
    """A list of objects, and not too long a one."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise bad_answer("the list of files is no list of objects")
    if len(value) > MAX_FILES:
        raise bad_answer(f"it lists more than {MAX_FILES} files")
    return value


def checked(files: list[RemoteFile]) -> tuple[RemoteFile, ...]:
    """The files as a whole: raises `forbidden_path` when two cannot lie side by side."""
    if len(files) > MAX_FILES:
        raise bad_answer(f"it lists more than {MAX_FILES} files")
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


def check_announced(file: RemoteFile, hash_: str | None, size: int | None) -> None:
    """Raise `hub_protocol` where what the Hub announces of a file (X-Linked-Etag, its size) contradicts its listing:
    at one commit nothing may change.
    """
    if size is not None and file.size is not None and size != file.size:
        raise bad_answer(f"{show(file.name)} was listed with {file.size} bytes, and is announced with {size}")
    for shape, listed in ((_SHA256, file.sha256), (_SHA1, file.git_sha1)):
        if hash_ and listed and shape.match(hash_) and hash_ != listed:
            raise bad_answer(f"{show(file.name)} was listed with the hash {listed}, and is announced with {hash_}")


def _file(entry: Mapping[str, Any], name: str, blob: str, lfs_hash: str) -> RemoteFile:
    path = entry.get(name)
    if not isinstance(path, str):
        raise bad_answer(f"a file's name is {show(repr(path), 60)}")
    safe = safe_name(path)
    size, lfs = _size(entry.get("size"), path), entry.get("lfs")
    if not lfs:
        return RemoteFile(safe, size, git_sha1=_hash(entry.get(blob), _SHA1, path))
    if not isinstance(lfs, dict):
        raise bad_answer(f"the lfs part of {show(path)} is no object")
    if lfs.get("size") is not None and _size(lfs["size"], path) != size:
        raise bad_answer(f"{show(path)} has two sizes, {size} and {lfs['size']} bytes")
    return RemoteFile(safe, size, sha256=_hash(lfs.get(lfs_hash), _SHA256, path))


def _size(value: Any, path: str) -> int:
    if type(value) is not int or not 0 <= value < MAX_SIZE:  # True is an int, and a huge number came as a float
        raise bad_answer(f"the size of {show(path)} is {show(repr(value), 40)}")
    return value


def _hash(value: Any, shape: re.Pattern[str], path: str) -> str:
    if not isinstance(value, str) or not shape.match(value):
        raise bad_answer(f"the hash of {show(path)} is {show(repr(value), 80)}")
    return value
