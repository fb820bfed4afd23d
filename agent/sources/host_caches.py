"""Which files other programs of this host already have: an index over their caches, refreshed on demand.

    Hub        models--org--name/blobs/<SHA-256 or git SHA-1>               found by hash
    Ollama     blobs/sha256-<hex>                                           found by hash
    llama.cpp  <org>_<repository>_<file>                                    found by name, proved by size and hash
    LM Studio  <publisher>/<model>/<file>                                   found by name, proved by size and hash

Layouts: https://huggingface.co/docs/huggingface_hub/guides/manage-cache; Ollama's docs/faq, "Where are models stored?";
llama.cpp's common/arg.cpp (its cache before it took over the Hub's layout); https://lmstudio.ai/docs/app/basics/import-model.
An index holds names alone. A file is looked at when it is asked for, and proved by the code that takes it: nothing
here says that a file is right. What a program has not finished (`*.incomplete`, `*-partial*`, `*.downloadInProgress`)
never counts.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from loguru import logger

from agent.core.names import RepoId, SafeName
from agent.core.retry import HOST_CACHES_S
from agent.host_files import HostFile, beneath, size_of

AUTO = "auto"  # in `adopt.caches`: the places where these programs keep their files without being told otherwise
ENTRIES_MAX = 200_000  # of one cache: far more than hosts have; a hostile tree must not keep the agent busy
DEPTH_MAX = 4  # of LM Studio's folders: publisher, model, a folder of the repository, file

_ETAG = re.compile(r"(?:[0-9a-f]{64}|[0-9a-f]{40})\Z")
_OLLAMA = re.compile(r"sha256-([0-9a-f]{64})\Z")
_UNFINISHED = re.compile(r"\.incomplete\Z|-partial|\.downloadInProgress\Z", re.IGNORECASE)
HUB, OLLAMA, LLAMA_CPP, LM_STUDIO = "hub", "ollama", "llama.cpp", "lmstudio"


@dataclass(frozen=True, slots=True)
class Place:
    """A name in a cache; the file's size is asked for when it matters."""

    path: str
    root: str
    cache: str


@dataclass(slots=True)
class _Index:
    """`asked` is the setting that it was read for, `hashes` are in hex, `names` in the form of `_flat`."""

    asked: tuple[str, ...] | None = None
    read_at: float = float("-inf")
    hashes: dict[str, list[Place]] = field(default_factory=dict)
    names: dict[str, list[Place]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Survey:
    """What one cache holds, for `wantd check`: files that could be adopted, and their bytes."""

    root: str
    cache: str
    files: int
    size: int


class HostCaches:
    """Thread-safe. `caches` gives `adopt.caches`, `own` directories of ours that must not be adopted from."""

    def __init__(
        self,
        caches: Callable[[], str | Sequence[str]],
        environ: Mapping[str, str],
        own: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._caches = caches
        self._environ = environ
        self._own = own
        self._clock = clock
        self._lock = threading.Lock()
        self._index = _Index()

    def roots(self) -> tuple[str, ...]:
        """The directories that are looked at, without links, each once; those that are not there are left out."""
        wanted = [path for name in self._asked() for path in (usual_places(self._environ) if name == AUTO else [name])]
        own = [os.path.realpath(path) for path in self._own() if path]
        roots = []
        for path in dict.fromkeys(os.path.realpath(os.path.expanduser(path)) for path in wanted):
            ours = any(path == mine or beneath(path, mine) for mine in own)
            if not ours and os.path.isdir(path):
                roots.append(path)
        return tuple(roots)

    def find(
        self, repo: RepoId, name: SafeName, size: int | None, sha256: str | None, git_sha1: str | None
    ) -> list[HostFile]:
        """Files that may be this one, those found by hash first. Reads the caches again when that is due. Blocks.

        Only what has a hash and a size can be proved: for anything else there are none.
        """
        if size is None or not (sha256 or git_sha1):
            return []
        index = self._fresh()
        places = [place for value in (sha256, git_sha1) if value for place in index.hashes.get(value.lower(), [])]
        for key in dict.fromkeys((_flat(f"{repo}/{name}"), _flat(f"{repo}/{os.path.basename(name)}"))):
            places += index.names.get(key, [])
        found = []
        for place in places:
            links = place.cache == HUB
            if size_of(place.path, place.root, links) == size:
                found.append(HostFile(place.path, place.root, place.cache, size, links))
            else:
                logger.debug("not adopting {}: not a readable file of {} bytes", ascii(place.path), size)
        return found

    def survey(self) -> list[Survey]:
        """What each cache holds now. Blocks."""
        counts: dict[tuple[str, str], list[int]] = {}
        seen: set[str] = set()
        index = self._read(self._asked())
        for places in (*index.hashes.values(), *index.names.values()):
            for place in places:
                size = size_of(place.path, place.root, place.cache == HUB)
                if size is not None and place.path not in seen:
                    seen.add(place.path)
                    count = counts.setdefault((place.root, place.cache), [0, 0])
                    count[0] += 1
                    count[1] += size
        return [Survey(root, cache, files, size) for (root, cache), (files, size) in sorted(counts.items())]

    def _fresh(self) -> _Index:
        with self._lock:
            asked = self._asked()
            if asked != self._index.asked or self._clock() - self._index.read_at >= HOST_CACHES_S:
                self._index = self._read(asked)
            return self._index

    def _asked(self) -> tuple[str, ...]:
        caches = self._caches()
        return (caches,) if isinstance(caches, str) else tuple(caches)

    def _read(self, asked: tuple[str, ...]) -> _Index:
        index = _Index(asked, self._clock())
        for root in self.roots():
            for place in _places(root):
                base = os.path.basename(place.path)
                if place.cache == HUB:
                    index.hashes.setdefault(base, []).append(place)
                elif place.cache == OLLAMA:
                    index.hashes.setdefault(base.removeprefix("sha256-"), []).append(place)
                else:
                    index.names.setdefault(_flat(os.path.relpath(place.path, root)), []).append(place)
        return index


def usual_places(environ: Mapping[str, str]) -> list[str]:
    """Where the Hub's tools, Ollama, llama.cpp and LM Studio keep their files, by their own variables and defaults."""
    home = environ.get("HOME") or os.path.expanduser("~")
    cache = environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    hub = environ.get("HF_HUB_CACHE") or f"{environ.get('HF_HOME') or f'{cache}/huggingface'}/hub"
    ollama = environ.get("OLLAMA_MODELS")
    return [
        hub,
        *([ollama] if ollama else []),
        f"{home}/.ollama/models",
        "/usr/share/ollama/.ollama/models",
        environ.get("LLAMA_CACHE") or f"{cache}/llama.cpp",
        f"{home}/.lmstudio/models",
    ]


def hub_repository(repo: RepoId) -> str:
    """The name of a repository's directory in a Hub's cache."""
    return f"models--{repo.replace('/', '--')}"


def _places(root: str) -> Iterator[Place]:
    """Every finished file of a cache. What it is shows in the names: one root may serve two programs."""
    budget = [ENTRIES_MAX]
    for entry in _entries(root, budget):
        if entry.name.startswith("models--"):
            for blob in _entries(f"{entry.path}/blobs", budget):
                if _ETAG.match(blob.name):
                    yield Place(blob.path, root, HUB)
        elif entry.name == "blobs":
            for blob in _entries(entry.path, budget):
                if _OLLAMA.match(blob.name):
                    yield Place(blob.path, root, OLLAMA)
        elif _is_file(entry):
            yield Place(entry.path, root, LLAMA_CPP)
        elif not entry.name.startswith((".", "datasets--", "spaces--")) and entry.name != "manifests":
            yield from _below(entry, root, budget, 2)
    if budget[0] <= 0:
        logger.warning("{}: more than {} entries; the rest is not looked at", ascii(root), ENTRIES_MAX)


def _below(folder: os.DirEntry[str], root: str, budget: list[int], depth: int) -> Iterator[Place]:
    """The files in LM Studio's folders; `depth` is that of the folder's entries."""
    if depth > DEPTH_MAX or not folder.is_dir(follow_symlinks=False):
        return
    for entry in _entries(folder.path, budget):
        if _is_file(entry) and depth > 2:
            yield Place(entry.path, root, LM_STUDIO)
        elif not entry.name.startswith("."):
            yield from _below(entry, root, budget, depth + 1)


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) and not _UNFINISHED.search(entry.name)


def _entries(folder: str, budget: list[int]) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                budget[0] -= 1
                if budget[0] <= 0:
                    return
                yield entry
    except OSError as error:
        logger.debug("not looking into {}: {}", ascii(folder), error.strerror)


def _flat(path: str) -> str:
    """A path in the form that llama.cpp names files in, without regard to case."""
    return path.replace("/", "_").lower()
