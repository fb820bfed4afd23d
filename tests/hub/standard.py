"""The repositories that the demo and the tests find: true names of the catalog, and odd cases under `wantd/`."""

from __future__ import annotations

import json
import os

from agent.embedded_hub.repo import HubFile, Repo
from agent.http.hub.content import Content
from tests.hub import models
from tests.hub.access import ClosedRepo

PARTIAL = "wantd/uploaded-in-part"  # lists a shard that is 404
IN_MEMORY_MAX = 4 * 1024 * 1024  # larger models go to disk where a directory is given
GIT_ATTRIBUTES = "*.gguf filter=lfs diff=lfs merge=lfs -text\n*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def standard_repos(
    size: int = 24 * 1024,
    *,
    gguf_size: int | None = None,
    many: int = 1200,
    directory: str | None = None,
    seed: int = 1,
) -> list[Repo]:
    """The standard set. `size` is about a model's size in bytes, `gguf_size` that of the qwen3 Q4_K_M where it is to
    differ (a demo wants tens of MB), `many` the number of files of `wantd/many`. Models over 4 MiB are written below
    `directory`, if one is given. The same arguments make the same bytes.
    """
    return [
        _qwen3_gguf(size, gguf_size, directory, seed),
        Repo.of("Qwen/Qwen3-0.6B", _text("qwen3") | {"model.safetensors": models.make_safetensors(size, seed + 10)}),
        Repo.of("openai/gpt-oss-20b", _gpt_oss(size, seed + 20)),
        Repo.of("ggml-org/gemma-3-4b-it-GGUF", _gemma(size, seed + 30)),
        Repo.of("Qwen/Qwen2.5-7B-Instruct-GGUF", _qwen25(size, seed + 40), former_ids=("Qwen/Qwen2.5-7B-Chat-GGUF",)),
        *_odd_cases(size, many, seed + 100),
    ]


def _qwen3_gguf(size: int, gguf_size: int | None, directory: str | None, seed: int) -> Repo:
    contents: dict[str, bytes | str | HubFile] = {".gitattributes": GIT_ATTRIBUTES, "README.md": _readme("Qwen3 0.6B")}
    for number, (quant, share) in enumerate({"Q4_K_M": 1.0, "Q8_0": 1.7, "Q2_K": 0.7}.items()):
        length = (gguf_size or size) if quant == "Q4_K_M" else int(size * share)
        chunks = models.gguf_chunks(length, seed + number, quant=quant, name="Qwen3 0.6B")
        name = f"Qwen_Qwen3-0.6B-{quant}.gguf"
        if directory and length > IN_MEMORY_MAX:
            path = os.path.join(directory, name)
            models.write_chunks(path, chunks)
            contents[name] = HubFile(path=path)
        else:
            contents[name] = b"".join(chunks)
    contents["Qwen_Qwen3-0.6B-imatrix.gguf"] = models.make_gguf(2048, seed + 9, quant="F32", name="imatrix")
    return Repo.of("bartowski/Qwen_Qwen3-0.6B-GGUF", contents)


def _gpt_oss(size: int, seed: int) -> dict[str, bytes]:
    """Sharded, with the same weights once more in `original/`, as that repository has them."""
    again = {"original/model.safetensors": models.make_safetensors(size, seed + 8), "original/config.json": b"{}"}
    return _text("gpt_oss") | models.sharded_safetensors(size, 3, seed) | again


def _gemma(size: int, seed: int) -> dict[str, bytes]:
    quants = {quant: models.make_gguf(size, seed, quant=quant, architecture="gemma3") for quant in ("Q4_K_M", "Q8_0")}
    named = {f"gemma-3-4b-it-{quant}.gguf": data for quant, data in quants.items()}
    projector = models.make_gguf(size // 2, seed + 5, quant="F16", architecture="clip")
    return {"README.md": _readme("Gemma 3").encode(), **named, "mmproj-model-f16.gguf": projector}


def _qwen25(size: int, seed: int) -> dict[str, bytes]:
    stem = "qwen2.5-7b-instruct"
    return (
        {"README.md": _readme(stem).encode()}
        | models.split_gguf(size, 2, f"{stem}-q4_k_m", seed)
        | models.split_gguf(size, 3, f"{stem}-q8_0", seed + 3, "Q8_0")
        | {f"{stem}-q2_k.gguf": models.make_gguf(size, seed + 7, quant="Q2_K")}
    )


def _odd_cases(size: int, many: int, seed: int) -> list[Repo]:
    gguf = models.make_gguf(size, seed)
    small: dict[str, bytes | str | HubFile] = {"README.md": _readme("a model"), "model-Q4_K_M.gguf": gguf}
    revisions = Repo.of("wantd/revisions", {"README.md": "first", "model-Q4_K_M.gguf": gguf})
    revisions.refs["refs/tags/v1.0"] = revisions.refs["main"]
    revisions.commit({"README.md": "proposed", "model-Q4_K_M.gguf": gguf, "extra/note.txt": "pr"}, "refs/pr/1")
    revisions.commit({"README.md": "aside", "model-Q4_K_M.gguf": models.make_gguf(size, seed + 2)}, "dev")
    revisions.commit({"README.md": "second", "model-Q4_K_M.gguf": models.make_gguf(size, seed + 1)})
    return [
        revisions,
        Repo.of("wantd/gated", small, gated="manual"),
        ClosedRepo.of("wantd/gated-closed", small, gated="auto"),
        Repo.of("wantd/private", small, private=True),
        Repo.of("wantd/disabled", small, disabled=True),
        Repo.of("wantd/empty", {}),
        Repo.of(PARTIAL, _uploaded_in_part(size, seed + 5)),
        Repo.of("wantd/split", models.split_gguf(size, 3, "split-Q4_K_M", seed + 3)),
        Repo.of("wantd/torch-only", _text("llama") | {"pytorch_model.bin": b"PK\x03\x04" + gguf}),
        Repo.of("wantd/no-default-quant", {f"m-{q}.gguf": models.make_gguf(size, quant=q) for q in ("Q5_K_M", "Q6_K")}),
        Repo.of(
            "wantd/names",
            {"a b/ü 100%.txt": "odd", "a b/c+d&e=f#g.gguf": gguf, "empty.txt": "", "x/y/z/deep.json": "{}"},
        ),
        Repo.of("wantd/many", {f"part-{n // 100:02d}/file-{n:04d}.txt": f"file {n}\n" for n in range(many)}),
    ]


class ListedOnly(HubFile):
    """A file that the repository lists and does not have."""

    def open(self) -> Content | None:
        return None


def _uploaded_in_part(size: int, seed: int) -> dict[str, bytes | HubFile]:
    """Sharded, and the second shard never came."""
    shards = models.sharded_safetensors(size, 3, seed)
    lost = "model-00002-of-00003.safetensors"
    return _text("llama") | shards | {lost: ListedOnly(shards[lost])}


def _text(architecture: str) -> dict[str, bytes]:
    """What stands beside the weights; vocab.json is long enough to be sent compressed."""
    vocabulary = json.dumps({f"token{number}": number for number in range(500)}).encode()
    beside = {".gitattributes": GIT_ATTRIBUTES.encode(), "README.md": _readme(architecture).encode()}
    return beside | {"vocab.json": vocabulary} | models.config_files(architecture)


def _readme(title: str) -> str:
    return f"---\nlicense: apache-2.0\n---\n# {title}\n\nMade by the embedded Hub: a real format, weights of noise.\n"
