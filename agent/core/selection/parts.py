"""Folders that the code of a model opens without an index that names them.

`speech_tokenizer/` of Qwen3-TTS is a model of its own, whose `config.json` is of another type than the top's;
`adapters/` of jina-embeddings-v4 and `vision-lora/` of Phi-4-multimodal are adapters. A folder with a model of the same
type, or of none, is a copy (`original/` of gpt-oss, `int4/`). Where there are many such folders, they are a collection.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from agent.core.remote import RemoteFile
from agent.core.selection.adapters import ADAPTER_CONFIG
from agent.core.selection.no_match import NoMatch
from agent.core.selection.tree import UNREAD, Tree
from agent.core.selection.weights import weight_set

FOLDERS_MAX = 8  # each is read, and a model of more parts has an index
_NEVER = re.compile(r"checkpoint-.*|onnx|openvino|original|metal|coreml|mlx|gguf|runs|results", re.IGNORECASE)


def part_files(tree: Tree, known: Collection[str], formats: Collection[str]) -> tuple[list[RemoteFile], list[str]]:
    """The weights of the parts beside the model at the top, and their folders, for their companions.

    `known` are folders that were chosen already.
    """
    folders = [folder for folder in tree.folders if folder not in known and "/" not in folder]
    folders = [folder for folder in folders if folder and not _NEVER.fullmatch(folder)]
    adapters = [folder for folder in folders if f"{folder}/{ADAPTER_CONFIG}" in tree]
    models = [folder for folder in folders if _has_model(tree, folder)]
    if not 0 < len(adapters) + len(models) <= FOLDERS_MAX:
        return [], []
    found: dict[str, list[RemoteFile]] = {}
    own = _type(tree, "") if models else None
    for folder in adapters:
        if weights := tree.get(f"{folder}/adapter_model.safetensors"):
            found[folder] = [weights]
    for folder in models:
        kind = _type(tree, f"{folder}/")
        if own and kind and kind != own:
            try:
                weights_of = weight_set(tree, folder, None, formats)
            except NoMatch:
                continue  # whatever it is, the model at the top is whole without it
            found[folder] = list(weights_of.files) if weights_of else []
    return [file for files in found.values() for file in files], list(found)


def _has_model(tree: Tree, folder: str) -> bool:
    names = (f"{folder}/model.safetensors", f"{folder}/model.safetensors.index.json")
    return f"{folder}/config.json" in tree and any(name in tree for name in names)


def _type(tree: Tree, prefix: str) -> str | None:
    """The `model_type` of a configuration; None where it says none, or has to be read first."""
    file = tree.get(f"{prefix}config.json")
    value = tree.read(file) if file else None
    kind = value.get("model_type") if value is not UNREAD and isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None
