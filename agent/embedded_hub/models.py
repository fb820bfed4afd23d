"""Small real models: valid GGUF and safetensors of any size, the same bytes for the same seed.

Formats: GGUF version 3, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; safetensors,
https://github.com/huggingface/safetensors#format. The weights are noise.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CHUNK = 1 << 20
GGUF_ALIGNMENT = 32
ROW = 256  # elements in a row: the block length of the K quants
VOCABULARY = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(97, 123))]


@dataclass(frozen=True)
class _Quant:
    file_type: int  # llama_ftype, the metadata's general.file_type
    tensor_type: int  # ggml_type of the big tensor
    row_bytes: int  # bytes of 256 elements


# Block sizes from ggml's type traits: Q8_0 34 bytes for 32, the K quants for 256 elements.
QUANTS = {
    "F32": _Quant(0, 0, 1024),
    "F16": _Quant(1, 1, 512),
    "Q8_0": _Quant(7, 8, 272),
    "Q2_K": _Quant(10, 10, 84),
    "Q4_K_S": _Quant(14, 12, 144),
    "Q4_K_M": _Quant(15, 12, 144),
    "Q5_K_M": _Quant(17, 13, 176),
    "Q6_K": _Quant(18, 14, 210),
}
_U16, _U32, _I32, _STRING, _ARRAY = 2, 4, 5, 8, 9  # gguf_metadata_value_type


def gguf_chunks(
    size: int,
    seed: int = 0,
    *,
    quant: str = "Q4_K_M",
    architecture: str = "qwen3",
    name: str = "wantd small",
    split: tuple[int, int] | None = None,
) -> Iterator[bytes]:
    """A GGUF of about `size` bytes (never more, but for the smallest): header first, then the data in chunks.

    `split` is (number from 0, count) of a split set; every part is a valid file of its own, as llama.cpp writes them.
    """
    kind = QUANTS[quant]
    part, parts = split or (0, 1)
    metadata = _metadata(kind, architecture, name)
    if split:
        metadata += [_u16("split.no", part), _u16("split.count", parts), _i32("split.tensors.count", 2 * parts)]
    prefix = "v.patch_embd" if architecture == "clip" else f"blk.{part}.ffn_down"
    norm = ROW * 4

    def head(rows: int) -> bytes:
        weight = (f"{prefix}.weight", [ROW, rows], kind.tensor_type, norm)
        return _gguf_head(metadata, [(f"{prefix}_norm.weight", [ROW], 0, 0), weight])

    rows = max(1, (size - len(head(1)) - norm - GGUF_ALIGNMENT) // kind.row_bytes)
    yield head(rows)
    yield from noise(norm + rows * kind.row_bytes, seed + part)
    yield bytes(-(rows * kind.row_bytes) % GGUF_ALIGNMENT)  # the last tensor is padded like every other


def make_gguf(
    size: int = 4096,
    seed: int = 0,
    *,
    quant: str = "Q4_K_M",
    architecture: str = "qwen3",
    name: str = "wantd small",
    split: tuple[int, int] | None = None,
) -> bytes:
    """`gguf_chunks` in one piece."""
    return b"".join(gguf_chunks(size, seed, quant=quant, architecture=architecture, name=name, split=split))


def safetensors_chunks(
    size: int, seed: int = 0, *, tensors: Iterable[str] = ("model.embed_tokens.weight",)
) -> Iterator[bytes]:
    """A safetensors file of about `size` bytes: `tensors` of BF16 that share the size evenly."""
    names = list(tensors)
    each = max(2, (size // len(names)) // 2 * 2)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for number, name in enumerate(names):
        header[name] = {"dtype": "BF16", "shape": [each // 2], "data_offsets": [number * each, (number + 1) * each]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    yield from noise(each * len(names), seed)


def make_safetensors(
    size: int = 4096, seed: int = 0, *, tensors: Iterable[str] = ("model.embed_tokens.weight",)
) -> bytes:
    """`safetensors_chunks` in one piece."""
    return b"".join(safetensors_chunks(size, seed, tensors=tensors))


def sharded_safetensors(size: int, shards: int, seed: int = 0) -> dict[str, bytes]:
    """A sharded set with its index: files by name, `size` bytes in all."""
    files: dict[str, bytes] = {}
    weight_map: dict[str, str] = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        tensors = [f"model.layers.{number}.self_attn.{part}_proj.weight" for part in ("q", "k")]
        files[name] = make_safetensors(size // shards, seed + number, tensors=tensors)
        weight_map |= dict.fromkeys(tensors, name)
    total = sum(len(data) - 8 - struct.unpack_from("<Q", data)[0] for data in files.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    files["model.safetensors.index.json"] = json.dumps(index, indent=2).encode()
    return files


def split_gguf(size: int, parts: int, stem: str, seed: int = 0, quant: str = "Q4_K_M") -> dict[str, bytes]:
    """A split set `stem-0000N-of-0000M.gguf`, `size` bytes in all."""
    return {
        f"{stem}-{part + 1:05d}-of-{parts:05d}.gguf": make_gguf(
            size // parts, seed, quant=quant, name=stem, split=(part, parts)
        )
        for part in range(parts)
    }


def config_files(architecture: str = "qwen3") -> dict[str, bytes]:
    """The small text files that stand beside safetensors: configuration, tokenizer, generation defaults."""
    config = {"architectures": ["Model"], "model_type": architecture, "hidden_size": ROW, "vocab_size": len(VOCABULARY)}
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    documents: dict[str, object] = {
        "config.json": config,
        "generation_config.json": {"do_sample": True, "temperature": 0.6},
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 4096},
    }
    return {name: json.dumps(document, indent=2).encode() for name, document in documents.items()}


def write_chunks(path: str, chunks: Iterable[bytes]) -> int:
    """Write a model to disk without ever holding it whole; gives its size in bytes."""
    size = 0
    with open(path, "wb") as file:
        for chunk in chunks:
            size += file.write(chunk)
    return size


def noise(size: int, seed: int) -> Iterator[bytes]:
    """`size` bytes that follow from `seed`, in chunks."""
    source = random.Random(seed)  # noqa: S311  weights, not secrets
    while size > 0:
        chunk = source.randbytes(min(CHUNK, size))
        size -= len(chunk)
        yield chunk


def _metadata(kind: _Quant, architecture: str, name: str) -> list[bytes]:
    tokens = struct.pack("<IQ", _STRING, len(VOCABULARY)) + b"".join(map(_string, VOCABULARY))
    return [
        _text("general.architecture", architecture),
        _text("general.name", name),
        _u32("general.file_type", kind.file_type),
        _u32("general.quantization_version", 2),
        _u32("general.alignment", GGUF_ALIGNMENT),
        _u32(f"{architecture}.context_length", 4096),
        _u32(f"{architecture}.embedding_length", ROW),
        _u32(f"{architecture}.block_count", 1),
        _u32(f"{architecture}.attention.head_count", 4),
        _text("tokenizer.ggml.model", "gpt2"),
        _string("tokenizer.ggml.tokens") + struct.pack("<I", _ARRAY) + tokens,
    ]


def _gguf_head(metadata: list[bytes], tensors: list[tuple[str, list[int], int, int]]) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata)) + b"".join(metadata)
    for name, shape, kind, offset in tensors:
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return head + bytes(-len(head) % GGUF_ALIGNMENT)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _text(key: str, value: str) -> bytes:
    return _string(key) + struct.pack("<I", _STRING) + _string(value)


def _u16(key: str, value: int) -> bytes:
    return _string(key) + struct.pack("<IH", _U16, value)


def _u32(key: str, value: int) -> bytes:
    return _string(key) + struct.pack("<II", _U32, value)


def _i32(key: str, value: int) -> bytes:
    return _string(key) + struct.pack("<Ii", _I32, value)
