"""Files that are named: by the catalog's `recommended_filename`, by the patterns of a want, or all of a commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agent.core.names import show
from agent.core.remote import RemoteFile
from agent.core.selection.code import leave_out_code
from agent.core.selection.gguf import mmproj, split_set
from agent.core.selection.no_match import forbidden, not_found
from agent.core.selection.patterns import matching
from agent.core.selection.tree import Chosen, Tree


def by_patterns(tree: Tree, patterns: Iterable[str], exclude: Collection[str], formats: Collection[str]) -> Chosen:
    """The files that the patterns fit, split sets whole, less those that `exclude` fits.

    Files that can run code are left out where a wider pattern fits them, and refused where nothing else fits it.
    """
    patterns = list(patterns)
    found, useless = matching([file.name for file in tree.files], patterns)
    if useless:
        raise not_found(f"no file matches {show(useless[0])}")
    whole: dict[RemoteFile, None] = {}
    for file in tree.files:
        if file.name in found and file not in whole:
            whole |= dict.fromkeys(split_set(tree, file))
    excluded, _ = matching([file.name for file in whole], exclude)
    kept, out = leave_out_code([file for file in whole if file.name not in excluded], formats)
    if out:
        _, lost = matching([file.name for file in kept], patterns)
        asked, _ = matching([file.name for file in out], lost)
        if asked:
            raise forbidden(min(asked))
    return Chosen(kept, skipped=out)


def by_filename(tree: Tree, name: str) -> Chosen:
    """A GGUF with the rest of its set and its projector, or any other file alone."""
    file = tree.get(name)
    if file is None:
        raise not_found(f"the catalog names {show(name)}, which is not there")
    weights = split_set(tree, file)
    return Chosen(weights + mmproj(tree, weights) if name.lower().endswith(".gguf") else [file])


def everything(tree: Tree, formats: Collection[str]) -> Chosen:
    """Every file of the commit but those that can run code."""
    kept, out = leave_out_code(tree.files, formats)
    return Chosen(kept, skipped=out)
