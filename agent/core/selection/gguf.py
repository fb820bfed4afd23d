"""Which GGUF files a selection means: quants, split sets and projectors, as llama.cpp's own downloader has them.

https://github.com/ggml-org/llama.cpp/blob/master/common/download.cpp
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from agent.core.names import show
from agent.core.remote import RemoteFile
from agent.core.selection.no_match import ambiguous, not_found
from agent.core.selection.tree import Tree

QUANT_ORDER = ("Q4_K_M", "Q8_0")

_SPLIT = re.compile(r"(.+)-([0-9]{5})(-of-)([0-9]{5})(\.gguf)\Z", re.IGNORECASE)
_NOT_WEIGHTS = re.compile(r"(^|/)(mtp-|eagle3-|dflash-)|mmproj|imatrix", re.IGNORECASE)
_QUANT = re.compile(
    r"[-./]((?:UD-)?(?:[IT]?Q[0-9]|BF16|F(?:P)?(?:16|32)|MXFP[0-9])[A-Za-z0-9_]*)(?=[-./])", re.IGNORECASE
)


def is_weights(name: str) -> bool:
    """Whether it is a GGUF file with the weights of a model."""
    return name.lower().endswith(".gguf") and not _NOT_WEIGHTS.search(name)


def gguf_files(tree: Tree, quant: str | None) -> list[RemoteFile]:
    """The quant that is meant, all parts of it, and its projector."""
    sets = gguf_sets(tree)
    weights = split_set(tree, sets[_pick_quant(sorted(sets), quant)])
    return weights + mmproj(tree, weights)


def gguf_sets(tree: Tree) -> dict[str, RemoteFile]:
    """Every model's file, or the first part of its split set that there is, by its name without the part's number."""
    sets: dict[str, RemoteFile] = {}
    for file in tree.files:
        if is_weights(file.name):
            split = _SPLIT.match(file.name)
            sets.setdefault(f"{split[1]}.gguf" if split else file.name, file)
    return sets


def quant_of(name: str, names: Sequence[str]) -> str | None:
    """The `:QUANT` that picks `name` and no other of `names`; None where there is none."""
    found = [match[1] for match in _QUANT.finditer(f"/{name}")]
    return next((quant for quant in reversed(found) if with_quant(names, quant) == [name]), None)


def _pick_quant(names: list[str], quant: str | None) -> str:
    for wanted in (quant,) if quant else QUANT_ORDER:
        found = with_quant(names, wanted)
        if len(found) == 1:
            return found[0]
        if found:
            raise ambiguous(f"{len(found)} files are {wanted}", found)
    if quant:
        raise not_found(f"no file is {show(quant)}")
    if len(names) == 1:
        return names[0]
    if not names:
        raise not_found("it has no GGUF file")
    raise ambiguous(f"none of its {len(names)} GGUF files is {' or '.join(QUANT_ORDER)}", names)


def with_quant(names: Iterable[str], quant: str) -> list[str]:
    """Names with the quant as a whole word; where none has, those where it begins one (`Q4_K` for `Q4_K_M`).

    `x-UD-Q4_K_M.gguf` is `UD-Q4_K_M`, and `Q4_K_M` only where no other file is.
    """
    tag = re.escape(quant)
    known = list(names)
    for pattern in (rf"(?<!UD)[-.]{tag}(?=[-.])", rf"[-.]{tag}(?=[-.])", rf"(^|[-._/]){tag}(?=[-./])", rf"[-.]{tag}"):
        fits = re.compile(pattern, re.IGNORECASE).search
        if found := [name for name in known if fits(name)]:
            return found
    return []


def split_set(tree: Tree, file: RemoteFile) -> list[RemoteFile]:
    """All parts of the set that a file belongs to: the whole set, or not at all."""
    split = _SPLIT.match(file.name)
    if not split:
        return [file]
    count = int(split[4])
    if not 1 <= count <= len(tree.files):
        raise not_found(f"the set of {show(file.name)} has {count} parts, and there are {len(tree.files)} files")
    parts = [f"{split[1]}-{at:05d}{split[3]}{split[4]}{split[5]}" for at in range(1, count + 1)]
    there = [part for name in parts if (part := tree.get(name))]
    if len(there) < count:
        first = next(name for name in parts if name not in tree)
        raise not_found(f"{count - len(there)} of the {count} parts of a split set are missing, {show(first)} first")
    return there


def mmproj(tree: Tree, weights: Sequence[RemoteFile]) -> list[RemoteFile]:
    """The projector that belongs to the weights: deepest shared directory, then nearest bit width."""
    found = [f for f in tree.files if f.name.lower().endswith(".gguf") and "mmproj" in f.name.lower()]
    folders = weights[0].name.split("/")[:-1]
    width = _bits(weights[0].name)

    def rank(file: RemoteFile) -> tuple[int, int, str]:
        return -file.name.count("/"), abs(_bits(file.name) - width), file.name

    near = [file for file in found if folders[: file.name.count("/")] == file.name.split("/")[:-1]]
    return [min(near, key=rank)] if near else []


def _bits(name: str) -> int:
    """Bits of a weight, from a quant's name (`Q4_K_M` 4, `IQ2_XS` 2, `BF16` 16); 16 where it says nothing."""
    match = re.search(
        r"(?:^|[-._])(?:[IT]?Q|BF|FP?|MXFP)([0-9]{1,2})(?=[-._]|$)", name.rpartition("/")[2], re.IGNORECASE
    )
    return int(match[1]) if match else 16
