"""Whether a choice is all that a loader opens, where the listing may lack files that the repository has.

A Hub's cache on the host lists what was downloaded into it. The rules choose from that as from a whole repository, and
what was never downloaded is not missed: a model without its tokenizer. So each thing that a loader cannot do without
has to be among the files, else the choice waits for the Hub. What a loader opens only where it is there
(`generation_config.json`, a chat template) cannot be missed here; it comes when the Hub is asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from agent.core.names import show
from agent.core.selection.adapters import ADAPTER_CONFIG
from agent.core.selection.diffusers import MODEL_INDEX, components
from agent.core.selection.gguf import QUANT_ORDER, is_weights, with_quant
from agent.core.selection.patterns import is_literal
from agent.core.selection.sentence_transformers import MODULES, TRANSFORMERS, modules_of
from agent.core.selection.tree import UNREAD, Tree
from agent.core.selection.weights import is_variant, shards_without_index
from agent.core.target import Selection

# What transformers builds a tokenizer from; any of them will do.
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer.model.v3", "tekken.json", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "sentencepiece.model", "spm.model", "source.spm", "tiktoken.model", "qwen.tiktoken",
    "bpe.codes", "rwkv_vocab_v20230424.txt",
)  # fmt: skip
_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
# What says that there are modules of sentence-transformers, where it was fetched and modules.json was not.
_MODULAR = re.compile(r"config_sentence_transformers\.json|sentence_bert_config\.json|[0-9]+_Pooling/config\.json")
# Under other names a file is the only one, and in a cache that says nothing.
_KNOWN_WEIGHTS = ("model", "diffusion_pytorch_model", "pytorch_model", "consolidated")
_COMPLETED = (".safetensors", ".index.json", ".gguf")  # what the rules add to, where the catalog names one
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# Keys of a config.json that say that text, and that pictures or sound, go in.
_OF_TEXT = ("vocab_size",)
_OF_SENSES = ("vision_config", "audio_config", "image_size", "num_mel_bins", "feat_extract_norm")
_INNER_DEPTH = 3  # of configurations within configurations: thinker_config.text_config of Qwen-Omni


def lacking(selection: Selection, tree: Tree, names: Collection[str]) -> str | None:
    """What a loader would miss in the chosen files, for a message; None where nothing is known to be missing.

    Where `tree.unread` is not empty afterwards, those files have to be read first.
    """
    if selection.snapshot == "all":
        return "every file of the commit is wanted"
    if selection.files:
        wide = next((pattern for pattern in selection.files if not is_literal(pattern)), None)
        return f"every file that matches {show(wide)} is wanted" if wide else None
    if selection.artifacts or (selection.filename and not selection.filename.endswith(_COMPLETED)):
        return None  # the catalog names each file
    return next(_missing(selection, tree, names), None)


def _missing(selection: Selection, tree: Tree, names: Collection[str]) -> Iterator[str]:
    folders = {name.rpartition("/")[0] for name in names}
    for shard in filter(None, (shards_without_index(tree, folder, names) for folder in sorted(folders))):
        yield f"the index of {show(shard)}"
    if selection.quant is None and (variant := next(filter(is_variant, sorted(names)), None)):
        yield f"the plain weights beside {show(variant)}"
    if weights := next(filter(is_weights, sorted(names)), None):
        # One file, or a split set that the rules have whole; but the Hub may have a quant that comes before it.
        if not (selection.quant or selection.filename or with_quant([weights], QUANT_ORDER[0])):
            yield f"a {QUANT_ORDER[0]}"
    elif index := tree.get(MODEL_INDEX):
        value = tree.read(index)
        for component, pair in components(value) if isinstance(value, dict) else ():
            yield from _component(f"{component}/", pair[1], names)
    elif modules := tree.get(MODULES):
        value = tree.read(modules)
        for module in modules_of(tree, modules, value) if value is not UNREAD else ():
            yield from _module(tree, f"{module.folder}/" if module.folder else "", module.class_name, names)
    elif any(_MODULAR.fullmatch(file.name) for file in tree.files):
        yield MODULES
    elif ADAPTER_CONFIG in names:
        yield from _one_of(names, "", ("adapter_model.safetensors", "adapter_model.bin"), "the adapter's weights")
    else:
        yield from _model(tree, "", names)


def _component(prefix: str, kind: str, names: Collection[str]) -> Iterator[str]:
    """A component of a pipeline, by the name of its class."""
    if "Tokenizer" in kind:
        yield from _one_of(names, prefix, _TOKENIZERS, "the vocabulary")
    elif "Processor" in kind or "FeatureExtractor" in kind:
        yield from _one_of(names, prefix, _PROCESSORS, "the configuration")
    elif "Scheduler" in kind:
        yield from _one_of(names, prefix, ("scheduler_config.json",), "the configuration")
    else:
        yield from _one_of(names, prefix, ("config.json",), "the configuration")
        yield from _weights(names, prefix)


def _module(tree: Tree, prefix: str, kind: str, names: Collection[str]) -> Iterator[str]:
    """A module of sentence-transformers, by the name of its class."""
    if kind in TRANSFORMERS:
        yield from _model(tree, prefix, names)
    elif "StaticEmbedding" in kind:
        yield from _one_of(names, prefix, ("tokenizer.json",), "the tokenizer")
        yield from _weights(names, prefix)
        if kind != "StaticEmbedding":
            yield from _one_of(names, prefix, ("config.json",), "the configuration")
    elif kind == "Router":
        yield from _one_of(names, prefix, ("router_config.json",), "the configuration")
    elif kind != "Normalize":
        yield from _one_of(names, prefix, ("config.json",), "the configuration")
        if kind == "Dense":
            yield from _weights(names, prefix)


def _model(tree: Tree, prefix: str, names: Collection[str]) -> Iterator[str]:
    """A model of transformers: its configuration says what else it takes."""
    mistral = f"{prefix}params.json" in names and f"{prefix}config.json" not in names
    yield from _one_of(names, prefix, ("params.json" if mistral else "config.json",), "the configuration")
    yield from _weights(names, prefix, ("consolidated",) if mistral else _KNOWN_WEIGHTS[:-1])
    config = tree.get(f"{prefix}config.json")
    value = tree.read(config) if config else None
    if value is UNREAD or not isinstance(value, dict):
        return
    keys = set(_keys(value, _INNER_DEPTH))
    if keys.intersection(_OF_TEXT):
        yield from _one_of(names, prefix, _TOKENIZERS, "the tokenizer")
    if keys.intersection(_OF_SENSES):
        yield from _one_of(names, prefix, _PROCESSORS, "the processor's configuration")


def _keys(config: dict[str, Any], depth: int) -> Iterator[str]:
    """The keys of a configuration and of those within it."""
    for key, value in config.items():
        yield key
        if isinstance(value, dict) and depth and key.endswith("config"):
            yield from _keys(value, depth - 1)


def _one_of(names: Collection[str], prefix: str, wanted: tuple[str, ...], what: str) -> Iterator[str]:
    if not any(f"{prefix}{name}" in names for name in wanted):
        yield f"{what} of {show(prefix.rstrip('/'))}" if prefix else what


def _weights(names: Collection[str], prefix: str, bases: tuple[str, ...] = _KNOWN_WEIGHTS) -> Iterator[str]:
    own = [name[len(prefix) :] for name in names if name.startswith(prefix)]
    if not any(name.startswith(bases) and name.endswith(_WEIGHTS) and "/" not in name for name in own):
        yield f"the weights of {show(prefix.rstrip('/'))}" if prefix else "the weights"
