"""Caches of other programs, filled with files of the torture chamber's Hub, and whether anybody has touched them."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tests.torture.lives import world


def content(repo: str, name: str) -> bytes:
    """A file as the Hub has it."""
    with urllib.request.urlopen(f"{world().hub.endpoint}/{repo}/resolve/main/{name}", timeout=30) as response:
        data: bytes = response.read()
    return data


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)
    return path


def fill_hub_cache(home: Path, repo: str) -> None:
    """The Hub's own layout, with every file of the repository's branch `main`."""
    known = world().hub.repos()[repo]
    commit = known["refs"]["main"]
    folder = home / ".cache/huggingface/hub" / f"models--{repo.replace('/', '--')}"
    put(folder / "refs/main", commit.encode())
    for name, file in known["files"].items():
        data = content(repo, name)
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        blob = put(folder / "blobs" / (file["sha256"] if file["lfs"] else git), data)
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))


def fill_ollama(home: Path, data: bytes) -> None:
    put(home / ".ollama/models/blobs" / f"sha256-{hashlib.sha256(data).hexdigest()}", data)


def fill_lmstudio(home: Path, repo: str, name: str, data: bytes) -> None:
    put(home / ".lmstudio/models" / repo / name, data)


def state_of(root: Path, leave_out: Collection[Path]) -> dict[str, Any]:
    """Everything below, but these: kind, permissions, owner, mtime, inode, target or SHA-256 of each."""
    found: dict[str, Any] = {}
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = [name for name in folders if here / name not in leave_out]
        for path in (here / name for name in [*folders, *names] if here / name not in leave_out):
            info = path.lstat()
            what = None
            if path.is_symlink():
                what = os.readlink(path)
            elif path.is_file():
                what = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_ino, what)
    return found
