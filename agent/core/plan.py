"""Target and listing become a plan: exactly which files, with what expected hash (SPEC section 4, "Which files").

The rules for GGUF names follow what llama.cpp's own downloader does (quant order, split sets, mmproj); those for
safetensors what the index says.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from agent.core.catalog import Artifact
from agent.core.names import RepoId, SafeName, bare, check_collisions, safe_name, show
from agent.core.remote import Listing, Query, RemoteFile
from agent.core.target import Selection, Target
from agent.errors import Code, WantdError

# Formats whose loaders run code from the file (pickle and its kin), and code itself.
WEIGHT_CODE_FORMATS = frozenset(
    {"bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib", "dill", "h5", "hdf5", "keras", "nemo", "mar"}
)
CODE_FORMATS = WEIGHT_CODE_FORMATS | {"py", "pyc", "so", "dll", "dylib", "exe", "sh", "bat", "llamafile"}
QUANT_ORDER = ("Q4_K_M", "Q8_0")
INDEX_MAX_BYTES = 32 * 1024 * 1024  # the index of a model of 1,000 shards and 100,000 tensors has about 10 MB
CHOICES_SHOWN = 12

_SPLIT = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf\Z", re.IGNORECASE)
_SHARD = re.compile(r"(.+)-[0-9]{5}-of-[0-9]{5}\.safetensors\Z")
_NOT_WEIGHTS = re.compile(r"(^|/)(mtp-|eagle3-|dflash-)|mmproj|imatrix", re.IGNORECASE)
_COMPANIONS = (".json", ".txt", ".model", ".jinja", ".tiktoken")


@dataclass(frozen=True, slots=True)
class PlanFile:
    """One file to have: where it comes from, where it lies in the model's directory, what it must be."""

    name: SafeName
    repo: RepoId
    commit: str
    size: int | None
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every file of one model. `opens` is the file a program opens (GGUF), None for the directory itself."""

    target: Target
    commit: str
    format: str
    files: tuple[PlanFile, ...]
    opens: SafeName | None

    @property
    def size(self) -> int:
        """The sum of the known sizes, in bytes."""
        return sum(file.size or 0 for file in self.files)


Sources = Mapping[tuple[RepoId, str], Listing]


def needed_listings(selection: Selection) -> list[tuple[RepoId, str]]:
    """The (repository, revision) pairs whose listings the plan is made of; the model's own comes first."""
    pairs = [(selection.repo, selection.revision)]
    for artifact in selection.artifacts:
        pairs.append((artifact.repo or selection.repo, _artifact_revision(selection, artifact)))
    return list(dict.fromkeys(pairs))


def query(target: Target, repo: RepoId, revision: str) -> Query:
    """What to ask sources for one repository of the target at a revision or commit."""
    selection = target.selection
    own = repo == selection.repo
    names = [selection.filename] if selection.filename and own else []
    names += [artifact.name for artifact in selection.artifacts if (artifact.repo or selection.repo) == repo]
    bound = any(artifact.sha256 for artifact in selection.artifacts) or (own and selection.sha256 is not None)
    return Query(repo, revision, target.id, tuple(names), selection.quant, bound)


def weight_index(selection: Selection, listing: Listing) -> RemoteFile | None:
    """The safetensors index that has to be read before the plan can be made, or None."""
    if selection.files or selection.artifacts or _is_gguf(selection, listing):
        return None
    names: dict[str, RemoteFile] = {file.name: file for file in listing.files}
    if selection.filename:
        shard = _SHARD.match(selection.filename)
        name = f"{shard[1]}.safetensors.index.json" if shard else selection.filename
        return names.get(name) if name.endswith(".index.json") else None
    if "model.safetensors.index.json" in names:
        return names["model.safetensors.index.json"]
    if "model.safetensors" in names:
        return None
    indexes = [f for f in listing.files if f.name.endswith(".safetensors.index.json") and "/" not in f.name]
    return indexes[0] if len(indexes) == 1 else None


def make_plan(target: Target, listings: Sources, index: bytes | None, formats: Sequence[str] = ()) -> Plan:
    """Choose the files. `index` holds the bytes of what `weight_index` named, `formats` is `policy.formats`.

    Raises `file_not_found`, `ambiguous_file`, `forbidden_format`, `forbidden_path`, `hub_protocol`.
    """
    selection = target.selection
    listing = listings[needed_listings(selection)[0]]
    if selection.artifacts and not selection.files:
        chosen = _from_artifacts(selection, listings)
    else:
        chosen = [_plan_file(file, listing) for file in _choose(selection, listing, index, formats)]
    if selection.exclude:
        chosen = [file for file in chosen if not _matches(file.name, selection.exclude)]
    if not chosen:
        raise _not_found(selection, listing, "nothing is left after 'exclude'")
    check_collisions(file.name for file in chosen)
    _check_formats(chosen, formats)
    if selection.sha256:
        chosen = _bind_hash(chosen, selection)
    weights = [file.name for file in chosen if _is_weights(file.name)]
    opens = min(weights) if weights else None
    kind = "gguf" if opens else "safetensors" if any(f.name.endswith(".safetensors") for f in chosen) else "other"
    return Plan(target, listing.commit, kind, tuple(chosen), opens)


def _choose(selection: Selection, listing: Listing, index: bytes | None, formats: Sequence[str]) -> list[RemoteFile]:
    if selection.files:
        return _by_patterns(selection, listing)
    if selection.filename:
        return _by_filename(selection, listing, index)
    if _is_gguf(selection, listing):
        return _gguf(selection, listing)
    if not any(file.name.endswith((".safetensors", ".safetensors.index.json")) for file in listing.files):
        return _code_weights(selection, listing, formats)
    return _safetensors(selection, listing, index)


def _by_patterns(selection: Selection, listing: Listing) -> list[RemoteFile]:
    chosen = [file for file in listing.files if _matches(file.name, selection.files)]
    for pattern in selection.files:
        if not any(_matches(file.name, (pattern,)) for file in chosen):
            raise _not_found(selection, listing, f"no file matches {show(pattern)}")
    whole = [part for file in chosen for part in _split_set(file, selection, listing)]
    return list(dict.fromkeys(whole))


def _by_filename(selection: Selection, listing: Listing, index: bytes | None) -> list[RemoteFile]:
    name = selection.filename or ""
    file = next((file for file in listing.files if file.name == name), None)
    if file is None:
        raise _not_found(selection, listing, f"the catalogue names {show(name)}, which is not there")
    if name.endswith(".gguf"):
        weights = _split_set(file, selection, listing)
        return weights + _mmproj(weights, listing)
    if name.endswith((".safetensors", ".index.json")):
        return _safetensors(selection, listing, index)
    return [file]


def _is_gguf(selection: Selection, listing: Listing) -> bool:
    """Which rules apply: what catalogue or reference say, else the repository's native form, else GGUF."""
    if selection.filename:
        return selection.filename.lower().endswith(".gguf")
    if selection.quant or selection.format == "gguf":
        return True
    if selection.format == "safetensors":
        return False
    names = [file.name for file in listing.files]
    native = "config.json" in names and any("/" not in n and n.endswith(".safetensors") for n in names)
    return not native and any(_is_weights(name) for name in names)


def _is_weights(name: str) -> bool:
    return name.lower().endswith(".gguf") and not _NOT_WEIGHTS.search(name)


def _gguf(selection: Selection, listing: Listing) -> list[RemoteFile]:
    files = [file for file in listing.files if _is_weights(file.name)]
    groups: dict[str, list[RemoteFile]] = {}
    for file in files:
        split = _SPLIT.match(file.name)
        groups.setdefault(f"{split[1]}.gguf" if split else file.name, []).append(file)
    name = _pick_quant(selection, listing, sorted(groups))
    weights = _split_set(groups[name][0], selection, listing)
    return weights + _mmproj(weights, listing)


def _pick_quant(selection: Selection, listing: Listing, names: list[str]) -> str:
    for quant in (selection.quant,) if selection.quant else QUANT_ORDER:
        found = _with_quant(names, quant)
        if len(found) == 1:
            return found[0]
        if found:
            raise _ambiguous(selection, f"{len(found)} files are {quant}", found)
    if selection.quant:
        raise _not_found(selection, listing, f"there is no {show(selection.quant)}")
    if len(names) == 1:
        return names[0]
    if not names:
        raise _not_found(selection, listing, "there is no GGUF file")
    raise _ambiguous(selection, f"none of its {len(names)} GGUF files is {' or '.join(QUANT_ORDER)}", names)


def _with_quant(names: Iterable[str], quant: str) -> list[str]:
    """Names with the quant as a whole word; where none has, those where it begins one (`Q4_K` for `Q4_K_M`)."""
    tag = re.escape(quant)
    for pattern in (rf"[-.]{tag}(?=[-.])", rf"(^|[-._/]){tag}(?=[-./])", rf"[-.]{tag}"):
        found = [name for name in names if re.search(pattern, name, re.IGNORECASE)]
        if found:
            return found
    return []


def _split_set(file: RemoteFile, selection: Selection, listing: Listing) -> list[RemoteFile]:
    """All parts of the set that a file belongs to: the whole set, or not at all."""
    split = _SPLIT.match(file.name)
    if not split:
        return [file]
    names = {other.name: other for other in listing.files}
    count, suffix = int(split[3]), file.name[-5:]
    if not 1 <= count <= len(names):
        raise _not_found(
            selection, listing, f"the set of {show(file.name)} has {count} parts, and there are {len(names)} files"
        )
    parts = [f"{split[1]}-{at:05d}-of-{split[3]}{suffix}" for at in range(1, count + 1)]
    missing = [part for part in parts if part not in names]
    if missing:
        raise _not_found(
            selection,
            listing,
            f"{len(missing)} of the {count} parts of a split set are missing, {show(missing[0])} first",
        )
    return [names[SafeName(part)] for part in parts]


def _mmproj(weights: Sequence[RemoteFile], listing: Listing) -> list[RemoteFile]:
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


def _safetensors(selection: Selection, listing: Listing, index: bytes | None) -> list[RemoteFile]:
    names = {file.name: file for file in listing.files}
    index_file = weight_index(selection, listing)
    if index_file is not None and index is not None:
        folder = index_file.name.rpartition("/")[0]
        shards = [f"{folder}/{shard}".lstrip("/") for shard in _shards(index, index_file.name)]
        missing = [shard for shard in shards if shard not in names]
        if missing:
            raise _not_found(selection, listing, f"its index names {show(missing[0])}, which is not there")
        weights = [names[SafeName(shard)] for shard in shards]
    else:
        weights = [_single_safetensors(selection, listing)]
        index_file = None
    kept = {file.name for file in weights} | ({index_file.name} if index_file else set())
    companions = [f for f in listing.files if _is_companion(f.name) and f.name not in kept]
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
        raise _ambiguous(selection, f"it has {len(found)} safetensors files and no index", [f.name for f in found])
    raise _not_found(selection, listing, f"there is no {show(wanted)}")


def _code_weights(selection: Selection, listing: Listing, formats: Sequence[str]) -> list[RemoteFile]:
    """Weights in a format that can run code, where the repository has no others and `policy.formats` names it."""
    risky = [file for file in listing.files if _extension(file.name) in WEIGHT_CODE_FORMATS]
    if not risky:
        raise _not_found(selection, listing, "there are neither GGUF nor safetensors files")
    named = [file for file in risky if _extension(file.name) in formats and "/" not in file.name]
    if not named:
        raise _forbidden_format(risky[0].name)
    # transformers' own name; beside it lie the states of optimisers and training arguments in the same format.
    weights = [file for file in named if file.name.startswith("pytorch_model")] or named
    if len(weights) > 1 and weights is named:
        raise _ambiguous(selection, f"it has {len(weights)} files in formats of weights", [f.name for f in weights])
    indexes = [f for f in listing.files if "/" not in f.name and f.name.endswith(".bin.index.json")]
    return [*weights, *indexes, *(file for file in listing.files if _is_companion(file.name))]


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


def _is_companion(name: str) -> bool:
    """Configuration and tokenizer files lie at the top; other weights' indexes belong to those weights."""
    return "/" not in name and name.endswith(_COMPANIONS) and not name.endswith(".index.json")


def _from_artifacts(selection: Selection, listings: Sources) -> list[PlanFile]:
    chosen: dict[PlanFile, PlanFile] = {}  # as the source tells it -> as the catalogue binds it
    for artifact in selection.artifacts:
        listing = listings[artifact.repo or selection.repo, _artifact_revision(selection, artifact)]
        file = next((file for file in listing.files if file.name == artifact.name), None)
        if file is None:
            raise _not_found(selection, listing, f"the catalogue names {show(artifact.name)}, which is not there")
        for part in _split_set(file, selection, listing):
            planned = _plan_file(part, listing)
            chosen.setdefault(planned, planned)
            if part is file and artifact.sha256:
                chosen[planned] = _bound(chosen[planned], artifact.sha256)
    return list(chosen.values())


def _artifact_revision(selection: Selection, artifact: Artifact) -> str:
    """An artifact of another repository is at its `main` unless its URL says otherwise."""
    return artifact.revision or ("main" if artifact.repo else selection.revision)


def _plan_file(file: RemoteFile, listing: Listing) -> PlanFile:
    return PlanFile(file.name, listing.repo, listing.commit, file.size, file.sha256, file.git_sha1)


def _bind_hash(chosen: list[PlanFile], selection: Selection) -> list[PlanFile]:
    """The catalogue's hash is binding for the file that it recommends, or the only one there is."""
    name = selection.filename or (chosen[0].name if len(chosen) == 1 else None)
    return [_bound(file, selection.sha256) if file.name == name else file for file in chosen]


def _bound(file: PlanFile, sha256: str | None) -> PlanFile:
    if file.sha256 and file.sha256 != sha256:
        raise WantdError(
            Code.CHECKSUM_MISMATCH,
            f"the catalogue binds {show(file.name)} to SHA-256 {sha256}, the source announces {file.sha256}",
            "the repository has changed, or the catalogue is wrong: check the file, then correct its sha256",
            file=bare(file.name),
        )
    return replace(file, sha256=sha256)


def _check_formats(chosen: Iterable[PlanFile], formats: Sequence[str]) -> None:
    for file in chosen:
        extension = _extension(file.name)
        if extension in CODE_FORMATS and extension not in formats:
            raise _forbidden_format(file.name)


def _extension(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2].lower()


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern fits the path or, without a slash in it, the file's own name."""
    own = name.rpartition("/")[2]
    fits: Callable[[str, str], bool] = fnmatch.fnmatchcase
    return any(fits(name, pattern) or ("/" not in pattern and fits(own, pattern)) for pattern in patterns)


def _forbidden_format(name: str) -> WantdError:
    return WantdError(
        Code.FORBIDDEN_FORMAT,
        f"{show(name)} is in a format that can run code when it is loaded",
        f"choose a GGUF or safetensors version, leave it out with 'exclude', or allow it with policy.formats = "
        f'["{_extension(name)}"]',
        file=bare(name),
    )


def _choices(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - CHOICES_SHOWN} more" if len(listed) > CHOICES_SHOWN else ""
    return ", ".join(show(name).strip("'") for name in listed[:CHOICES_SHOWN]) + more


def _ambiguous(selection: Selection, why: str, names: Sequence[str]) -> WantdError:
    return WantdError(
        Code.AMBIGUOUS_FILE,
        f"it is not clear which file of {selection.repo} is meant: {why}",
        f"add :QUANT to the reference, or name one with 'files'; there are {_choices(names)}",
    )


def _not_found(selection: Selection, listing: Listing, why: str) -> WantdError:
    weights = [f.name for f in listing.files if _is_weights(f.name) or f.name.endswith(".safetensors")]
    there = f"; there are {_choices(weights)}" if weights else ""
    return WantdError(
        Code.FILE_NOT_FOUND,
        f"{selection.repo} at {listing.commit[:12]} has not what is wanted: {why}",
        f"check the quant, the file names and the catalogue entry{there}",
    )
