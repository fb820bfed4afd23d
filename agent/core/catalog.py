"""`supported_models.json`: which models may be fetched, from where, which files of them.

Both published forms are read: a bare list of entries with `repo` and `recommended_filename`, and
`{"models": [...]}` of entries with `repo_id` and artifacts by `filename`. An entry that cannot be used is left
out and reported; the others stay in force.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import msgspec
import orjson
from msgspec import Meta

from agent.core.names import (
    Reference,
    RepoId,
    SafeName,
    StoreName,
    bare,
    is_revision,
    parse_reference,
    repo_id,
    safe_name,
    show,
    store_name,
)
from agent.core.schema import build
from agent.errors import Code, WantdError

MAX_BYTES = 16 * 1024 * 1024  # the published ones have some kB; parsing this much takes 0.2 s
SHOWN_PATTERNS = 5  # of policy.allow, in a hint
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}\Z")]


class _Artifact(msgspec.Struct, frozen=True):
    """A file of an entry, in the spelling of either published form."""

    name: str | None = None
    path: str | None = None
    filename: str | None = None
    url: str | None = None
    repo: str | None = None
    sha256: Sha256 | None = None
    size_bytes: int | None = None
    priority: int | None = None
    runtimes: list[str] = []


class _Entry(msgspec.Struct, frozen=True):
    """An entry of either published form, with wantd's optional additions last."""

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    name: str | None = None
    description: str | None = None
    repo: str | None = None
    repo_id: str | None = None
    source: str | None = None
    recommended_filename: str | None = None
    size_bytes: float | None = None
    required_memory_bytes: float | None = None
    tags: list[str] = []
    capabilities: list[str] = []
    quantization: str | None = None
    parameter_count: str | None = None
    format: str | None = None
    engine: str | None = None
    platforms: list[str] = []
    artifacts: list[Any] = []
    revision: str | None = None
    sha256: Sha256 | None = None
    files: list[str] = []
    exclude: list[str] = []
    aliases: list[Annotated[str, Meta(min_length=1)]] = []


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that an entry names; `repo` is None for the entry's own, `sha256` is binding where given."""

    name: SafeName
    repo: RepoId | None = None
    revision: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that may be fetched. `format` is `gguf`, `safetensors` or None; sizes are estimates in bytes."""

    id: str
    repo: RepoId
    revision: str = "main"
    filename: SafeName | None = None
    sha256: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    files: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    format: str | None = None
    quantization: str | None = None
    size_bytes: int | None = None
    description: str = ""


class Catalog:
    """The entries by id. Look-ups ignore case; `problems` says which entries could not be used, and why."""

    def __init__(self, entries: Iterable[Entry] = (), problems: Iterable[str] = ()) -> None:
        self.entries: dict[str, Entry] = {}
        self.problems = list(problems)
        places: dict[str, str] = {}
        for entry in entries:
            place = store_name(entry.id)
            if place in places:
                self.problems.append(f"{show(entry.id)}: it would lie in the same directory as {show(places[place])}")
                continue
            places[place] = entry.id
            self.entries[entry.id.lower()] = entry
        self._places = frozenset(places)
        self._around = frozenset(place[:at] for place in places for at, sign in enumerate(place) if sign == "/")
        self.by_name = dict(self.entries)
        self._by_repo: dict[str, list[Entry]] = {}
        for entry in self.entries.values():
            self._by_repo.setdefault(entry.repo.lower(), []).append(entry)
            for alias in entry.aliases:
                self.by_name.setdefault(alias.lower(), entry)

    def find(self, reference: Reference) -> Entry | None:
        """The entry that a reference names: by id, by alias, or by repository where just one entry has it."""
        name = reference.model.lower()
        if entry := self.by_name.get(name):
            return entry
        same = self._by_repo.get(name, [])
        return same[0] if len(same) == 1 else None

    def meets(self, place: StoreName) -> bool:
        """Whether a directory of the store is that of an entry, or in it, or around it."""
        above = (place[:at] for at, sign in enumerate(place) if sign == "/")
        return place in self._places or place in self._around or any(other in self._places for other in above)

    def near(self, name: str, count: int = 3) -> list[str]:
        """The known ids that look most like `name`."""
        folded = name.lower()
        same = [entry.id.lower() for entry in self._by_repo.get(folded, [])]
        inside = [known for known in self.by_name if folded in known or known in folded]
        close = difflib.get_close_matches(folded, self.by_name, n=count, cutoff=0.5)
        tail = difflib.get_close_matches(folded.rpartition("/")[2], self.by_name, n=count, cutoff=0.5)
        return list(dict.fromkeys([*same, *close, *inside, *tail]))[:count]


def allowed(policy: str | list[str], reference: Reference, entry: Entry | None) -> bool:
    """Whether `policy.allow` lets a reference through: `catalog`, `any`, or patterns of names like `Qwen/*`."""
    if policy == "any":
        return True
    if policy == "catalog":
        return entry is not None
    patterns = [policy] if isinstance(policy, str) else policy
    names = {reference.model.lower()} | ({entry.id.lower(), entry.repo.lower()} if entry else set())
    return any(
        (pattern == "catalog" and entry is not None) or fnmatch.fnmatchcase(name, pattern.lower())
        for pattern in patterns
        for name in names
    )


def resolve_reference(
    catalog: Catalog, policy: str | list[str], text: str, settings: str = "config.toml", *, near: bool = True
) -> tuple[Reference, Entry | None]:
    """Read a reference and look it up, with no network at all. `settings` is the file that sets `policy.allow`.

    Raises `want_invalid`, `forbidden_path`, and `model_not_supported`, where `near` asks for it with the nearest ids in
    the hint, which costs some 10 us for each id of the catalog.
    """
    reference = parse_reference(text, catalog.by_name)
    entry = catalog.find(reference)
    if allowed(policy, reference, entry):
        return reference, entry
    known = f"`wantd models` lists the {len(catalog.entries)} models of the catalog"
    missing = "is not in the catalog of supported models" if entry is None else "is in the catalog"
    refused = "" if policy == "catalog" else ", and policy.allow does not allow it"
    meant = did_you_mean(catalog, reference.model) if near else ""
    raise WantdError(
        Code.MODEL_NOT_SUPPORTED,
        f"{show(reference.model)} {missing}{refused}",
        f"{meant}{known}; {_how_to_allow(policy, reference.model, settings)}",
        model=bare(text),
    )


def did_you_mean(catalog: Catalog, name: str) -> str:
    """The beginning of a hint: the known ids that look most like a name, or nothing."""
    near = [known for known in catalog.near(name) if known != name.lower()]
    return f"did you mean {' or '.join(near)}? " if near else ""


def _how_to_allow(policy: str | list[str], name: str, settings: str) -> str:
    """The command, and the line of the configuration that it writes."""
    patterns = [policy] if isinstance(policy, str) else policy
    line = ", ".join(f'"{pattern}"' for pattern in [*patterns, bare(name)])
    change = f"set allow = [{line}]" if len(patterns) <= SHOWN_PATTERNS else f'add "{bare(name)}" to allow'
    return f"to allow this one, run `wantd allow {bare(name)}`, or {change} under [policy] in {settings} and reload"


def parse_catalog(data: bytes) -> Catalog:
    """Read a catalog in either published form.

    Raises ValueError when the whole cannot be read; entries that cannot be used are listed in `problems`.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has {len(data)} bytes, more than {MAX_BYTES}")
    value = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    items = value.get("models") if isinstance(value, dict) else value
    if not isinstance(items, list):
        raise ValueError('it is neither a list of entries nor {"models": [...]}')  # noqa: TRY004  as JSON's own error
    entries: list[Entry] = []
    problems: list[str] = []
    for at, item in enumerate(items):
        try:
            entries.append(_entry(item))
        except (ValueError, WantdError) as error:
            label = item.get("id") if isinstance(item, dict) else None
            problems.append(f"entry {at} ({show(str(label), 60)}): {getattr(error, 'message', error)}")
    if items and not entries:
        raise ValueError(f"none of its {len(items)} entries can be used; {problems[0]}")
    return Catalog(entries, problems)


def _entry(item: Any) -> Entry:
    if not isinstance(item, dict):
        raise ValueError("it is not an object")  # noqa: TRY004  one kind of error for one bad entry
    # Published catalogs grow keys; only those that wantd reads are checked.
    known = {name: value for name, value in item.items() if name in _Entry.__struct_fields__ and value is not None}
    raw, problems = build(_Entry, known, "entry")
    if raw is None:
        raise ValueError("; ".join(problems))
    store_name(raw.id)
    if raw.source not in (None, "huggingface", "hf", "hf_gguf", "hf_safetensors", "hub"):
        raise ValueError(f"source {show(raw.source or '')} is not the Hub")
    if raw.repo is None and raw.repo_id is None:
        raise ValueError("it names no repo")
    if raw.revision is not None and not is_revision(raw.revision):
        raise ValueError(f"{show(raw.revision)} is not a revision")
    repo = repo_id(raw.repo or raw.repo_id or "")
    artifacts = tuple(_artifact(artifact, repo) for artifact in raw.artifacts)
    filename = safe_name(raw.recommended_filename) if raw.recommended_filename else None
    return Entry(
        id=raw.id,
        repo=repo,
        revision=raw.revision or "main",
        filename=filename,
        sha256=raw.sha256.lower() if raw.sha256 else None,
        artifacts=artifacts,
        files=tuple(raw.files),
        exclude=tuple(raw.exclude),
        aliases=tuple(raw.aliases),
        format=(raw.format or "").lower() or None,
        quantization=raw.quantization,
        size_bytes=int(raw.size_bytes) if raw.size_bytes is not None and 0 <= raw.size_bytes < 2**60 else None,
        description=raw.name or raw.description or "",
    )


def _artifact(item: Any, repo: RepoId) -> Artifact:
    if not isinstance(item, dict):
        raise ValueError("an artifact is not an object")  # noqa: TRY004
    known = {name: value for name, value in item.items() if name in _Artifact.__struct_fields__ and value is not None}
    raw, problems = build(_Artifact, known, "artifact")
    if raw is None:
        raise ValueError("; ".join(problems))
    own, revision, path = raw.repo, None, raw.path or raw.filename
    if path is None and raw.url:
        own, revision, path = _from_url(raw.url)
    path = path or raw.name
    if not path:
        raise ValueError("an artifact names no file")
    other = repo_id(own) if own and own != repo else None
    return Artifact(safe_name(path), other, revision, raw.sha256.lower() if raw.sha256 else None)


def _from_url(url: str) -> tuple[str, str, str]:
    """`https://HOST/org/name/resolve/REVISION/FILE` as repository, revision, file; the host is the configured Hub."""
    match = re.fullmatch(r"/(.+?)/(?:resolve|blob)/([^/]+)/(.+)", urlsplit(url).path)
    if not match or not is_revision(unquote(match[2])):
        raise ValueError(
            f"the artifact's url {show(url)} is not of the form https://HOST/org/name/resolve/REVISION/FILE"
        )
    return unquote(match[1]), unquote(match[2]), unquote(match[3])
