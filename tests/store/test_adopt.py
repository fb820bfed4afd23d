"""Taking a file of another program: what proves it, what is refused, and that nothing of theirs changes."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import Code, WantdError
from agent.host_files import HostFile, Unusable
from agent.store.adopt import CHUNK, Interrupted, Wanted, adopt

SIZE = CHUNK * 2 + 12345
DATA = bytes(range(256)) * (SIZE // 256) + b"x" * (SIZE % 256)
SHA256 = hashlib.sha256(DATA).hexdigest()
GIT_SHA1 = hashlib.sha1(b"blob %d\0" % SIZE + DATA, usedforsecurity=False).hexdigest()
WANTED = Wanted(SHA256, None)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with one file in it, `x`."""
    root = tmp_path / "cache"
    root.mkdir()
    (root / "x").write_bytes(DATA)
    (root / "x").chmod(0o644)
    return root


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "x.part"


def there(cache: Path, name: str = "x", size: int = SIZE, *, links: bool = False) -> HostFile:
    return HostFile(str(cache / name), str(cache), "hub" if links else "ollama", size, links)


def refused(file: HostFile, part: Path, wanted: Wanted = WANTED) -> str:
    """Why the file is not taken; nothing is left of the attempt."""
    with pytest.raises(Unusable) as caught:
        adopt(file, str(part), wanted)
    assert not part.exists()
    return str(caught.value)


@pytest.mark.parametrize("wanted", [WANTED, Wanted(SHA256.upper(), None), Wanted(None, GIT_SHA1)])
def test_it_is_here_and_right_and_theirs_is_as_it_was(cache: Path, part: Path, wanted: Wanted) -> None:
    before = (cache / "x").stat()
    steps: list[int] = []
    got = adopt(there(cache), str(part), wanted, on_bytes=steps.append)
    assert got.sha256 == SHA256 and got.way in ("copy", "reflink")
    assert part.read_bytes() == DATA
    assert steps == [CHUNK, 2 * CHUNK, SIZE]
    after = (cache / "x").stat()
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_mode, after.st_nlink) == (
        before.st_mtime_ns,
        before.st_ctime_ns,
        before.st_mode,
        before.st_nlink,
    )


def test_an_empty_file(cache: Path, part: Path) -> None:
    (cache / "x").write_bytes(b"")
    adopt(there(cache, size=0), str(part), Wanted(hashlib.sha256(b"").hexdigest(), None))
    assert part.read_bytes() == b""


def test_what_was_at_the_path_is_replaced_and_its_other_names_are_not(cache: Path, part: Path, tmp_path: Path) -> None:
    part.write_bytes(b"old")
    os.link(part, tmp_path / "other name")
    adopt(there(cache), str(part), WANTED)
    assert (tmp_path / "other name").read_bytes() == b"old"


@pytest.mark.parametrize("at", [0, CHUNK, SIZE - 1])
def test_one_flipped_byte_is_found(cache: Path, part: Path, at: int) -> None:
    with (cache / "x").open("r+b") as file:
        file.seek(at)
        file.write(bytes([DATA[at] ^ 1]))
    assert SHA256 in refused(there(cache), part)


@pytest.mark.parametrize("wanted", [Wanted(None, None), Wanted(None, "0" * 40)])
def test_what_no_hash_proves_is_not_taken(cache: Path, part: Path, wanted: Wanted) -> None:
    assert "hash" in refused(there(cache), part, wanted)


def test_a_file_that_changes_while_it_is_copied_is_not_taken(cache: Path, part: Path) -> None:
    def change(_: int) -> None:
        with (cache / "x").open("r+b") as file:
            file.seek(SIZE - 1)
            file.write(b"?")

    with pytest.raises(Unusable):
        adopt(there(cache), str(part), WANTED, on_bytes=change)
    assert not part.exists()


def test_a_file_that_shrinks_while_it_is_copied_is_not_taken(cache: Path, part: Path) -> None:
    with pytest.raises(Unusable, match="changed"):
        adopt(there(cache), str(part), WANTED, on_bytes=lambda _: os.truncate(cache / "x", CHUNK))
    assert not part.exists()


def test_another_size_a_missing_file_a_directory(cache: Path, part: Path) -> None:
    assert "expected" in refused(there(cache, size=SIZE + 1), part)
    assert "cannot be opened" in refused(there(cache, "y"), part)
    (cache / "folder").mkdir()
    assert "regular" in refused(there(cache, "folder"), part)


def test_a_fifo_does_not_hold_it_up(cache: Path, part: Path) -> None:
    os.mkfifo(cache / "fifo")
    assert "regular" in refused(there(cache, "fifo", 0), part)


def test_a_link_counts_only_where_the_layout_has_links_and_only_within_the_cache(
    cache: Path, part: Path, tmp_path: Path
) -> None:
    (cache / "link").symlink_to("x")
    assert "link" in refused(there(cache, "link"), part)
    assert adopt(there(cache, "link", links=True), str(part), WANTED).sha256 == SHA256
    part.unlink()
    (tmp_path / "secret").write_bytes(DATA)
    (cache / "out").symlink_to("../secret")
    (cache / "up").symlink_to("..")
    assert "leads out" in refused(there(cache, "out", links=True), part)
    assert "leads out" in refused(there(cache, "up/secret"), part)
    assert "leads out" in refused(there(cache, "up/secret", links=True), part)


def test_it_stops_between_two_chunks_and_leaves_nothing(cache: Path, part: Path) -> None:
    stopped = threading.Event()
    with pytest.raises(Interrupted):
        adopt(there(cache), str(part), WANTED, stop=stopped.is_set, on_bytes=lambda _: stopped.set())
    assert not part.exists()


def test_a_folder_that_is_gone_is_an_error_of_the_store(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(WantdError) as caught:
        adopt(there(cache), str(tmp_path / "gone" / "x.part"), WANTED)
    assert caught.value.code is Code.STORE_UNWRITABLE


@pytest.mark.parametrize("step", [1, 2])
def test_an_agent_that_is_killed_meanwhile_leaves_nothing_that_is_taken_for_the_file(
    cache: Path, part: Path, step: int
) -> None:
    code = (
        "import os, signal\n"
        "from agent.host_files import HostFile\n"
        "from agent.store.adopt import Wanted, adopt\n"
        f"kill = lambda done: os.kill(os.getpid(), signal.SIGKILL) if done == {step * CHUNK} else None\n"
        f"adopt(HostFile({str(cache / 'x')!r}, {str(cache)!r}, 'ollama', {SIZE}), {str(part)!r},"
        f" Wanted({SHA256!r}, None), on_bytes=kill)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == -signal.SIGKILL
    assert part.exists()
    adopt(there(cache), str(part), WANTED)
    assert part.read_bytes() == DATA == (cache / "x").read_bytes()


# -- hard links -------------------------------------------------------------------------------------------------------


def linked(cache: Path, part: Path) -> bool:
    got = adopt(there(cache), str(part), WANTED, link_mode=0o644)
    assert part.read_bytes() == DATA
    assert (got.way == "hard link") == os.path.samefile(cache / "x", part)
    return got.way == "hard link"


def test_a_link_is_made_of_a_file_that_is_ours_alone(cache: Path, part: Path) -> None:
    assert linked(cache, part)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o600, 0o755])
def test_a_file_with_other_permissions_is_copied(cache: Path, part: Path, mode: int) -> None:
    (cache / "x").chmod(mode)
    assert not linked(cache, part)


def test_a_file_of_another_user_is_copied(cache: Path, part: Path) -> None:
    if os.geteuid() == 0:
        os.chown(cache / "x", 65534, 65534)
        assert not linked(cache, part)
    else:  # every host has this one of root's, which all may read
        path = Path("/etc/passwd")
        data = path.read_bytes()
        file = HostFile(str(path), "/etc", "ollama", len(data))
        wanted = Wanted(hashlib.sha256(data).hexdigest(), None)
        assert adopt(file, str(part), wanted, link_mode=0o644).way != "hard link"


def test_a_wrong_file_is_not_linked_and_stays(cache: Path, part: Path) -> None:
    wrong = Wanted("0" * 64, None)
    with pytest.raises(Unusable):
        adopt(there(cache), str(part), wrong, link_mode=0o644)
    assert not part.exists()
    assert (cache / "x").read_bytes() == DATA


# -- file systems -----------------------------------------------------------------------------------------------------

FILE_SYSTEMS = {"ext4": ("mkfs.ext4", "-q"), "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"), "vfat": ("mkfs.vfat",)}
IMAGE_BYTES = 320 * 1024 * 1024  # mkfs.xfs makes none below 300 MiB; the file is sparse


def can_mount(kind: str) -> bool:
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    return os.geteuid() == 0 and kind in known and shutil.which(FILE_SYSTEMS[kind][0]) is not None


@contextlib.contextmanager
def mounted(tmp_path: Path, kind: str, size: int = IMAGE_BYTES) -> Iterator[Path]:
    """A file system of its own, in a file."""
    image, folder = tmp_path / f"{kind}.img", tmp_path / kind
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*FILE_SYSTEMS[kind], str(image)], check=True, capture_output=True, timeout=60)
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True, timeout=60)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=60)


def test_within_and_between_file_systems_it_is_right_whatever_they_can_do(tmp_path: Path) -> None:
    """The test's own, one in memory, and those that can be mounted here."""
    with contextlib.ExitStack() as stack:
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        disks = {kind: stack.enter_context(mounted(tmp_path, kind)) for kind in FILE_SYSTEMS if can_mount(kind)}
        disks |= {"own": tmp_path, "memory": memory}
        for folder in disks.values():
            (folder / "cache").mkdir()
            (folder / "cache" / "x").write_bytes(DATA)
            (folder / "cache" / "x").chmod(0o644)
        for (one, source), (two, target) in itertools.product(disks.items(), disks.items()):
            part = target / "x.part"
            way = adopt(there(source / "cache"), str(part), WANTED).way
            assert part.read_bytes() == DATA
            if one == two == "xfs":
                assert way == "reflink"
            elif one != two or one == "ext4":
                assert way == "copy"
            if one != two or one == "vfat":
                assert not linked(source / "cache", part)


def test_a_full_disk_is_said_and_nothing_is_left(cache: Path, part: Path) -> None:
    """A limit on the size of a file, of a process of its own, stands in for the disk's."""
    code = (
        "import resource, signal, sys\n"
        "from agent.host_files import HostFile\n"
        "from agent.store.adopt import Wanted, adopt\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({CHUNK}, {CHUNK}))\n"
        "from agent.errors import WantdError\n"
        "try:\n"
        f"    adopt(HostFile({str(cache / 'x')!r}, {str(cache)!r}, 'ollama', {SIZE}), {str(part)!r},"
        f" Wanted({SHA256!r}, None))\n"
        "except WantdError as error:\n"
        "    sys.exit(str(error))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "EFBIG" in ended.stderr, ended.stderr
    assert not part.exists()
