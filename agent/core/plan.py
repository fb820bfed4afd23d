"""Target and listing become a plan: exactly which files, with what expected hash (SPEC section 4, "Which files").

Catalogue entries, patterns and file names are dealt with here, the rules of the formats in `gguf` and `safetensors`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.core.catalog import Artifact
from agent.core.gguf import gguf_files, is_weights, mmproj, split_set
from agent.core.misses import ambiguous, not_found
from agent.core.names import RepoId, SafeName, bare, check_collisions, show
from agent.core.remote import Listing, Query, RemoteFile
from agent.core.safetensors import is_companion, safetensors_files
from agent.core.target import Selection, Target
from agent.errors import Code, WantdError

# Formats whose loaders run code from the file (pickle and its kin), and code itself.
WEIGHT_CODE_FORMATS = frozenset(
    {"bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib", "dill", "h5", "hdf5", "keras", "nemo", "mar"}
)
CODE_FORMATS = WEIGHT_CODE_FORMATS | {"py", "pyc", "so", "dll", "dylib", "exe", "sh", "bat", "llamafile"}
INDEX_MAX_BYTES = 32 * 1024 * 1024  # the index of a model of 1,000 shards and 100,000 tensors has about 10 MB

_SHARD = re.compile(r"(.+)-[0-9]{5}-of-[0-9]{5}\.safetensors\Z")


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
        raise not_found(selection, listing, "nothing is left after 'exclude'")
    check_collisions(file.name for file in chosen)
    _check_formats(chosen, formats)
    if selection.sha256:
        chosen = _bind_hash(chosen, selection)
    weights = [file.name for file in chosen if is_weights(file.name)]
    opens = min(weights) if weights else None
    kind = "gguf" if opens else "safetensors" if any(f.name.endswith(".safetensors") for f in chosen) else "other"
    return Plan(target, listing.commit, kind, tuple(chosen), opens)


def _choose(selection: Selection, listing: Listing, index: bytes | None, formats: Sequence[str]) -> list[RemoteFile]:
    if selection.files:
        return _by_patterns(selection, listing)
    if selection.filename:
        return _by_filename(selection, listing, index)
    if _is_gguf(selection, listing):
        return gguf_files(selection, listing)
    if not any(file.name.endswith((".safetensors", ".safetensors.index.json")) for file in listing.files):
        return _code_weights(selection, listing, formats)
    return safetensors_files(selection, listing, weight_index(selection, listing), index)


def _by_patterns(selection: Selection, listing: Listing) -> list[RemoteFile]:
    chosen = [file for file in listing.files if _matches(file.name, selection.files)]
    for pattern in selection.files:
        if not any(_matches(file.name, (pattern,)) for file in chosen):
            raise not_found(selection, listing, f"no file matches {show(pattern)}")
    whole = [part for file in chosen for part in split_set(file, selection, listing)]
    return list(dict.fromkeys(whole))


def _by_filename(selection: Selection, listing: Listing, index: bytes | None) -> list[RemoteFile]:
    name = selection.filename or ""
    file = next((file for file in listing.files if file.name == name), None)
    if file is None:
        raise not_found(selection, listing, f"the catalogue names {show(name)}, which is not there")
    if name.endswith(".gguf"):
        weights = split_set(file, selection, listing)
        return weights + mmproj(weights, listing)
    if name.endswith((".safetensors", ".index.json")):
        return safetensors_files(selection, listing, weight_index(selection, listing), index)
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
    return not native and any(is_weights(name) for name in names)


def _code_weights(selection: Selection, listing: Listing, formats: Sequence[str]) -> list[RemoteFile]:
    """Weights in a format that can run code, where the repository has no others and `policy.formats` names it."""
    risky = [file for file in listing.files if _extension(file.name) in WEIGHT_CODE_FORMATS]
    if not risky:
        raise not_found(selection, listing, "there are neither GGUF nor safetensors files")
    named = [file for file in risky if _extension(file.name) in formats and "/" not in file.name]
    if not named:
        raise _forbidden_format(risky[0].name)
    # transformers' own name; beside it lie the states of optimisers and training arguments in the same format.
    weights = [file for file in named if file.name.startswith("pytorch_model")] or named
    if len(weights) > 1 and weights is named:
        raise ambiguous(selection, f"it has {len(weights)} files in formats of weights", [f.name for f in weights])
    indexes = [f for f in listing.files if "/" not in f.name and f.name.endswith(".bin.index.json")]
    return [*weights, *indexes, *(file for file in listing.files if is_companion(file.name))]


def _from_artifacts(selection: Selection, listings: Sources) -> list[PlanFile]:
    chosen: dict[PlanFile, PlanFile] = {}  # as the source tells it -> as the catalogue binds it
    for artifact in selection.artifacts:
        listing = listings[artifact.repo or selection.repo, _artifact_revision(selection, artifact)]
        file = next((file for file in listing.files if file.name == artifact.name), None)
        if file is None:
            raise not_found(selection, listing, f"the catalogue names {show(artifact.name)}, which is not there")
        for part in split_set(file, selection, listing):
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
