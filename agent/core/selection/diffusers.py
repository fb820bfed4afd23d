"""`model_index.json`: a pipeline of diffusers is a set of components, each in a folder of its own.

The index maps a component to `[library, class]`, both null where the pipeline goes without it. What is no pair is a
setting of the pipeline. https://huggingface.co/docs/diffusers/using-diffusers/loading
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from agent.core.names import show
from agent.core.remote import RemoteFile
from agent.core.selection.no_match import listed, not_found
from agent.core.selection.tree import UNREAD, Chosen, Tree, broken
from agent.core.selection.weights import weight_set

MODEL_INDEX = "model_index.json"


def pipeline_files(tree: Tree, index: RemoteFile, variant: str | None, formats: Collection[str]) -> Chosen:
    """One set of weights for each component, the variant's where it has one, and the folders of all components."""
    chosen = Chosen([], [""])
    value = tree.read(index)
    if value is UNREAD:
        return chosen
    if not isinstance(value, dict):
        raise broken(index, "is no index of a pipeline")
    found: dict[str, str] = {}  # component -> variant of its weights
    missing = []
    for component, pair in components(value):
        if not tree.inside(component):
            missing.append(component)
            continue
        chosen.folders.append(component)
        if f"{component}/{pair[0]}.py" in tree:
            chosen.code.append(f"{component}/{pair[0]}.{pair[1]}")
        if weights := weight_set(tree, component, variant, formats):
            chosen.files += weights.files
            if weights.variant:
                found[component] = weights.variant
    chosen.code += _custom_pipeline(tree, value)
    if not chosen.files and not tree.unread:
        raise not_found("no component of its model_index.json has weights")
    if variant and not found and not tree.unread:
        raise not_found(f"no component has weights of the variant {show(variant)}")
    chosen.warnings += _warnings(missing, {} if variant else found)
    return chosen


def components(index: dict[str, Any]) -> list[tuple[str, tuple[str, str]]]:
    """Every component that the pipeline has, with its library and class."""
    pairs = [(name, value) for name, value in index.items() if isinstance(value, list) and not name.startswith("_")]
    return [(name, (value[0], str(value[1]))) for name, value in pairs if len(value) == 2 and isinstance(value[0], str)]


def _custom_pipeline(tree: Tree, index: dict[str, Any]) -> list[str]:
    """The pipeline's own class where it is one of the repository: `_class_name` is `[module, class]` then."""
    name = index.get("_class_name")
    if isinstance(name, list) and len(name) == 2 and f"{name[0]}.py" in tree:
        return [f"{name[0]}.{name[1]}"]
    return []


def _warnings(missing: list[str], found: dict[str, str]) -> list[str]:
    warnings = []
    if missing:
        warnings.append(
            f"model_index.json names components that the repository does not have: {listed(missing)}; "
            "pass them to from_pretrained, or None."
        )
    if found:
        variant = show(next(iter(found.values())))
        warnings.append(f"{listed(found)}: all weights are of the variant {variant}; load them with variant={variant}.")
    return warnings
