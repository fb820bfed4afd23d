"""A complete, verified model becomes visible in one step, and stays whole whatever happens in between.

The files are linked into a stage directory beside the partials, synced, and the stage is renamed into place. Where
the directory is already there (it holds a longer id, or an older choice of files), the files are renamed into it one
by one with the record removed first and written last: without its record a model is not published. Where the place is
on another file system than the partials, the stage is copied there first.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import shutil
from dataclasses import dataclass
from urllib.parse import quote

import msgspec
import orjson

from agent.core.names import SafeName, safe_name, show
from agent.core.plan import Plan
from agent.errors import Code, WantdError
from agent.store.layout import (
    LLMLB_GGUF,
    MANIFEST,
    NEAR_STAGE,
    RECORD,
    Layout,
    Published,
    Record,
    read_record,
    unwritable,
)

KEPT_SUFFIX = ".before-wantd"
# What a file system answers to rename(2) and link(2) when source and place are not on the same one.
_ELSEWHERE = (errno.EXDEV, errno.EBUSY)
# No hard links here, or more of them than one file may have.
_NO_LINK = (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Modes:
    """Permissions of what is published: 0644 and 0755 less umask (SPEC section 5)."""

    file: int
    folder: int

    @staticmethod
    def current() -> Modes:
        """From the umask of this process. Sets it for an instant: call it before there are threads."""
        umask = os.umask(0o077)
        os.umask(umask)
        return Modes(0o644 & ~umask, 0o755 & ~umask)


class Stage:
    """A model being put together. Use under the model's lock; touches the disk, so not on the event loop."""

    def __init__(self, layout: Layout, plan: Plan, modes: Modes) -> None:
        self._layout = layout
        self._plan = plan
        self._modes = modes
        self._directory = layout.directory(plan.target.name)
        self.path = layout.stage(plan.target.name)
        self._names: set[str] = set()
        self._folders: set[str] = set()  # made for files; a look for each of thousands costs more than its link

    def begin(self) -> None:
        """Start empty. Raises `store_unwritable`."""
        with _writing(self._layout.root):
            for left in glob.glob(f"{glob.escape(self._directory)}/{NEAR_STAGE}*"):  # by one that died
                shutil.rmtree(left, ignore_errors=True)
            self._make_directories(self.path)

    def add(self, name: SafeName, source: str) -> None:
        """Put a complete, synced file in, as a hard link where the file system allows.

        Raises FileNotFoundError when `source` is gone, `store_unwritable`, `disk_full`.
        """
        path = f"{self.path}/{name}"
        with _writing(self._layout.root):
            folder = os.path.dirname(path)
            if folder not in self._folders:
                self._make_directories(folder)
                self._folders.add(folder)
            _link_or_copy(source, path)
            os.chmod(path, self._modes.file)
        self._names.add(name)

    def publish(self, record: Record, endpoint: str) -> Published:
        """Make the model visible. Raises `store_unwritable`, `forbidden_path`, `disk_full`."""
        opens = record.opens
        with _writing(self._layout.root):
            if opens and LLMLB_GGUF not in self._names:
                _second_name(self.path, opens, LLMLB_GGUF)
            if MANIFEST not in self._names:
                self._write(
                    MANIFEST, orjson.dumps(llmlb_manifest(record, self._plan, endpoint), option=orjson.OPT_INDENT_2)
                )
            self._write(RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))
            for folder, _, _ in os.walk(self.path):
                os.chmod(folder, self._modes.folder)
                sync_directory(folder)
            self._move_into_place(record)
        return Published(record, f"{self._directory}/{opens}" if opens else self._directory, self._directory)

    def drop(self) -> None:
        """Take away what is left of the stage. The files stay where they were linked from."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, name: str, data: bytes) -> None:
        path = f"{self.path}/{name}"
        with open(path, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(path, self._modes.file)

    def _move_into_place(self, record: Record) -> None:
        directory = self._directory
        try:
            self._make_directories(os.path.dirname(directory))
            os.rename(self.path, directory)
        except (FileExistsError, NotADirectoryError):
            raise _in_the_way(directory) from None
        except OSError as error:
            if error.errno in _ELSEWHERE:
                self._come_near()
            elif error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self._merge(directory, record)
        self._sync_up(os.path.dirname(directory))

    def _come_near(self) -> None:
        """Copy the stage into the model's directory, so that renaming is all that is left to do."""
        near = f"{self._directory}/{NEAR_STAGE}-{os.urandom(6).hex()}"
        copied: dict[int, str] = {}
        for name in [*self._files(), RECORD]:
            path = f"{near}/{name}"
            self._make_directories(os.path.dirname(path))
            inode = os.lstat(f"{self.path}/{name}").st_ino
            if inode in copied:
                _link_or_copy(copied[inode], path)
            else:
                _copy(f"{self.path}/{name}", path)
            os.chmod(path, self._modes.file)
            copied[inode] = path
        self.drop()
        self.path = near

    def _make_directories(self, path: str) -> None:
        """As `os.makedirs`, with the store's mode for each one that is made, not only for the last."""
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, self._modes.folder)
            if not os.path.isdir(folder):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", folder)

    def _sync_up(self, folder: str) -> None:
        """Sync a directory and those above it, to the store's root: the names of new ones are to last as well."""
        while len(folder) >= len(self._layout.root):
            sync_directory(folder)
            folder = os.path.dirname(folder)

    def _merge(self, directory: str, record: Record) -> None:
        old = read_record(directory)
        if old is not None and old.files == record.files and self._layout.published(self._plan.target):
            self.drop()  # another agent published the very same: where flock does not exclude, the first one wins
            return
        # Without `opens` the old one made no model.gguf: what is there under that name is somebody else's.
        ours = {file.name for file in old.files} | {MANIFEST, *([LLMLB_GGUF] if old.opens else [])} if old else set()
        staged = sorted(self._files(), key=lambda name: (name == LLMLB_GGUF, name == MANIFEST, name))
        for name in staged:
            self._check_way(directory, name, known=name in ours)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{RECORD}")
        sync_directory(directory)
        for name in staged:
            self._replace(directory, name, known=name in ours)
        for name in ours - set(staged):
            with contextlib.suppress(OSError):
                os.unlink(f"{directory}/{name}")
        for folder in {os.path.dirname(f"{directory}/{name}") for name in staged}:
            self._sync_up(folder)
        os.rename(f"{self.path}/{RECORD}", f"{directory}/{RECORD}")
        sync_directory(directory)
        self.drop()

    def _files(self) -> list[str]:
        found = []
        for folder, _, names in os.walk(self.path):
            below = os.path.relpath(folder, self.path)
            found += [name if below == "." else f"{below}/{name}" for name in names if name != RECORD]
        return found

    def _replace(self, directory: str, name: str, *, known: bool) -> None:
        source, path = f"{self.path}/{name}", f"{directory}/{name}"
        try:
            self._make_directories(os.path.dirname(path))
            if os.path.lexists(path) and not known and not os.path.samestat(os.lstat(path), os.lstat(source)):
                with contextlib.suppress(FileNotFoundError):  # an agent that also believes to hold the lock was quicker
                    os.rename(path, _kept_name(path))
            os.rename(source, path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(source)  # rename(2) does nothing where both names are links to one file
        except (FileExistsError, NotADirectoryError):
            raise _in_the_way(path) from None

    def _check_way(self, directory: str, name: str, *, known: bool) -> None:
        """Raise while nothing has been touched yet, if the file cannot lie there: what another model has stays put."""
        path = f"{directory}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            raise _in_the_way(path)
        folder = os.path.dirname(path)
        while len(folder) >= len(self._layout.root):
            if os.path.lexists(folder) and not os.path.isdir(folder):
                raise _in_the_way(folder)
            if not known and folder != directory and (record := read_record(folder)):
                theirs = {LLMLB_GGUF, MANIFEST, *(file.name for file in record.files)}
                if path[len(folder) + 1 :] in theirs and os.path.lexists(path):
                    raise _in_the_way(path)
            folder = os.path.dirname(folder)


def _kept_name(path: str) -> str:
    """A free name for a file that is not ours and lies where one of ours has to."""
    kept, number = path + KEPT_SUFFIX, 1
    while os.path.lexists(kept):
        number += 1
        kept = f"{path}{KEPT_SUFFIX}-{number}"
    return kept


def llmlb_manifest(record: Record, plan: Plan, endpoint: str) -> dict[str, object]:
    """`manifest.json` in the shape that llmlb's node reads: format, quantization, files with digest and url."""
    urls = {f.name: f"{endpoint}/{f.repo}/resolve/{quote(f.commit, safe='')}/{quote(f.name)}" for f in plan.files}
    selection = record.selection
    named = [
        {
            "name": file.name,
            "digest": file.sha256,
            "size": file.size,
            "url": urls[safe_name(file.name)],
            "source": file.source,
        }
        for file in record.files
    ]
    first = [{**file, "name": LLMLB_GGUF} for file in named if file["name"] == record.opens]
    names = {file["name"] for file in named}
    return {
        "format": record.format,
        "quantization": selection.get("quant") or _quantization(record.opens or ""),
        "verified": record.verified,
        "files": (first if LLMLB_GGUF not in names else []) + named,
    }


def _quantization(name: str) -> str | None:
    match = re.search(r"[-.]((?:I?Q[0-9]|T?BF16|F16|F32|MXFP4)[A-Z0-9_]*)(?=[-.])", name, re.IGNORECASE)
    return match[1].upper() if match else None


def sync_directory(path: str) -> None:
    """Make renames and new names in a directory last. A file system that does not know how is not an error."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def _link_or_copy(source: str, path: str) -> None:
    try:
        os.link(source, path, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno != errno.EXDEV and error.errno not in _NO_LINK:
            raise
        _copy(source, path)


def _second_name(folder: str, name: str, second: str) -> None:
    """A second name for a file: a hard link, else a symbolic one, else none; a copy would cost the model's size."""
    try:
        os.link(f"{folder}/{name}", f"{folder}/{second}")
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        with contextlib.suppress(OSError):
            os.symlink(name, f"{folder}/{second}")


def _copy(source: str, path: str) -> None:
    shutil.copyfile(source, path)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _writing(contextlib.AbstractContextManager["_writing"]):
    """Turns what the disk refuses into the error that says so; a missing source stays FileNotFoundError."""

    def __init__(self, root: str) -> None:
        self._root = root

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WantdError(
                Code.DISK_FULL,
                f"the disk of {self._root} is full",
                "make room; the agent goes on by itself, and nothing that was fetched is lost",
            ) from None
        raise unwritable(error.filename or self._root, error) from None


def _in_the_way(path: str) -> WantdError:
    return WantdError(
        Code.FORBIDDEN_PATH,
        f"{show(path)} cannot be made: a file lies where a directory belongs, or a directory where a file does",
        "two model ids claim the same name; rename one in the catalogue, or move what is in the way",
    )
