"""The metadata half of the Hub's interface: what there is, at which commit, with which hashes."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from agent.embedded_hub.answer import Answer, HubError, json_answer
from agent.embedded_hub.repo import HubFile, Repo

DATE = "2026-01-15T12:00:00.000Z"  # every commit's: dates are no part of what is tested
EXPAND_PAGE = 50  # the Hub's page is this small when `expand` asks for more of each entry


def entry_not_found(commit: str) -> HubError:
    """The revision is there, the file or directory is not."""
    return HubError(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})


def commit_of(repo: Repo, revision: str) -> str:
    """The commit a revision names. Raises RevisionNotFound."""
    commit = repo.find(revision)
    if commit is None:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit


def info(repo: Repo, commit: str, *, blobs: bool) -> Answer:
    """`GET /api/models/{repo}[/revision/{rev}][?blobs=true]`."""
    files = repo.commits[commit]
    siblings = [{"rfilename": name, **(_blob(name, file) if blobs else {})} for name, file in files.items()]
    document = {
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
        "usedStorage": sum(file.size for name, file in files.items() if file.is_lfs(name)),
        "siblings": siblings,
    }
    return json_answer(document, headers={"X-Repo-Commit": commit})


def refs(repo: Repo) -> Answer:
    """`GET /api/models/{repo}/refs`: branches, tags and pull requests."""
    listed: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
    for name, commit in repo.refs.items():
        if name.startswith("refs/"):
            listed["pullRequests"].append({"name": name.rpartition("/")[2], "ref": name, "targetCommit": commit})
        else:
            listed["branches"].append({"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit})
    return json_answer(listed)


def tree(repo: Repo, commit: str, revision: str, path: str, query: Mapping[str, str], page: int, base: str) -> Answer:
    """`GET /api/models/{repo}/tree/{rev}/{path}`: a page of entries, a Link to the next; `base` is the Hub's URL."""
    recursive, expand = _flag(query.get("recursive")), _flag(query.get("expand"))
    entries = tree_entries(repo.commits[commit], path, recursive=recursive, expand=expand, commit=commit)
    if path and not entries:
        raise entry_not_found(commit)
    size = min(page, EXPAND_PAGE) if expand else page
    if query.get("limit", "").isdigit():
        size = max(1, min(size, int(query["limit"])))
    start = _read_cursor(query.get("cursor"))
    headers = {"X-Repo-Commit": commit}
    if start + size < len(entries):
        asked = {key: query[key] for key in ("recursive", "expand", "limit") if key in query}
        cursor = base64.urlsafe_b64encode(str(start + size).encode()).decode()
        below = f"/{quote(path)}" if path else ""
        where = f"{base}/api/models/{repo.id}/tree/{quote(revision, safe='')}{below}"
        headers["Link"] = f'<{where}?{urlencode({**asked, "cursor": cursor})}>; rel="next"'
    return json_answer(entries[start : start + size], headers=headers)


def paths_info(repo: Repo, commit: str, paths: list[str], *, expand: bool) -> Answer:
    """`POST /api/models/{repo}/paths-info/{rev}`: the entries of those paths that exist."""
    everything = tree_entries(repo.commits[commit], "", recursive=True, expand=expand, commit=commit)
    by_path = {entry["path"]: entry for entry in everything}
    wanted = [path.strip("/") for path in paths]
    return json_answer([by_path[path] for path in wanted if path in by_path], headers={"X-Repo-Commit": commit})


def tree_entries(
    files: Mapping[str, HubFile], path: str, *, recursive: bool, expand: bool, commit: str
) -> list[dict[str, Any]]:
    """Directories first, then files, below `path`."""
    prefix = f"{path.strip('/')}/" if path.strip("/") else ""
    folders: dict[str, list[str]] = {}
    listed = []
    for name, file in files.items():
        if not name.startswith(prefix):
            continue
        parts = name[len(prefix) :].split("/")
        depths = range(1, len(parts)) if recursive else range(1, min(2, len(parts)))
        for depth in depths:
            folders.setdefault(prefix + "/".join(parts[:depth]), []).append(f"{file.oid(name)} {name}")
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


def whoami(name: str) -> Answer:
    """`GET /api/whoami-v2` for the owner of a known token."""
    role = {"displayName": "embedded", "role": "read", "createdAt": DATE}
    return json_answer(
        {
            "type": "user",
            "id": "0" * 24,
            "name": name,
            "fullname": name,
            "isPro": False,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": role},
        }
    )


def _blob(name: str, file: HubFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"size": file.size, "blobId": file.oid(name)}
    if file.is_lfs(name):
        entry["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return entry


def _entry(name: str, file: HubFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": file.oid(name), "size": file.size, "path": name}
    if file.is_lfs(name):
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return entry


def _flag(text: str | None) -> bool:
    return (text or "").lower() in ("true", "1")


def _read_cursor(text: str | None) -> int:
    try:
        return int(base64.urlsafe_b64decode(text)) if text else 0
    except (ValueError, binascii.Error):
        raise HubError(400, None, "Invalid cursor") from None
