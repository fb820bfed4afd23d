"""Small GGUF files: a real head and weights of noise, the same bytes for the same seed.

Format, version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CHUNK = 1 << 20
ALIGNMENT = 32
ROW = 256  # elements in a row: the block length of the K quants
VOCABULARY = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(97, 123))]
_U16, _U32, _I32, _STRING, _ARRAY = 2, 4, 5, 8, 9  # gguf_metadata_value_type


@dataclass(frozen=True)
class Quant:
    """How the weights are stored. Numbers and block sizes are those of ggml's type traits."""

    file_type: int  # llama_ftype, the metadata's general.file_type
    tensor_type: int  # ggml_type of the big tensor
    row_bytes: int  # bytes of 256 elements


Q4_K_M = Quant(15, 12, 144)


def gguf_chunks(
    size: int,
    seed: int = 0,
    *,
    name: str,
    quant: Quant = Q4_K_M,
    architecture: str = "qwen3",
    tensor: str = "blk.0.ffn_down",
    metadata: Sequence[bytes] = (),
) -> Iterator[bytes]:
    """A GGUF of about `size` bytes (never more, but for the smallest): the head first, then the data in chunks.

    `tensor` names the one large tensor, `metadata` adds to the head what `u16` and `i32` make.
    """
    pairs = [*_metadata(quant, architecture, name), *metadata]
    norm = ROW * 4

    def head(rows: int) -> bytes:
        weight = (f"{tensor}.weight", [ROW, rows], quant.tensor_type, norm)
        return _head(pairs, [(f"{tensor}_norm.weight", [ROW], 0, 0), weight])

    rows = max(1, (size - len(head(1)) - norm - ALIGNMENT) // quant.row_bytes)
    yield head(rows)
    yield from noise(norm + rows * quant.row_bytes, seed)
    yield bytes(-(rows * quant.row_bytes) % ALIGNMENT)  # the last tensor is padded like every other


def noise(size: int, seed: int) -> Iterator[bytes]:
    """`size` bytes that follow from `seed`, in chunks."""
    source = random.Random(seed)  # noqa: S311  weights, not secrets
    while size > 0:
        chunk = source.randbytes(min(CHUNK, size))
        size -= len(chunk)
        yield chunk


def _metadata(quant: Quant, architecture: str, name: str) -> list[bytes]:
    tokens = struct.pack("<IQ", _STRING, len(VOCABULARY)) + b"".join(map(_string, VOCABULARY))
    return [
        _text("general.architecture", architecture),
        _text("general.name", name),
        _u32("general.file_type", quant.file_type),
        _u32("general.quantization_version", 2),
        _u32("general.alignment", ALIGNMENT),
        _u32(f"{architecture}.context_length", 4096),
        _u32(f"{architecture}.embedding_length", ROW),
        _u32(f"{architecture}.block_count", 1),
        _u32(f"{architecture}.attention.head_count", 4),
        _text("tokenizer.ggml.model", "gpt2"),
        _string("tokenizer.ggml.tokens") + struct.pack("<I", _ARRAY) + tokens,
    ]


def _head(metadata: list[bytes], tensors: list[tuple[str, list[int], int, int]]) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata)) + b"".join(metadata)
    for name, shape, kind, offset in tensors:
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return head + bytes(-len(head) % ALIGNMENT)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _text(key: str, value: str) -> bytes:
    return _string(key) + struct.pack("<I", _STRING) + _string(value)


def u16(key: str, value: int) -> bytes:
    """A pair of metadata."""
    return _string(key) + struct.pack("<IH", _U16, value)


def _u32(key: str, value: int) -> bytes:
    return _string(key) + struct.pack("<II", _U32, value)


def i32(key: str, value: int) -> bytes:
    """A pair of metadata."""
    return _string(key) + struct.pack("<Ii", _I32, value)
