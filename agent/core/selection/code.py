"""What can run code when it is loaded: formats of files, and models that name code of their repository."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

from agent.core.remote import RemoteFile
from agent.core.selection.no_match import forbidden
from agent.core.selection.tree import UNREAD, Tree

# Formats whose loaders run code from the file (pickle and its kin), and code itself.
WEIGHT_CODE_FORMATS = frozenset(
    {"bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib", "dill", "h5", "hdf5", "keras", "nemo", "mar"}
)
CODE_FORMATS = WEIGHT_CODE_FORMATS | {"py", "pyc", "so", "dll", "dylib", "exe", "sh", "bat", "llamafile"}
# Formats of weights that hold nothing but numbers, or a graph of known operations.
PLAIN_FORMATS = frozenset(
    {"safetensors", "gguf", "onnx", "tflite", "task", "litertlm", "msgpack", "npz", "mlmodel", "pte"}
)

# Scripts that made the model; what loads it is called modeling_x.py, configuration_x.py, and the like.
TRAINING_SCRIPT = re.compile(r"(\A|[_-])(pre)?(train(er|ing)?|fine[_-]?tun(e|ing))([_-]|\.)", re.IGNORECASE)

# Configurations of transformers that may name classes of the repository's own under "auto_map".
_TOKENIZING = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json")


def extension(name: str) -> str:
    """The part after the last dot of a file's own name, in lower case; "" where it has no dot."""
    return name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name.rpartition("/")[2] else ""


def refused(name: str, formats: Collection[str]) -> bool:
    """Whether the file can run code, and `policy.formats` does not name its format."""
    return extension(name) in CODE_FORMATS and extension(name) not in formats


def leave_out_code(files: Iterable[RemoteFile], formats: Collection[str]) -> tuple[list[RemoteFile], list[RemoteFile]]:
    """Files that may come, and those that are left out because they can run code.

    Raises NoMatch where weights would be left out and none stay: a model is whole, or refused.
    """
    files = list(files)
    kept = [file for file in files if not refused(file.name, formats)]
    out = [file for file in files if refused(file.name, formats)]
    weights = next((file for file in out if extension(file.name) in WEIGHT_CODE_FORMATS), None)
    whole = PLAIN_FORMATS | (WEIGHT_CODE_FORMATS & set(formats))
    if weights and not any(extension(file.name) in whole for file in kept):
        raise forbidden(weights.name)
    return kept, out


def auto_map(tree: Tree, folder: str) -> list[str]:
    """The code that a transformers model in a folder names, as `module.Class` or `org/name--module.Class`.

    https://huggingface.co/docs/transformers/custom_models
    """
    prefix = f"{folder}/" if folder else ""
    own_names = [file.name.rpartition("/")[2] for file in tree.inside(folder)]
    own_code = any(extension(own) == "py" and not TRAINING_SCRIPT.search(own) for own in own_names)
    names = ["config.json", *(_TOKENIZING if own_code else ())]
    found: list[str] = []
    for name in names:
        file = tree.get(prefix + name)
        value = tree.read(file) if file else None
        if value is not UNREAD and isinstance(value, dict) and isinstance(value.get("auto_map"), dict):
            found += _texts(value["auto_map"].values())
    return [f"{prefix}{reference}" if "--" not in reference else reference for reference in found]


def _texts(values: Iterable[Any]) -> Iterable[str]:
    """The texts among values, and among the lists in them: a tokenizer's entry is a pair, one of them null."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (item for item in value if isinstance(item, str))


def module_file(reference: str) -> str:
    """The file of a reference to a class of the repository: `x/modeling.py` for `x/modeling.Model`."""
    folder, slash, name = reference.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0].replace('.', '/')}.py"
