"""A complete, verified model becomes visible in one step, and stays whole whatever happens in between.

The files are linked into a stage directory beside the partials, synced, and the stage is renamed into place. Where
the directory is already there (it holds a longer id, or an older choice of files), the files are renamed into it one
by one with the record removed first and written last: without its record a model is not published.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from dataclasses import dataclass

import msgspec
import orjson

from agent.core.names import SafeName, show
from agent.core.plan import Plan
from agent.errors import Code, WantdError
from agent.store.layout import LLMLB_GGUF, MANIFEST, RECORD, Layout, Published, Record, read_record, unwritable

KEPT_SUFFIX = ".before-wantd"


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
        self.path = layout.stage(plan.target.name)
        self._names: set[str] = set()

    def begin(self) -> None:
        """Start empty. Raises `store_unwritable`."""
        with _writing(self._layout.root):
            shutil.rmtree(self.path, ignore_errors=True)
            os.makedirs(self.path, mode=0o755)

    def add(self, name: SafeName, source: str) -> None:
        """Put a complete, synced file in, as a hard link where the file system allows.

        Raises FileNotFoundError when `source` is gone, `store_unwritable`, `disk_full`.
        """
        path = f"{self.path}/{name}"
        with _writing(self._layout.root):
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            _link_or_copy(source, path)
            os.chmod(path, self._modes.file)
        self._names.add(name)

    def publish(self, record: Record, endpoint: str) -> Published:
        """Make the model visible. Raises `store_unwritable`, `forbidden_path`, `disk_full`."""
        opens = record.opens
        with _writing(self._layout.root):
            if opens and LLMLB_GGUF not in self._names:
                os.link(f"{self.path}/{opens}", f"{self.path}/{LLMLB_GGUF}")
            if MANIFEST not in self._names:
                self._write(MANIFEST, orjson.dumps(llmlb_manifest(record, endpoint), option=orjson.OPT_INDENT_2))
            self._write(RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))
            for folder, _, _ in os.walk(self.path):
                os.chmod(folder, self._modes.folder)
                sync_directory(folder)
            self._move_into_place(record)
        directory = self._layout.directory(self._plan.target.name)
        return Published(record, f"{directory}/{opens}" if opens else directory, directory)

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
        directory = self._layout.directory(self._plan.target.name)
        parent = os.path.dirname(directory)
        try:
            os.makedirs(parent, mode=0o755, exist_ok=True)
            os.rename(self.path, directory)
        except (FileExistsError, NotADirectoryError):
            raise _in_the_way(directory) from None
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EXDEV):
                raise
            self._merge(directory, record)
        sync_directory(parent)

    def _merge(self, directory: str, record: Record) -> None:
        old = read_record(directory)
        if old is not None and old.files == record.files and self._layout.published(self._plan.target):
            self.drop()  # another agent published the very same: where flock does not exclude, the first one wins
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{RECORD}")
        sync_directory(directory)
        ours = {file.name for file in old.files} | {LLMLB_GGUF, MANIFEST} if old else set()
        staged = sorted(self._files(), key=lambda name: (name == LLMLB_GGUF, name == MANIFEST, name))
        for name in staged:
            self._replace(directory, name, known=name in ours)
        for name in ours - set(staged):
            with contextlib.suppress(OSError):
                os.unlink(f"{directory}/{name}")
        for folder in {os.path.dirname(f"{directory}/{name}") for name in staged}:
            sync_directory(folder)
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
            os.makedirs(os.path.dirname(path), mode=self._modes.folder, exist_ok=True)
            if os.path.isdir(path) and not os.path.islink(path):
                raise _in_the_way(path)
            if os.path.lexists(path) and not known and not os.path.samestat(os.lstat(path), os.lstat(source)):
                os.rename(path, path + KEPT_SUFFIX)  # not ours: kept, under a name of its own
            os.rename(source, path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(source)  # rename(2) does nothing where both names are links to one file
        except (FileExistsError, NotADirectoryError):
            raise _in_the_way(path) from None
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, f"{path}{KEPT_SUFFIX}.tmp")
            os.rename(f"{path}{KEPT_SUFFIX}.tmp", path)


def llmlb_manifest(record: Record, endpoint: str) -> dict[str, object]:
    """`manifest.json` in the shape that llmlb's node reads: format, quantization, files with digest and url."""
    base = f"{endpoint}/{record.repo}/resolve/{record.commit}"
    selection = record.selection
    named = [
        {"name": file.name, "digest": file.sha256, "size": file.size, "url": f"{base}/{file.name}"}
        for file in record.files
    ]
    first = [{**file, "name": LLMLB_GGUF} for file in named if file["name"] == record.opens]
    names = {file["name"] for file in named}
    return {
        "format": record.format,
        "quantization": selection.get("quant") or _quantization(record.opens or ""),
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
        # Another file system, one without hard links, or more links than it allows.
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        _copy(source, path)


def _copy(source: str, path: str) -> None:
    shutil.copyfile(source, path, follow_symlinks=False)
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
