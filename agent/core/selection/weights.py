"""One set of weights in one folder: the shards of an index, or a single file, in the plain spelling or a variant's.

What transformers and diffusers open: `model.safetensors`, or the shards of `model.safetensors.index.json`; `model`
may be `diffusion_pytorch_model`. A variant, as `fp16`, is spelled in five ways, two of them of old versions of
diffusers:

    model.fp16.safetensors                      model.fp16-00001-of-00002.safetensors
    model.safetensors.index.fp16.json           model-00001-of-00002.fp16.safetensors
                                                model.fp16.safetensors.index.json, model.safetensors.fp16.index.json

https://github.com/huggingface/diffusers/blob/main/src/diffusers/pipelines/pipeline_loading_utils.py
(variant_compatible_siblings), https://huggingface.co/docs/transformers/main_classes/model (from_pretrained, `variant`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

from agent.core.names import safe_name, show
from agent.core.remote import RemoteFile
from agent.core.selection.code import WEIGHT_CODE_FORMATS, extension
from agent.core.selection.no_match import NoMatch, ambiguous, forbidden, listed, not_found
from agent.core.selection.tree import UNREAD, Tree, broken
from agent.errors import WantdError

# The names that loaders look for, in this order; any other name counts where it is the only one.
_SAFETENSORS_BASES = ("model", "diffusion_pytorch_model", "pytorch_model")
_OTHER_BASES = ("pytorch_model", "diffusion_pytorch_model", "model")
# Formats of weights in the order in which a folder is searched for them; the code formats come last.
_FORMATS = ("safetensors", "bin", *sorted(WEIGHT_CODE_FORMATS - {"bin"}))
# What trainers leave beside the weights, in the same formats.
TRAINING_STATE = re.compile(
    r"(^|/)(training_args|optimizer|scheduler|scaler|rng_state|random_states|trainer_state)[^/]*\Z", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class WeightSet:
    """Weights that make one model: the index first, if there is one. `variant` is None for the plain set."""

    files: tuple[RemoteFile, ...]
    variant: str | None = None


@dataclass(slots=True)
class _Group:
    """The files of one name and variant."""

    base: str
    variant: str | None
    format: str
    indexes: list[RemoteFile] = field(default_factory=list)
    single: RemoteFile | None = None
    shards: dict[tuple[int, int], RemoteFile] = field(default_factory=dict)  # (number from 1, count) -> file

    @property
    def counts(self) -> Counter[int]:
        """How many shards there are of each set, by the number that it should have."""
        return Counter(count for _, count in self.shards)

    @property
    def names(self) -> list[str]:
        return [file.name for file in (*self.indexes, *([self.single] if self.single else []), *self.shards.values())]


def weight_set(tree: Tree, folder: str, variant: str | None, formats: Collection[str]) -> WeightSet | None:
    """The set of weights in a folder: the variant's where it has one, else the plain one; None where it has no weights.

    Raises NoMatch where the set is not whole, where it is not clear which is meant, and where there are weights in
    refused formats only.
    """
    for format in _permitted(formats):
        if groups := _groups(tree, folder, format):
            group = _pick(groups, variant, _SAFETENSORS_BASES if format == "safetensors" else _OTHER_BASES)
            return WeightSet(_whole(tree, folder, group), group.variant)
    risky = [file.name for file in tree.inside(folder) if is_risky(file.name)]
    if risky:
        raise forbidden(min(risky))
    return None


def named_set(tree: Tree, file: RemoteFile) -> WeightSet:
    """The set that a file belongs to: the file alone, or the whole set that it is the index or a shard of."""
    folder = file.name.rpartition("/")[0]
    for format in _FORMATS:
        for group in _groups(tree, folder, format):
            if file is group.single:
                return WeightSet((file,), group.variant)
            if file.name in group.names:
                return WeightSet(_whole(tree, folder, group), group.variant)
    return WeightSet((file,))


def weight_names(tree: Tree, folder: str, formats: Collection[str]) -> list[str]:
    """The weights in a folder, with their indexes, in all formats that may come."""
    groups = [group for format in _permitted(formats) for group in _groups(tree, folder, format)]
    return [name for group in groups for name in group.names]


def variants(tree: Tree, folder: str) -> list[str]:
    """The variants that a folder has safetensors of."""
    return [group.variant for group in _groups(tree, folder, "safetensors") if group.variant]


def set_names(tree: Tree, folder: str) -> list[list[str]]:
    """The file names of each whole set of safetensors in a folder."""
    found: list[list[str]] = []
    for group in _groups(tree, folder, "safetensors"):
        with suppress(NoMatch, WantdError):
            found.append([file.name for file in _whole(tree, folder, group)])
    return found


def _permitted(formats: Collection[str]) -> list[str]:
    return [format for format in _FORMATS if format == "safetensors" or format in formats]


def is_risky(name: str) -> bool:
    """Whether the file holds weights, by its name, in a format that can run code."""
    return extension(name) in WEIGHT_CODE_FORMATS and not TRAINING_STATE.search(name)


def is_variant(name: str) -> bool:
    """Whether the file holds safetensors of a variant, by its name."""
    found = _spellings("safetensors")[0].match(name.rpartition("/")[2])
    if not found:
        return False
    base, dot, _ = found["stem"].partition(".")
    return bool(found["variant"] or (dot and base in _SAFETENSORS_BASES))


def shards_without_index(tree: Tree, folder: str, chosen: Collection[str]) -> str | None:
    """A numbered part of weights in a folder whose index is not there, or is not `chosen` although the part is."""
    for group in (group for format in _FORMATS for group in _groups(tree, folder, format)):
        parts = [file.name for file in group.shards.values()]
        without = not group.indexes or any(part in chosen for part in parts)
        if parts and without and not any(index.name in chosen for index in group.indexes):
            return min(parts)
    return None


@cache
def _spellings(format: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """How weights of a format are named, and their indexes."""
    weights = (
        rf"(?P<stem>[^/]+?)(?:-(?P<number>[0-9]{{5,6}})-of-(?P<count>[0-9]{{5,6}})(?:\.(?P<variant>\w+))?)?\.{format}\Z"
    )
    index = rf"(?P<stem>[^/]+)\.{format}(?:\.(?P<old>\w+))?\.index(?:\.(?P<variant>\w+))?\.json\Z"
    return re.compile(weights), re.compile(index)


def _groups(tree: Tree, folder: str, format: str) -> list[_Group]:
    groups: dict[tuple[str, str | None], _Group] = {}
    weights, indexes = _spellings(format)

    def group(stem: str, variant: str | None) -> _Group:
        base, dot, rest = stem.partition(".")
        if base not in _SAFETENSORS_BASES or (dot and variant):
            base, rest = stem, ""
        variant = variant or rest or None
        return groups.setdefault((base, variant.lower() if variant else None), _Group(base, variant, format))

    for file in tree.inside(folder):
        own = file.name.rpartition("/")[2]
        if TRAINING_STATE.search(own):
            continue
        if found := weights.match(own):
            of = group(found["stem"], found["variant"])
            if found["number"]:
                of.shards[int(found["number"]), int(found["count"])] = file
            else:
                of.single = file
        elif found := indexes.match(own):
            group(found["stem"], found["variant"] or found["old"]).indexes.append(file)
    return list(groups.values())


def _pick(groups: list[_Group], variant: str | None, bases: Iterable[str]) -> _Group:
    known = [group for base in bases for group in groups if group.base == base]
    if variant:
        meant = [group for group in known if group.variant and group.variant.lower() == variant.lower()]
        if meant:
            return meant[0]
    plain = [group for group in known if group.variant is None]
    if plain:
        return plain[0]
    rest = known or [group for group in groups if group.indexes] or groups
    if variant and all(group.variant for group in rest):
        raise not_found(f"it has weights of other variants than {show(variant)} only: {listed(rest[0].names)}")
    if len(rest) == 1:
        return rest[0]
    names = [name for group in rest for name in group.names]
    raise ambiguous(f"it has {len(rest)} sets of weights, and no plain one", names)


def _whole(tree: Tree, folder: str, group: _Group) -> tuple[RemoteFile, ...]:
    """All files of a group, the index first. Where an index is older than the files, a set that is whole without it."""
    missing = []
    for index in group.indexes:
        names = _shards(tree, index, folder)
        if names is None:
            if _evidently_incomplete(tree, folder, group):
                raise not_found(f"{show(index.name)} is there, and not all of its shards")
            return (index,)
        lost = [name for name in names if name not in tree and name not in tree.excluded]
        if not lost:
            return (index, *(file for name in names if (file := tree.get(name))))
        missing.append(f"its index names {show(lost[0])}, which is not there")
    if group.single:
        return (group.single,)
    for count, there in sorted(group.counts.items()):
        parts = [group.shards.get((number, count)) for number in range(1, count + 1)] if there >= count else [None]
        if all(parts):
            return tuple(part for part in parts if part)
        missing.append(f"the set of {show(min(group.names))} has {count} parts, and not all of them are there")
    raise not_found(missing[0])


def _evidently_incomplete(tree: Tree, folder: str, group: _Group) -> bool:
    """Whether an index that was not read yet cannot be one of weights that are all there, by the files' names alone."""
    if group.single:
        return False
    if group.shards:
        return all(there < count for count, there in group.counts.items())
    return not any(file.name.endswith(f".{group.format}") for file in tree.inside(folder))


def _shards(tree: Tree, index: RemoteFile, folder: str) -> list[str] | None:
    """The files that an index names, in its order; None where its content has to be fetched first.

    Raises `hub_protocol` for one that is none, `forbidden_path` for one that names a path outside.
    """
    value = tree.read(index)
    if value is UNREAD:
        return None
    weight_map = value.get("weight_map") if isinstance(value, dict) else None
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise broken(index, "is no index of weights: it has no weight_map of file names")
    return [safe_name(f"{folder}/{name}" if folder else name) for name in dict.fromkeys(names)]
