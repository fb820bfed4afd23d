"""`modules.json`: a model of sentence-transformers is a chain of modules, each in a folder of its own.

An entry is `{"idx", "name", "path", "type"}`; the path "" is the top. A router keeps modules of its own in folders
below its path, named in its `router_config.json` (before version 5 in the `config.json` of an `Asym`).
https://sbert.net/docs/package_reference/sentence_transformer/models.html
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from agent.core.names import show
from agent.core.remote import RemoteFile
from agent.core.selection.code import auto_map, module_file
from agent.core.selection.no_match import not_found
from agent.core.selection.tree import UNREAD, Chosen, Tree, broken
from agent.core.selection.weights import WeightSet, weight_set

MODULES = "modules.json"

_OWN_LIBRARY = (
    "sentence_transformers."  # a type that begins otherwise is a class of the repository, or of another library
)
TRANSFORMERS = ("Transformer", "MLMTransformer", "CLIPModel")  # they load with transformers, and have weights
_ROUTERS = {"Router": "router_config.json", "Asym": "config.json"}


@dataclass(frozen=True, slots=True)
class Module:
    """An entry of `modules.json`; `type` is the full name of its class."""

    folder: str
    type: str

    @property
    def class_name(self) -> str:
        """The last part of the type."""
        return self.type.rpartition(".")[2]


def module_files(tree: Tree, modules: RemoteFile, variant: str | None, formats: Collection[str]) -> Chosen:
    """The weights of every module, and the folders of all of them for their companions."""
    value = tree.read(modules)
    if value is UNREAD:
        return Chosen([], [""])
    folders = {"": None}
    weights: dict[str, WeightSet | None] = {}  # by folder
    code: list[str] = []
    for module in modules_of(tree, modules, value):
        folders[module.folder] = None
        code += _code(tree, module)
        if module.class_name in _ROUTERS:
            continue
        if module.folder not in weights:
            weights[module.folder] = weight_set(tree, module.folder, variant, formats)
        if module.class_name in TRANSFORMERS:
            code += auto_map(tree, module.folder)
            if not weights[module.folder]:
                raise not_found(f"its module {show(module.folder or module.class_name)} has no weights")
    sets = [one for one in weights.values() if one]
    if variant and not any(one.variant for one in sets):
        raise not_found(f"no module has weights of the variant {show(variant)}")
    return Chosen([file for one in sets for file in one.files], list(folders), code=code)


def modules_of(tree: Tree, file: RemoteFile, value: Any) -> Iterator[Module]:
    """The modules of the chain, and those inside of routers."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise broken(file, "is no list of modules")
    for item in value:
        path, kind = item.get("path"), item.get("type")
        if not isinstance(path, str) or not isinstance(kind, str):
            raise broken(file, "names a module without path or type")
        module = Module(path.strip("/"), kind)
        yield module
        yield from _routed(tree, module)


def _routed(tree: Tree, module: Module) -> Iterator[Module]:
    if module.class_name not in _ROUTERS:
        return
    prefix = f"{module.folder}/" if module.folder else ""
    config = tree.get(prefix + _ROUTERS[module.class_name])
    value = tree.read(config) if config else None
    types = value.get("types") if value is not UNREAD and isinstance(value, dict) else None
    for folder, kind in types.items() if isinstance(types, dict) else ():
        if isinstance(kind, str):
            yield Module(prefix + folder.strip("/"), kind)


def _code(tree: Tree, module: Module) -> list[str]:
    """The class of the repository's own that a module is, if it is one."""
    if module.type.startswith(_OWN_LIBRARY):
        return []
    return [module.type] if "--" in module.type or module_file(module.type) in tree else []
