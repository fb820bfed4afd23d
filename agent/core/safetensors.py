"""Which safetensors files a selection means: the index's shards, all of them, and the files that go with them."""

from __future__ import annotations

import orjson

from agent.core.misses import ambiguous, not_found
from agent.core.names import SafeName, bare, safe_name, show
from agent.core.remote import Listing, RemoteFile
from agent.core.target import Selection
from agent.errors import Code, WantdError

_COMPANIONS = (".json", ".txt", ".model", ".jinja", ".tiktoken")


def safetensors_files(
    selection: Selection, listing: Listing, index_file: RemoteFile | None, index: bytes | None
) -> list[RemoteFile]:
    """The weights, the index they are in, if any, and their companions. `index` has the bytes of `index_file`."""
    names = {file.name: file for file in listing.files}
    if index_file is not None and index is not None:
        folder = index_file.name.rpartition("/")[0]
        shards = [f"{folder}/{shard}".lstrip("/") for shard in _shards(index, index_file.name)]
        missing = [shard for shard in shards if shard not in names]
        if missing:
            raise not_found(selection, listing, f"its index names {show(missing[0])}, which is not there")
        weights = [names[SafeName(shard)] for shard in shards]
    else:
        weights = [_single_safetensors(selection, listing)]
        index_file = None
    kept = {file.name for file in weights} | ({index_file.name} if index_file else set())
    companions = [f for f in listing.files if is_companion(f.name) and f.name not in kept]
    return [*([index_file] if index_file else []), *weights, *companions]


def _single_safetensors(selection: Selection, listing: Listing) -> RemoteFile:
    names = {file.name: file for file in listing.files}
    wanted = selection.filename or "model.safetensors"
    if wanted in names:
        return names[SafeName(wanted)]
    found = [file for file in listing.files if file.name.endswith(".safetensors")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ambiguous(selection, f"it has {len(found)} safetensors files and no index", [f.name for f in found])
    raise not_found(selection, listing, f"there is no {show(wanted)}")


def _shards(index: bytes, name: str) -> list[SafeName]:
    """The shard files of an index, in its order. Raises `hub_protocol` for one that is none, `forbidden_path`."""
    try:
        weight_map = orjson.loads(index)["weight_map"]
        shards = list(dict.fromkeys(weight_map.values()))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        shards = []
    if not shards or not all(isinstance(shard, str) for shard in shards):
        raise WantdError(
            Code.HUB_PROTOCOL,
            f"{show(name)} is no safetensors index: it has no weight_map of file names",
            "the repository is broken; report it to its owner, or name the files yourself with 'files'",
            file=bare(name),
        )
    return [safe_name(shard) for shard in shards]


def is_companion(name: str) -> bool:
    """Configuration and tokenizer files lie at the top; other weights' indexes belong to those weights."""
    return "/" not in name and name.endswith(_COMPANIONS) and not name.endswith(".index.json")
