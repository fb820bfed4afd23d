"""The files that are fetched: real heads, noise behind, made once. Names and sizes count, and that no two are alike."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from tests.hub import models

BLOCK = 1024 * 1024
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Repo:
    """A repository `id` of files by (name, size in bytes)."""

    id: str
    files: tuple[tuple[str, int], ...]

    @property
    def bytes_total(self) -> int:
        """The sum of the sizes."""
        return sum(size for _, size in self.files)

    def make(self, root: str) -> None:
        """Write what is not there yet below `root/id`."""
        directory = f"{root}/{self.id}"
        for number, (name, size) in enumerate(self.files):
            path = f"{directory}/{name}"
            if os.path.exists(path):
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(f"{path}.making", "wb") as file:
                for piece in _content(f"{self.id}/{name}", name, size, number):
                    file.write(piece)
            os.rename(f"{path}.making", path)
        weights = [name for name, _ in self.files if name.endswith(".safetensors")]
        if len(weights) > 1 and "-of-" in weights[0]:
            _write(f"{directory}/{INDEX}", json.dumps({"metadata": {}, "weight_map": {n: n for n in weights}}).encode())
            for name, text in models.config_files().items():
                _write(f"{directory}/{name}", text)

    def remove(self, root: str) -> None:
        """Give the space back."""
        shutil.rmtree(f"{root}/{self.id}", ignore_errors=True)


def _content(key: str, name: str, size: int, number: int) -> Iterator[bytes]:
    """Exactly `size` bytes: the format's head, then one block of noise again and again, each with its own number."""
    head = b""
    if name.endswith(".gguf"):
        head = next(models.gguf_chunks(size, number))[:size]
        yield head
    noise = random.Random(key).randbytes(BLOCK)
    for at in range(len(head), size, BLOCK):
        block = at.to_bytes(8, "little") + noise[8:]
        yield block[: size - at]


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
