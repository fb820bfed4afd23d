"""What the loaders of models open, as their sources have it: to tell that nothing is missing, and nothing twice.

Each takes the chosen files, the whole repository and the contents, and returns the files that it opens. What a loader
cannot do without has to be chosen; what it opens where it finds it has to be chosen where the repository has it.

- transformers 5.24, modeling_utils.py (_get_resolved_checkpoint_files), tokenization_utils_base.py, processing_utils.py
- diffusers 0.42, pipelines/pipeline_utils.py (from_pretrained), pipeline_loading_utils.py (_identify_model_variants)
- sentence-transformers 6.2, base/model.py (_load_modules), base/modules/router.py
- llama.cpp, common/download.cpp; mistral_common and vLLM's mistral format; PEFT, peft_model.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

WEIGHTS = re.compile(
    r".*\.(safetensors|gguf|bin|pt|pth|ckpt|h5|onnx|onnx_data\w*|msgpack|ot|tflite|task|litertlm|nemo|mlmodel)\Z"
)
CONFIGURATION = [
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "source.spm", "target.spm", "tiktoken.model", "preprocessor_config.json",
    "processor_config.json", "video_preprocessor_config.json", "chat_template.jinja", "chat_template.json",
    "normalizer.json", "quantize_config.json", "hf_quant_config.json",
]  # fmt: skip


@dataclass(frozen=True)
class Disk:
    """The chosen files, as a loader finds them."""

    chosen: frozenset[str]
    repository: frozenset[str]
    contents: Mapping[str, object]

    def json(self, name: str) -> Any:
        assert name in self.chosen, f"the loader reads {name}, which was not chosen"
        value = self.contents[name]
        return json.loads(value) if isinstance(value, bytes) else value

    def there(self, *names: str) -> str:
        """The first of the names that is on the disk."""
        found = [name for name in names if name in self.chosen]
        assert found, f"the loader finds none of {names}"
        return found[0]

    def configuration(self, prefix: str) -> set[str]:
        """What a model and its tokenizer read where it is there: it was chosen, if the repository has it."""
        wanted = {prefix + name for name in CONFIGURATION} & self.repository
        wanted |= {name for name in self.repository if name.startswith(f"{prefix}additional_chat_templates/")}
        assert wanted <= self.chosen, wanted - self.chosen
        return wanted

    def sharded(self, index: str) -> set[str]:
        """An index and all of its shards."""
        folder = index.rpartition("/")[0]
        shards = {f"{folder}/{name}".lstrip("/") for name in self.json(index)["weight_map"].values()}
        assert shards <= self.chosen, f"{len(shards - self.chosen)} shards are missing"
        return {index} | shards


def model(disk: Disk, prefix: str, base: str, variant: str | None) -> set[str]:
    """`from_pretrained` of one model in a folder: one file, else an index; safetensors before .bin."""
    dot = f".{variant}" if variant else ""
    bin_base = "pytorch_model" if base == "model" else base
    name = disk.there(
        f"{prefix}{base}{dot}.safetensors",
        f"{prefix}{base}.safetensors.index{dot}.json",
        f"{prefix}{base}{dot}.safetensors.index.json",
        f"{prefix}{base}.safetensors{dot}.index.json",
        f"{prefix}{bin_base}{dot}.bin",
        f"{prefix}{bin_base}.bin.index{dot}.json",
    )
    return disk.sharded(name) if name.endswith(".json") else {name}


def transformers(disk: Disk, variant: str | None) -> set[str]:
    return model(disk, "", "model", variant) | {disk.there("config.json")} | disk.configuration("")


def sentence_transformers(disk: Disk, variant: str | None) -> set[str]:
    opened = {"modules.json"} | disk.configuration("")
    pending = [(module["path"], module["type"]) for module in disk.json("modules.json")]
    while pending:
        path, kind = pending.pop()
        prefix = f"{path}/" if path else ""
        name = kind.rpartition(".")[2]
        if name == "Router":
            config = f"{prefix}router_config.json"
            pending += [(prefix + folder, inner) for folder, inner in disk.json(config)["types"].items()]
            opened.add(config)
        elif name in ("Pooling", "SpladePooling"):
            opened.add(disk.there(f"{prefix}config.json"))
        elif name == "StaticEmbedding":
            opened |= {disk.there(f"{prefix}tokenizer.json"), disk.there(f"{prefix}model.safetensors")}
        elif name != "Normalize":
            opened |= model(disk, prefix, "model", variant) | disk.configuration(prefix)
            opened.add(disk.there(f"{prefix}config.json"))
    return opened


def diffusers(disk: Disk, variant: str | None) -> set[str]:
    if "model_index.json" not in disk.repository:  # one model alone
        return model(disk, "", "diffusion_pytorch_model", variant) | {disk.there("config.json")}
    index = disk.json("model_index.json")
    opened = {"model_index.json"}
    for component, value in index.items():
        if component.startswith("_") or not isinstance(value, list) or value[0] is None:
            continue
        inside = {name for name in disk.chosen if name.startswith(f"{component}/")}
        assert inside, f"the folder {component} is missing"
        kind = value[1]
        if "Tokenizer" in kind:
            opened |= disk.configuration(f"{component}/")
        elif "Processor" in kind:
            opened.add(disk.there(f"{component}/preprocessor_config.json"))
        elif "Scheduler" in kind:
            opened.add(disk.there(f"{component}/scheduler_config.json"))
        else:
            # A component has the variant where a file's second part begins with it.
            has = variant and any(f"{name}.".rpartition("/")[2].split(".")[1].startswith(variant) for name in inside)
            legacy = variant and any(f".{variant}." in name for name in inside)
            base = "diffusion_pytorch_model" if value[0] == "diffusers" else "model"
            opened |= model(disk, f"{component}/", base, variant if has or legacy else None)
            opened.add(disk.there(f"{component}/config.json"))
    return opened


def mistral(disk: Disk, variant: str | None) -> set[str]:
    name = disk.there("consolidated.safetensors", "consolidated.safetensors.index.json")
    weights = disk.sharded(name) if name.endswith(".json") else {name}
    return weights | {disk.there("params.json"), disk.there("tekken.json", "tokenizer.model.v3")}


def llama_cpp(disk: Disk, opens: str | None) -> set[str]:
    assert opens in disk.chosen
    split = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", opens or "")
    count = int(split[2]) if split else 0
    opened = {f"{split[1]}-{at:05d}-of-{count:05d}.gguf" for at in range(1, count + 1)} if split else {opens or ""}
    assert opened <= disk.chosen
    projectors = {name for name in disk.chosen if "mmproj" in name}
    assert len(projectors) <= 1
    return opened | projectors


def peft(disk: Disk, variant: str | None) -> set[str]:
    return {disk.there("adapter_config.json"), disk.there("adapter_model.safetensors", "adapter_model.bin")}


LOADERS: dict[str, Callable[[Disk, str | None], set[str]]] = {
    "transformers": transformers,
    "sentence-transformers": sentence_transformers,
    "diffusers": diffusers,
    "mistral": mistral,
    "llama.cpp": llama_cpp,
    "peft": peft,
}
