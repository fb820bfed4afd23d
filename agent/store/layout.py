"""Where everything is in the store, and the records that say what is published.

STORE/
  qwen3/                            a model's directory (`core.names.store_name`; `/` nests)
    <files of the repository>
    model.gguf                      hard link to the (first) GGUF file: the name that llmlb's node opens
    manifest.json                   the same facts as llmlb's node reads them
    .wantd.json                     the record, written last: what is not recorded is not published
    .wantd.used                     empty; its time is when the model was last known to be wanted or leased
  .locks/qwen3.lock                 held while the model is downloaded (slashes as `--`)
  .locks/.<key>.lock                held while one file of more than 1 MiB is downloaded
  .locks/.spool-<spool>.lock        held by the agent that serves the spool, for as long as it runs
  .locks/.agent-<spool>.json        what that agent says of itself, for `wantd status`
  .locks/.hooks-<spool>.told        which wants its hooks were told of (`reports.hooks`)
  .partial/<key>.part, <key>.json   bytes on the way and their journal; key is the SHA-256 (git SHA-1 for plain files)
  .partial/stage-<model>~<random>/  a model being assembled, renamed into place; or one removed, renamed out of it
  .view/<repository>.json           what wantd made in `store.hub_cache` (`hub_view`)
  .stamps/<model>.json              what published files looked like when they were proved (`stamps`)

<spool> is the start of the SHA-256 of the spool's path. Temporary files (`.wantd-*.tmp`, `agent.disk`) can appear in
`.locks`, `.partial`, `.view` and `.stamps`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from agent.core.names import StoreName, is_commit, safe_name
from agent.core.target import Target
from agent.disk import disk_errors
from agent.errors import WantdError
from agent.store.stamps import read_stamps, stamp_of

RECORD = ".wantd.json"
USED = ".wantd.used"
MANIFEST = "manifest.json"
LLMLB_GGUF = "model.gguf"
LOCKS = ".locks"
PARTIAL = ".partial"
VIEW = ".view"
STAMPS = ".stamps"
STAGE = "stage-"
NEAR_STAGE = ".wantd-stage"  # in the model's directory; `core.names` refuses repository files that begin with `.wantd`
UNFINISHED = f"{NEAR_STAGE}-removed"  # an empty directory in a model's that is being removed file by file
RECORD_MAX_BYTES = 32 * 1024 * 1024  # a record of 100,000 files has about 20 MB


class RecordFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A published file: size in bytes, SHA-256, and the source that its bytes came from.

    `etag` is the Hub's name for the content: the SHA-256 of an LFS file, the git SHA-1 of a plain one, None where the
    source gave no hash or the record is older. `repo` and `commit` are set only for a file that is not of the model's.
    """

    name: str
    size: int
    sha256: str
    source: str
    etag: str | None = None
    repo: str | None = None
    commit: str | None = None


class Record(msgspec.Struct, frozen=True):
    """What `.wantd.json` holds. `selection` is what was requested, `opens` the GGUF file or None.

    `skipped` and `warning` are as in a progress file (docs/protocol.md); `rules` was `core.selection.RULES` then.
    `provisional` says that the files were chosen from a cache's listing, which may lack some: the model is planned
    again when the Hub can be asked.
    `restricted`: the Hub gives the repository to some accounts only; None where nothing is known of that.
    """

    schema: int
    model: str
    repo: str
    revision: str
    commit: str
    format: str
    opens: str | None
    selection: dict[str, object]
    source: str
    files: list[RecordFile]
    published_at: str
    verified: bool = True
    agent: str = ""
    skipped: list[str] = []
    warning: str | None = None
    provisional: bool = False
    rules: int = 0
    restricted: bool | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A model that is complete in the store. `path` is what a program opens: the GGUF file, or the directory."""

    record: Record
    path: str
    directory: str

    @property
    def size(self) -> int:
        """The sum of the file sizes, in bytes."""
        return sum(file.size for file in self.record.files)


class Layout:
    """Paths below the store's root. Reading a record never raises: what cannot be read is not published."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.locks = f"{root}/{LOCKS}"
        self.partial = f"{root}/{PARTIAL}"
        self.view = f"{root}/{VIEW}"
        self.stamps = f"{root}/{STAMPS}"
        self.view_lock = f"{self.locks}/.view.lock"

    def create(self) -> None:
        """Create the directories. Raises `store_unwritable`, `disk_full`."""
        with disk_errors(self.root):
            for path in (self.root, self.locks, self.partial):
                os.makedirs(path, mode=0o755, exist_ok=True)
            if not os.access(self.partial, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.partial)

    def create_again(self) -> bool:
        """Create the directories if one is missing; True if so. Raises as `create`."""
        missing = not (os.path.isdir(self.partial) and os.path.isdir(self.locks))
        if missing:
            self.create()
        return missing

    def directory(self, name: StoreName) -> str:
        return f"{self.root}/{name}"

    def model_lock(self, name: StoreName) -> str:
        return f"{self.locks}/{flat(name)}.lock"

    def file_lock(self, key: str) -> str:
        return f"{self.locks}/.{key}.lock"

    def part(self, key: str) -> str:
        return f"{self.partial}/{key}.part"

    def journal(self, key: str) -> str:
        return f"{self.partial}/{key}.json"

    def stage(self, name: StoreName) -> str:
        """A new path at each call: two agents that both believe that they hold the lock never share a stage."""
        return f"{self.partial}/{STAGE}{flat(name)}~{os.urandom(6).hex()}"

    def agent_file(self, spool: str) -> str:
        return f"{self.locks}/.agent-{short(spool)}.json"

    def hooks_file(self, spool: str) -> str:
        """What the agent of that spool has told its hooks."""
        return f"{self.locks}/.hooks-{short(spool)}.told"

    def spool_lock(self, spool: str) -> str:
        """Held by the agent that serves the spool. In the store, where no producer can take it first."""
        return f"{self.locks}/.spool-{short(spool)}.lock"

    def stamps_in(self, directory: str) -> str:
        """The stamps of the files of the model in this directory."""
        return f"{self.stamps}/{flat(StoreName(os.path.relpath(directory, self.root)), '%')}.json"

    def published(self, target: Target) -> Published | None:
        """The model, if its record is of the same request, and every file is there and has not been written to."""
        found = self.look(target)
        return found[0] if found and not found[1] else None

    def look(self, target: Target) -> tuple[Published, list[RecordFile]] | None:
        """The model, if its record is of the same request and every file is there with its size.

        With it come the files that seem to have been written to since they were proved (`stamps`).
        """
        directory = self.directory(target.name)
        record = read_record(directory)
        if record is None or not _satisfies(record, target):
            return None
        stamps, written = read_stamps(self.stamps_in(directory)), []
        for file in record.files:
            now, noted = stamp_of(f"{directory}/{file.name}"), stamps.get(file.name)
            if now is None or now.size != file.size:
                return None
            if noted and now.written_since(noted):
                written.append(file)
        path = f"{directory}/{record.opens}" if record.opens else directory
        return Published(record, path, directory), written

    def record_places(self, *, linked: bool = False) -> Iterator[tuple[str, os.stat_result]]:
        """Every directory with a record, and the record file's stat.

        Links are not followed, but with `linked` those that lead to a model's directory, which somebody moved away.
        """
        for directory, entry in self._entries():
            with contextlib.suppress(OSError):
                if entry.name == RECORD:
                    yield directory, entry.stat(follow_symlinks=False)
                elif linked and entry.is_symlink():
                    yield entry.path, os.stat(f"{entry.path}/{RECORD}")

    def near_stages(self) -> Iterator[tuple[StoreName, str]]:
        """Every stage in a model's directory: the model's name, and the stage's path."""
        for directory, entry in self._entries():
            if entry.name.startswith(NEAR_STAGE) and directory != self.root and entry.is_dir(follow_symlinks=False):
                yield StoreName(os.path.relpath(directory, self.root)), entry.path

    def _entries(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Every entry of the store's directories, with its directory. Those that begin with a dot are not entered."""
        pending = [self.root]
        while pending:
            directory = pending.pop()
            with contextlib.suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    yield directory, entry
                    if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)


def short(path: str) -> str:
    """The start of the SHA-256 of a path: a name for it."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def flat(name: StoreName, slash: str = "--") -> str:
    """A model's name as one path component: `slash` for slashes; a long one is cut, with its hash at the end."""
    text = name.replace("/", slash)
    return text if len(text) <= 200 else f"{text[:180]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def read_record(directory: str) -> Record | None:
    """The record in a model's directory, or None when there is none that can be trusted."""
    try:
        with open(f"{directory}/{RECORD}", "rb") as file:
            record = msgspec.json.decode(file.read(RECORD_MAX_BYTES), type=Record)
        for name in (*(file.name for file in record.files), *([record.opens] if record.opens else [])):
            safe_name(name)
    except (OSError, msgspec.DecodeError, RecursionError, WantdError):
        return None
    return record


def _satisfies(record: Record, target: Target) -> bool:
    """Whether the record has the target's selection, in any spelling.

    One directory serves `@1a2b3c4d5e6f` and the full commit, `Org/Name` and `org/name`. Without this rule, two such
    wants would take turns to download the model.
    """
    asked, had = target.selection.to_json(), dict(record.selection)
    if asked["repo"].lower() == str(had.get("repo")).lower():
        asked["repo"] = had["repo"]
    if is_commit(asked["revision"]) and record.commit.startswith(asked["revision"]):
        asked["revision"] = had.get("revision")
    return asked == had
