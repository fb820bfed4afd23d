"""The error about a path in the store that is taken: by another model, a link that leads nowhere, or a stray file."""

from __future__ import annotations

import os

from agent.core.names import show
from agent.errors import Code, WantdError
from agent.store.layout import LLMLB_GGUF, MANIFEST, Record, read_record


def in_the_way(path: str, root: str, directory: str) -> WantdError:
    """Why nothing can be created at `path`, for the model in `directory` of the store at `root`: `forbidden_path`."""
    link, theirs = _dangling(path), _owner(path, root, directory)
    if link:
        what = f"{show(link, 300)} is a symbolic link to {show(os.readlink(link), 300)}, which is not there"
        hint = "mount or restore what it leads to, or remove the link"
    elif theirs:
        what = f"the model {show(theirs.model)} is there"
        hint = "remove that model from the store if it is not needed, or rename one of the two in the catalog"
    else:
        what = "a file is in the place of a directory, or a directory in the place of a file"
        hint = "move what is in the way, or rename one of two ids in the catalog that claim the same name"
    return WantdError(Code.FORBIDDEN_PATH, f"cannot create {show(path, 300)}: {what}", hint)


def _dangling(path: str) -> str | None:
    """The symbolic link on the way to `path` that leads nowhere."""
    while len(path) > 1:
        if os.path.islink(path) and not os.path.exists(path):
            return path
        path = os.path.dirname(path)
    return None


def _owner(path: str, root: str, directory: str) -> Record | None:
    """The other model whose directory or file is at the path."""
    folder, inside = path, ""
    while len(folder) > len(root):
        record = read_record(folder) if folder != directory else None
        if record and (not inside or inside in {LLMLB_GGUF, MANIFEST, *(file.name for file in record.files)}):
            return record
        folder = os.path.dirname(folder)
        inside = path[len(folder) + 1 :]
    return None
