"""What can run code when it is loaded: formats of files, and models that name code of their repository."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.core.names import RepoId, bare
from agent.core.remote import RemoteFile
from agent.core.selection.no_match import forbidden, listed
from agent.core.selection.tree import UNREAD, Tree
from agent.errors import Code, WantdError

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


@dataclass(frozen=True, slots=True)
class CodePolicy:
    """`policy.formats` (lower case, without a dot) and `policy.code`: whether a model that needs code to load fails."""

    formats: frozenset[str] = frozenset()
    code: Literal["warn", "require"] = "warn"


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


def code_warnings(repo: RepoId, references: Sequence[str], names: Collection[str], policy: CodePolicy) -> list[str]:
    """The warnings for a model that names code to load it.

    Raises `forbidden_format` where `policy.code` requires that the model can be loaded with what was fetched.
    """
    own = dict.fromkeys(module_file(reference) for reference in references if "--" not in reference)
    left_out = [name for name in own if name not in names]
    others = list(dict.fromkeys(reference.partition("--")[0] for reference in references if "--" in reference))
    if policy.code == "require" and (left_out or others):
        where = f"of {listed(others)}" if others else "of its repository"
        allow = 'allow the code with policy.formats = ["py"], ' if left_out else ""
        raise WantdError(
            Code.FORBIDDEN_FORMAT,
            f"{repo} needs code {where} to load, which is not fetched{': ' if left_out else ''}{listed(left_out)}",
            f'choose a model that needs no code, {allow}or fetch it without with policy.code = "warn"',
            file=bare(left_out[0]) if left_out else None,
        )
    warnings = []
    if left_out:
        warnings.append(
            f"The model needs code of its repository to load, which is not fetched: {listed(left_out)}; "
            'allow it with policy.formats = ["py"].'
        )
    elif own:
        warnings.append(f"The model loads with code of its repository: {listed(own)}; use it only if you trust {repo}.")
    if others:
        warnings.append(f"The model needs code of other repositories to load, which is not fetched: {listed(others)}.")
    return warnings
