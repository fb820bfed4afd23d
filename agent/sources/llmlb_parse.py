"""What a load balancer's manifest says, as values. Pure, and believes nothing.

    {"format": "gguf", "quantization": "Q4_K_M", "files": [{"name": "model.gguf", "priority": 10, "runtimes": [...],
     "url": "https://…/org/name/resolve/main/FILE", "digest": "<SHA-256>", "optional": false}]}

Older ones have `files` only. `runtimes` are checked and not used: as for a node that declares none, every file is for
it. `priority` decides what comes first, the highest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from agent.core.names import SafeName, check_collisions, safe_name, show
from agent.core.remote import Query
from agent.errors import Code, WantdError
from agent.sources.hub_parse import MAX_SIZE, is_commit, is_sha256

MAX_FILES = 10_000  # a sharded model has some hundred
MODEL_GGUF = "model.gguf"  # what a balancer calls the file of a GGUF model, whatever its repository does
DEFAULT_REVISION = "main"

_RESOLVE = re.compile(r"/(?:models/)?([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)\Z")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a manifest. `own` is the balancer's name for it, `name` what the repository calls it.

    `repo` and `revision` are those in its URL, None where that is not of the Hub's form. `size` in bytes.
    """

    own: SafeName
    name: SafeName
    url: str | None = None
    sha256: str | None = None
    size: int | None = None
    optional: bool = False
    priority: int = 0
    repo: str | None = None
    revision: str | None = None

    @property
    def is_weights(self) -> bool:
        """Whether it is a GGUF that a program opens: what the balancer's blob route gives."""
        return self.name.endswith(".gguf") and "mmproj" not in self.name.lower()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model as the balancer has it."""

    quantization: str | None
    entries: tuple[Entry, ...]

    def files_for(self, query: Query) -> tuple[Entry, ...]:
        """The files of the query's repository at its revision, under the names that the repository has for them."""
        mine = [entry for entry in self.entries if entry.repo is None or entry.repo.lower() == query.repo.lower()]
        fitting = [entry for entry in mine if _fits(entry, query)]
        named = _with_own_name(_without_twins(fitting), query, self.quantization)
        check_collisions(entry.name for entry in named)
        return tuple(sorted(named, key=lambda entry: -entry.priority))

    def commit(self, query: Query) -> str:
        """The commit that every URL of the repository names, else the revision as it was asked for."""
        named_in_urls = {entry.revision for entry in self.files_for(query)}
        commit = named_in_urls.pop() if len(named_in_urls) == 1 else None
        return commit if commit and is_commit(commit) else query.revision


def bad_manifest(what: str) -> WantdError:
    """`hub_protocol`: the response is not a manifest."""
    return WantdError(
        Code.HUB_PROTOCOL,
        f"unexpected manifest from the load balancer: {what}",
        "check proxy.url and proxy.kind, or report it to the load balancer's operator",
    )


def parse_manifest(value: Any) -> Manifest:
    """Read a manifest of either shape. Raises `hub_protocol` and `forbidden_path`."""
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(files, list):
        raise bad_manifest("no list of files")
    if len(files) > MAX_FILES:
        raise bad_manifest(f"{len(files)} files")
    quantization = value.get("quantization")
    entries = tuple(_entry(file) for file in files)
    return Manifest(quantization if isinstance(quantization, str) and quantization else None, entries)


def _entry(value: Any) -> Entry:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise bad_manifest(f"{show(repr(value), 80)} is not a file")
    own = safe_name(value["name"])
    url = _text(value, "url", own)
    repo, revision, name = _told(url) if url else (None, None, None)
    runtimes = value.get("runtimes") or []
    if not isinstance(runtimes, list) or not all(isinstance(runtime, str) for runtime in runtimes):
        raise bad_manifest(f"the runtimes of {show(own)} are not a list of names")
    optional, priority = value.get("optional") or False, value.get("priority") or 0
    if not isinstance(optional, bool) or not isinstance(priority, int):
        raise bad_manifest(f"optional or priority of {show(own)} is of another type")
    return Entry(
        own,
        safe_name(name) if name else own,
        url,
        _digest(value, own),
        _size(value, own),
        optional,
        priority,
        repo,
        revision,
    )


def _text(value: Mapping[str, Any], key: str, own: str) -> str | None:
    text = value.get(key)
    if text is not None and not isinstance(text, str):
        raise bad_manifest(f"the {key} of {show(own)} is not a text")
    return text or None


def _digest(value: Mapping[str, Any], own: str) -> str | None:
    digest = (_text(value, "digest", own) or "").lower().removeprefix("sha256:")
    if digest and not is_sha256(digest):
        raise bad_manifest(f"the digest of {show(own)} is {show(digest, 80)}, not a SHA-256")
    return digest or None


def _size(value: Mapping[str, Any], own: str) -> int | None:
    size = value.get("size")
    if size is not None and (type(size) is not int or not 0 <= size < MAX_SIZE):
        raise bad_manifest(f"the size of {show(own)} is {show(repr(size), 40)}")
    return size


def _told(url: str) -> tuple[str | None, str | None, str | None]:
    """Repository, revision and file that a URL of the Hub's form names."""
    try:
        match = _RESOLVE.match(urlsplit(url).path)
    except ValueError:
        match = None
    return (unquote(match[1]), unquote(match[2]), unquote(match[3])) if match else (None, None, None)


def _fits(entry: Entry, query: Query) -> bool:
    """Whether the entry is of the revision that is asked for, or a known hash will tell if it is not."""
    if query.bound or entry.revision == query.revision:
        return True
    return query.revision == DEFAULT_REVISION and (entry.revision is None or is_commit(entry.revision))


def _without_twins(entries: Iterable[Entry]) -> list[Entry]:
    """One entry for each file: `model.gguf` may stand beside the same file under its own name."""
    kept: dict[str, Entry] = {}
    for entry in entries:
        kept.setdefault(entry.name, entry)
    alias = kept.get(MODEL_GGUF)
    others = [entry for entry in kept.values() if entry.is_weights and entry is not alias]
    if alias and alias.sha256 and any(entry.sha256 == alias.sha256 for entry in others):
        del kept[MODEL_GGUF]
    return list(kept.values())


def _with_own_name(entries: list[Entry], query: Query, quantization: str | None) -> list[Entry]:
    """Give the one GGUF that the balancer renamed the name that the repository has for it, where that is certain."""
    names = {entry.name for entry in entries}
    weights = [entry for entry in entries if entry.is_weights]
    missing = [name for name in query.names if name.endswith(".gguf") and name not in names]
    if len(weights) != 1 or weights[0].repo is not None or weights[0].name in query.names:
        return entries
    renamed, true = weights[0], None
    if len(missing) == 1 and (quantization is None or quantization.lower() in missing[0].lower()):
        true = missing[0]
    elif not query.names and query.quant and quantization and quantization.lower() == query.quant.lower():
        true = safe_name(f"{query.model.rpartition('/')[2]}-{quantization}.gguf")
    return [replace(entry, name=true) if true and entry is renamed else entry for entry in entries]
