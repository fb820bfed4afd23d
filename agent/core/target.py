"""What exactly a want asks for: which repository, revision and files, and where they are in the store.

Two wants with equal targets share one download. The directory's name says how a target differs from the plain model:
`qwen3`, `qwen3--q8_0`, `qwen3@1a2b3c4d5e6f`, `qwen3--sel-9f8e7d6c`, `qwen3--all`; `@/qwen3/vae` where the catalog has
a `qwen3`, but no `qwen3/vae`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from agent.core.catalog import Artifact, Catalog, Entry, resolve_reference
from agent.core.hub_url import from_url
from agent.core.names import (
    NAME_MAX_BYTES,
    Reference,
    RepoId,
    SafeName,
    StoreName,
    bare,
    is_revision,
    repo_id,
    revision_suffix,
    safe_name,
    show,
    store_name,
)
from agent.core.want import WantedModel
from agent.errors import Code, WantdError

ASIDE = "@"  # the directory of models that would meet one of the catalog's


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of which repository. What the catalog fixes (`filename`, `artifacts`) comes before `quant`.

    `quant` is a quant of GGUF or a variant of safetensors, in upper case. `snapshot` is `load` for what a program
    needs to load the model, or `all` for every file of the commit. `hashes` are what a want binds files to.
    """

    repo: RepoId
    revision: str = "main"
    quant: str | None = None
    filename: SafeName | None = None
    sha256: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    files: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    format: str | None = None
    snapshot: str = "load"
    hashes: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the record keeps it, to see later whether the catalog still asks for the same.

        What came later than version 0.1.0 is left out where it has its default: older records stay valid.
        """
        value: dict[str, Any] = orjson.loads(orjson.dumps(self))
        if self.snapshot == "load":
            del value["snapshot"]
        if not self.hashes:
            del value["hashes"]
        return value

    @property
    def by_rules(self) -> bool:
        """Whether the rules decide, and neither the catalog nor the want names files."""
        return self.snapshot == "load" and not (self.filename or self.artifacts or self.files)


@dataclass(frozen=True, slots=True)
class Target:
    """One model in one directory of the store. `reference` is what the first want asked for.

    `id` is the plain model's name by llmlb's rule, without what sets this target apart from it: a load balancer's id.
    `plain` is what the reference would select at that revision without a quant and without files.
    """

    name: StoreName
    selection: Selection
    reference: Reference = field(compare=False)
    id: StoreName = field(compare=False)
    plain: Selection = field(compare=False)

    @property
    def model(self) -> str:
        """The reference as the first want spelled it."""
        return str(self.reference)

    def paste(self, quant: str | None = None) -> str:
        """The reference with another quant, or none, as it can be pasted into a want."""
        return str(replace(self.reference, quant=quant))


def make_target(
    catalog: Catalog, policy: str | list[str], wanted: WantedModel, *, settings: str = "config.toml", near: bool = True
) -> Target:
    """What a want's model comes down to, with no network at all. `settings` is the file to name in hints; `near` says
    whether they are to name the nearest ids, which takes time.

    Raises `model_not_supported`, `want_invalid`, `forbidden_path`.
    """
    wanted = _without_url(wanted, catalog)
    reference, entry = resolve_reference(catalog, policy, wanted.reference, settings, near=near)
    reference = _with_revision(reference, wanted)
    for pattern in (*wanted.files, *wanted.exclude):
        safe_name(pattern)
    plain = _plain(reference, entry)
    plain_name = store_name(entry.id if entry else reference.model)
    name = plain_name if entry else _beside_the_catalog(catalog, plain_name)
    if reference.revision and reference.revision != plain.revision:
        artifacts = tuple(_at_the_revision(artifact) for artifact in plain.artifacts)
        plain = replace(plain, revision=reference.revision, sha256=None, artifacts=artifacts)
        name = StoreName(f"{name}@{revision_suffix(reference.revision)}")
    selection = plain
    if reference.quant and not _same_quant(reference.quant, entry):
        selection = with_quant(selection, reference.quant)
        name = StoreName(f"{name}--{reference.quant.lower()}")
    if wanted.snapshot == "all":
        if reference.quant or wanted.files:
            raise _contradiction(wanted, "a quant" if reference.quant else "'files'")
        selection = with_all(selection)
        name = StoreName(f"{name}--all")
    if wanted.files or wanted.exclude:
        selection = with_files(selection, wanted.files, wanted.exclude)
        digest = hashlib.sha256(orjson.dumps([wanted.files, wanted.exclude])).hexdigest()
        name = StoreName(f"{name}--sel-{digest[:8]}")
    if wanted.sha256:
        for file, _ in wanted.sha256:
            safe_name(file)
        selection = replace(selection, hashes=wanted.sha256)
        name = StoreName(f"{name}--sha-{hashlib.sha256(orjson.dumps(wanted.sha256)).hexdigest()[:8]}")
    if len(name.rpartition("/")[2]) > NAME_MAX_BYTES:
        raise WantdError(
            Code.FORBIDDEN_PATH,
            f"the directory name {show(name)} would be longer than {NAME_MAX_BYTES} bytes",
            "use a shorter revision or quant",
            model=bare(wanted.reference),
        )
    return Target(name, selection, reference, plain_name, plain)


def _beside_the_catalog(catalog: Catalog, name: StoreName) -> StoreName:
    """The directory of a model that is not in the catalog: `@/name` where `name` meets that of one which is.

    A repository `qwen3/model.gguf` would take a file's place in the model `qwen3`. No id of any model begins with `@`.
    """
    return StoreName(f"{ASIDE}/{name}") if catalog.meets(name) else name


def with_quant(selection: Selection, quant: str) -> Selection:
    """The selection for another quant or variant: what the catalog fixes for the plain model holds no longer."""
    # One spelling: `:q8_0` and `:Q8_0` are one directory and must be one target.
    return replace(selection, quant=quant.upper(), filename=None, artifacts=(), files=(), sha256=None)


def with_files(selection: Selection, files: tuple[str, ...], exclude: tuple[str, ...]) -> Selection:
    """The selection narrowed to files that match: `files` replace what the catalog fixes, `exclude` adds to it."""
    selection = replace(selection, exclude=(*selection.exclude, *exclude))
    return replace(selection, files=files, filename=None, artifacts=(), sha256=None) if files else selection


def with_all(selection: Selection) -> Selection:
    """The selection of every file. The catalog's hashes stay binding for the files that they are of."""
    return replace(selection, snapshot="all", quant=None, files=())


def _contradiction(wanted: WantedModel, what: str) -> WantdError:
    return WantdError(
        Code.WANT_INVALID,
        f"'snapshot': 'all' selects every file, and {what} selects some",
        "leave one of the two out",
        model=bare(wanted.reference),
    )


def _without_url(wanted: WantedModel, catalog: Catalog) -> WantedModel:
    """The want with a reference in place of a URL; the file or folder that the URL names joins `files`."""
    if wanted.reference.strip().lower() in catalog.by_name:
        return wanted
    pasted = from_url(wanted.reference)
    return replace(
        wanted,
        reference=pasted.reference,
        files=(*pasted.files, *wanted.files),
        exclude=(*pasted.exclude, *wanted.exclude),
    )


def _at_the_revision(artifact: Artifact) -> Artifact:
    """The artifact as the want's revision has it; one of another repository stays as the catalog says."""
    return artifact if artifact.repo else replace(artifact, revision=None, sha256=None)


def _with_revision(reference: Reference, wanted: WantedModel) -> Reference:
    revision = wanted.revision
    if revision is None:
        return reference
    if not is_revision(revision) or reference.revision not in (None, revision):
        why = "is not a revision" if not is_revision(revision) else f"contradicts the reference {show(str(reference))}"
        raise WantdError(
            Code.WANT_INVALID,
            f"the revision {show(revision)} {why}",
            "give one branch, tag or commit, in the reference or under 'revision'",
            model=bare(wanted.reference),
        )
    return replace(reference, revision=revision)


def _plain(reference: Reference, entry: Entry | None) -> Selection:
    if entry is None:
        return Selection(repo_id(reference.model))
    return Selection(
        repo=entry.repo,
        revision=entry.revision,
        filename=entry.filename,
        sha256=entry.sha256,
        artifacts=entry.artifacts,
        files=entry.files,
        exclude=entry.exclude,
        format=entry.format,
    )


def _same_quant(quant: str, entry: Entry | None) -> bool:
    return bool(entry and entry.quantization and entry.quantization.lower() == quant.lower())
