"""Which rule applies to a repository, and what goes with the weights that it chooses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from agent.core.names import show
from agent.core.remote import RemoteFile
from agent.core.selection.adapters import ADAPTER_CONFIG, adapter_files
from agent.core.selection.code import auto_map
from agent.core.selection.companions import code_companions, companions
from agent.core.selection.diffusers import MODEL_INDEX, pipeline_files
from agent.core.selection.gguf import gguf_files, gguf_sets, with_quant
from agent.core.selection.named import by_filename, by_patterns, everything
from agent.core.selection.no_match import ambiguous, forbidden, not_found
from agent.core.selection.parts import part_files
from agent.core.selection.sentence_transformers import MODULES, module_files
from agent.core.selection.tree import Chosen, Tree
from agent.core.selection.weights import is_risky, named_set, variants, weight_names, weight_set
from agent.core.target import Selection


def choose(selection: Selection, tree: Tree, formats: Collection[str]) -> Chosen:
    """The files that a selection means. Raises NoMatch, `hub_protocol` and `forbidden_path`.

    The catalog's file comes before the want's patterns, and both before the rules of the layouts. Where `tree.unread`
    is not empty afterwards, those files have to be read first: the choice, or the error, is only what is known
    without them.
    """
    if selection.snapshot == "all":
        return everything(tree, formats)
    if selection.files:
        return by_patterns(tree, selection.files, selection.exclude, formats)
    if selection.filename:
        return _by_filename(selection.filename, tree, formats)
    if _is_gguf(selection, tree):
        return _complete(tree, Chosen(gguf_files(tree, selection.quant), [""]), formats, with_code=False)
    if index := tree.get(MODEL_INDEX):
        return _complete(tree, pipeline_files(tree, index, selection.quant, formats), formats)
    if modules := tree.get(MODULES):
        chosen = module_files(tree, modules, selection.quant, formats)
        return _complete(tree, chosen if tree.unread else _with_parts(tree, chosen, formats), formats)
    if ADAPTER_CONFIG in tree and not _has_model(tree) and not selection.quant:
        return adapter_files(tree, formats)
    return _complete(tree, _single_model(selection.quant, tree, formats), formats)


def _by_filename(name: str, tree: Tree, formats: Collection[str]) -> Chosen:
    """The file that the catalog names; weights for transformers need their configuration and tokenizer beside them."""
    chosen = by_filename(tree, name)
    if not name.endswith((".safetensors", ".index.json")):
        return chosen
    folder = name.rpartition("/")[0]
    weights = named_set(tree, chosen.files[0])
    folders = list(dict.fromkeys(["", folder]))
    return _complete(tree, Chosen(list(weights.files), folders, code=auto_map(tree, folder)), formats)


def _is_gguf(selection: Selection, tree: Tree) -> bool:
    """Whether GGUF is meant: by the reference, else by the catalog, else because the repository has no other form."""
    sets = gguf_sets(tree)
    if selection.quant:
        quant = selection.quant
        return bool(sets) and (bool(with_quant(sets, quant)) or not has_variant(tree, quant))
    if selection.format in ("gguf", "safetensors"):
        return selection.format == "gguf"
    return bool(sets) and not _is_native(tree)


def has_variant(tree: Tree, variant: str) -> bool:
    """Whether some folder has safetensors of the variant."""
    return any(variant.lower() == one.lower() for folder in tree.folders for one in variants(tree, folder))


def _is_native(tree: Tree) -> bool:
    """Whether transformers, sentence-transformers or diffusers can load the repository without any GGUF."""
    if MODEL_INDEX in tree or MODULES in tree:
        return any(file.name.endswith(".safetensors") for file in tree.files)
    configured = "config.json" in tree or "params.json" in tree
    return configured and any(file.name.endswith(".safetensors") for file in tree.inside(""))


def _has_model(tree: Tree) -> bool:
    return "model.safetensors" in tree or "model.safetensors.index.json" in tree


def _single_model(variant: str | None, tree: Tree, formats: Collection[str]) -> Chosen:
    """The model at the top, else that of the only folder with weights."""
    folder = ""
    weights = weight_set(tree, folder, variant, formats)
    if weights is None:
        folder = _only_folder(tree, formats)
        weights = weight_set(tree, folder, variant, formats)
    if weights is None or (variant and not weights.variant):
        raise not_found(f"it has no weights of the variant {show(variant or '')}")
    chosen = Chosen(list(weights.files), list(dict.fromkeys(["", folder])), code=auto_map(tree, folder))
    adapter = tree.get("adapter_model.safetensors") if ADAPTER_CONFIG in tree else None
    if adapter and adapter not in chosen.files:
        chosen.files.append(adapter)  # transformers loads it on top of the model
    return chosen if folder or variant else _with_parts(tree, chosen, formats)


def _with_parts(tree: Tree, chosen: Chosen, formats: Collection[str]) -> Chosen:
    """The choice with the parts that the model's code opens without an index."""
    files, folders = part_files(tree, chosen.folders, formats)
    return replace(chosen, files=[*chosen.files, *files], folders=[*chosen.folders, *folders])


def _only_folder(tree: Tree, formats: Collection[str]) -> str:
    weights = {folder: found for folder in tree.folders if (found := weight_names(tree, folder, formats))}
    if len(weights) == 1:
        return next(iter(weights))
    if weights:
        names = [name for found in weights.values() for name in found]
        raise ambiguous(f"{len(weights)} of its folders have weights, and the top has none", names)
    if risky := [file.name for file in tree.files if is_risky(file.name)]:
        raise forbidden(min(risky))
    raise not_found("it has neither GGUF nor safetensors files")


def _complete(tree: Tree, chosen: Chosen, formats: Collection[str], *, with_code: bool = True) -> Chosen:
    """The choice with its companions."""
    allowed, skipped = code_companions(tree, chosen.folders, formats) if with_code else ([], [])
    files: list[RemoteFile] = [*chosen.files, *companions(tree, chosen.folders), *allowed]
    return replace(chosen, files=list(dict.fromkeys(files)), skipped=skipped)
