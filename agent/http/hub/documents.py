"""The JSON of the Hub's metadata: what there is, at which commit, with which hashes.

Entries never carry `xetHash`: it invites clients to read from Xet storage, and there is none behind these routes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from agent.http.hub.git import is_lfs, lfs_pointer, tree_oid
from agent.http.hub.interfaces import Repository, RepositoryFile
from agent.http.hub.response import HubError

DATE = "2026-01-15T12:00:00.000Z"  # of every commit: `Repository` knows no dates
TAGS = "refs/tags/"
_NUMBER = re.compile("[0-9]{1,9}")
EXPAND_PAGE = 50  # the Hub's page is this small when `expand` asks for more of each entry


def info(repo: Repository, commit: str, *, blobs: bool) -> dict[str, Any]:
    """A repository at a commit; sizes and hashes of its files only with `blobs`."""
    files = repo.files(commit)
    siblings = [{"rfilename": name, **(_blob(file) if blobs else {})} for name, file in files.items()]
    return {
        "_id": hashlib.sha256(repo.id.encode()).hexdigest()[:24],
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.id.partition("/")[0],
        "sha": commit,
        "lastModified": DATE,
        "createdAt": DATE,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": repo.disabled,
        "downloads": 0,
        "likes": 0,
        "tags": ["gguf"] if any(name.endswith(".gguf") for name in files) else [],
        "usedStorage": sum(file.size for file in files.values() if is_lfs(file)),
        "siblings": siblings,
    }


def refs(repo: Repository) -> dict[str, list[dict[str, str]]]:
    """Branches, tags and pull requests."""
    listed: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
    for name, commit in repo.refs.items():
        kind, prefix = "branches", "refs/heads/"
        if name.startswith("refs/"):
            kind, prefix = ("tags", TAGS) if name.startswith(TAGS) else ("pullRequests", "refs/pr/")
        short = name.removeprefix(prefix)
        listed[kind].append({"name": short, "ref": prefix + short, "targetCommit": commit})
    return listed


@dataclass(frozen=True)
class TreePage:
    """Entries of a tree, and the query that asks for the next page, None after the last."""

    entries: list[dict[str, Any]]
    next_query: str | None


def tree_page(repo: Repository, commit: str, path: str, query: Mapping[str, str], page_size: int) -> TreePage:
    """The page that a request's query asks for (`recursive`, `expand`, `limit`, `cursor`). Raises HubError 400."""
    recursive, expand = flag(query.get("recursive")), flag(query.get("expand"))
    entries = _tree_entries(repo.files(commit), path, recursive=recursive, expand=expand, commit=commit)
    size = min(page_size, EXPAND_PAGE) if expand else page_size
    if _NUMBER.fullmatch(query.get("limit", "")):
        size = max(1, min(size, int(query["limit"])))
    start = _read_cursor(query.get("cursor"))
    stop = start + size
    if stop >= len(entries):
        return TreePage(entries[start:], None)
    asked = {key: query[key] for key in ("recursive", "expand", "limit") if key in query}
    cursor = base64.urlsafe_b64encode(str(stop).encode()).decode()
    return TreePage(entries[start:stop], urlencode({**asked, "cursor": cursor}))


def paths_info(repo: Repository, commit: str, paths: list[str], *, expand: bool) -> list[dict[str, Any]]:
    """The tree's entries of those paths that exist."""
    everything = _tree_entries(repo.files(commit), "", recursive=True, expand=expand, commit=commit)
    by_path = {entry["path"]: entry for entry in everything}
    wanted = [path.strip("/") for path in paths]
    return [by_path[path] for path in wanted if path in by_path]


def flag(text: str | None) -> bool:
    """Whether a query's value means yes."""
    return (text or "").lower() in ("true", "1")


def _tree_entries(
    files: Mapping[str, RepositoryFile], path: str, *, recursive: bool, expand: bool, commit: str
) -> list[dict[str, Any]]:
    """Directories first, then files, below `path`."""
    prefix = f"{path}/" if path else ""
    folders: dict[str, list[str]] = {}
    listed = []
    for name, file in files.items():
        if not name.startswith(prefix):
            continue
        parts = name[len(prefix) :].split("/")
        depths = range(1, len(parts)) if recursive else range(1, min(2, len(parts)))
        for depth in depths:
            folders.setdefault(prefix + "/".join(parts[:depth]), []).append(f"{tree_oid(file)} {name}")
        if recursive or len(parts) == 1:
            listed.append(_entry(name, file))
    directories = [
        {
            "type": "directory",
            "oid": hashlib.sha1("\n".join(inside).encode(), usedforsecurity=False).hexdigest(),
            "size": 0,
            "path": folder,
        }
        for folder, inside in sorted(folders.items())
    ]
    entries = directories + listed
    if expand:
        last = {"id": commit, "title": "Upload model", "date": DATE}
        entries = [{**entry, "lastCommit": last} for entry in entries]
    return entries


def _blob(file: RepositoryFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"size": file.size, "blobId": tree_oid(file)}
    if is_lfs(file):
        entry["lfs"] = {"sha256": file.etag, "size": file.size, "pointerSize": len(lfs_pointer(file))}
    return entry


def _entry(name: str, file: RepositoryFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": tree_oid(file), "size": file.size, "path": name}
    if is_lfs(file):
        entry["lfs"] = {"oid": file.etag, "size": file.size, "pointerSize": len(lfs_pointer(file))}
    return entry


def _read_cursor(text: str | None) -> int:
    try:
        return max(0, int(base64.urlsafe_b64decode(text))) if text else 0
    except (ValueError, binascii.Error):
        raise HubError(400, None, "Invalid cursor") from None
