"""What goes with weights: configuration, tokenizer, processor, chat templates, and the files that people must have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from agent.core.remote import RemoteFile
from agent.core.selection.code import TRAINING_SCRIPT, WEIGHT_CODE_FORMATS, extension, refused
from agent.core.selection.tree import Tree
from agent.core.selection.weights import TRAINING_STATE

# transformers keeps the templates that a tokenizer has beside its own here (`CHAT_TEMPLATE_DIR`).
_TEMPLATE_FOLDERS = ("additional_chat_templates", "chat_templates")
# Configurations, vocabularies and merges, sentencepiece models, templates.
_EXTENSIONS = frozenset(
    {"json", "txt", "model", "jinja", "tiktoken", "yaml", "yml", "spm", "vocab", "bpe", "codes", "tokens", "cfg"}
)
# `tokenizer.model.v3` of Mistral; `template`, `params` and `system` are what Ollama reads in GGUF repositories.
_NAMES = re.compile(r"tokenizer\.model\.\w+|template|params|system", re.IGNORECASE)
_DOCUMENT = re.compile(
    r"readme\.md|(?:[\w. -]+[ _.-])?(?:licen[cs]e|copying|notices?|us(e|age)_policy)(?:[ _.-][\w. -]*)?", re.IGNORECASE
)
_DOCUMENT_EXTENSIONS = frozenset({"", "md", "txt", "rst", "html", "pdf"})
_INDEX = re.compile(r"\.index(\.\w+)?\.json\Z")
_TRAINING_RECORD = re.compile(
    r"(trainer_state|training_args|(all|train|eval|test|predict)_results)\.json|.*(imatrix|calibration).*",
    re.IGNORECASE,
)

# Copies of the weights in formats that can run code, by the names that frameworks give them.
_WEIGHTS_COPY = re.compile(
    r"(?:pytorch_|tf_|flax_|rust_|diffusion_pytorch_|adapter_|openvino_|open_clip_|open_clip_pytorch_)?model\b.*"
    r"|consolidated.*|.*-[0-9]+-of-[0-9]+.*",
    re.IGNORECASE,
)
_CODE_COMPANIONS = WEIGHT_CODE_FORMATS | {"py", "so"}
# A table of voices has some hundred kB; a larger file holds weights once more, under another name.
CODE_COMPANION_MAX_BYTES = 64 * 1024 * 1024


def companions(tree: Tree, folders: Iterable[str]) -> list[RemoteFile]:
    """The files that go with weights in these folders, without indexes: those belong to their weights."""
    found = [file for folder in folders for file in tree.inside(folder) if _is_companion(file.name)]
    for folder in folders:
        for templates in _TEMPLATE_FOLDERS:
            inside = tree.inside(f"{folder}/{templates}" if folder else templates)
            found += [file for file in inside if file.name.endswith(".jinja")]
    return found


def code_companions(
    tree: Tree, folders: Iterable[str], formats: Collection[str]
) -> tuple[list[RemoteFile], list[RemoteFile]]:
    """Companions in formats that can run code: those that the policy allows, and those that are left out."""
    found = [file for folder in folders for file in tree.inside(folder) if _is_code_companion(file)]
    return (
        [file for file in found if not refused(file.name, formats)],
        [file for file in found if refused(file.name, formats)],
    )


def _is_companion(name: str) -> bool:
    own = name.rpartition("/")[2]
    if _INDEX.search(own) or _TRAINING_RECORD.fullmatch(own):
        return False
    return extension(own) in _EXTENSIONS or bool(_NAMES.fullmatch(own)) or _is_document(own)


def _is_document(own: str) -> bool:
    return bool(_DOCUMENT.fullmatch(own)) and (extension(own) in _DOCUMENT_EXTENSIONS or extension(own).isdigit())


def _is_code_companion(file: RemoteFile) -> bool:
    own = file.name.rpartition("/")[2]
    if extension(own) not in _CODE_COMPANIONS or TRAINING_SCRIPT.search(own) or TRAINING_STATE.search(own):
        return False
    small = file.size is not None and file.size <= CODE_COMPANION_MAX_BYTES
    return extension(own) == "py" or (small and not _WEIGHTS_COPY.fullmatch(own))
