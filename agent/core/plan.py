"""Target and listing become a plan: exactly which files, with what expected hash.

Which files is decided in `agent.core.selection`; here are the catalog's artifacts and hashes, the policy, and the
steps: what small files have to be read before the choice can be made, then the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent.core.catalog import Artifact
from agent.core.names import RepoId, SafeName, bare, check_collisions, show
from agent.core.remote import Listing, Query, RemoteFile
from agent.core.selection.choices import explain
from agent.core.selection.code import CodePolicy, code_warnings, refused
from agent.core.selection.gguf import is_weights, split_set
from agent.core.selection.no_match import NoMatch, forbidden, not_found
from agent.core.selection.patterns import matching
from agent.core.selection.rules import choose
from agent.core.selection.tree import (
    READ_MAX_BYTES,
    READ_MAX_FILES,
    READ_MAX_TOTAL_BYTES,
    Chosen,
    Contents,
    Tree,
    broken,
)
from agent.core.target import Selection, Target
from agent.errors import Code, WantdError


@dataclass(frozen=True, slots=True)
class PlanFile:
    """One file to have: where it comes from, its path in the model's directory, what it must be."""

    name: SafeName
    repo: RepoId
    commit: str
    size: int | None
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every file of one model. `opens` is the file a program opens (GGUF), None for the directory itself.

    `skipped` are files that were left out because they can run code; `warning` is what a user has to know before
    loading.
    """

    target: Target
    commit: str
    format: str
    files: tuple[PlanFile, ...]
    opens: SafeName | None
    skipped: tuple[SafeName, ...] = ()
    warning: str | None = None

    @property
    def size(self) -> int:
        """The sum of the known sizes, in bytes."""
        return sum(file.size or 0 for file in self.files)


@dataclass(frozen=True, slots=True)
class Unread:
    """Files whose content decides which files there are: read them, add them to the contents, and ask again."""

    files: tuple[RemoteFile, ...]


DEFAULT_POLICY = CodePolicy()

Sources = Mapping[tuple[RepoId, str], Listing]


def needed_listings(selection: Selection) -> list[tuple[RepoId, str]]:
    """The (repository, revision) pairs whose listings the plan is made of; the model's own comes first."""
    pairs = [(selection.repo, selection.revision)]
    for artifact in selection.artifacts if selection.snapshot != "all" else ():
        pairs.append((artifact.repo or selection.repo, _artifact_revision(selection, artifact)))
    return list(dict.fromkeys(pairs))


def query(target: Target, repo: RepoId, revision: str) -> Query:
    """What to ask sources for one repository of the target at a revision or commit."""
    selection = target.selection
    own = repo == selection.repo
    names = [selection.filename] if selection.filename and own else []
    names += [artifact.name for artifact in selection.artifacts if (artifact.repo or selection.repo) == repo]
    bound = (
        bool(selection.hashes)
        or any(artifact.sha256 for artifact in selection.artifacts)
        or (own and selection.sha256 is not None)
    )
    return Query(repo, revision, target.id, tuple(names), selection.quant, bound)


def make_plan(
    target: Target, listings: Sources, contents: Contents, policy: CodePolicy = DEFAULT_POLICY
) -> Plan | Unread:
    """The plan, or what has to be read first. `contents` is what was read so far of the target's own repository.

    It takes some 10 us a file, and more with patterns: not for an event loop. Raises `file_not_found`,
    `ambiguous_file`, `forbidden_format`, `forbidden_path`, `hub_protocol`, `checksum_mismatch`.
    """
    listing = listings[needed_listings(target.selection)[0]]
    planning = _Planning(listings, listing, contents, policy)
    try:
        return planning.step(target)
    except NoMatch as miss:
        tree = planning.tree(target.plain.exclude)
        raise explain(miss, target, listing.commit, tree, lambda other: planning.works(target, other)) from None


class _Planning:
    """One call of `make_plan`: the choice, and what else could be chosen, over the same trees."""

    def __init__(self, listings: Sources, listing: Listing, contents: Contents, policy: CodePolicy) -> None:
        self._listings = listings
        self._listing = listing
        self._contents = contents
        self._policy = policy
        self._trees: dict[tuple[str, ...], Tree] = {}

    def tree(self, exclude: tuple[str, ...]) -> Tree:
        """The model's own repository without what the patterns fit."""
        if exclude not in self._trees:
            names = [file.name for file in self._listing.files]
            excluded, _ = matching(names, exclude) if exclude else (set(), [])
            self._trees[exclude] = Tree(self._listing.files, self._contents, frozenset(excluded))
        return self._trees[exclude]

    def works(self, target: Target, selection: Selection) -> bool:
        """Whether there would be a plan for another selection, as far as that is known without reading more."""
        if not self._listings.keys() >= set(needed_listings(selection)):
            return False
        try:
            planned, chosen = self._select(selection)
            if not self._unread:
                self._plan(replace(target, selection=selection), planned, chosen)
        except (NoMatch, WantdError):
            return False
        return True

    def step(self, target: Target) -> Plan | Unread:
        """The plan or what it needs. Raises NoMatch and WantdError."""
        try:
            planned, chosen = self._select(target.selection)
        except NoMatch:
            if not self._unread:
                raise
            return _to_read(self._unread, self._contents)
        if self._unread:
            return _to_read(self._unread, self._contents)
        return self._plan(target, planned, chosen)

    def _select(self, selection: Selection) -> tuple[list[PlanFile], Chosen]:
        """The files; with `self._unread` not empty, what is known without reading those."""
        for tree in self._trees.values():
            tree.unread.clear()
        if selection.artifacts and not selection.files and selection.snapshot == "load":
            planned = _from_artifacts(selection, self._listings, self._contents)
            excluded, _ = matching([file.name for file in planned], selection.exclude)
            return [file for file in planned if file.name not in excluded], Chosen([])
        chosen = self._choose(selection)
        return [_plan_file(file, self._listing) for file in chosen.files], chosen

    def _plan(self, target: Target, planned: list[PlanFile], chosen: Chosen) -> Plan:
        """The plan of what was chosen, if the policy lets it through."""
        if not planned:
            raise not_found("nothing is left after 'exclude'" if target.selection.exclude else "it has no files")
        check_collisions(file.name for file in planned)
        for file in planned:
            if refused(file.name, self._policy.formats):
                raise forbidden(file.name)
        return _plan(target, self._listing, _bind_hashes(planned, target.selection), chosen, self._policy)

    def _choose(self, selection: Selection) -> Chosen:
        """By the rules, out of what is not excluded; where nothing is left to choose, what else the model has."""
        if not selection.exclude or selection.files:
            return choose(selection, self.tree(()), self._policy.formats)
        tree = self.tree(selection.exclude)
        try:
            return choose(selection, tree, self._policy.formats)
        except NoMatch as miss:
            try:
                chosen = choose(selection, self.tree(()), self._policy.formats)
            except NoMatch:
                raise miss from None
            left = [file for file in chosen.files if file.name in tree]
            if any(is_weights(file.name) for file in left):  # a part of a split set
                raise
            return replace(chosen, files=left, skipped=[file for file in chosen.skipped if file.name in tree])

    @property
    def _unread(self) -> dict[SafeName, RemoteFile]:
        return {name: file for tree in self._trees.values() for name, file in tree.unread.items()}


def _to_read(unread: Mapping[SafeName, RemoteFile], contents: Contents) -> Unread:
    """What to read, within limits: a listing can name 100,000 modules. Raises `hub_protocol`."""
    for file in unread.values():
        if file.size and file.size > READ_MAX_BYTES:
            raise broken(file, f"has {file.size} bytes, more than an index or a configuration ever has")
    first = next(iter(unread.values()))
    if len(unread) + len(contents) > READ_MAX_FILES:
        raise broken(
            first, f"is one of more than {READ_MAX_FILES} files that would have to be read to know what to fetch"
        )
    total = contents.size + sum(file.size or 0 for file in unread.values())
    if total > READ_MAX_TOTAL_BYTES:
        raise broken(first, f"is one of {total} bytes that would have to be read to know what to fetch")
    return Unread(tuple(unread.values()))


def _plan(target: Target, listing: Listing, files: Sequence[PlanFile], chosen: Chosen, policy: CodePolicy) -> Plan:
    names = {file.name for file in files}
    weights = [name for name in names if is_weights(name)]
    safetensors = any(name.endswith(".safetensors") for name in names)
    opens = min(weights) if weights and not safetensors else None
    kind = "gguf" if opens else "safetensors" if safetensors else "other"
    warnings = [*chosen.warnings, *code_warnings(target.selection.repo, chosen.code, names, policy)]
    return Plan(
        target,
        listing.commit,
        kind,
        tuple(files),
        opens,
        tuple(file.name for file in chosen.skipped),
        " ".join(warnings) or None,
    )


def _from_artifacts(selection: Selection, listings: Sources, contents: Contents) -> list[PlanFile]:
    trees = {pair: Tree(listing.files, contents) for pair, listing in listings.items()}
    chosen: dict[PlanFile, PlanFile] = {}  # as the source tells it -> as the catalog binds it
    for artifact in selection.artifacts:
        pair = artifact.repo or selection.repo, _artifact_revision(selection, artifact)
        file = trees[pair].get(artifact.name)
        if file is None:
            raise not_found(f"the catalog names {show(artifact.name)}, which is not there")
        for part in [file] if _plan_file(file, listings[pair]) in chosen else split_set(trees[pair], file):
            planned = _plan_file(part, listings[pair])
            chosen.setdefault(planned, planned)
            if part is file and artifact.sha256:
                chosen[planned] = _bound(chosen[planned], artifact.sha256)
    return list(chosen.values())


def _artifact_revision(selection: Selection, artifact: Artifact) -> str:
    """An artifact of another repository is at its `main` unless its URL says otherwise."""
    return artifact.revision or ("main" if artifact.repo else selection.revision)


def _plan_file(file: RemoteFile, listing: Listing) -> PlanFile:
    return PlanFile(file.name, listing.repo, listing.commit, file.size, file.sha256, file.git_sha1)


def _bind_hashes(chosen: list[PlanFile], selection: Selection) -> list[PlanFile]:
    """The catalog's hash is binding for the file that it recommends, or the only one there is.

    A snapshot of all files is bound by what the catalog's artifacts are bound to as well.
    """
    hashes: dict[str, str] = {}
    bound = dict(selection.hashes)
    if missing := [name for name in bound if all(file.name != name for file in chosen)]:
        raise not_found(f"the want binds {show(missing[0])} to a hash, and it is not among the chosen files")
    if selection.snapshot == "all":
        own = [one for one in selection.artifacts if _artifact_revision(selection, one) == selection.revision]
        hashes = {one.name: one.sha256 for one in own if one.sha256 and not one.repo}
    name = selection.filename or (chosen[0].name if len(chosen) == 1 else None)
    if selection.sha256 and name:
        hashes[name] = selection.sha256
    by_catalog = [_bound(file, hashes[file.name]) if file.name in hashes else file for file in chosen]
    return [_bound(file, bound[file.name], "want") if file.name in bound else file for file in by_catalog]


def _bound(file: PlanFile, sha256: str, by: str = "catalog") -> PlanFile:
    if file.sha256 and file.sha256 != sha256:
        raise WantdError(
            Code.CHECKSUM_MISMATCH,
            f"the {by} binds {show(file.name)} to SHA-256 {sha256}, the source announces {file.sha256}",
            f"the repository has changed, or the {by} is wrong: check the file, then correct its sha256",
            file=bare(file.name),
        )
    return replace(file, sha256=sha256)
