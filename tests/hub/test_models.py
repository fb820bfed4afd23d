"""The models are real: a reader written from the formats' own pages takes every one of them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from agent.embedded_hub.repo import Repo
from tests.hub import models

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
BLOCKS = {0: (1, 4), 1: (1, 2), 8: (32, 34), 10: (256, 84), 12: (256, 144), 13: (256, 176), 14: (256, 210)}


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, kind: str) -> Any:
        (value,) = struct.unpack_from("<" + kind, self.data, self.at)
        self.at += struct.calcsize("<" + kind)
        return value

    def text(self) -> str:
        size = self.take("Q")
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, count = self.take("I"), self.take("Q")
            return [self.value(inner) for _ in range(count)]
        return self.take(SCALARS[kind])


def read_gguf(data: bytes) -> tuple[dict[str, Any], dict[str, int]]:
    """(metadata, tensor sizes in bytes); fails on anything that does not fit."""
    reader = Reader(data)
    assert data[:4] == b"GGUF"
    reader.at = 4
    assert reader.take("I") == 3
    tensors, keys = reader.take("Q"), reader.take("Q")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        name = reader.text()
        assert name not in metadata
        metadata[name] = reader.value(reader.take("I"))
    places = []
    for _ in range(tensors):
        name, dimensions = reader.text(), reader.take("I")
        count = 1
        for _ in range(dimensions):
            count *= reader.take("Q")
        elements, width = BLOCKS[reader.take("I")]
        assert count % elements == 0
        places.append((name, reader.take("Q"), count // elements * width))
    alignment = metadata["general.alignment"]
    begin = -(-reader.at // alignment) * alignment
    end = 0
    for _, offset, size in places:
        assert offset == -(-end // alignment) * alignment
        end = offset + size
    assert len(data) == begin + -(-end // alignment) * alignment
    return metadata, {name: size for name, _, size in places}


def read_safetensors(data: bytes) -> dict[str, int]:
    """Tensor sizes in bytes; the tensors must cover the data without gap or overlap."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    at = 0
    for tensor in header.values():
        begin, end = tensor["data_offsets"]
        count = 1
        for dimension in tensor["shape"]:
            count *= dimension
        assert (begin, end - begin) == (at, count * {"BF16": 2}[tensor["dtype"]])
        at = end
    assert len(data) == 8 + length + at
    return {name: tensor["data_offsets"][1] - tensor["data_offsets"][0] for name, tensor in header.items()}


def files_of(expected: dict[str, Repo], ending: str) -> list[tuple[str, bytes]]:
    return [
        (f"{repo.id}/{name}", b"".join(file.chunks()))
        for repo in expected.values()
        for commit in repo.commits.values()
        for name, file in commit.items()
        if name.endswith(ending)
    ]


@pytest.mark.parametrize("quant", models.QUANTS)
@pytest.mark.parametrize("size", [0, 3000, 40_001])
def test_a_gguf_of_any_quant_and_size_is_well_formed(quant: str, size: int) -> None:
    data = models.make_gguf(size, seed=7, quant=quant)
    metadata, tensors = read_gguf(data)
    assert metadata["general.architecture"] == "qwen3"
    assert metadata["general.file_type"] == models.QUANTS[quant].file_type
    assert len(tensors) == 2
    if size > 4000:
        assert size - 2048 < len(data) <= size


def test_every_gguf_of_the_standard_set_is_well_formed(expected: dict[str, Repo]) -> None:
    found = files_of(expected, ".gguf")
    assert len(found) > 15
    for name, data in found:
        metadata, _ = read_gguf(data)
        assert metadata["general.architecture"] == ("clip" if "mmproj" in name else metadata["general.architecture"])


def test_a_split_set_says_how_many_parts_it_has_and_which_this_is() -> None:
    parts = models.split_gguf(9000, 3, "m-Q4_K_M")
    assert list(parts) == [f"m-Q4_K_M-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    read = [read_gguf(data) for data in parts.values()]
    assert [(m["split.no"], m["split.count"], m["split.tensors.count"]) for m, _ in read] == [
        (0, 3, 6), (1, 3, 6), (2, 3, 6)
    ]  # fmt: skip
    assert len({name for _, tensors in read for name in tensors}) == 6


def test_every_safetensors_of_the_standard_set_is_well_formed(expected: dict[str, Repo]) -> None:
    found = files_of(expected, ".safetensors")
    assert len(found) >= 5
    for _, data in found:
        assert read_safetensors(data)


def test_the_index_of_a_sharded_set_names_every_tensor_in_the_shard_that_holds_it() -> None:
    files = models.sharded_safetensors(30_000, 3)
    index = json.loads(files.pop("model.safetensors.index.json"))
    held = {name: read_safetensors(data) for name, data in files.items()}
    assert index["weight_map"] == {tensor: name for name, tensors in held.items() for tensor in tensors}
    assert index["metadata"]["total_size"] == sum(size for tensors in held.values() for size in tensors.values())


def test_a_model_written_to_disk_is_the_one_made_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    size = models.write_chunks(str(path), models.gguf_chunks(3_000_000, 5))
    assert path.read_bytes() == models.make_gguf(3_000_000, 5)
    assert size == path.stat().st_size
