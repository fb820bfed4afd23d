"""A Hub's cache on this host, as huggingface_hub writes it, made of the embedded Hub's repositories."""

from __future__ import annotations

import json
import os
from pathlib import Path

from agent.embedded_hub.repo import Repo


def write_cache(root: Path, repo: Repo, *, trees: bool = True) -> Path:
    """Put every commit of a repository there, with its tree (`trees`); gives the repository's folder."""
    folder = root / f"models--{repo.id.replace('/', '--')}"
    for commit, files in repo.commits.items():
        (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        for name, file in files.items():
            blob, link = folder / "blobs" / file.etag, folder / "snapshots" / commit / name
            for path in (blob, link):
                path.parent.mkdir(parents=True, exist_ok=True)
            if not blob.exists():
                blob.write_bytes(b"".join(file.chunks()))
            link.symlink_to(os.path.relpath(blob, link.parent))
        if trees and files:
            said = {
                name: {"size": file.size, "blob_id": file.git_sha1, "lfs_sha256": file.sha256 if file.lfs else None}
                for name, file in files.items()
            }
            path = folder / "trees" / f"{commit}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"format_version": 1, "files": said}))
    for ref, commit in repo.refs.items():
        path = folder / "refs" / ref.removeprefix("refs/tags/")  # as it was asked for
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)
    return folder
