"""The files of one repository at one commit, by name and by folder, and what the small ones among them say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from agent.core.names import SafeName, bare, show
from agent.core.remote import RemoteFile
from agent.errors import Code, WantdError

# Bytes. The index of a model of 1,000 shards and 100,000 tensors has about 10 MB; the others have some kB.
READ_MAX_BYTES = 32 * 1024 * 1024
# A pipeline of 12 sharded components needs 14 files read, a router of sentence-transformers one for each of its
# modules.
READ_MAX_FILES = 100
READ_MAX_TOTAL_BYTES = 64 * 1024 * 1024  # held in memory while one plan is made

UNREAD: Any = object()  # what `Tree.read` returns for a file whose content is not known yet


class Contents:
    """What the small files of one repository say: kept between the steps of one plan, each parsed once."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}
        self._values: dict[str, Any] = {}
        self.size = 0  # bytes, of all that was added

    def __contains__(self, name: str) -> bool:
        return name in self._data or name in self._values

    def __len__(self) -> int:
        return len(self._data) + len(self._values)

    def add(self, name: str, data: bytes) -> None:
        """The content of a file."""
        self._data[name] = data
        self.size += len(data)

    def value(self, name: str) -> Any:
        """The file's JSON, None where it is not JSON."""
        if name not in self._values:
            try:
                self._values[name] = orjson.loads(self._data.pop(name).removeprefix(b"\xef\xbb\xbf"))
            except orjson.JSONDecodeError:
                self._values[name] = None
        return self._values[name]


class Tree:
    """A repository's files but those that `excluded` names. `unread` collects the files that a rule asked to read."""

    def __init__(self, files: Iterable[RemoteFile], contents: Contents, excluded: frozenset[str] = frozenset()) -> None:
        self.files = tuple(file for file in files if file.name not in excluded)
        self.excluded = excluded
        self.contents = contents
        self.unread: dict[SafeName, RemoteFile] = {}
        self._by_name: dict[str, RemoteFile] = {}
        self._folders: dict[str, list[RemoteFile]] = {}
        for file in self.files:
            self._by_name[file.name] = file
            self._folders.setdefault(file.name.rpartition("/")[0], []).append(file)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def get(self, name: str) -> RemoteFile | None:
        """The file of that path."""
        return self._by_name.get(name)

    def inside(self, folder: str) -> Sequence[RemoteFile]:
        """The files directly in a folder; "" is the top."""
        return self._folders.get(folder, ())

    @property
    def folders(self) -> Iterable[str]:
        """Every folder with files directly in it."""
        return self._folders

    def read(self, file: RemoteFile) -> Any:
        """The JSON that a file holds, None where it holds none, UNREAD where its content has to be fetched first."""
        if file.name in self.contents:
            return self.contents.value(file.name)
        self.unread[file.name] = file
        return UNREAD


@dataclass(slots=True)
class Chosen:
    """What a rule chose. Companions are taken from `folders`, "" being the top."""

    files: list[RemoteFile]
    folders: list[str] = field(default_factory=list)
    skipped: list[RemoteFile] = field(default_factory=list)  # left out because they can run code
    warnings: list[str] = field(default_factory=list)  # sentences
    code: list[str] = field(default_factory=list)  # references to code that the model needs to load


def broken(file: RemoteFile, why: str) -> WantdError:
    """The error for a file of the repository that does not hold what its name says."""
    return WantdError(
        Code.HUB_PROTOCOL,
        f"{show(file.name)} {why}",
        "the repository is broken; report it to its owner, or name the files yourself with 'files'",
        file=bare(file.name),
    )
