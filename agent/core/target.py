"""What exactly a want asks for: which repository, revision and files, and where that lies in the store.

Two wants with equal targets share one download; the directory's name says how a target differs from the plain
model (SPEC section 5): `qwen3`, `qwen3--q8_0`, `qwen3@1a2b3c4d5e6f`, `qwen3--sel-9f8e7d6c`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from agent.core.catalog import Artifact, Catalog, Entry, resolve_reference
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


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of which repository. What the catalogue fixes (`filename`, `artifacts`) comes before `quant`."""

    repo: RepoId
    revision: str = "main"
    quant: str | None = None
    filename: SafeName | None = None
    sha256: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    files: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    format: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As the record keeps it, to see later whether the catalogue still asks for the same."""
        value: dict[str, Any] = orjson.loads(orjson.dumps(self))
        return value


@dataclass(frozen=True, slots=True)
class Target:
    """One model in one directory of the store. `model` is the reference as the first want spelled it.

    `id` is the plain model's name by llmlb's rule, without what sets this target apart from it: a load balancer's id.
    """

    name: StoreName
    selection: Selection
    model: str = field(compare=False)
    id: StoreName = field(compare=False)


def make_target(catalog: Catalog, policy: str | list[str], wanted: WantedModel) -> Target:
    """What a want's model comes down to, with no network at all.

    Raises `model_not_supported`, `want_invalid`, `forbidden_path`.
    """
    reference, entry = resolve_reference(catalog, policy, wanted.reference)
    reference = _with_revision(reference, wanted)
    for pattern in (*wanted.files, *wanted.exclude):
        safe_name(pattern)
    plain = _plain(reference, entry)
    selection = plain
    name = plain_name = store_name(entry.id if entry else reference.model)
    if reference.revision and reference.revision != plain.revision:
        artifacts = tuple(_at_the_revision(artifact) for artifact in selection.artifacts)
        selection = replace(selection, revision=reference.revision, sha256=None, artifacts=artifacts)
        name = StoreName(f"{name}@{revision_suffix(reference.revision)}")
    if reference.quant and not _same_quant(reference.quant, entry):
        quant = reference.quant.upper()  # one spelling: `:q8_0` and `:Q8_0` lie in one directory and must be one target
        selection = replace(selection, quant=quant, filename=None, artifacts=(), sha256=None)
        name = StoreName(f"{name}--{quant.lower()}")
    if wanted.files or wanted.exclude:
        selection = replace(
            selection, files=wanted.files or selection.files, exclude=(*selection.exclude, *wanted.exclude)
        )
        if wanted.files:
            selection = replace(selection, filename=None, artifacts=(), sha256=None)
        digest = hashlib.sha256(orjson.dumps([wanted.files, wanted.exclude])).hexdigest()
        name = StoreName(f"{name}--sel-{digest[:8]}")
    if len(name.rpartition("/")[2]) > NAME_MAX_BYTES:
        raise WantdError(
            Code.FORBIDDEN_PATH,
            f"the directory name {show(name)} would be longer than {NAME_MAX_BYTES} bytes",
            "use a shorter revision or quant",
            model=bare(wanted.reference),
        )
    return Target(name, selection, str(reference), plain_name)


def _at_the_revision(artifact: Artifact) -> Artifact:
    """The artifact as the want's revision has it; one of another repository stays as the catalogue says."""
    return artifact if artifact.repo else replace(artifact, revision=None, sha256=None)


def _with_revision(reference: Reference, wanted: WantedModel) -> Reference:
    revision = wanted.revision
    if revision is None:
        return reference
    if not is_revision(revision) or reference.revision not in (None, revision):
        why = "is no revision" if not is_revision(revision) else f"contradicts the reference {show(str(reference))}"
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
