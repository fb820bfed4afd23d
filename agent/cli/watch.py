"""One want and its progress file, read again and again: what `wantd get` and `wantd wait` look at."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

import orjson

from agent.core.want import PROGRESS_SUFFIX, WANT_SUFFIX
from agent.errors import Code, Exit

FINAL = ("ready", "failed")


class Watch:
    """A want at `path`, and how it goes. `name` is what people see.

    `before` is `updated_at` of the progress file found at first: a failure in it is not news.
    """

    def __init__(self, name: str, path: str, before: str | None = None) -> None:
        self.name = name
        self.path = path
        self.progress: dict[str, Any] | None = None
        self._path = path.removesuffix(WANT_SUFFIX) + PROGRESS_SUFFIX
        self._before = before
        self._seen = 0

    def look(self) -> bool:
        """Read the progress file again if it has changed. True when it has."""
        try:
            stamp = os.stat(self._path).st_mtime_ns
            if stamp == self._seen:
                return False
            with open(self._path, "rb") as file:
                progress = orjson.loads(file.read())
        except (OSError, orjson.JSONDecodeError):
            return False
        self._seen = stamp
        if not isinstance(progress, dict):
            return False
        if progress.get("updated_at") == self._before and progress.get("state") == "failed":
            return False
        self.progress = progress
        return True

    @property
    def state(self) -> str:
        """As the progress file has it; `queued` before there is one."""
        return str((self.progress or {}).get("state", "queued"))

    @property
    def final(self) -> bool:
        """Whether nothing more will come."""
        if self.progress is None or self.state not in FINAL:
            return False
        paths = [model.get("path") for model in self.progress.get("models", [])]
        return self.state == "failed" or all(path and os.path.exists(path) for path in paths)


def conclude(watches: Iterable[Watch]) -> int:
    """Print the paths, and below everything else the errors. Returns 0, or the exit code of the first error."""
    code: int = Exit.OK
    for watch in watches:
        progress = watch.progress or {}
        if not watch.final:
            print(f"{watch.name}: not ready yet, still wanted; see {watch.path}", file=sys.stderr)
            code = code or Exit.FAILURE
            continue
        for model in progress.get("models", []):
            if model.get("path"):
                print(model["path"])
        if error := progress.get("error"):
            print(f"{watch.name}: {error['message']} ({error['code']})\n  {error['hint']}", file=sys.stderr)
            code = code or _exit_code(error.get("code"))
    return code


def _exit_code(code: Any) -> int:
    return Exit.of(Code(code)) if code in list(Code) else Exit.FAILURE
