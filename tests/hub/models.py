"""Small real models: valid GGUF and safetensors of any size, the same bytes for the same seed.

Formats: GGUF, see `agent.embedded_hub.gguf`; safetensors, https://github.com/huggingface/safetensors#format.
The weights are noise.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator

from agent.embedded_hub import gguf
from agent.embedded_hub.gguf import ROW, VOCABULARY, Quant, noise

QUANTS = {
    "F32": Quant(0, 0, 1024),
    "F16": Quant(1, 1, 512),
    "Q8_0": Quant(7, 8, 272),
    "Q2_K": Quant(10, 10, 84),
    "Q4_K_S": Quant(14, 12, 144),
    "Q4_K_M": gguf.Q4_K_M,
    "Q5_K_M": Quant(17, 13, 176),
    "Q6_K": Quant(18, 14, 210),
}


def gguf_chunks(
    size: int,
    seed: int = 0,
    *,
    quant: str = "Q4_K_M",
    architecture: str = "qwen3",
    name: str = "wantd small",
    split: tuple[int, int] | None = None,
) -> Iterator[bytes]:
    """A GGUF of about `size` bytes, in chunks.

    `split` is (number from 0, count) of a split set; every part is a valid file of its own, as llama.cpp writes them.
    """
    part, parts = split or (0, 1)
    pairs = [gguf.u16("split.no", part), gguf.u16("split.count", parts), gguf.i32("split.tensors.count", 2 * parts)]
    return gguf.gguf_chunks(
        size,
        seed + part,
        name=name,
        quant=QUANTS[quant],
        architecture=architecture,
        tensor="v.patch_embd" if architecture == "clip" else f"blk.{part}.ffn_down",
        metadata=pairs if split else (),
    )


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
