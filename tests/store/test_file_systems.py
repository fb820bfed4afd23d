"""The store on each file system that this kernel mounts: with and without hard links, with and without reflinks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host_files import HostFile
from agent.store.adopt import Wanted, adopt
from agent.store.hub_view import HubView, obstacle
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from tests.store.builders import MODES, Model, assert_whole, make_layout, put, sha256

DATA = os.urandom(300_000)
MODEL = Model("org/name", {"config.json": b"{}", "m-Q4_K_M.gguf": DATA})
SIZE = 400 * 1024 * 1024  # bytes, sparse; xfs takes no less than 300 MiB
# What makes each, how an adopted file comes, and whether there are hard links.
KINDS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], "copy", True),
    "xfs": (["mkfs.xfs", "-q", "-m", "reflink=1"], "reflink", True),
    "btrfs": (["mkfs.btrfs", "-q"], "reflink", True),
    "vfat": (["mkfs.vfat"], "copy", False),
    "exfat": (["mkfs.exfat"], "copy", False),
}
FUSE = {"exfat": "mount.exfat-fuse"}  # where a program mounts it, not the kernel: containers' kernels have no FAT


def _mounts(kind: str) -> bool:
    """Whether this kernel mounts it, this machine makes it, and this user may do both."""
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    programs = [KINDS[kind][0][0], *([FUSE[kind]] if kind in FUSE else [])]
    there = "fuse" in known and os.path.exists("/dev/fuse") if kind in FUSE else kind in known
    return os.geteuid() == 0 and there and all(map(shutil.which, programs))


@pytest.fixture(params=[kind for kind in KINDS if _mounts(kind)])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def disk(kind: str, tmp_path: Path) -> Iterator[str]:
    """A file system of that kind, mounted."""
    image, at = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(SIZE)
    at.mkdir()
    subprocess.run([*KINDS[kind][0], str(image)], check=True, capture_output=True)
    loop = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(loop, check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run([FUSE.get(kind, "mount"), device, str(at)], check=True, capture_output=True)
        yield str(at)
        subprocess.run(["umount", "--lazy", str(at)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def layout(disk: str) -> Layout:
    return make_layout(f"{disk}/models")


def test_a_model_is_published_whole_and_its_file_serves_another(kind: str, layout: Layout) -> None:
    MODEL.publish(layout)
    assert_whole(layout, MODEL)
    inventory = Inventory(layout)
    inventory.refresh()
    found = inventory.doubtful(sha256(DATA)) or inventory.find(sha256(DATA))
    assert found
    again = Model("other", {"m-Q4_K_M.gguf": DATA}).publish(layout)
    assert (os.stat(again.path).st_nlink > 1) is KINDS[kind][2]


def test_what_another_program_has_is_taken_by_the_best_way_there_is(kind: str, disk: str, layout: Layout) -> None:
    theirs = put(f"{disk}/cache/blob", DATA)
    before = os.stat(theirs)
    path = layout.part("key")
    got = adopt(HostFile(theirs, f"{disk}/cache", "hub", len(DATA)), path, Wanted(sha256(DATA), None))
    assert got.way == KINDS[kind][1]
    assert Path(path).read_bytes() == DATA
    assert (os.stat(theirs).st_mtime_ns, os.stat(theirs).st_nlink) == (before.st_mtime_ns, before.st_nlink)


def test_there_is_a_view_where_there_are_links_and_else_a_clear_word(kind: str, disk: str, layout: Layout) -> None:
    hub = f"{disk}/hub"
    published = MODEL.publish(layout)
    HubView(hub, layout, Inventory(layout), MODES).show(published.record)
    shown = list(Path(hub).glob("models--org--name/snapshots/*/m-Q4_K_M.gguf"))
    if KINDS[kind][2]:
        assert obstacle(layout, hub) is None
        assert os.path.samefile(shown[0], published.path)
    else:
        assert "no hard or symbolic links" in str(obstacle(layout, hub))
        assert shown == []
