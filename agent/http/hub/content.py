"""Bytes to serve, in memory or on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

READ_CHUNK = 1 << 20


@dataclass(frozen=True)
class Content:
    """Either `data` or the file at `path`."""

    data: bytes | None = None
    path: str | None = None

    @cached_property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data) if self.data is not None else os.stat(self._disk_path).st_size

    @property
    def _disk_path(self) -> str:
        if self.path is None:
            raise ValueError("content needs data or path")
        return self.path

    def chunks(self, start: int = 0, stop: int | None = None, step: int = READ_CHUNK) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, at most `step` at a time."""
        stop = self.size if stop is None else stop
        if self.data is not None:
            for at in range(start, stop, step):
                yield self.data[at : min(at + step, stop)]
            return
        with open(self._disk_path, "rb") as file:
            file.seek(start)
            while start < stop and (chunk := file.read(min(step, stop - start))):
                start += len(chunk)
                yield chunk
