"""Which GGUF files a selection means: quants, split sets and projectors, as llama.cpp's own downloader has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from agent.core.misses import ambiguous, not_found
from agent.core.names import SafeName, show
from agent.core.remote import Listing, RemoteFile
from agent.core.target import Selection

QUANT_ORDER = ("Q4_K_M", "Q8_0")

_SPLIT = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf\Z", re.IGNORECASE)
_NOT_WEIGHTS = re.compile(r"(^|/)(mtp-|eagle3-|dflash-)|mmproj|imatrix", re.IGNORECASE)


def is_weights(name: str) -> bool:
    """Whether it is a GGUF file with the weights of a model."""
    return name.lower().endswith(".gguf") and not _NOT_WEIGHTS.search(name)


def gguf_files(selection: Selection, listing: Listing) -> list[RemoteFile]:
    """The quant that is meant, all parts of it, and its projector."""
    files = [file for file in listing.files if is_weights(file.name)]
    groups: dict[str, list[RemoteFile]] = {}
    for file in files:
        split = _SPLIT.match(file.name)
        groups.setdefault(f"{split[1]}.gguf" if split else file.name, []).append(file)
    name = _pick_quant(selection, listing, sorted(groups))
    weights = split_set(groups[name][0], selection, listing)
    return weights + mmproj(weights, listing)


def _pick_quant(selection: Selection, listing: Listing, names: list[str]) -> str:
    for quant in (selection.quant,) if selection.quant else QUANT_ORDER:
        found = _with_quant(names, quant)
        if len(found) == 1:
            return found[0]
        if found:
            raise ambiguous(selection, f"{len(found)} files are {quant}", found)
    if selection.quant:
        raise not_found(selection, listing, f"there is no {show(selection.quant)}")
    if len(names) == 1:
        return names[0]
    if not names:
        raise not_found(selection, listing, "there is no GGUF file")
    raise ambiguous(selection, f"none of its {len(names)} GGUF files is {' or '.join(QUANT_ORDER)}", names)


def _with_quant(names: Iterable[str], quant: str) -> list[str]:
    """Names with the quant as a whole word; where none has, those where it begins one (`Q4_K` for `Q4_K_M`)."""
    tag = re.escape(quant)
    for pattern in (rf"[-.]{tag}(?=[-.])", rf"(^|[-._/]){tag}(?=[-./])", rf"[-.]{tag}"):
        found = [name for name in names if re.search(pattern, name, re.IGNORECASE)]
        if found:
            return found
    return []


def split_set(file: RemoteFile, selection: Selection, listing: Listing) -> list[RemoteFile]:
    """All parts of the set that a file belongs to: the whole set, or not at all."""
    split = _SPLIT.match(file.name)
    if not split:
        return [file]
    names = {other.name: other for other in listing.files}
    count, suffix = int(split[3]), file.name[-5:]
    if not 1 <= count <= len(names):
        raise not_found(
            selection, listing, f"the set of {show(file.name)} has {count} parts, and there are {len(names)} files"
        )
    parts = [f"{split[1]}-{at:05d}-of-{split[3]}{suffix}" for at in range(1, count + 1)]
    missing = [part for part in parts if part not in names]
    if missing:
        raise not_found(
            selection,
            listing,
            f"{len(missing)} of the {count} parts of a split set are missing, {show(missing[0])} first",
        )
    return [names[SafeName(part)] for part in parts]


def mmproj(weights: Sequence[RemoteFile], listing: Listing) -> list[RemoteFile]:
    """The projector that belongs to the weights: deepest shared directory, then nearest bit width."""
    found = [f for f in listing.files if f.name.lower().endswith(".gguf") and "mmproj" in f.name.lower()]
    if not found or not weights:
        return []
    folders = weights[0].name.split("/")[:-1]
    width = _bits(weights[0].name)

    def rank(file: RemoteFile) -> tuple[int, int, str]:
        own = file.name.split("/")[:-1]
        return -len(own), abs(_bits(file.name) - width), file.name

    near = [file for file in found if folders[: file.name.count("/")] == file.name.split("/")[:-1]]
    return [min(near, key=rank)] if near else []


def _bits(name: str) -> int:
    """Bits of a weight, from a quant's name (`Q4_K_M` 4, `IQ2_XS` 2, `BF16` 16); 16 where it says nothing."""
    match = re.search(
        r"(?:^|[-._])(?:[IT]?Q|BF|FP?|MXFP)([0-9]{1,2})(?=[-._]|$)", name.rpartition("/")[2], re.IGNORECASE
    )
    return int(match[1]) if match else 16
